"""The script that trains a study's models where there is no MLflow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harmonicvae import names

SCRIPT = Path(__file__).parents[1] / "docs" / "train_elsewhere.py"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Four models of one epoch, few rows."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = run("export", names.SINC, folder, "--epochs", "1", "--model", "conv")
    assert done.returncode == 0, done.stderr
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    assert [len(part) for part in plan["parts"]] == [15]
    assert {spec["model"] for spec in plan["parts"][0]} == {"conv"}
    plan["parts"][0] = plan["parts"][0][:4]
    path.write_text(json.dumps(plan))
    return folder


def trained(folder):
    return sorted(path.parent for path in folder.glob("models/*/trained.json"))


def test_several_processes_train_every_model_once(exported):
    first = run("train", exported, "--device", "cpu", "--processes", "2")
    assert first.returncode == 0, first.stderr
    models = trained(exported)
    assert len(models) == 4
    times = {path: (path / "trained.json").stat().st_mtime_ns for path in models}
    (models[0] / "trained.json").unlink()  # the others are left alone
    second = run("train", exported, "--device", "cpu", "--processes", "3")
    assert second.returncode == 0, second.stderr
    assert trained(exported) == models
    assert all((path / "trained.json").stat().st_mtime_ns == times[path] for path in models[1:])
    assert json.loads((models[0] / "trained.json").read_text())["processes"] == 3


def test_models_that_fail_are_told_by_the_exit_status(exported, tmp_path):
    plan = json.loads((exported / "plan.json").read_text())
    plan["parts"][0][1]["lr"] = 1e30
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "rows.npy").write_bytes((exported / "rows.npy").read_bytes())
    done = run("train", tmp_path, "--device", "cpu")
    assert done.returncode != 0
    assert "1 models were not trained" in done.stderr
    assert len(trained(tmp_path)) == 3
