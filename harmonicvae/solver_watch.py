"""Where a solver stands, as one line on a terminal, and its end at the user's request."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: Exit code of a command that was stopped by Ctrl-C or SIGTERM.
INTERRUPTED = 130
#: Seconds without a line at first, and between two lines.
DELAY_SECONDS, REDRAW_SECONDS = 1.0, 0.1

_NOTICE = b"harmonicvae: stopping with the best bound so far; once more ends at once\n"
_CLEARED = "\r\x1b[K"


class SolverWatch:
    """A ``progress`` callback that shows a line and asks for an end after Ctrl-C or SIGTERM.

    Notes
    -----
    As a context manager it takes over SIGINT and SIGTERM, in the main thread only, and gives
    them back at its end; a signal that the process ignores stays ignored. The first signal sets
    ``stop_asked``, so that the next call returns True; the second one raises KeyboardInterrupt.
    The line is drawn on standard error if that is a terminal, from one second after the start.

    Examples
    --------
    >>> with SolverWatch() as watch:
    ...     watch("LipSDP", {"iteration": 7, "bound": 51.3, "gap": 0.03}), watch.stop_asked
    (False, False)
    """

    def __init__(self) -> None:
        self.stop_asked = False
        self._at_once = False
        self._former: dict[signal.Signals, Any] = {}
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + DELAY_SECONDS
        self._drawn = False

    def __enter__(self) -> SolverWatch:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._ask) or signal.SIG_DFL
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()
        self.clear()

    def __call__(self, what: str, numbers: Mapping[str, float]) -> bool:
        """Show where a solver stands; True asks it to stop with the best it has."""
        now = time.monotonic()
        if self._terminal and now >= self._next:
            self._next = now + REDRAW_SECONDS
            width = shutil.get_terminal_size().columns - 1
            print(_CLEARED + progress_line(what, numbers)[:width], end="", file=sys.stderr)
            sys.stderr.flush()
            self._drawn = True
        return self.stop_asked

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn:
            print(_CLEARED, end="", file=sys.stderr, flush=True)
        self._drawn = False

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at the first signal, for work that cannot be asked to stop."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _ask(self, signum: int, frame: Any) -> None:
        """Handle a signal; print would not be safe here."""
        if self.stop_asked or self._at_once:
            self.stop_asked = True
            raise KeyboardInterrupt
        self.stop_asked = True
        os.write(2, (b"\n" if self._drawn else b"") + _NOTICE)
        self._drawn = False


def progress_line(what: str, numbers: Mapping[str, float]) -> str:
    """Return one line about a solver.

    Parameters
    ----------
    what : str
        Name of what runs.
    numbers : mapping of str to float
        Counts as int, values as float.

    Returns
    -------
    str

    Examples
    --------
    >>> progress_line("LipSDP", {"iteration": 7, "bound": 51.34, "gap": 0.03})
    'LipSDP iteration 7: bound 51.34, gap 3e-02'
    >>> progress_line("eclipse_fast", {})
    'eclipse_fast'
    """
    rest = dict(numbers)
    if "iteration" in rest:
        what += f" iteration {rest.pop('iteration'):.0f}"
    parts = [f"{key} {_number(key, value)}" for key, value in rest.items()]
    return what + (": " + ", ".join(parts) if parts else "")


def _number(key: str, value: float) -> str:
    return f"{value:.0e}" if key == "gap" else f"{value:.6g}"
