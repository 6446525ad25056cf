"""ECLipsE and ECLipsE-Fast: multipliers chosen layer by layer, from the input to the output."""

from __future__ import annotations

import numpy as np

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.arguments import device_name, fraction
from harmonicvae.lipschitz.base import Candidate, LipschitzMethod, Task, layer_norms
from harmonicvae.lipschitz.chain import BlockChain
from harmonicvae.lipschitz.lmi import Multipliers
from harmonicvae.lipschitz.recursion import Recursion, fast_multipliers, fast_step

#: Rows of a layer's program above which it is not solved.
LARGEST_SIZE = 3200


class EclipseFast(LipschitzMethod):
    """Upper bound with one multiplier a layer in closed form.

    Notes
    -----
    See :func:`harmonicvae.lipschitz.recursion.fast_multipliers`. For equal slopes with
    α = 0 this is the published λ = 1 / (2m²λmax(G)), m = (α+β)/2. For α ≠ 0 the published
    recursion omits p = αβ, which is unsound where p < 0; here it is kept. Every layer is
    scaled by a power of two, so that depth does not under- or overflow. Never above the
    norm product.

    Cost O(Σ n³ + wide first and tall last Gram products), n the layers' widths, and memory
    O(Σ n²). Networks with sparse matrices, and dense ones of more than 1,500 neurons with few
    entries ≠ 0, take a factorisation of the whole inequality for each layer and one for the
    proof: the same bound to 1e-8, at O(Σ n³), n the blocks of the inequality ordered by
    place in the image (:class:`harmonicvae.lipschitz.sparse_lmi.SparseLmi`). A convolutional
    VAE with the default layers and a code of 64 numbers takes 2 s and 0.2 GiB for 32 × 32 × 3
    pixels, 8 to 11 s and 0.4 GiB for 64 × 64 × 3, on one thread. Beyond 4·10¹²
    multiplications or 4 GiB a proof the norm product is returned, and a message says so.

    References
    ----------
    Y. Xu, S. Sivaranjani, "ECLipsE: efficient compositional Lipschitz constant estimation
    for deep neural networks", NeurIPS 2024, section 3 (closed-form variant).

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> round(EclipseFast().bound(network).value, 9)
    1.5
    """

    name = "eclipse_fast"
    takes_sparse = True

    def _bound(self, task: Task) -> Candidate:
        if task.is_trivial:
            return layer_norms(task)
        multipliers = fast_multipliers(task.chain)
        return Candidate(value=multipliers.bound(task.chain, multipliers.rho), proposal=multipliers)


class Eclipse(LipschitzMethod):
    """Upper bound with one multiplier a neuron, by one small semidefinite program a layer.

    Parameters
    ----------
    gap : float, default=1e-6
        Relative duality gap of each program, in (0, 1).
    device : str, default="cpu"
        Where torch computes.

    Notes
    -----
    The multipliers of layer i minimise the bound of the two layers W_i and W_{i+1} from the
    block X_{i−1} that the layers before leave: LipSDP-Neuron with one hidden layer, solved
    by :class:`harmonicvae.lipschitz.sdp.structured.StructuredSolver`. Above the neuron form,
    as a rule below ECLipsE-Fast; neither is guaranteed to be the smaller. Cost a few dozen
    times O(Σ n³). Layers of more than about 1,600 neurons get ECLipsE-Fast's multiplier.

    References
    ----------
    Y. Xu, S. Sivaranjani, NeurIPS 2024, section 3 (ECLipsE); with p = αβ kept.

    Examples
    --------
    >>> from harmonicvae.network import LayeredNetwork
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="sigmoid")
    >>> round(Eclipse().bound(network).value, 6)
    1.5
    """

    name = "eclipse"

    def __init__(self, gap: float = 1e-6, device: str = "cpu") -> None:
        self.gap = gap
        self.device = device

    def _bound(self, task: Task) -> Candidate:
        fraction("gap", self.gap)
        device_name(self.device)
        if task.is_trivial:
            return layer_norms(task)
        multipliers, message = layerwise_multipliers(task, task.chain, self.gap, self.device)
        value = multipliers.bound(task.chain, multipliers.rho)
        return Candidate(value=value, proposal=multipliers, message=message)


def layerwise_multipliers(
    task: Task, chain: BlockChain, gap: float, device: str
) -> tuple[Multipliers, str]:
    """Compute ECLipsE's multipliers.

    Parameters
    ----------
    task : Task
        Is told of the progress.
    chain : BlockChain
        With at least one hidden layer and no zero block.
    gap : float
        Relative duality gap of each layer's program.
    device : str
        Where torch computes.

    Returns
    -------
    multipliers : Multipliers
    message : str
        Names the layers that got ECLipsE-Fast's multiplier instead: those whose program would
        have more than 3,200 rows, those whose program failed, and those left when the caller
        asked to stop.

    Raises
    ------
    SolverError
        If the recursion breaks down.
    """
    recursion = Recursion(chain)
    replaced: dict[str, list[int]] = {}
    stopped = False
    for layer, low in enumerate(chain.alphas):
        stopped = stopped or task.report("ECLipsE", layer=layer + 1, layers=len(chain.alphas))
        reason = "stopped on request" if stopped else ""
        rows = len(low) + min(len(recursion.state), len(low))
        if not reason and rows > LARGEST_SIZE:
            reason = f"more than {LARGEST_SIZE} rows"
        if not reason:
            try:
                recursion.advance(layer, *_one_layer(recursion, layer, gap, device))
                continue
            except SolverError as error:
                reason = str(error)
        replaced.setdefault(reason, []).append(layer + 1)
        fast_step(recursion, layer)
    messages = [
        f"{reason}: ECLipsE-Fast's multiplier in hidden layer {', '.join(map(str, layers))}"
        for reason, layers in replaced.items()
    ]
    return recursion.finish(), "; ".join(messages)


def _one_layer(recursion: Recursion, layer: int, gap: float, device: str) -> tuple[np.ndarray, int]:
    """Solve the program of one layer and return its multipliers and shift."""
    from harmonicvae.lipschitz.sdp.neuron_problem import build_problem
    from harmonicvae.lipschitz.sdp.structured import StructuredSolver  # torch is slow to import

    incoming = recursion.half(layer).T
    if incoming.shape[1] > incoming.shape[0]:
        incoming = np.asarray(np.linalg.qr(incoming.T, mode="r")).T
    outgoing = recursion.matrices[layer + 1]
    if outgoing.shape[0] > outgoing.shape[1]:
        outgoing = np.asarray(np.linalg.qr(outgoing, mode="r"))
    problem = build_problem(
        [incoming, outgoing], [recursion.chain.alphas[layer]], [recursion.chain.betas[layer]]
    )
    solution = StructuredSolver(problem, gap=gap, device=device).solve()
    proposal = problem.multipliers(solution.rho, solution.t)
    return proposal.values[0], proposal.shifts[0]
