"""Import of torchvision beside a torch of another build."""

from __future__ import annotations

import importlib
import threading
from types import ModuleType
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_MISSING = "operator torchvision::nms does not exist"
_lock = threading.Lock()
#: Keeps the schemas alive that :func:`import_torchvision` had to define.
_library: Any = None


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    Returns
    -------
    module
        torchvision.

    Raises
    ------
    ImportError
        If torchvision is not installed.
    RuntimeError
        Whatever else its import raises.

    Notes
    -----
    A torchvision built for CUDA does not load its operators beside a CPU-only torch;
    its import then fails, because it describes an operator that was never defined.
    Exactly that error is answered by defining the two schemas and importing again;
    data sets and transforms then work, and ``torchvision.ops.nms`` still raises its
    own error.  Where the import works, nothing is changed.

    Examples
    --------
    >>> import_torchvision().__name__
    'torchvision'
    """
    with _lock:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            if _MISSING not in str(error):
                raise
        _define_missing_operators()
        return importlib.import_module("torchvision")


def _define_missing_operators() -> None:
    """Define the schemas of nms and qnms, once."""
    global _library
    if _library is not None:
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + _SIGNATURE)
    _library = library
