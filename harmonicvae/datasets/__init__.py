"""Data sets, scaled to [−1, 1]: the embedded sinc curves, CIFAR-10 and CelebA.

Every loader returns a Bunch with ``data``, ``image_shape``, ``split``, ``scaling``
and ``digest``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from sklearn.utils import Bunch

from harmonicvae import names
from harmonicvae.datasets.celeba import load_celeba
from harmonicvae.datasets.cifar10 import load_cifar10
from harmonicvae.datasets.sinc import load_sinc
from harmonicvae.exceptions import InputError

#: Loader of each data set by name.
DATASETS: MappingProxyType[str, Callable[..., Bunch]] = MappingProxyType(
    {names.SINC: load_sinc, names.CIFAR10: load_cifar10, names.CELEBA: load_celeba}
)

__all__ = ["DATASETS", "load_celeba", "load_cifar10", "load_dataset", "load_sinc"]


def load_dataset(
    name: str,
    split: str = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Bunch:
    """Load a data set by name.

    Parameters
    ----------
    name : {"sinc", "cifar10", "celeba"}
        Key in :data:`DATASETS`.
    split : {"train", "validation"}, default="train"
        Which part.
    data_dir : path or None, default=None
        Folder of the files; needed by cifar10 and celeba, ignored by sinc, which
        has none.
    **options
        Further arguments of the loader, such as ``n_samples`` or ``cache_dir``.

    Returns
    -------
    Bunch
        As the loader returns it.

    Raises
    ------
    InputError
        If the name or an option is unknown, or ``data_dir`` is missing.

    Examples
    --------
    >>> load_dataset("sinc", "validation").data.shape
    (1, 344)
    >>> load_dataset("mnist")
    Traceback (most recent call last):
    harmonicvae.exceptions.InputError: name must be one of celeba, cifar10, sinc, got 'mnist'
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise InputError(f"name must be one of {', '.join(sorted(DATASETS))}, got {name!r}")
    loader = DATASETS[name]
    known = set(inspect.signature(loader).parameters) - {"split", "data_dir"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(
            f"options of {name} are {', '.join(sorted(known))}, got {', '.join(unknown)}"
        )
    if name == names.SINC:
        return loader(split, **options)
    if data_dir is None:
        raise InputError(f"data_dir must name the folder of the {name} files, got None")
    return loader(split, data_dir=data_dir, **options)
