"""How much a second worker helps: a grid of 12 sinc models in one and in two processes.

    python benchmarks/sweeps.py [--backend loky|dask] [--epochs 60] [--rounds 3] [--output FILE]

Each round runs the same sweep with one worker and with two, in turn, each on a fresh store and in
folders of their own; a worker has one thread.  Times are those of whole sweeps inside a started
process (imports are done before): starting the workers, creating runs, training, storing and
registering every model.  The ratio of each round is taken within the round.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import mlflow
import torch

from harmonicvae import study
from harmonicvae.cli import main as harmonicvae_main


def sweep_seconds(backend: str, workers: int, epochs: int, scheduler: str) -> float:
    """Return the wall seconds of one sweep of 12 models."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        os.environ["MLFLOW_TRACKING_URI"] = uri
        mlflow.set_tracking_uri(uri)
        arguments = ["sweep", "--epochs", str(epochs), "--seeds", "1,2,3", "--backend", backend]
        arguments += ["--encoder-std", "1,0.5,0.1", "--input-noise-std", "0.5"]
        arguments += [
            "--n-jobs",
            str(workers),
            "--output",
            f"{folder}/out",
            "--scheduler",
            scheduler,
        ]
        started = time.perf_counter()
        quiet = io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
        ):
            code = harmonicvae_main(arguments)
        if code:
            raise SystemExit(quiet.getvalue())
        return time.perf_counter() - started


def with_workers(backend: str, workers: int, epochs: int) -> float:
    """Return the seconds of a sweep in so many worker processes of one thread each."""
    if backend == "loky":
        if workers == 1:  # one worker process, not this one with all its threads
            torch.set_num_threads(1)
        return sweep_seconds(backend, workers, epochs, "")
    import distributed

    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        return sweep_seconds(backend, workers, epochs, cluster.scheduler_address)


def measure(backend: str, epochs: int, rounds: int) -> dict[str, object]:
    """Run both in turn and return medians and the ratio of each round."""
    with_workers(backend, 2, 1)  # files and imports warm
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in seconds:
            seconds[workers].append(with_workers(backend, workers, epochs))
            print(f"{backend}, {workers} worker(s): {seconds[workers][-1]:.1f} s", file=sys.stderr)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2])]
    return {
        "backend": backend,
        "models": 12,
        "epochs": epochs,
        "rounds": rounds,
        "seconds_one_worker": statistics.median(seconds[1]),
        "seconds_two_workers": statistics.median(seconds[2]),
        "speed_up": statistics.median(ratios),
        "speed_ups": ratios,
    }


def load_of_others() -> float:
    """Return the machine's load before anything starts, processes that want to run."""
    return os.getloadavg()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="loky,dask")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", default="results/benchmarks/sweeps.json")
    parsed = parser.parse_args()
    load = load_of_others()
    rows = [measure(backend, parsed.epochs, parsed.rounds) for backend in parsed.backend.split(",")]
    print(f"{'backend':<8} {'1 worker':>9} {'2 workers':>9} {'speed-up':>9}")
    for row in rows:
        print(
            f"{row['backend']:<8} {row['seconds_one_worker']:>7.1f} s "
            f"{row['seconds_two_workers']:>7.1f} s {row['speed_up']:>8.2f}×"
        )
    machine = study.machine() | {"load_before": round(load, 2)}
    text = json.dumps({"machine": machine, "rows": rows}, indent=1)
    Path(parsed.output).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
