"""``python -m harmonicvae`` is the shell command ``harmonicvae``."""

import sys

from harmonicvae.cli import main

if __name__ == "__main__":
    sys.exit(main())
