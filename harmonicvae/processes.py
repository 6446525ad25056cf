"""Processes by host, number and start time: telling dead owners of runs from live ones."""

from __future__ import annotations

import os
import socket
import threading
import time
from functools import cache

import psutil

#: Seconds without a sign of life after which a process on another host counts as dead.
DEAD_AFTER_SECONDS = 900.0
#: Two readings of one process's start time differ by less than this, in seconds.
_SAME_START = 2.0
#: Seconds between two looks at a watched parent.
_WATCH_SECONDS = 0.5
#: The parent that this process watches, if any.
_watched: list[str] = []


@cache
def this_process() -> str:
    """Return this process as "host:pid:start time in seconds".

    Examples
    --------
    >>> this_process().split(":")[1] == str(os.getpid())
    True
    """
    started = psutil.Process().create_time()
    return f"{socket.gethostname()}:{os.getpid()}:{started:.2f}"


def is_alive(owner: str, heartbeat: str | None = None) -> bool:
    """Tell whether an owner still works.

    Parameters
    ----------
    owner : str
        As :func:`this_process` returns it.
    heartbeat : str or None
        Time of the last sign of life, seconds since 1970, for owners on other hosts.

    Returns
    -------
    bool
        For a process of this host what the system says.  For another host, False once
        the last sign of life is older than :data:`DEAD_AFTER_SECONDS`; True where
        nothing is known.

    Examples
    --------
    >>> is_alive(this_process())
    True
    >>> is_alive(f"{socket.gethostname()}:1:123.00")  # another process with that number
    False
    """
    host, pid, started = _parts(owner)
    if host != socket.gethostname():
        if heartbeat is None:
            return True
        return time.time() - float(heartbeat) < DEAD_AFTER_SECONDS
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _parts(owner: str) -> tuple[str, int, float]:
    host, pid, started = owner.rsplit(":", 2)
    return host, int(pid), float(started)


def describe(owner: str) -> str:
    """Return an owner in words.

    Examples
    --------
    >>> describe("node7:4711:1.00")
    'process 4711 on node7'
    """
    host, pid, _ = _parts(owner)
    return f"process {pid} on {host}"


def end_with(parent: str) -> None:
    """End this process at once when its parent is gone, wherever it is; in a worker.

    Parameters
    ----------
    parent : str
        As :func:`this_process` returns it in the parent.

    Notes
    -----
    A driver that is killed cannot end its workers; they would train on beside those of
    the next start.
    """
    if _watched and _watched[0] == parent:
        return
    _watched[:] = [parent]

    def watch() -> None:
        while is_alive(parent):
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
