"""Configuration of the documentation site: ``sphinx-build -M html docs docs/_build``."""

from __future__ import annotations

import base64
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image, ImageOps
from sphinx.application import Sphinx
from sphinx_gallery.sorting import ExplicitOrder

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# of matplotlib, in scripts that sphinx-gallery runs without a screen
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

import harmonicvae  # noqa: E402  # needs the path

project = "harmonicvae"
author = "harmonicvae maintainers"
copyright = author
version = release = harmonicvae.__version__
language = "en"

extensions = [
    "docstrings",
    "mathml",
    "module_pages",
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "auto_examples/*/*.ipynb"]
root_doc = "index"
nitpicky = True
nitpick_ignore_regex = [
    # other projects' names: their inventories lie on the net, which the build does not use
    ("py:.*", r"(abc|collections|torch|sklearn|skorch|mlflow|numpy|pandas|scipy)\..*"),
    # fitted attributes, which numpydoc lists without a target
    ("py:attr", r"\w+_"),
]

# pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
# docs/notebooks.py stores the outputs; the site's build runs none of the notebooks
nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False

# reference: types stand in the docstrings, once
autosummary_generate = True
autosummary_imported_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
templates_path = ["_templates"]

# docstrings' examples run with the tests; here, those of the pages
doctest_test_doctest_blocks = ""
doctest_global_setup = """
import os, tempfile
_folder, _here = tempfile.TemporaryDirectory(), os.getcwd()
os.chdir(_folder.name)
"""
doctest_global_cleanup = """
os.chdir(_here)
_folder.cleanup()
"""

sphinx_gallery_conf = {
    "examples_dirs": ["../examples"],
    "gallery_dirs": ["auto_examples"],
    "filename_pattern": r"plot_\w+\.py",
    "ignore_pattern": r"__init__\.py",
    "within_subsection_order": ExplicitOrder(
        ["plot_bound_network.py", "plot_attack.py", "plot_spectrum.py", "*"]
    ),
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,  # wall times are measurements of one machine
    "copyfile_regex": r"GALLERY_HEADER\.rst",
    "plot_gallery": "True",
    "abort_on_example_error": True,
    "reference_url": {"harmonicvae": None},
    "backreferences_dir": None,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = "harmonicvae"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def store_thumbnails(app: Sphinx) -> None:
    """Write the first picture of every notebook to where the gallery shows it."""
    folder = HERE / "_thumbnails"
    folder.mkdir(exist_ok=True)
    for path in sorted((HERE / "notebooks").glob("*.ipynb")):
        first = base64.b64decode(pictures(nbformat.read(path, as_version=4))[0])
        picture = Image.open(io.BytesIO(first)).convert("RGB")
        padded = ImageOps.pad(picture, (400, 280), color="white")  # the gallery's own size
        padded.save(folder / f"{path.stem}.png")


def pictures(notebook: Any) -> list[str]:
    """Return the PNG pictures of a notebook, base64."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    found = [output.get("data", {}).get("image/png") for output in outputs]
    return [picture for picture in found if picture]


def setup(app: Sphinx) -> None:
    """Connect what this site adds to Sphinx."""
    app.connect("builder-inited", store_thumbnails, priority=10)
