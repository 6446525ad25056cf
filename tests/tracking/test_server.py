"""A sweep logged to an MLflow server that dies half-way."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from mlflow import MlflowClient

from harmonicvae import names

SWEEP = ["--epochs", "60", "--seeds", "1", "--encoder-std", "1,0.5", "--input-noise-std", "0"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(folder, port):
    """Start a server on the loopback address and wait until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        + ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"],
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return process
        except OSError:
            time.sleep(0.2)
    pytest.fail("the server never answered")


def kill(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def sweep(folder, uri):
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow waits for minutes otherwise
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "harmonicvae", "sweep", *SWEEP, "--n-jobs", "2"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_server_killed_in_a_sweep_costs_nothing_that_was_finished(tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = serve(tmp_path, port)
    try:
        process = sweep(tmp_path, uri)
        client = MlflowClient(uri)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            experiment = client.get_experiment_by_name("harmonicvae")
            found = client.search_runs([experiment.experiment_id]) if experiment else []
            if any(names.TRAIN_LOSS in run.data.metrics for run in found):
                break
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.3)
        kill(server)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 1, output
        assert "MLflow server cannot be reached" in output
        assert "repeat the command to continue" in output
        assert "Traceback" not in output
        server = serve(tmp_path, port)
        again = sweep(tmp_path, uri)
        output, _ = again.communicate(timeout=400)
        assert again.returncode == 0, output
        found = client.search_runs([client.get_experiment_by_name("harmonicvae").experiment_id])
        assert {run.info.status for run in found} == {"FINISHED"}
        assert len(found) == 3
        for run in found:
            if run.data.tags[names.TAG_ROLE] == "model":
                steps = client.get_metric_history(run.info.run_id, names.TRAIN_LOSS)
                assert sorted(item.step for item in steps) == list(range(1, 61))
        assert len(client.search_model_versions()) == 2
    finally:
        kill(server)
