"""CelebA's size must train in less than 4 GiB: images become floats a batch at a time."""

import subprocess
import sys

import numpy as np
import pytest

SCRIPT = """
import resource, sys
import numpy as np
from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.models import HarmonicVAE

images = ScaledImages(np.load(sys.argv[1], mmap_mode="r"))
assert images.shape == (51_200, 12_288)
HarmonicVAE(latent_dim=64, max_epochs=1, random_state=0, device="cpu").fit(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_epoch_of_all_of_celeba_fits_in_four_gibibytes(tmp_path):
    path = tmp_path / "images.npy"
    stored = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(51_200, 12_288))
    generator = np.random.default_rng(0)
    for start in range(0, len(stored), 1024):
        stored[start : start + 1024] = generator.integers(0, 256, (1024, 12_288), dtype=np.uint8)
    stored.flush()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4.0
