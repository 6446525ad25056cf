"""LipSDP with one multiplier a neuron or a layer, of the whole network or of its parts."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.arguments import device_name, fraction, whole_number
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, Task, layer_norms
from harmonicvae.lipschitz.certificate import Split
from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.lipschitz.eclipse import layerwise_multipliers
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.lipschitz.products import chain_parts, multiplied
from harmonicvae.lipschitz.recursion import Recursion, fast_multipliers, perron_multipliers
from harmonicvae.lipschitz.steepest import attained, attained_log2
from harmonicvae.readers.affine_maps import MAX_MATRIX_BYTES

#: Hidden neurons, and rows, above which the inequality is not solved by default.
LARGEST_HIDDEN, _LARGEST_ROWS = 4096, 5120
#: Binary logarithm of how far the absolute weights' product may exceed ECLipsE-Fast's bound
#: for their Perron vectors to be tried.
_HOPELESS = 1.0


@dataclass(frozen=True)
class _Result:
    """Multipliers of one part of a network and what is known about them."""

    multipliers: Multipliers
    dual_value: float
    iterations: int
    message: str = ""


class LipSDPNeuron(LipschitzMethod):
    """Upper bound by LipSDP-Neuron, the tightest form known to be sound.

    Parameters
    ----------
    gap : float, default=1e-6
        Relative duality gap of the bound at which to stop; in (0, 1).
    split : int or None, default=None
        Number of affine layers in each part into which the network is cut; the parts'
        bounds and the largest slopes between them are multiplied. None: the whole network.
    max_iterations : int, default=100
        Interior-point iterations at most, ≥ 1.
    max_size : int, default=4096
        Largest number of hidden neurons, in all layers, that is solved at once. Larger
        networks get the best of ECLipsE, ECLipsE-Fast and the Perron multipliers, sparse ones
        ECLipsE-Fast; a message says so. So do networks with D > 5120, see below, unless
        ``max_size`` is no less than D.
    device : str, default="cpu"
        Where torch computes, in float64; "cuda" for a GPU.

    Notes
    -----
    Solved by :class:`harmonicvae.lipschitz.sdp.structured.StructuredSolver`. Never above
    ECLipsE-Fast nor, for α = 0, ‖B_L⋯B_0‖₂ with B = β|W|, which is exact for nonnegative weights.
    ``details``: "dual_value", a float64 value below which no choice of multipliers gets
    (not a lower bound of the constant itself), "duality_gap" (relative, of the bound),
    "iterations". Cost about 5D³ operations an iteration, 10–30 iterations as a rule, memory
    about 25·8·D² bytes; D is the number of hidden neurons plus the smallest of the widths of
    the first and the last two layers, because a network that is narrower at its output is
    solved as its mirror image (:func:`harmonicvae.lipschitz.sdp.neuron_problem.mirror_image`).
    Sparse matrices, as of large convolutions, are made dense.

    References
    ----------
    M. Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for
    deep neural networks", NeurIPS 2019, theorem 2.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> weights = [[[1.0, 2.0], [3.0, 1.0]], [[1.0, -1.0]]]
    >>> network = LayeredNetwork.from_arrays(weights, activation="relu")
    >>> result = LipSDPNeuron().bound(network)
    >>> round(result.value, 4), result.details["duality_gap"] < 1e-6
    (3.1623, True)
    """

    name = "lipsdp_neuron"
    takes_sparse = True
    _per_layer = False

    def __init__(
        self,
        gap: float = 1e-6,
        split: int | None = None,
        max_iterations: int = 100,
        max_size: int = LARGEST_HIDDEN,
        device: str = "cpu",
    ) -> None:
        self.gap = gap
        self.split = split
        self.max_iterations = max_iterations
        self.max_size = max_size
        self.device = device

    def _bound(self, task: Task) -> Candidate:
        self._check()
        if task.is_trivial:
            return layer_norms(task)
        chain = task.chain
        lengths = _lengths(len(chain.blocks), self.split)
        results = [self._part(task, part) for part in chain_parts(chain, lengths)]
        values = [
            result.multipliers.bound(part, result.multipliers.rho)
            for result, part in zip(results, chain_parts(chain, lengths))
        ]
        dual = multiplied(chain, lengths, [result.dual_value for result in results])
        proposal: Any = results[0].multipliers
        value = values[0]
        if len(results) > 1:
            proposal = Split(tuple(result.multipliers for result in results), lengths)
            value = multiplied(chain, lengths, values)
        details = {
            "dual_value": dual,
            "duality_gap": max(0.0, 1.0 - dual / value) if value > 0 else 0.0,
            "iterations": sum(result.iterations for result in results),
        }
        messages = dict.fromkeys(result.message for result in results if result.message)
        return Candidate(
            value=value, proposal=proposal, details=details, message="; ".join(messages)
        )

    def _check(self) -> None:
        """Refuse options out of range."""
        fraction("gap", self.gap)
        if self.split is not None:
            whole_number("split", self.split, 1)
        whole_number("max_iterations", self.max_iterations, 1)
        whole_number("max_size", self.max_size, 1)
        device_name(self.device)

    def _part(self, task: Task, chain: BlockChain) -> _Result:
        """Bound one part: by closed forms, and by the solver where they leave a gap."""
        if not chain.alphas:
            norm = chain.layer_norms()[0]
            multipliers = Multipliers((), (), norm * norm)
            return _Result(multipliers, multipliers.bound(chain, norm * norm), 0)
        reason = self._too_large(chain)
        if not reason:
            chain = chain.with_dense_matrices()
        closed = self._closed_form(chain)
        if closed is not None and _is_exact(chain, closed, self.gap) and not self._per_layer:
            return _Result(closed, attained(chain), 0)
        if reason:
            return self._recursive(task, chain, closed, reason)
        solved = self._solve(task, chain)
        if closed is not None and closed.bound(chain, closed.rho) < solved.multipliers.bound(
            chain, solved.multipliers.rho
        ):
            message = solved.message or "a closed form is smaller and is returned"
            return replace(solved, multipliers=closed, message=message)
        return solved

    def _closed_form(self, chain: BlockChain) -> Multipliers | None:
        """Return the best multipliers in closed form of this form, None if all break down."""
        found, largest = [], math.inf
        try:
            fast = fast_multipliers(chain)
            largest = _value_log2(fast) + _HOPELESS
            if not self._per_layer or all(item.ndim == 0 for item in fast.values):
                found.append(fast)
        except SolverError:
            pass
        if not self._per_layer and not chain.is_sparse:
            with suppress(SolverError):
                found.append(perron_multipliers(chain, largest))
        return min(found, key=lambda item: item.bound(chain, item.rho), default=None)

    def _solve(self, task: Task, chain: BlockChain) -> _Result:
        """Run the interior-point method."""
        from harmonicvae.lipschitz.sdp.neuron_problem import build_problem, mirror_image
        from harmonicvae.lipschitz.sdp.structured import StructuredSolver  # torch: slow import

        mirrored = self._is_better_mirrored(chain)
        matrices = chain.reduced_matrices(), chain.alphas, chain.betas
        problem = build_problem(*(mirror_image(*matrices) if mirrored else matrices))

        def progress(iteration: int, rho: float, lower: float) -> bool:
            return task.report(
                "LipSDP",
                iteration=iteration,
                bound=problem.value(rho, chain.exponent),
                gap=1.0 - math.sqrt(max(lower, 0.0) / rho),
            )

        solver = StructuredSolver(
            problem, self._per_layer, self.gap, self.max_iterations, self.device
        )
        solution = solver.solve(progress)
        if mirrored:
            multipliers = problem.mirrored_multipliers(solution.rho, solution.t)
        else:
            multipliers = problem.multipliers(solution.rho, solution.t)
        if mirrored or solution.message:  # else there is nothing to gain
            multipliers = polished(chain, multipliers)
        message = solution.message
        if message:
            message += f" at a relative duality gap of {solution.gap:.1e}"
        return _Result(
            multipliers,
            problem.value(solution.lower, chain.exponent),
            solution.iterations,
            message,
        )

    def _is_better_mirrored(self, chain: BlockChain) -> bool:
        """Return whether the mirror image is smaller and has multipliers of the same form."""
        if self._per_layer and not all(
            np.ptp(high - low) == 0.0 for low, high in zip(chain.alphas, chain.betas)
        ):
            return False
        return min(chain.blocks[-1].matrix.shape) < min(chain.blocks[0].matrix.shape)

    def _too_large(self, chain: BlockChain) -> str:
        """Return why a part is not solved at once; empty if it is."""
        hidden = sum(chain.hidden_dims)
        if hidden > self.max_size:
            return f"{hidden} hidden neurons exceed max_size={self.max_size}"
        end = chain.blocks[-1 if self._is_better_mirrored(chain) else 0]
        rows = hidden + min(end.matrix.shape)
        if rows > max(_LARGEST_ROWS, self.max_size):
            return f"{rows} rows exceed {_LARGEST_ROWS} and max_size={self.max_size}"
        largest = max(8 * math.prod(block.matrix.shape) for block in chain.blocks)
        if chain.is_sparse and largest > MAX_MATRIX_BYTES:
            return f"a dense matrix would take {largest / 2**30:.3g} GiB"
        return ""

    def _recursive(
        self, task: Task, chain: BlockChain, closed: Multipliers | None, reason: str
    ) -> _Result:
        """Bound a network that is too large to be solved at once."""
        found = [] if closed is None else [closed]
        message = f"{reason}: "
        if self._per_layer or chain.is_sparse:
            message += "ECLipsE-Fast was used"
        else:
            message += "the best of ECLipsE and closed forms was used"
            try:
                layered, note = layerwise_multipliers(task, chain, self.gap, self.device)
                found.append(layered)
                message += f" ({note})" if note else ""
            except SolverError as error:
                message += f" (ECLipsE failed: {error})"
        if not found:
            raise SolverError("neither ECLipsE nor a closed form gave multipliers")
        best = min(found, key=lambda item: item.bound(chain, item.rho))
        return _Result(best, attained(chain), 0, message)


class LipSDPLayer(LipSDPNeuron):
    """Upper bound by LipSDP-Layer: one multiplier for each hidden layer.

    Notes
    -----
    Looser than the neuron form; where all neurons of a layer have one slope range, never
    above ECLipsE-Fast. The variables are few, the
    cost of an iteration is nearly that of the neuron form. Parameters and ``details`` as in
    :class:`LipSDPNeuron`.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> weights = [[[1.0, 2.0], [3.0, 1.0]], [[1.0, -1.0]]]
    >>> network = LayeredNetwork.from_arrays(weights, activation="relu")
    >>> round(LipSDPLayer().bound(network).value, 4)
    3.3052
    """

    name = "lipsdp_layer"
    _per_layer = True


def _lengths(blocks: int, split: int | None) -> tuple[int, ...]:
    """Return the number of blocks of each part."""
    if split is None:
        return (blocks,)
    return tuple(min(split, blocks - i) for i in range(0, blocks, split))


def polished(chain: BlockChain, multipliers: Multipliers) -> Multipliers:
    """Return the multipliers with the smallest ρ that they allow, in float64, if it is smaller."""
    recursion = Recursion(chain)
    try:
        for layer, (values, shift) in enumerate(zip(multipliers.values, multipliers.shifts)):
            recursion.advance(layer, values, shift)
        rho = recursion.finish().rho
    except SolverError:
        return multipliers
    return replace(multipliers, rho=rho) if rho < multipliers.rho else multipliers


def _is_exact(chain: BlockChain, multipliers: Multipliers, gap: float) -> bool:
    """Return whether the network with its steepest slopes everywhere reaches the value."""
    return attained_log2(chain) - _value_log2(multipliers) >= math.log2(1.0 - gap)


def _value_log2(multipliers: Multipliers) -> float:
    """Return the binary logarithm of the bound that multipliers propose for the scaled chain."""
    return 0.5 * math.log2(multipliers.rho) - sum(multipliers.shifts)
