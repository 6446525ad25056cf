"""What every proof of an upper bound has in common: the slopes it uses, and its certificate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz.chain import BlockChain, build_chain
from harmonicvae.lipschitz.slopes import SlopeRanges, slope_ranges
from harmonicvae.network import LayeredNetwork

#: Version of the certificates written here; others are refused.
CERTIFICATE_VERSION = 2


@dataclass(frozen=True)
class Proof:
    """A proved upper bound.

    Parameters
    ----------
    value : float
        The bound, output units per input unit, all rounding errors included.
    certificate : mapping
        Plain values from which :func:`harmonicvae.lipschitz.certificate.verify_certificate`
        proves it again.
    inflation : float, default=0.0
        ρ proved over ρ proposed, minus 1; of a product the largest.
    """

    value: float
    certificate: Mapping[str, Any]
    inflation: float = 0.0


class Proposal(ABC):
    """What a method proposes and from which an upper bound can be proved."""

    #: Key in ``harmonicvae.lipschitz.certificate.KINDS``.
    kind: ClassVar[str]

    @abstractmethod
    def prove(self, network: LayeredNetwork, slopes: SlopeRanges) -> Proof | None:
        """Prove a bound for the network's original weights; None if that does not succeed.

        Parameters
        ----------
        network : LayeredNetwork
            Original weights.
        slopes : SlopeRanges
            Ranges that hold for the network; not checked here.

        Returns
        -------
        Proof or None
        """


@dataclass(frozen=True)
class ChainProof:
    """A proved bound of a chain: value, what the certificate adds, ρ proved over ρ proposed − 1."""

    value: float
    content: Mapping[str, Any]
    inflation: float = 0.0


class ChainProposal(Proposal):
    """A proposal that is proved from the chain of blocks alone."""

    @abstractmethod
    def prove_chain(self, chain: BlockChain) -> ChainProof | None:
        """Prove a bound of the chain; nothing about the proposal is trusted.

        Raises
        ------
        InputError
            If the proposal does not fit the chain.
        SolverError
            If a factorisation breaks down.
        """

    @classmethod
    @abstractmethod
    def proved_value(cls, content: Mapping[str, Any], chain: BlockChain) -> float:
        """Return the bound that a certificate's content proves; ``inf`` if it proves none.

        Raises
        ------
        InputError
            If the content is damaged or does not fit the chain.
        """

    @final
    def prove(self, network: LayeredNetwork, slopes: SlopeRanges) -> Proof | None:
        """Prove a bound; see :meth:`Proposal.prove`."""
        chain = build_chain(network, slopes)
        try:
            proof = _zero(chain) or self.prove_chain(chain)
        except (InputError, SolverError):
            return None
        if proof is None or math.isnan(proof.value):
            return None
        certificate = {
            **certificate_header(network, slopes),
            "kind": self.kind,
            "value": proof.value,
            **proof.content,
        }
        return Proof(proof.value, certificate, proof.inflation)

    @final
    @classmethod
    def verify(cls, certificate: Mapping[str, Any], network: LayeredNetwork) -> bool:
        """Prove a certificate of this kind again; see ``verify_certificate``."""
        slopes = certified_slopes(certificate, network)
        if slopes is None:
            return False
        claimed = real_number(certificate, "value")
        chain = build_chain(network, slopes)
        if _zero(chain) is not None:
            return claimed >= 0.0
        try:
            proved = cls.proved_value(certificate, chain)
        except SolverError:
            return False
        return 0.0 <= proved <= claimed


def _zero(chain: BlockChain) -> ChainProof | None:
    """Return the bound 0 of a chain that lets nothing pass, else None."""
    return ChainProof(0.0, {}) if chain.is_constant else None


def certificate_header(network: LayeredNetwork, slopes: SlopeRanges) -> dict[str, Any]:
    """Return what every certificate says about its network and slope ranges, as plain values.

    Parameters
    ----------
    network : LayeredNetwork
    slopes : SlopeRanges

    Returns
    -------
    dict
        ``version``, ``network_hash`` and ``slopes`` (rule, box, and per hidden layer one
        number if all neurons share it, else one for each).

    Examples
    --------
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> certificate_header(network, slope_ranges(network, "activation"))["slopes"]["betas"]
    [0.25]
    """
    content: dict[str, Any] = {"rule": slopes.rule}
    if slopes.box is not None:
        content["box"] = [[_written(end) for end in ends] for ends in slopes.box]
    for name, vectors in (("alphas", slopes.alphas), ("betas", slopes.betas)):
        content[name] = [_short(vector) for vector in vectors]
    return {
        "version": CERTIFICATE_VERSION,
        "network_hash": network.hash,
        "scope": slopes.scope,
        "slopes": content,
    }


def _written(end: float) -> float | str:
    """Return an end of a box for JSON, which has no infinite numbers."""
    return float(end) if math.isfinite(end) else repr(float(end))


def read_box(entry: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the box of a certificate, if there is one, infinite ends included.

    Raises
    ------
    InputError
        If the entry is damaged.
    """
    if entry is None:
        return None
    if not isinstance(entry, (list, tuple)) or len(entry) != 2:
        raise InputError("box of the certificate must be a pair of lists")
    ends = []
    for item in entry:
        if not isinstance(item, (list, tuple)):
            raise InputError("box of the certificate must be a pair of lists")
        infinite = np.array([float(x) if x in ("inf", "-inf") else 0.0 for x in item])
        finite = real_array([0.0 if x in ("inf", "-inf") else x for x in item], "box")
        ends.append(finite + infinite)
    return ends[0], ends[1]


def _short(vector: np.ndarray) -> Any:
    """Return one number if all entries are equal, else the list."""
    same = len(vector) > 0 and bool(np.all(vector == vector[0]))
    return float(vector[0]) if same else np.asarray(vector, dtype=np.float64).tolist()


def certified_slopes(certificate: Mapping[str, Any], network: LayeredNetwork) -> SlopeRanges | None:
    """Return a certificate's slope ranges if they are proved to hold for the network.

    Parameters
    ----------
    certificate : mapping
        With ``slopes`` as from :func:`certificate_header`.
    network : LayeredNetwork

    Returns
    -------
    SlopeRanges or None
        None if a range computed anew with the same rule and box is not contained in the
        certificate's: nothing in the certificate is believed, but wider ranges are taken
        as they are.

    Raises
    ------
    InputError
        If the entry is damaged or does not fit the network.
    """
    entry = certificate["slopes"]
    if not isinstance(entry, Mapping):
        raise InputError(f"slopes of a certificate must be a mapping, got {type(entry).__name__}")
    fresh = slope_ranges(network, entry["rule"], read_box(entry.get("box")))
    if certificate["scope"] != fresh.scope:
        raise InputError(
            f"scope of the certificate must be {fresh.scope!r} for slopes of rule "
            f"{fresh.rule!r}, got {certificate['scope']!r}"
        )
    alphas = _long(entry["alphas"], network.hidden_dims, "slopes.alphas")
    betas = _long(entry["betas"], network.hidden_dims, "slopes.betas")
    claimed = SlopeRanges(alphas, betas, fresh.rule, fresh.box)
    lower = all(np.all(a <= b) for a, b in zip(alphas, fresh.alphas))
    upper = all(np.all(a >= b) for a, b in zip(betas, fresh.betas))
    return claimed if lower and upper else None


def _long(entry: Any, sizes: tuple[int, ...], name: str) -> tuple[np.ndarray, ...]:
    """Return one finite vector of each size from numbers and lists of numbers."""
    if not isinstance(entry, (list, tuple)) or len(entry) != len(sizes):
        raise InputError(f"{name} of the certificate must have an entry for {len(sizes)} layers")
    vectors = []
    for item, size in zip(entry, sizes):
        vector = real_array(item, name)
        if vector.shape not in ((), (size,)):
            raise InputError(
                f"{name} of the certificate must be a number or {size} numbers, "
                f"got shape {vector.shape}"
            )
        vectors.append(np.array(np.broadcast_to(vector, (size,))))
    return tuple(vectors)


def real_array(item: Any, name: str) -> np.ndarray:
    """Return a number or a list of numbers of a certificate as a finite float64 array.

    Raises
    ------
    InputError
        If an entry is not a finite number.

    Examples
    --------
    >>> real_array([1, 2.5], "multipliers")
    array([1. , 2.5])
    """
    entries = item if isinstance(item, (list, tuple)) else [item]
    if not all(type(entry) in (int, float) for entry in entries):
        raise InputError(f"{name} of the certificate must hold numbers only")
    for entry in entries:
        _exact_float(entry, name)
    array = np.asarray(item, dtype=np.float64)
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} of the certificate must be finite, got NaN or infinite entries")
    return array


def real_number(certificate: Mapping[str, Any], key: str) -> float:
    """Return a certificate's entry as a float ≥ 0, possibly ``inf``.

    Raises
    ------
    InputError
        If it is not a number, NaN or negative.

    Examples
    --------
    >>> real_number({"value": 2}, "value")
    2.0
    """
    item = certificate[key]
    if type(item) not in (int, float):
        raise InputError(f"{key} of the certificate must be a number, got {type(item).__name__}")
    number = _exact_float(item, key)
    if not number >= 0.0:
        raise InputError(f"{key} of the certificate must be >= 0, got {number!r}")
    return number


def _exact_float(item: float, name: str) -> float:
    """Return a number as a float, refusing integers that float64 does not hold."""
    if isinstance(item, int) and abs(item) > 2**53:
        raise InputError(f"{name} of the certificate must hold float64 numbers, got {item!r:.30}")
    return float(item)


def whole_numbers(item: Any, name: str, largest: int) -> tuple[int, ...]:
    """Return a list of integers of a certificate, each at most ``largest`` in magnitude.

    Raises
    ------
    InputError
        If it is something else.

    Examples
    --------
    >>> whole_numbers([1, -2], "exponents", 10)
    (1, -2)
    """
    if not isinstance(item, (list, tuple)) or not all(type(entry) is int for entry in item):
        raise InputError(f"{name} of the certificate must be a list of integers")
    if any(abs(entry) > largest for entry in item):
        raise InputError(f"{name} of the certificate must be within ±{largest}")
    return tuple(item)
