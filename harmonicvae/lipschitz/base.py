"""What every upper bound has in common: the author proposes, the base class proves."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz.certificate import LayerNorms, Proof, prove
from harmonicvae.lipschitz.chain import build_chain
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bound
from harmonicvae.reproduction import LIPSCHITZ_ERRORS, check_reproduction_errors


def as_network(network: Any) -> LayeredNetwork:
    """Return a LayeredNetwork, reading a torch module if one is given.

    Parameters
    ----------
    network : LayeredNetwork or torch.nn.Module

    Returns
    -------
    LayeredNetwork

    Raises
    ------
    UnsupportedNetworkError
        If a layer of the module has no exact form.
    InputError
        If ``network`` is something else.

    Examples
    --------
    >>> from torch import nn
    >>> as_network(nn.Linear(3, 2)).input_dim
    3
    """
    if isinstance(network, LayeredNetwork):
        return network
    if isinstance(network, type) or not hasattr(network, "named_children"):
        raise InputError(
            "network must be a LayeredNetwork or a torch module, "
            f"got {type(network).__name__}; see LayeredNetwork.from_arrays"
        )
    return LayeredNetwork.from_module(network)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What a method found, before anything is proved.

    Parameters
    ----------
    value : float
        The bound in float64, ≥ 0.
    proposal : Multipliers, LayerNorms or None
        From which the bound can be proved; None makes the result an estimate.
    details : mapping
        What the method reports beside.
    """

    value: float
    proposal: Multipliers | LayerNorms | None
    details: Mapping[str, Any] = field(default_factory=dict)


class LipschitzMethod(ABC):
    """Base class of the methods: subclasses write :meth:`_bound`, users call :meth:`bound`."""

    #: Key in ``harmonicvae.lipschitz.METHODS``.
    name: ClassVar[str]

    @abstractmethod
    def _bound(self, network: LayeredNetwork) -> Candidate:
        """Return a candidate; may raise SolverError."""

    @final
    def bound(self, network: Any, reproduction_errors: Iterable[str] = ()) -> Bound:
        """Compute an upper bound of a network's ℓ2 Lipschitz constant, and prove it.

        Parameters
        ----------
        network : LayeredNetwork or torch.nn.Module
            Any network that can be represented exactly.
        reproduction_errors : iterable of str, default=()
            "slope_one" gives every activation the slope range [0, 1].

        Returns
        -------
        Bound
            In output units per input unit. ``kind="upper"``, ``status="certified"`` if proved
            with all rounding errors; never above the norm product. A method that proposes
            no proof gives ``kind="estimate"``, ``status="estimate"``.

        Raises
        ------
        UnsupportedNetworkError
            If a layer has no exact form.
        InputError
            If ``network`` is neither, or a reproduction error is unknown or does not apply.

        Notes
        -----
        Global: for all pairs of inputs. Where the method fails, or its candidate cannot be
        proved or exceeds the norm product, the norm product is returned; ``message`` says so.
        """
        errors = check_reproduction_errors(reproduction_errors, LIPSCHITZ_ERRORS)
        network = as_network(network)
        if "slope_one" in errors:
            network = network.with_slopes(0.0, 1.0)
        started = time.perf_counter()
        candidate, message = self._try(network)
        details: dict[str, Any] = {"reproduction_errors": sorted(errors)}
        if candidate is not None:
            details |= {**candidate.details, "float64_value": candidate.value}
            if candidate.proposal is None:
                seconds = time.perf_counter() - started
                return self._record("estimate", candidate.value, network, seconds, details)
        proof, message = _best_proof(network, candidate, message)
        details["inflation"] = proof.inflation
        if math.isinf(proof.value):
            message = "the bound exceeds the largest float64; scale the network down"
        seconds = time.perf_counter() - started
        return self._record("upper", proof.value, network, seconds, details, message, proof)

    def _try(self, network: LayeredNetwork) -> tuple[Candidate | None, str]:
        """Run the method; a failure or a senseless value becomes a message."""
        try:
            candidate = self._bound(network)
        except SolverError as error:
            return None, f"{self.name} failed ({error})"
        if not candidate.value >= 0.0:
            return None, f"{self.name} returned {candidate.value!r}"
        return candidate, ""

    def _record(
        self,
        kind: str,
        value: float,
        network: LayeredNetwork,
        seconds: float,
        details: Mapping[str, Any],
        message: str = "",
        proof: Proof | None = None,
    ) -> Bound:
        """Return the record of a result."""
        return Bound(
            kind=kind,
            value=value,
            method=self.name,
            status="certified" if proof else "estimate",
            seconds=seconds,
            network_hash=network.hash,
            message=message,
            details=details,
            certificate=proof.certificate if proof else None,
        )


def _best_proof(
    network: LayeredNetwork, candidate: Candidate | None, message: str
) -> tuple[Proof, str]:
    """Return the smaller of the candidate's and the norm product's proved bounds."""
    proof = None
    if candidate is not None and candidate.proposal is not None:
        proof = prove(network, candidate.proposal)
        if isinstance(candidate.proposal, LayerNorms) and proof is not None:
            return proof, message
        if proof is None:
            message = "the candidate could not be proved"
    fallback = prove(network, LayerNorms(build_chain(network).layer_norms()))
    if fallback is None:
        raise SolverError("the norm product could not be proved; please report the network")
    if proof is None:
        return fallback, f"{message}: the norm product is returned"
    if fallback.value < proof.value:
        return fallback, "the norm product is smaller and is returned"
    return proof, message
