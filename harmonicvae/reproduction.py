"""The known errors of the 2022 reproduction, as switches, in one place.

All are off by default.  Naming one in ``reproduction_errors=`` of the part where
it acts switches it on, so that the old results can be produced on purpose.

References
----------
Camuto & Willetts, "Variational Autoencoders: A Harmonic Perspective",
arXiv 2105.14866.
"""

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from harmonicvae.exceptions import InputError

#: Switches that change the training of :class:`harmonicvae.HarmonicVAE`.
TRAINING_ERRORS = MappingProxyType(
    {
        "squared_std": "codes are drawn as μ + σ²·ε instead of μ + σ·ε",
        "noisy_target": "the reconstruction target is the noisy input instead of the clean one",
        "shared_noise": "one input noise vector is shared by all samples of a batch",
        "kl_form": "Σ(σ² + μ² − log σ − ½) instead of the KL: twice its weight for a fixed σ",
    }
)

#: Switches that change the Lipschitz evaluation.
LIPSCHITZ_ERRORS = MappingProxyType(
    {
        "slope_one": "every activation is given the slope range [0, 1] (a sigmoid's is [0, ¼])",
    }
)

#: All switches by name, with what each does.
REPRODUCTION_ERRORS = MappingProxyType({**TRAINING_ERRORS, **LIPSCHITZ_ERRORS})


def check_reproduction_errors(
    names: Iterable[str] | None, allowed: "MappingProxyType[str, str] | Any" = REPRODUCTION_ERRORS
) -> frozenset[str]:
    """Return the switches as a set, refusing unknown names.

    Parameters
    ----------
    names : iterable of str or None
        Switches to turn on; None and () mean none.
    allowed : mapping, default=REPRODUCTION_ERRORS
        The switches that act where the call comes from.

    Returns
    -------
    frozenset of str

    Raises
    ------
    InputError
        If ``names`` is a bare string or no iterable, or holds what is not in ``allowed``.

    Examples
    --------
    >>> sorted(check_reproduction_errors(["squared_std"]))
    ['squared_std']
    """
    if names is None:
        return frozenset()
    if isinstance(names, str):
        raise InputError(
            f"reproduction_errors must be a sequence of names, got the string {names!r}; "
            f"write ({names!r},)"
        )
    chosen = _as_set(names)
    unknown = sorted(map(str, chosen - set(allowed)))
    if unknown:
        raise InputError(
            f"reproduction_errors must be among {sorted(allowed)}, got {', '.join(unknown)}"
        )
    return chosen


def _as_set(names: Iterable[str]) -> frozenset[str]:
    """Return the names as a set, refusing anything but strings."""
    given = list(names) if isinstance(names, Iterable) else [None]
    if not all(isinstance(name, str) for name in given):
        raise InputError(f"reproduction_errors must be a sequence of names, got {names!r}")
    return frozenset(given)
