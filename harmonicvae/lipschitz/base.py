"""What every upper bound has in common: the author proposes, the base class proves."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, final

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.lipschitz.certificate import LayerNorms, Proof, Proposal, prove
from harmonicvae.lipschitz.chain import BlockChain, build_chain
from harmonicvae.lipschitz.slopes import SlopeRanges, slope_ranges, widened
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import Bound
from harmonicvae.reproduction import LIPSCHITZ_ERRORS, check_reproduction_errors

#: Told what is going on, as (what, numbers); True asks the method to stop with the best it has.
Progress = Callable[[str, Mapping[str, float]], bool | None]


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
    proposal : Proposal or None
        From which the bound can be proved; None makes the result an estimate.
    details : mapping
        What the method reports beside.
    message : str
        What went other than planned.
    """

    value: float
    proposal: Proposal | None
    details: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """What a method is asked to bound.

    Parameters
    ----------
    network : LayeredNetwork
        Original weights.
    slopes : SlopeRanges
        Slope range of every hidden neuron, none nearly a point.
    progress : callable or None
        See :data:`Progress`.
    """

    network: LayeredNetwork
    slopes: SlopeRanges
    progress: Progress | None = None

    @cached_property
    def chain(self) -> BlockChain:
        """Scaled blocks between nonlinear activations."""
        return build_chain(self.network, self.slopes)

    @property
    def is_trivial(self) -> bool:
        """True if the network is affine or constant, so that its norm product is exact."""
        return self.chain.is_constant or not self.chain.alphas

    def report(self, what: str, **numbers: float) -> bool:
        """Tell the caller where the method stands; True means that it must stop."""
        return self.progress is not None and bool(self.progress(what, numbers))


def layer_norms(task: Task) -> Candidate:
    """Return the norm product as a candidate; exact if the task is trivial."""
    norms = task.chain.layer_norms()
    return Candidate(value=task.chain.norm_product(norms), proposal=LayerNorms(norms))


class LipschitzMethod(ABC):
    """Base class of the methods: subclasses write :meth:`_bound`, users call :meth:`bound`."""

    #: Key in ``harmonicvae.lipschitz.METHODS``.
    name: ClassVar[str]

    @abstractmethod
    def _bound(self, task: Task) -> Candidate:
        """Return a candidate; may raise SolverError."""

    #: Whether it works on sparse matrices, as of large convolutions.
    takes_sparse: ClassVar[bool] = False

    def unsuitable(self, network: LayeredNetwork) -> str:
        """Return why the method does not apply to a network; empty if it does."""
        if network.is_sparse and not self.takes_sparse:
            return (
                "needs dense matrices, and a convolution of this network is too large for one; "
                "use best, lipsdp_neuron, eclipse_fast or norm_product"
            )
        return ""

    @final
    def bound(
        self,
        network: Any,
        reproduction_errors: Iterable[str] = (),
        *,
        slopes: str | None = None,
        box: Sequence[Any] | None = None,
        progress: Progress | None = None,
    ) -> Bound:
        """Compute an upper bound of a network's ℓ2 Lipschitz constant, and prove it.

        Parameters
        ----------
        network : LayeredNetwork or torch.nn.Module
            Any network that can be represented exactly.
        reproduction_errors : iterable of str, default=()
            "slope_one" gives every activation the slope range [0, 1].
        slopes : {"activation", "propagated", "box"} or None, default=None
            Rule of :func:`harmonicvae.lipschitz.slopes.slope_ranges`. None means "box" if a box
            is given, else "activation", as the methods are published.
        box : pair of float or array-like of shape (input_dim,), default=None
            Lower and upper ends of the inputs; the bound then holds inside only.
        progress : callable, default=None
            See :data:`Progress`.

        Returns
        -------
        Bound
            In output units per input unit. ``kind="upper"``, ``status="certified"`` if proved
            with all rounding errors; never above the norm product. A method that proposes
            no proof gives ``kind="estimate"``, ``status="estimate"``. ``scope`` is "global"
            or "box".

        Raises
        ------
        UnsupportedNetworkError
            If a layer has no exact form.
        InputError
            If ``network`` is neither, the method does not apply to it, a reproduction error is
            unknown or does not apply, or slopes and box do not fit.

        Notes
        -----
        For all pairs of inputs, or all pairs in the box. Where the method fails, or its
        candidate cannot be proved or exceeds the norm product, the norm product is returned;
        ``message`` says so.
        """
        errors = check_reproduction_errors(reproduction_errors, LIPSCHITZ_ERRORS)
        network = as_network(network)
        if "slope_one" in errors:
            network = network.with_slopes(0.0, 1.0)
        rule = slopes or ("box" if box is not None else "activation")
        reason = self.unsuitable(network)
        if reason:
            raise InputError(f"{self.name} {reason}")
        started = time.perf_counter()
        task = Task(network, widened(slope_ranges(network, rule, box)), progress)
        candidate, message = self._try(task)
        details: dict[str, Any] = {"reproduction_errors": sorted(errors), "slopes": rule}
        proof: Proof | None = None
        if candidate is not None:
            details |= {**candidate.details, "float64_value": candidate.value}
        if candidate is None or candidate.proposal is not None:
            proof, message = _best_proof(task, candidate, message)
            details["inflation"] = proof.inflation
            if math.isinf(proof.value):
                message = "the bound exceeds the largest float64; scale the network down"
        return Bound(
            kind="upper" if proof else "estimate",
            value=proof.value if proof else candidate.value if candidate else math.inf,
            method=self.name,
            status="certified" if proof else "estimate",
            scope=task.slopes.scope,
            seconds=time.perf_counter() - started,
            network_hash=network.hash,
            message=message,
            details=details,
            certificate=proof.certificate if proof else None,
        )

    def _try(self, task: Task) -> tuple[Candidate | None, str]:
        """Run the method; a failure or a senseless value becomes a message."""
        try:
            candidate = self._bound(task)
        except SolverError as error:
            return None, f"{self.name} failed ({error})"
        if not candidate.value >= 0.0:
            return None, f"{self.name} returned {candidate.value!r}"
        return candidate, candidate.message


def _best_proof(task: Task, candidate: Candidate | None, message: str) -> tuple[Proof, str]:
    """Return the smaller of the candidate's and the norm product's proved bounds."""
    proof = None
    if candidate is not None and candidate.proposal is not None:
        proof = prove(task.network, candidate.proposal, task.slopes)
        if isinstance(candidate.proposal, LayerNorms) and proof is not None:
            return proof, message
        if proof is None:
            message = _joined(message, "the candidate could not be proved")
    if proof is not None and task.chain.norm_product_exceeds(proof.value):
        return proof, message
    norms = layer_norms(task)
    if proof is not None and proof.value <= norms.value:
        return proof, message
    fallback = prove(task.network, norms.proposal, task.slopes) if norms.proposal else None
    if fallback is None:
        raise SolverError("the norm product could not be proved; please report the network")
    if proof is None:
        return fallback, f"{message}: the norm product is returned"
    if fallback.value < proof.value * (1.0 - 1e-9):
        return fallback, _joined(message, "the norm product is smaller and is returned")
    if fallback.value < proof.value:
        return fallback, message
    return proof, message


def _joined(first: str, second: str) -> str:
    """Return two messages as one."""
    return f"{first}; {second}" if first else second
