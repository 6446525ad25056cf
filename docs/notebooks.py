"""Run the notebooks of examples/ and keep them with their outputs in docs/notebooks/.

    python docs/notebooks.py [NAME ...]

The site shows these copies; the notebooks in examples/ stay without outputs.  A test compares
the cells of both, so that a changed notebook must be run again.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SOURCES, COPIES = ROOT / "examples", ROOT / "docs" / "notebooks"


def run(path: Path) -> Any:
    """Return a notebook with its outputs, run in an empty folder."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def shortened(notebook: Any) -> Any:
    """Drop what changes from run to run or is not shown, and store pictures in 256 colours."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _with_palette(data["image/png"])
                data.pop("text/plain", None)
    return notebook


def _with_palette(encoded: str) -> str:
    """Return a base64 PNG with at most 256 colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    target = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode()


def main(names: list[str]) -> None:
    """Run the named notebooks, or all."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.update(
        PYTHONPATH=paths,
        MLFLOW_DISABLE_TELEMETRY="true",
        PYTHONWARNINGS="ignore:IProgress not found",
    )
    COPIES.mkdir(exist_ok=True)
    for path in sorted(SOURCES.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(shortened(run(path)), COPIES / path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
