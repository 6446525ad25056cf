"""LipSDP of a chain of layers, scaled for a solver, with strictly feasible points of both sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harmonicvae.exceptions import SolverError
from harmonicvae.lipschitz.lmi import Multipliers

#: Smallest standard deviation of a neuron, relative to its layer's, to which it is scaled.
_FAINTEST = 1e-8
#: Multipliers of a proposal stay within this factor of their layer's median.
_WIDEST = 2.0**100
#: Share of a slope range's width by which the primal start stays inside it, where it must.
_MARGIN = 0.02
#: Largest share of the longest feasible multiplier that the dual start takes.
_LARGEST_SHARE = 0.75


@dataclass(frozen=True, eq=False)
class NeuronProblem:
    """min ρ such that P(ρ, t) = ρE_0 + Σ t_k (a_k b_kᵀ + b_k a_kᵀ) − G ⪰ 0 and t ≥ 0.

    Parameters
    ----------
    weights : tuple of ndarray of shape (n_{i+1}, n_i)
        W_0 … W_{L−1} in the solver's scale.
    last : ndarray of shape (k, n_L)
        R with RᵀR = W_LᵀW_L in the solver's scale; G = RᵀR in the last diagonal block.
    alphas, betas : tuple of ndarray of shape (n_i,)
        Slope ranges of the hidden layers, alpha < beta. a_k = e_k − alpha_k w_k and
        b_k = e_k − beta_k w_k, with w_k the neuron's row of weights in the columns of the
        layer before.
    scales : tuple of ndarray of shape (n_i,)
        The solver's hidden vector i is the chain's times 2**logs[i], divided by scales[i].
    logs : tuple of float
        Binary logarithm of the product of all factors up to each block, the last included.
    """

    weights: tuple[np.ndarray, ...]
    last: np.ndarray
    alphas: tuple[np.ndarray, ...]
    betas: tuple[np.ndarray, ...]
    scales: tuple[np.ndarray, ...]
    logs: tuple[float, ...]

    @cached_property
    def dims(self) -> tuple[int, ...]:
        """Sizes n_0 … n_L of the diagonal blocks."""
        return (self.weights[0].shape[1], *(len(weight) for weight in self.weights))

    @property
    def size(self) -> int:
        """Rows of P."""
        return sum(self.dims)

    def multipliers(self, rho: float, t: np.ndarray) -> Multipliers:
        """Return ρ and t in the units of the chain, for a proof.

        Parameters
        ----------
        rho : float
            ρ > 0 in the solver's scale.
        t : ndarray of shape (N,)
            Multipliers in the solver's scale, all layers one after another.

        Returns
        -------
        Multipliers
            One number a neuron.
        """
        owns = [2.0 * part / rho / scale**2 for part, scale in zip(self._parts(t), self.scales)]
        return _moderate(owns, self.logs, rho)

    def mirrored_multipliers(self, rho: float, t: np.ndarray) -> Multipliers:
        """Return ρ and t in the units of the chain whose :func:`mirror_image` was built.

        Parameters
        ----------
        rho : float
            ρ > 0 in the solver's scale.
        t : ndarray of shape (N,)
            Multipliers in the solver's scale, all layers of the mirror image one after another.

        Returns
        -------
        Multipliers
            One number a neuron: 4 / (ρT(β − α)²) in the place of the mirror image's T.

        Notes
        -----
        The inequality is a definite form on the graph of the network, its matrix diagonal up
        to 2 × 2 blocks T[[1, −m], [−m, αβ]], m = (α+β)/2, one a neuron. The inverse of that
        matrix, negated, is definite on the orthogonal complement, which is the graph of the
        mirror image with the signs of its weights reversed (dualization lemma).

        References
        ----------
        C. W. Scherer, S. Weiland, "Linear matrix inequalities in control", lecture notes, 2000
        (dualization lemma).
        """
        owns, logs = [], []
        groups = zip(self._parts(t), self.scales, self.alphas, self.betas, self.logs)
        for part, scale, low, high, log in groups:
            own = _within(2.0 * part / scale**2)
            owns.append(4.0 / own / (high - low) ** 2)
            logs.append(self.logs[-1] - log)
        return _moderate(owns[::-1], [*logs[::-1], self.logs[-1]], rho)

    def _parts(self, t: np.ndarray) -> list[np.ndarray]:
        """Return the multipliers of each layer, none below 0."""
        return np.split(np.maximum(t, 0.0), np.cumsum(self.dims[1:-1]))

    def value(self, rho: float, exponent: int) -> float:
        """Return √ρ in the units of a network whose chain has the given exponent."""
        logarithm = 0.5 * math.log2(rho) - self.logs[-1] + exponent if rho > 0 else -math.inf
        return math.inf if logarithm > 1023 else 2.0**logarithm


def build_problem(
    matrices: Sequence[np.ndarray], alphas: Sequence[np.ndarray], betas: Sequence[np.ndarray]
) -> NeuronProblem:
    """Scale a chain of matrices so that every hidden neuron has a variance of order one.

    Parameters
    ----------
    matrices : sequence of L + 1 ndarrays of shape (n_{i+1}, n_i)
        As from :meth:`harmonicvae.lipschitz.chain.BlockChain.reduced_matrices`, which makes a
        wide first and a tall last matrix square; none zero; L ≥ 1.
    alphas, betas : sequence of L ndarrays of shape (n_i,)
        Slope ranges of the hidden layers, none nearly a point: see
        :func:`harmonicvae.lipschitz.slopes.widened`.

    Returns
    -------
    NeuronProblem

    Raises
    ------
    SolverError
        If a layer has no finite, positive scale.

    Notes
    -----
    The variances are those of :func:`primal_start`. Cost O(Σ n³).
    """
    covariance = np.eye(matrices[0].shape[1]) / matrices[0].shape[1]
    weights, scales, logs, log = [], [], [], 0.0
    scale = np.ones(len(covariance))
    for matrix, alpha, beta in zip(matrices[:-1], alphas, betas):
        incoming = matrix * scale
        deviations = np.sqrt(np.maximum(np.sum((incoming @ covariance) * incoming, axis=1), 0.0))
        size = _positive(math.sqrt(float(np.mean(deviations**2))))
        scale = np.maximum(deviations / size, _FAINTEST)
        weight = incoming / size / scale[:, None]
        log -= math.log2(size)
        weights.append(weight)
        scales.append(scale)
        logs.append(log)
        inner = weight @ covariance @ weight.T
        covariance = _masked(inner, alpha, beta)
    last = matrices[-1] * scale
    size = _positive(math.sqrt(float(np.sum((last @ covariance) * last))))
    logs.append(log - math.log2(size))
    return NeuronProblem(
        tuple(weights),
        last / size,
        tuple(alphas),
        tuple(betas),
        tuple(scales),
        tuple(logs),
    )


def mirror_image(
    matrices: Sequence[np.ndarray], alphas: Sequence[np.ndarray], betas: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return the transposed matrices and the slope ranges from the output to the input.

    Parameters
    ----------
    matrices, alphas, betas
        As for :func:`build_problem`.

    Returns
    -------
    matrices, alphas, betas : list of ndarray
        The Jacobians of that chain are the transposes of the given one's, and so LipSDP of one
        multiplier a neuron has the same value: see
        :meth:`NeuronProblem.mirrored_multipliers`.

    Examples
    --------
    >>> matrices, alphas, betas = mirror_image(
    ...     [np.ones((4, 4)), np.ones((3, 4)), np.ones((2, 3))],
    ...     [np.zeros(4), np.zeros(3)], [np.ones(4), np.ones(3)])
    >>> [matrix.shape for matrix in matrices], [len(alpha) for alpha in alphas]
    ([(3, 2), (4, 3), (4, 4)], [3, 4])
    """
    return [matrix.T for matrix in reversed(matrices)], list(alphas[::-1]), list(betas[::-1])


def _moderate(owns: Sequence[np.ndarray], logs: Sequence[float], rho: float) -> Multipliers:
    """Return multipliers own · 4**log of the layers, the last log that of ρ, in moderate scales."""
    values, shifts, shifted = [], [], 0
    for own, log in zip(owns, logs):
        middle = _middle(own)
        shift = round(log + 0.5 * math.log2(middle)) - shifted
        shifted += shift
        values.append(_within(own) * (own > 0) * 2.0 ** (2.0 * (log - shifted)))
        shifts.append(shift)
    return Multipliers(tuple(values), tuple(shifts), rho * 2.0 ** (2.0 * (shifted - logs[-1])))


def _middle(own: np.ndarray) -> float:
    """Return the median of the positive numbers, 1 if there are none."""
    return float(np.median(own[own > 0])) if np.any(own > 0) else 1.0


def _within(own: np.ndarray) -> np.ndarray:
    """Return numbers, all > 0, within a factor of the median of those > 0."""
    middle = _middle(own)
    return np.clip(own, middle / _WIDEST, middle * _WIDEST)


def _positive(size: float) -> float:
    """Return a scale, refusing one that is 0 or not finite."""
    if not 0.0 < size < math.inf:
        raise SolverError("a layer of the scaled network has no finite, positive scale")
    return size


def _masked(inner: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Return the covariance of s∘y, y of covariance ``inner``, s ∈ {α, β} by fair coins."""
    middle, half = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
    covariance = middle[:, None] * inner * middle
    covariance[np.diag_indices_from(covariance)] += half**2 * np.diag(inner)
    return covariance


def primal_start(problem: NeuronProblem, signed: np.ndarray) -> np.ndarray:
    """Compute a strictly feasible point X of the dual of LipSDP, in closed form.

    Parameters
    ----------
    problem : NeuronProblem
    signed : ndarray of bool of shape (N,)
        Neurons for which the dual asks for a_kᵀXb_k < 0 instead of = 0.

    Returns
    -------
    ndarray of shape (size, size)
        X ≻ 0 with tr(E_0 X) = 1 and a_kᵀXb_k = 0, or < 0.

    Notes
    -----
    X is the covariance of (v_0, …, v_L) where v_0 has covariance I/n_0 and every neuron
    multiplies its input y by α or β, by a fair coin: then (v − αy)(v − βy) = 0 always. With
    slopes slightly inside the range it is < 0. tr(GX) is a lower bound of the optimal ρ.
    Cost O(size²·n).
    """
    offsets = np.concatenate([[0], np.cumsum(problem.dims)])
    size, first = problem.size, problem.dims[0]
    start = np.zeros((size, size))
    start[:first, :first] = np.eye(first) / first
    layers = zip(problem.weights, problem.alphas, problem.betas)
    for i, (weight, alpha, beta) in enumerate(layers):
        before = slice(offsets[i], offsets[i + 1])
        own = slice(offsets[i + 1], offsets[i + 2])
        margin = _MARGIN * (beta - alpha) * signed[own.start - first : own.stop - first]
        cross = weight @ start[before, : offsets[i + 1]]
        start[own, : offsets[i + 1]] = 0.5 * (alpha + beta)[:, None] * cross
        start[: offsets[i + 1], own] = start[own, : offsets[i + 1]].T
        inner = cross[:, before] @ weight.T
        start[own, own] = _masked(0.5 * (inner + inner.T), alpha + margin, beta - margin)
    return start


def dual_start(
    problem: NeuronProblem, patterns: Sequence[np.ndarray], slack: float
) -> tuple[float, np.ndarray]:
    """Compute a strictly feasible point (ρ, t) of LipSDP by a recursion over the layers.

    Parameters
    ----------
    problem : NeuronProblem
    patterns : sequence of ndarray of shape (n_i,)
        Ratios, > 0, of the multipliers within each hidden layer.
    slack : float
        > 1: ρ is the smallest one that the recursion's multipliers allow, times this.

    Returns
    -------
    rho : float
    t : ndarray of shape (N,)

    Raises
    ------
    SolverError
        If the recursion breaks down.

    Notes
    -----
    With m and d the middle and half width of the slope ranges, p the pattern, Q_0 = I and
    G = HQHᵀ, H = √p·d·W, multipliers λp leave the next layer with
    Q = 1/(λp) + (m/d)G(I − λG)⁻¹(m/d)/p for any 0 < λ < 1/λmax(G), because
    (v − αy)(v − βy) = (v − my)² − d²y². With p = 1 and equal slopes this is ECLipsE-Fast.
    ρ = λmax(RQRᵀ). Cost O(Σ n³).
    """
    state = np.eye(problem.dims[0])
    parts = []
    layers = zip(problem.weights, problem.alphas, problem.betas, patterns)
    try:
        for weight, alpha, beta, pattern in layers:
            middle, half = 0.5 * (alpha + beta), 0.5 * (beta - alpha)
            root = np.sqrt(pattern)
            outer = (root * half)[:, None] * weight
            gram = outer @ state @ outer.T
            eigenvalues, vectors = np.linalg.eigh(0.5 * (gram + gram.T))
            widths = np.linalg.norm(half * root), np.linalg.norm(middle * root)
            share = min(widths[0] / (widths[0] + widths[1]), _LARGEST_SHARE)
            factor = share / eigenvalues[-1]
            shape = np.maximum(eigenvalues, 0.0) / (1.0 - factor * eigenvalues)
            vectors = (middle / half / root)[:, None] * vectors
            state = np.diag(1.0 / (factor * pattern)) + (vectors * shape) @ vectors.T
            parts.append(factor * pattern)
        final = problem.last @ state @ problem.last.T
        least = float(np.linalg.eigvalsh(0.5 * (final + final.T))[-1])
    except np.linalg.LinAlgError as error:
        raise SolverError(f"the layer recursion broke down: {error}") from error
    rho = slack * least
    t = 0.5 * rho * np.concatenate(parts)
    if not (0.0 < rho < math.inf and np.all(np.isfinite(t))):
        raise SolverError("the layer recursion broke down: its multipliers are not finite")
    return rho, t
