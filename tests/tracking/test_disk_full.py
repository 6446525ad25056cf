"""A disk that fills up in a sweep: a clear line, nothing finished lost, the rest later."""

import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from harmonicvae import names

SWEEP = ["sweep", "--epochs", "30", "--seeds", "1", "--encoder-std", "1,0.5"]
SWEEP += ["--input-noise-std", "0", "--n-jobs", "1"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def sweep(store, output):
    return subprocess.run(
        [sys.executable, "-m", "harmonicvae", *SWEEP, "--output", str(output)],
        cwd=store,  # models are stored below it
        env=os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store / 'mlflow.db'}"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.parametrize("full", ["checkpoints", "store"])
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path, small_disk, full):
    store = small_disk if full == "store" else tmp_path
    output = small_disk / "out" if full == "checkpoints" else tmp_path / "out"
    first = sweep(store, output)
    assert first.returncode == 1, first.stderr
    assert "no room left on the disk" in first.stderr
    assert "repeat the command to continue" in first.stderr
    assert "Traceback" not in first.stderr
    enlarge = ["mount", "-o", "remount,size=300m", str(small_disk)]
    subprocess.run(enlarge, check=True)
    again = sweep(store, output)
    assert again.returncode == 0, again.stderr
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("harmonicvae").experiment_id
    found = client.search_runs([experiment])
    assert {run.info.status for run in found} == {"FINISHED"}
    assert len(found) == 3
    for run in found:
        if run.data.tags[names.TAG_ROLE] == "model":
            steps = client.get_metric_history(run.info.run_id, names.TRAIN_LOSS)
            assert sorted(item.step for item in steps) == list(range(1, 31))
