"""One progress line for a whole study, fed by files that the workers grow."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from tqdm import tqdm

#: Seconds between two looks at the workers' files.
POLL_SECONDS = 0.5


class StudyProgress:
    """Show epochs and evaluations of all models as one line with the remaining time.

    Parameters
    ----------
    name : str
        Of the data set.
    folder : Path
        Result folder with the workers' progress files.
    models, epochs : int
        Models of the study, and epochs of each.
    evaluation_weight : float
        What an evaluation counts, as a share of a model's epochs; 0 for none.

    Notes
    -----
    On a terminal the line is redrawn; elsewhere it is printed every 20 seconds.
    """

    def __init__(
        self, name: str, folder: Path, *, models: int, epochs: int, evaluation_weight: float
    ) -> None:
        self.name, self.models, self.epochs = name, models, epochs
        self.folder = Path(folder) / "progress"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.weight = max(1, round(evaluation_weight * epochs)) if evaluation_weight else 0
        self.total = models * (epochs + self.weight)
        interactive = sys.stderr.isatty()
        self.bar = tqdm(
            total=self.total,
            desc=f"{name}: training",
            unit="epoch",
            dynamic_ncols=interactive,
            mininterval=0.5 if interactive else 20,
            leave=True,
            bar_format="{desc} |{bar:20}| {percentage:3.0f}% [{elapsed}<{remaining}]",
        )
        self._done: dict[str, int] = {"training": 0, "evaluation": 0}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> StudyProgress:
        self._watcher.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._watcher.join()
        if exception[0] is None:
            self.bar.update(self.total - self.bar.n)
        self.bar.close()

    def trained(self, model: str) -> None:
        """Count one model as trained, whether it failed or not."""
        self._count("training")

    def evaluated(self, model: str) -> None:
        """Count one model as evaluated, whether it failed or not."""
        self._count("evaluation")

    def _count(self, phase: str) -> None:
        with self._lock:
            self._done[phase] += 1
        self._show()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._show()

    def _show(self) -> None:
        """Redraw from the files' sizes and the finished models."""
        epochs = sum(item.stat().st_size for item in self.folder.glob("*"))
        with self._lock:
            trained, evaluated = self._done["training"], self._done["evaluation"]
            position = max(epochs, trained * self.epochs) + evaluated * self.weight
            self.bar.n = min(max(self.bar.n, position), self.total)
            training = trained < self.models or not self.weight
            done = trained if training else evaluated
            label = "training" if training else "evaluating"
            self.bar.set_description_str(f"{self.name}: {label} {done}/{self.models}", False)
            self.bar.update(0)
