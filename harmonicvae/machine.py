"""The machine and the versions that results depend on."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return the machine and the versions that results depend on.

    Parameters
    ----------
    device : str, default="cpu"
        "auto", "cpu", "cuda" or "cuda:N".

    Returns
    -------
    dict
        cpu, cores, memory_gib, python, torch, and the name of the GPU or "cpu" as device.

    Examples
    --------
    >>> machine()["device"]
    'cpu'
    """
    import psutil
    import torch

    chosen = device
    if device == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if chosen.startswith("cuda") else "cpu",
    }
