"""A sweep whose processes are killed at random moments ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from harmonicvae import names

#: Seconds after which a start of a sweep is given up; no test waits that long.
TIMEOUT = 2400


def start(folder, options):
    """Start a sweep in a folder with a store of its own."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    environment.pop("MLFLOW_RUN_ID", None)
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harmonicvae", "sweep", "--output", "out", *options],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )


def kill_one(driver, draw):
    """Send SIGKILL to the driver or to one of its worker processes, drawn at random."""
    try:
        family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        victim = draw.choice(family)
        victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return 0
    return 1


def sweep_with_kills(folder, options, kills, seed, longest):
    """Kill until ``kills`` processes are dead, then let the sweep end."""
    draw, done, driver = random.Random(seed), 0, None
    while done < kills:
        if driver is None or driver.poll() is not None:
            driver = start(folder, options)
        time.sleep(draw.uniform(0.5, longest))
        done += kill_one(driver, draw)
        time.sleep(0.2)
    if driver.poll() is None:
        driver.wait(TIMEOUT)
    for _ in range(3):  # a model whose last worker was killed three times is a failure
        last = start(folder, options)
        if last.wait(TIMEOUT) == 0:
            return
    pytest.fail((folder / "log.txt").read_text(errors="replace")[-3000:])


def check_same_result(interrupted, reference, models, epochs):
    """Compare tables to the bit, and look at every run, version and stored model."""
    table = (interrupted / "out" / names.FILE_SWEEP).read_bytes()
    assert table == (reference / "out" / names.FILE_SWEEP).read_bytes()
    histories = [
        pd.read_csv(folder / "out" / names.FILE_HISTORY).drop(columns=names.EPOCH_SECONDS)
        for folder in (interrupted, reference)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    client = MlflowClient(f"sqlite:///{interrupted / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("harmonicvae").experiment_id
    found = client.search_runs([experiment])
    roles = sorted(run.data.tags[names.TAG_ROLE] for run in found)
    assert roles == ["model"] * models + ["study"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert not any(names.TAG_FAILURE in run.data.tags for run in found)
    (parent,) = [run for run in found if run.data.tags[names.TAG_ROLE] == "study"]
    for run in found:
        if run is parent:
            continue
        assert run.data.tags[names.TAG_PARENT] == parent.info.run_id
        for metric in (names.TRAIN_LOSS, names.TRAIN_KL):
            steps = [item.step for item in client.get_metric_history(run.info.run_id, metric)]
            assert sorted(steps) == list(range(1, epochs + 1)), run.info.run_name
    stored = client.search_logged_models([experiment])
    assert sorted(model.source_run_id for model in stored) == sorted(
        run.info.run_id for run in found if run is not parent
    )
    versions = client.search_model_versions("name='harmonicvae-sinc'")
    assert len(versions) == models
    assert not list(interrupted.glob("*checkpoints*"))
    assert not list(interrupted.glob(".out*"))
    elsewhere = client.search_runs(["0"])
    assert len(elsewhere) == 0


def compare_after_kills(tmp_path, epochs, seeds, kills, seed, longest):
    options = ["--epochs", str(epochs), "--seeds", seeds, "--n-jobs", "2"]
    options += ["--encoder-std", "1,0.5", "--input-noise-std", "0.5"]
    models = 3 * len(seeds.split(","))
    folders = [tmp_path / "reference", tmp_path / "interrupted"]
    for folder in folders:
        folder.mkdir()
    assert start(folders[0], options).wait(TIMEOUT) == 0
    sweep_with_kills(folders[1], options, kills, seed, longest)
    check_same_result(folders[1], folders[0], models, epochs)


def test_three_kills_leave_no_trace(tmp_path):
    compare_after_kills(tmp_path, epochs=40, seeds="1", kills=3, seed=0, longest=12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_kills_leave_no_trace(tmp_path, seed):
    compare_after_kills(tmp_path, epochs=150, seeds="1,2", kills=20, seed=seed, longest=15)
