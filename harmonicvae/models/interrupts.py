"""Telling a callback's request to stop from the user's Ctrl-C."""

from __future__ import annotations

import dis
from typing import Any

_RAISE = dis.opmap["RAISE_VARARGS"]


class StopTraining(Exception):
    """A callback asked to stop after the present epoch."""


def asks_to_stop(callback: Any, interrupt: KeyboardInterrupt) -> bool:
    """Tell a callback's own ``raise KeyboardInterrupt`` from the user's Ctrl-C.

    Parameters
    ----------
    callback : object
        Whose method raised or was interrupted.
    interrupt : KeyboardInterrupt
        As caught.

    Returns
    -------
    bool
        True if the exception arose in a method of ``callback`` by a raise statement that
        names an exception.  A signal arrives between two other instructions, or in the
        frame of its handler.
    """
    trace = interrupt.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_locals.get("self") is not callback:
        return False
    code, at = trace.tb_frame.f_code.co_code, trace.tb_lasti
    return code[at] == _RAISE and code[at + 1] > 0  # 0 is a bare "raise" of something caught
