"""Processor and memory use of the whole machine over the time of a study."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path
from typing import Any

import psutil


class MachineLoad:
    """Sample the machine's load into a CSV file while a block runs.

    Parameters
    ----------
    path : Path
        File with the columns seconds, cpu_percent (of all cores, 0–100), memory_mib
        (used by the whole machine) and phase.
    interval : float, default=1.0
        Seconds between two samples.

    Attributes
    ----------
    phase : str
        What is going on; written with every sample.
    """

    def __init__(self, path: Path, interval: float = 1.0) -> None:
        self.path, self.interval = Path(path), interval
        self.phase = "start"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> MachineLoad:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        started = time.monotonic()
        psutil.cpu_percent()  # the first call only starts the count
        with open(self.path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["seconds", "cpu_percent", "memory_mib", "phase"])
            while not self._stop.wait(self.interval):
                used = psutil.virtual_memory().used / 2**20
                seconds = time.monotonic() - started
                writer.writerow([f"{seconds:.1f}", psutil.cpu_percent(), f"{used:.0f}", self.phase])
                stream.flush()
