"""Every example runs from a clean folder, shows pictures, prints no warning and leaves nothing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SCRIPTS = sorted((ROOT / "examples").glob("plot_*.py"))
#: Runs a script; instead of showing its figures it draws and counts them.
SHOWN = """
import runpy, sys
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
plt.show = lambda: None
runpy.run_path(sys.argv[1])
for number in plt.get_fignums():
    plt.figure(number).canvas.draw()
print("figures:", len(plt.get_fignums()))
"""


@pytest.fixture
def kernel_environment(monkeypatch):
    """This checkout, one thread (the other test worker needs its core), no outer store."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # tqdm, which MLflow imports, warns in every kernel without the optional ipywidgets
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    for name in list(os.environ):
        if name.startswith("MLFLOW_") and name != "MLFLOW_DISABLE_TELEMETRY":
            monkeypatch.delenv(name)


def test_there_are_examples():
    assert NOTEBOOKS
    assert SCRIPTS


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(path, tmp_path, kernel_environment):
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert int(done.stdout.rpartition("figures:")[2]) >= 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, kernel_environment):
    copy = Path(shutil.copy(path, tmp_path))
    notebook = nbformat.read(copy, as_version=4)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    messages = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert not re.search(r"warning|error|traceback", messages, re.IGNORECASE), messages
    assert [item.name for item in tmp_path.iterdir()] == [copy.name]
