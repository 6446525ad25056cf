"""Reference of every module, a page for each package, written before the site is read.

The names that the pages in docs/api/ list have pages of their own and are left out here, where
they are reached by the same path.
"""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

from sphinx.application import Sphinx

import harmonicvae

HERE = Path(__file__).resolve().parent.parent
#: A public name in docs/api/*.md.
LISTED = re.compile(r"^ +(harmonicvae\.[\w.]+)$", re.MULTILINE)


def listed_names() -> set[str]:
    """Return the names that have pages of their own."""
    pages = (HERE / "api").glob("*.md")
    return {name for path in pages for name in LISTED.findall(path.read_text(encoding="utf-8"))}


def module_names() -> list[str]:
    """Return every module that may be imported, but private ones."""
    walked = pkgutil.walk_packages(harmonicvae.__path__, "harmonicvae.")
    found = [module.name for module in walked]
    return [name for name in found if not any(part.startswith("_") for part in name.split("."))]


def page_name(module: str) -> str:
    """Return the page of a module: its package's, or "top" for those in none."""
    parts = module.split(".")
    packages = {info.name for info in pkgutil.iter_modules(harmonicvae.__path__) if info.ispkg}
    return parts[1] if parts[1] in packages else "top"


def page(title: str, modules: list[str], listed: set[str]) -> str:
    """Return the text of a page."""
    parts = [title, "=" * len(title), ""]
    for module in modules:
        own = [name.rpartition(".")[2] for name in listed if name.rpartition(".")[0] == module]
        parts += [module, "-" * len(module), "", f".. automodule:: {module}"]
        parts += ["   :members:", "   :ignore-module-all:"]
        parts += [f"   :exclude-members: {', '.join(sorted(own))}"] if own else []
        parts += [""]
    return "\n".join(parts)


def write_pages(app: Sphinx) -> None:
    """Write the pages; those that would not change are left alone."""
    folder = HERE / "api" / "modules"
    folder.mkdir(exist_ok=True)
    listed, grouped = listed_names(), dict[str, list[str]]()
    for module in module_names():
        grouped.setdefault(page_name(module), []).append(module)
    for name, modules in grouped.items():
        title = "Modules outside packages" if name == "top" else f"harmonicvae.{name}"
        text, path = page(title, modules, listed), folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx, before autosummary looks for files."""
    app.connect("builder-inited", write_pages, priority=20)
    return {"parallel_read_safe": True}
