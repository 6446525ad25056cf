"""Certificates verified in exact arithmetic: no rounding, no scaling, no factor in between.

Every float64 number is an integer times a power of two. All matrices here are integers
times one power of two, so that sums and products are exact; positive semidefiniteness is
decided by elimination without fractions.

References
----------
E. H. Bareiss, "Sylvester's identity and multistep integer-preserving Gaussian
elimination", Mathematics of Computation 22 (1968), 565–578.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from harmonicvae.exceptions import InputError
from harmonicvae.lipschitz.certificate import checked_kind
from harmonicvae.lipschitz.chain import live_neurons, round_slopes
from harmonicvae.lipschitz.lmi import read_multipliers
from harmonicvae.lipschitz.products import junctions, read_norms, read_parts
from harmonicvae.lipschitz.proofs import certified_slopes, real_number
from harmonicvae.lipschitz.slopes import SlopeRanges
from harmonicvae.network import LayeredNetwork

#: Integers of a matrix with more bits than this are refused.
_LARGEST_BITS = 50_000
#: Bits of the factor with which definiteness is decided first.
_FACTOR_BITS = 256


@dataclass(frozen=True, eq=False)
class Dyadic:
    """A matrix or vector of integers times a power of two.

    Parameters
    ----------
    integers : ndarray of Python integers
    exponent : int

    Examples
    --------
    >>> half = Dyadic.of(np.array([[0.5, 3.0]]))
    >>> product = half @ half.T
    >>> product.integers, product.exponent
    (array([[37]], dtype=object), -2)
    """

    integers: np.ndarray
    exponent: int

    @classmethod
    def of(cls, array: Any) -> Dyadic:
        """Return finite float64 numbers exactly."""
        mantissas, exponents = np.frexp(np.asarray(array, dtype=np.float64))
        used = exponents[mantissas != 0.0]
        lowest = int(used.min()) if used.size else 0
        integers = np.empty(mantissas.shape, dtype=object)
        for index, mantissa in np.ndenumerate(mantissas):
            shift = max(int(exponents[index]) - lowest, 0)
            integers[index] = int(math.ldexp(float(mantissa), 53)) << shift
        return cls(integers, lowest - 53).shortened()

    def shortened(self) -> Dyadic:
        """Return the same numbers with the powers of two that all integers share taken out."""
        zeros = [(x & -x).bit_length() - 1 for x in self.integers.flat if x]
        shift = min(zeros, default=0)
        return Dyadic(self.integers >> shift, self.exponent + shift)

    @property
    def T(self) -> Dyadic:
        """The transpose."""
        return Dyadic(self.integers.T, self.exponent)

    def scaled(self, exponent: int) -> Dyadic:
        """Return the numbers times 2**exponent."""
        return Dyadic(self.integers, self.exponent + exponent)

    def rows_times(self, vector: Dyadic) -> Dyadic:
        """Return diag(vector) times the matrix; of two vectors the products of entries."""
        factors = vector.integers.reshape(-1, *[1] * (self.integers.ndim - 1))
        return Dyadic(factors * self.integers, self.exponent + vector.exponent)

    def __matmul__(self, other: Dyadic) -> Dyadic:
        return Dyadic(self.integers @ other.integers, self.exponent + other.exponent)

    def __add__(self, other: Dyadic) -> Dyadic:
        exponent = min(self.exponent, other.exponent)
        return Dyadic(self.at(exponent) + other.at(exponent), exponent)

    def at(self, exponent: int) -> np.ndarray:
        """Return the integers for a smaller or equal exponent.

        Raises
        ------
        InputError
            If they would be unreasonably long.
        """
        shift = self.exponent - exponent
        if shift > _LARGEST_BITS:
            raise InputError(
                f"exact verification needs integers of more than {_LARGEST_BITS} bits: "
                "the certificate's numbers differ too much in magnitude; use verify_certificate"
            )
        return self.integers * (1 << shift)

    def __neg__(self) -> Dyadic:
        return Dyadic(-self.integers, self.exponent)


@dataclass(frozen=True, eq=False)
class ExactChain:
    """A network's blocks and slope ranges without any rounding.

    Parameters
    ----------
    blocks : tuple of Dyadic
        Products of consecutive original matrices, without neurons that let nothing pass.
    alphas, betas : tuple of Dyadic
        Slope ranges between them.
    """

    blocks: tuple[Dyadic, ...]
    alphas: tuple[Dyadic, ...]
    betas: tuple[Dyadic, ...]

    @classmethod
    def of(cls, network: LayeredNetwork, slopes: SlopeRanges) -> ExactChain | None:
        """Build the chain; None if no input reaches an output.

        Parameters
        ----------
        network : LayeredNetwork
        slopes : SlopeRanges
            Ranges that hold.

        Returns
        -------
        ExactChain or None
        """
        live = live_neurons(network.weights, slopes.alphas, slopes.betas)
        if not all(np.any(item) for item in live) or not np.any(network.weights[-1]):
            return None
        weights = [w[np.ix_(b, a)] for w, (a, b) in zip(network.weights, pairwise(live))]
        current, blocks = Dyadic.of(weights[0]), []
        ranges: list[tuple[Dyadic, Dyadic]] = []
        for i, weight in enumerate(weights[1:]):
            chosen = live[i + 1]
            low, high, power = round_slopes(slopes.alphas[i][chosen], slopes.betas[i][chosen])
            following = Dyadic.of(weight).scaled(power)
            if np.array_equal(low, high):
                current = following @ current.rows_times(Dyadic.of(low))
                continue
            blocks.append(current)
            ranges.append((Dyadic.of(low), Dyadic.of(high)))
            current = following
        alphas, betas = zip(*ranges) if ranges else ((), ())
        return cls((*blocks, current), alphas, betas)

    def part(self, start: int, stop: int) -> ExactChain:
        """Return the chain of blocks start … stop − 1."""
        inner = slice(start, stop - 1)
        return ExactChain(self.blocks[start:stop], self.alphas[inner], self.betas[inner])

    def largest_slope(self, layer: int) -> Fraction:
        """Return the largest magnitude of a slope in a hidden layer."""
        ends = self.alphas[layer], self.betas[layer]
        return max(max(abs(x) for x in end.integers) * _power(end.exponent) for end in ends)


def is_positive_semidefinite(matrix: Any) -> bool:
    """Decide whether a symmetric matrix of integers is positive semidefinite.

    Parameters
    ----------
    matrix : array-like of Python integers of shape (n, n)

    Returns
    -------
    bool
        Exact, for singular matrices too.

    Notes
    -----
    First with a factor L in integers of 256 bits or more: A − LLᵀ, exact, is positive
    semidefinite if its diagonal dominates, and a vector x with xᵀAx < 0 refutes. Both decide
    unless A is singular to about 70 digits; cost O(n³) operations on integers of twice
    those bits. Else by symmetric elimination without fractions, where each pivot is the
    determinant of a leading block and a zero pivot needs a zero row: O(n³) operations on
    integers of up to n times the bits of the entries.

    Examples
    --------
    >>> is_positive_semidefinite([[1, 2], [2, 4]]), is_positive_semidefinite([[1, 2], [2, 3]])
    (True, False)
    """
    array = np.array(matrix, dtype=object)
    decided = _decided_by_factor(array) if len(array) else True
    return _eliminated(array) if decided is None else decided


def _decided_by_factor(matrix: np.ndarray) -> bool | None:
    """Decide definiteness with a factor in integers; None if the matrix is nearly singular."""
    size = len(matrix)
    bits = max(int(abs(entry)).bit_length() for entry in matrix.flat)
    half = max(_FACTOR_BITS, bits // 2 + 1)
    scaled = matrix * (1 << (2 * half - bits))  # entries below 4**half
    rest = scaled - np.diag(np.full(size, size << (half + 3), dtype=object))
    factor = np.zeros((size, size), dtype=object)
    for k in range(size):
        if rest[k, k] <= 0:
            return False if _is_refuted(scaled, factor, k, half) else None
        factor[k, k] = math.isqrt(rest[k, k])
        factor[k + 1 :, k] = rest[k + 1 :, k] // factor[k, k]
        below = factor[k + 1 :, k]
        rest[k + 1 :, k + 1 :] -= np.outer(below, below)
    residual = scaled - factor @ factor.T
    own = np.diag(residual)
    return True if np.all(2 * own >= np.sum(np.abs(residual), axis=1)) else None


def _is_refuted(matrix: np.ndarray, factor: np.ndarray, k: int, half: int) -> bool:
    """Find x with xᵀAx < 0 where the factorisation of the leading k + 1 rows broke down."""
    vector = np.zeros(k + 1, dtype=object)
    vector[k] = 1 << half
    for j in reversed(range(k)):
        vector[j] = -(factor[j + 1 : k + 1, j] @ vector[j + 1 :]) // factor[j, j]
    leading = matrix[: k + 1, : k + 1]
    return bool(vector @ (leading @ vector) < 0)


def _eliminated(matrix: np.ndarray) -> bool:
    """Decide definiteness by elimination without fractions."""
    rest, previous = matrix, 1
    while len(rest):
        pivot, row = rest[0, 0], rest[0, 1:]
        if pivot < 0 or (pivot == 0 and np.any(row != 0)):
            return False
        rest = rest[1:, 1:]
        if pivot > 0:
            rest = (pivot * rest - np.outer(row, row)) // previous
            previous = pivot
    return True


def _is_definite(matrix: Dyadic) -> bool:
    """Decide positive semidefiniteness after scaling rows and columns by powers of two."""
    integers = matrix.integers
    diagonal = np.diag(integers)
    if any(entry < 0 for entry in diagonal):
        return False
    shifts = [-(int(entry).bit_length() // 2) for entry in diagonal]
    lowest = 2 * min(shifts)
    size = len(shifts)
    scaled = np.zeros((size, size), dtype=object)
    for i, j in zip(*np.nonzero(integers)):
        if integers[i, j] ** 2 > diagonal[i] * diagonal[j]:
            return False
        scaled[i, j] = integers[i, j] << (shifts[i] + shifts[j] - lowest)
    return is_positive_semidefinite(Dyadic(scaled, 0).shortened().integers)


def verify_exactly(
    certificate: Mapping[str, Any], network: LayeredNetwork, limit: int = 128
) -> bool:
    """Decide in exact arithmetic whether a certificate proves its bound.

    Parameters
    ----------
    certificate : mapping
        Of kind "lmi", "norm_product" or "product"; from ``Bound.certificate`` or a file.
    network : LayeredNetwork
        The network it was given for, with its original weights.
    limit : int, default=128
        Largest matrix, in rows, whose definiteness is decided, ≥ 1.

    Returns
    -------
    bool
        True if ``certificate["value"]`` is an upper bound: the inequality holds exactly and
        the value is not below the bound that follows from it. False if not.

    Raises
    ------
    InputError
        If the certificate is damaged, belongs to another network, is of another kind, or
        needs a matrix of more than ``limit`` rows.

    Notes
    -----
    Rebuilds the inequality from the original float64 weights as integers. The number of
    rows is that of all neurons plus the smaller side of the first layer. With v_0 = W_0ᵀy
    a wide first layer enters as its Gram matrix; the part of v_0 orthogonal to that only
    adds a square. Slope ranges are computed anew in float64, rounded outwards, as in
    ``verify_certificate``. Cost O(rows³) operations on integers of 256 to 1,000 bits: below
    a second for 64 rows, about ten for 256. Only for an inequality that is singular to 70
    digits it is O(rows³) operations on integers of 300 · rows bits, minutes for 64 rows.

    Examples
    --------
    >>> from harmonicvae.lipschitz.certificate import LayerNorms, prove
    >>> network = LayeredNetwork.from_arrays([[[2.0]], [[3.0]]], activation="relu")
    >>> proof = prove(network, LayerNorms((0.501, 0.751)))
    >>> tight = {**proof.certificate, "norms": [0.5, 0.75], "value": 6.0}
    >>> verify_exactly(tight, network), verify_exactly({**tight, "value": 5.999999}, network)
    (True, False)
    """
    kind = checked_kind(certificate, network)
    if kind not in _KINDS:
        raise InputError(
            f"certificates of kind {kind!r} cannot be verified exactly, only {sorted(_KINDS)}; "
            "use verify_certificate"
        )
    if network.is_sparse:
        raise InputError("exact verification needs dense matrices; use verify_certificate")
    try:
        slopes = certified_slopes(certificate, network)
        claimed = real_number(certificate, "value")
        if slopes is None:
            return False
        chain = ExactChain.of(network, slopes)
        if chain is None:
            return True
        square = _KINDS[kind](certificate, chain, limit)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the certificate is incomplete or damaged: {error!r}") from error
    if square is None:
        return False
    return math.isinf(claimed) or Fraction(claimed) ** 2 >= square


def _power(exponent: int) -> Fraction:
    """Return 2**exponent."""
    return Fraction(2) ** exponent


def _check_rows(rows: int, limit: int) -> None:
    """Refuse matrices above the limit."""
    if rows > limit:
        raise InputError(
            f"exact verification needs a matrix of {rows} rows, more than limit = {limit}; "
            "use verify_certificate, or raise limit (the time grows as rows**3)"
        )


def _norms_square(content: Mapping[str, Any], chain: ExactChain, limit: int) -> Fraction | None:
    """Return the squared product of norms and slopes if every norm holds, else None."""
    norms, exponents = read_norms(content, len(chain.blocks))
    for norm, exponent, block in zip(norms, exponents, chain.blocks):
        _check_rows(min(block.integers.shape), limit)
        if not _norm_holds(block.scaled(exponent), norm):
            return None
    total = math.prod(map(Fraction, norms)) * _power(-sum(exponents))
    return (total * math.prod(map(chain.largest_slope, range(len(chain.alphas))))) ** 2


def _norm_holds(block: Dyadic, norm: float) -> bool:
    """Decide whether norm² I − W Wᵀ, on the smaller side of W, is positive semidefinite."""
    rows, columns = block.integers.shape
    short = (block if rows <= columns else block.T).shortened()
    size = Dyadic.of(np.full(len(short.integers), norm))
    square = size.rows_times(size)
    return _is_definite(_diagonal(square) + -(short @ short.T))


def _parts_square(content: Mapping[str, Any], chain: ExactChain, limit: int) -> Fraction | None:
    """Return the product of the parts' squared bounds and slopes if all hold, else None."""
    parts, lengths = read_parts(content)
    if any(length < 1 for length in lengths) or sum(lengths) != len(chain.blocks):
        raise InputError(f"lengths of the certificate must sum to {len(chain.blocks)} blocks")
    total, end = Fraction(1), 0
    for part, length in zip(parts, lengths):
        square = _inequality_square(part, chain.part(end, end + length), limit)
        end += length
        if square is None:
            return None
        total *= square
    return total * math.prod(chain.largest_slope(i) ** 2 for i in junctions(lengths))


def _inequality_square(
    content: Mapping[str, Any], chain: ExactChain, limit: int
) -> Fraction | None:
    """Return the squared bound if the LipSDP inequality holds, else None."""
    values, exponents, rho = read_multipliers(content, len(chain.blocks))
    sizes = [len(block.integers) for block in chain.blocks[:-1]]
    _check_rows(min(chain.blocks[0].integers.shape) + sum(sizes), limit)
    for value, size in zip(values, sizes):
        if value.shape not in ((), (size,)):
            raise InputError(f"multipliers of the certificate must be one number or {size}")
        if np.any(value < 0):
            raise InputError("multipliers of the certificate must be >= 0")
    if not 0.0 < rho < math.inf:
        return None
    multipliers = [Dyadic.of(np.broadcast_to(v, (size,))) for v, size in zip(values, sizes)]
    weights = [block.scaled(e) for block, e in zip(chain.blocks, exponents)]
    diagonal, lower = _exact_blocks(chain, weights, multipliers, Dyadic.of([rho]))
    if not _is_definite(_assembled(diagonal, lower)):
        return None
    return Fraction(rho) * _power(-2 * sum(exponents))


def _exact_blocks(
    chain: ExactChain, weights: list[Dyadic], multipliers: list[Dyadic], rho: Dyadic
) -> tuple[list[Dyadic], list[Dyadic]]:
    """Return the blocks of ρ times the inequality's matrix, on the diagonal and below it."""
    first = weights[0]
    rows, columns = first.integers.shape
    diagonal = [_diagonal(Dyadic(np.full(columns, 1, dtype=object), 0))]
    if columns > rows:
        first = first @ first.T
        diagonal = [first]
    diagonal += [_diagonal(values) for values in multipliers]
    lower = []
    inputs = [first, *weights[1:]]
    ranges = zip(chain.alphas, chain.betas)
    for i, ((alpha, beta), values) in enumerate(zip(ranges, multipliers)):
        slopes = alpha.rows_times(beta).rows_times(values)
        middle = (alpha + beta).scaled(-1).rows_times(values)
        lower.append(-inputs[i].rows_times(middle))
        diagonal[i] = diagonal[i] + inputs[i].T @ inputs[i].rows_times(slopes)
    last = inputs[-1].T @ inputs[-1]
    diagonal, lower = [_times(x, rho) for x in diagonal], [_times(x, rho) for x in lower]
    diagonal[-1] = diagonal[-1] + -last
    return diagonal, lower


def _times(matrix: Dyadic, number: Dyadic) -> Dyadic:
    """Return the matrix times a vector of one number."""
    return Dyadic(
        number.integers[0] * matrix.integers, matrix.exponent + number.exponent
    ).shortened()


def _diagonal(values: Dyadic) -> Dyadic:
    """Return diag(values)."""
    size = len(values.integers)
    matrix = np.zeros((size, size), dtype=object)
    np.fill_diagonal(matrix, values.integers)
    return Dyadic(matrix, values.exponent)


def _assembled(diagonal: list[Dyadic], lower: list[Dyadic]) -> Dyadic:
    """Return the block-tridiagonal matrix."""
    exponent = min(block.exponent for block in [*diagonal, *lower])
    ends = np.concatenate([[0], np.cumsum([len(block.integers) for block in diagonal])])
    matrix = np.zeros((ends[-1], ends[-1]), dtype=object)
    for i, block in enumerate(diagonal):
        here = slice(ends[i], ends[i + 1])
        matrix[here, here] = block.at(exponent)
    for i, block in enumerate(lower):
        before, after = slice(ends[i], ends[i + 1]), slice(ends[i + 1], ends[i + 2])
        matrix[after, before] = block.at(exponent)
        matrix[before, after] = matrix[after, before].T
    return Dyadic(matrix, exponent)


#: What returns the squared bound that a certificate proves, by its kind.
_KINDS: dict[str, Callable[[Mapping[str, Any], ExactChain, int], Fraction | None]] = {
    "lmi": _inequality_square,
    "norm_product": _norms_square,
    "product": _parts_square,
}
