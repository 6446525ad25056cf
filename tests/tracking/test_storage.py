"""Processes, keys and storage trouble: what a sweep's survival rests on."""

import errno
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import mlflow
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from harmonicvae import names, processes
from harmonicvae.cli import main
from harmonicvae.exceptions import HarmonicVAEError, StorageError
from harmonicvae.tracking import keys, reaping, runs, storage, stores
from harmonicvae.tracking.specs import ModelSpec

# ----------------------------------------------------------------------------- processes


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_a_process_is_alive_until_it_is_killed():
    child = sleeper()
    try:
        started = processes.psutil.Process(child.pid).create_time()
        owner = f"{socket.gethostname()}:{child.pid}:{started:.2f}"
        assert processes.is_alive(owner)
        child.kill()
        for _ in range(100):  # a zombie, not waited for, is dead too
            if not processes.is_alive(owner):
                break
            time.sleep(0.05)
        assert not processes.is_alive(owner)
    finally:
        child.kill()
        child.wait()


def test_a_number_given_to_another_process_is_not_the_owner():
    host, pid, started = processes.this_process().rsplit(":", 2)
    assert not processes.is_alive(f"{host}:{pid}:{float(started) - 100:.2f}")


def test_an_owner_elsewhere_is_believed_as_long_as_it_gives_signs_of_life():
    owner = "another-host:1:1.00"
    assert processes.is_alive(owner)
    assert processes.is_alive(owner, f"{time.time() - 10:.0f}")
    assert not processes.is_alive(owner, f"{time.time() - processes.DEAD_AFTER_SECONDS - 10:.0f}")


def test_a_worker_ends_with_its_parent():
    code = (
        "import subprocess, sys; from harmonicvae.processes import this_process;"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import sys, time; from harmonicvae.processes import end_with;'"
        "'end_with(sys.argv[1]); print(1, flush=True); time.sleep(600)', this_process()],"
        "stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, flush=True);"
        "import time; time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert processes.psutil.pid_exists(worker)
    parent.kill()
    parent.wait()
    for _ in range(200):
        if not processes.psutil.pid_exists(worker):
            return
        if processes.psutil.Process(worker).status() == processes.psutil.STATUS_ZOMBIE:
            return  # ended; nobody in this container collects it
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


# ---------------------------------------------------------------------------------- keys

SPEC = {"dataset": "sinc", "encoder_std": 0.5, "input_noise_std": 0.0, "seed": 0}
SPEC |= {"epochs": 3, "latent_dim": 1}
DIGESTS = {"train": "a", "validation": "b"}


def key(digests=DIGESTS, device="cpu", **changes):
    return keys.training_key(ModelSpec(**SPEC | changes), digests, device)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_std": 0.25},
        {"input_noise_std": 0.5},
        {"seed": 1},
        {"epochs": 4},
        {"hidden_dims": (256, 256)},
        {"activation": "tanh"},
        {"batch_size": 128},
        {"lr": 2e-3},
        {"kl_weight": 2.0},
        {"reproduction_errors": ("kl_form",)},
        {"digests": DIGESTS | {"train": "c"}},
        {"device": "cuda"},
    ],
)
def test_whatever_decides_a_result_changes_its_key(changes):
    assert key(**changes) != key()


def test_what_does_not_decide_a_result_leaves_the_key_alone(monkeypatch):
    assert key(device="cuda:0") == key(device="cuda:1")
    before = key()
    monkeypatch.setattr(keys, "code_version", lambda parts=None: "another")
    assert key() != before


def test_keys_are_the_same_in_every_process():
    code = (
        "from harmonicvae.tracking import keys; from harmonicvae.tracking.specs import ModelSpec;"
        f"print(keys.training_key(ModelSpec(**{SPEC!r}), {DIGESTS!r}, 'cpu'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == key()


@given(st.text(alphabet=st.characters(exclude_characters="'\"\\\r", exclude_categories=["C"])))
def test_comments_and_docstrings_do_not_change_the_code_version(text):
    plain = "def f(x):\n    return x + 1\n"
    described = f"def f(x):\n    '''{text}'''\n    return (x + 1)  # {text}\n"
    assert keys._without_docstrings(plain) == keys._without_docstrings(described)
    assert keys._without_docstrings(plain) != keys._without_docstrings("def f(x):\n    return x\n")


# ------------------------------------------------------------------------------- storage


@pytest.fixture
def store(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield tmp_path
    mlflow.set_tracking_uri(before)


def test_a_store_whose_creation_was_killed_is_created_anew(store):
    code = (
        "import os, signal, threading, time; from harmonicvae.tracking import stores;"
        "import sqlalchemy.engine.base as base; real = base.Connection.execute; calls = []\n"
        "def execute(self, *a, **k):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 60: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(self, *a, **k)\n"
        "base.Connection.execute = execute\n"
        "stores.open_store('x')"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(store.glob(".mlflow.db.*.new"))  # it was on its way
    opened = stores.open_store("x")
    assert runs.create_run(opened, "a", "model")
    assert not list(store.glob(".mlflow.db.*"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no room left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "model.pt"), r"no room left .*\(model.pt\)"),
        (RuntimeError("PytorchStreamWriter: No space left on device"), "no room left"),
        (sqlite3.OperationalError("database or disk is full"), "no room left"),
        (mlflow.exceptions.MlflowException("(x) database is locked"), "locked by another process"),
        (requests.ConnectionError("refused"), "cannot be reached"),
        (ConnectionRefusedError(), "cannot be reached"),
    ],
)
def test_storage_trouble_is_said_in_clear_words(error, words):
    outer = RuntimeError("while storing")
    outer.__cause__ = error
    for trouble in (error, outer):
        with pytest.raises(StorageError, match=words) as caught, storage.in_clear_words():
            raise trouble
        assert "repeat the command to continue" in str(caught.value)
        assert isinstance(caught.value, HarmonicVAEError)


def test_other_errors_pass_unchanged():
    error = KeyError("x")
    with pytest.raises(KeyError) as caught, storage.in_clear_words():
        raise error
    assert caught.value is error
    with pytest.raises(KeyError):
        storage.patiently(lambda: {}["x"])


def lock(path, seconds):
    """Hold the store's write lock in a thread."""
    held = threading.Event()

    def hold():
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        held.set()
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    return thread


def test_a_store_that_is_locked_for_a_while_is_waited_for(store, monkeypatch):
    opened = stores.open_store("patient")
    run_id = runs.create_run(opened, "a", "model")
    calls = []

    def refused():
        calls.append(1)
        if len(calls) < 4:
            raise sqlite3.OperationalError("database is locked")
        return "stored"

    assert storage.patiently(refused) == "stored"
    assert len(calls) == 4
    thread = lock(store / "mlflow.db", 2)
    storage.client_of(opened).set_tag(run_id, "x", "1")
    thread.join()
    assert MlflowClient().get_run(run_id).data.tags["x"] == "1"


def test_a_store_that_stays_locked_is_one_clear_line(store, monkeypatch, capsys):
    sweep = ["sweep", "--epochs", "1", "--seeds", "1", "--encoder-std", "1", "--n-jobs", "1"]
    sweep += ["--input-noise-std", "0"]
    assert main(sweep) == 0
    capsys.readouterr()
    monkeypatch.setenv("HARMONICVAE_STORE_PATIENCE", "0")
    thread = lock(store / "mlflow.db", 45)  # MLflow itself waits 20 s
    code = main(sweep)
    error = capsys.readouterr().err
    thread.join()
    assert code == 1
    assert "locked" in error
    assert "Traceback" not in error


# --------------------------------------------------------------------------------- reaping


def open_run(opened, owner, name="x"):
    run_id = runs.create_run(opened, name, "model")
    MlflowClient().set_tag(run_id, names.TAG_OWNER, owner)
    return run_id


def test_runs_of_dead_processes_are_killed_and_others_left_alone(store):
    opened = stores.open_store("reaped")
    child = sleeper()
    started = processes.psutil.Process(child.pid).create_time()
    living = open_run(opened, f"{socket.gethostname()}:{child.pid}:{started:.2f}")
    dead = open_run(opened, f"{socket.gethostname()}:{child.pid}:1.00")
    scheduled = open_run(opened, f"{socket.gethostname()}:999999:1.00")
    MlflowClient().update_run(scheduled, status="SCHEDULED")
    foreign = MlflowClient().create_run(opened.experiment_id).info.run_id
    finished = open_run(opened, f"{socket.gethostname()}:{child.pid}:1.00")
    MlflowClient().set_terminated(finished)
    elsewhere = open_run(opened, "another-host:1:1.00")
    silent = open_run(opened, "another-host:2:1.00")
    MlflowClient().set_tag(silent, names.TAG_HEARTBEAT, "1000")
    try:
        assert set(reaping.reap(opened)) == {dead, scheduled, silent}
    finally:
        child.kill()
        child.wait()
    status = {
        run_id: MlflowClient().get_run(run_id).info.status
        for run_id in (living, foreign, elsewhere, dead, finished)
    }
    assert status == {
        living: "RUNNING",
        foreign: "RUNNING",
        elsewhere: "RUNNING",
        dead: "KILLED",
        finished: "FINISHED",
    }
    reason = MlflowClient().get_run(dead).data.tags[names.TAG_FAILURE]
    assert "ended without closing this run" in reason


def test_a_sweep_gives_signs_of_life(store):
    opened = stores.open_store("beating")
    run_id = runs.create_run(opened, "x", "study")
    with reaping.heartbeat(opened, run_id):
        for _ in range(100):
            tags = MlflowClient().get_run(run_id).data.tags
            if names.TAG_HEARTBEAT in tags:
                break
            time.sleep(0.05)
    assert abs(float(tags[names.TAG_HEARTBEAT]) - time.time()) < 60
