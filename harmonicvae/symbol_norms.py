"""Proved spectral norms of convolutions on images of any size, without their matrices.

A convolution with zero padding is a window of the convolution on the infinite grid, whose norm
is the largest norm of its symbol, the matrix Σ_q K_q·exp(i⟨q, θ⟩) over all frequencies θ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from harmonicvae.exceptions import InputError, SolverError
from harmonicvae.rounding import (
    UNIT,
    absolute_norm_squared,
    gamma,
    inflate,
    normalise,
    round_up,
    scale_up,
)

#: Frequencies along an axis for each degree of the symbol there.
_POINTS_A_DEGREE = 64
#: Numbers of a chunk of symbols.
_CHUNK_NUMBERS = 2**22
#: Bound on the error of each root of unity of :func:`_roots_of_unity`.
_ROOT_ERROR = 2.0**-44
#: The square that is proved exceeds the largest found by a factor 1 + this · 8ᵏ, k < 12.
_FIRST_MARGIN = 1e-12
#: More than π.
_PI_UP = 3.1415926535897936


def convolution_norm(
    kernel: np.ndarray,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    error: float = 0.0,
) -> float:
    """Compute an upper bound of a convolution's spectral norm, proved for images of any size.

    Parameters
    ----------
    kernel : ndarray of shape (out_channels, in_channels / groups, ...)
        One axis of taps for each axis of the image. That of a transposed convolution, as torch
        keeps it, is the kernel of the transposed map, which has the same norm.
    stride, dilation : sequence of int
        One number ≥ 1 an axis.
    groups : int, default=1
        Independent groups of channels.
    error : float, default=0.0
        Bound on Σ ‖ΔK_q‖_F over the taps, where the kernel itself is rounded.

    Returns
    -------
    float
        Output units per input unit, for zero padding of any width. Above the norm on the
        infinite grid by at most 0.25 % for two axes, and above that on an image by what its
        borders save: of order (taps/pixels)².

    Raises
    ------
    InputError
        If the kernel is not finite or the numbers do not fit it.
    SolverError
        If nothing could be proved.

    Notes
    -----
    Stride s makes s inputs of one: C_out × C_in·∏s symbols; dilations change nothing. For unit
    vectors u and v, Re u*Av is a trigonometric polynomial of degree n in each frequency; by a
    theorem of M. Riesz it falls from its largest value no faster than cos(nθ), so that the
    largest value on N equally spaced points is at least cos(πn/N) of it. On each of them
    Cholesky's method proves the norm, with all rounding errors. Cost
    O(N₁N₂·(C_in·C_out·taps + m²·l)), m and l the smaller and the larger of C_out and C_in·∏s,
    whatever the size of the image: seconds for 64 channels, minutes for 512.

    References
    ----------
    H. Sedghi, V. Gupta, P. M. Long, "The singular values of convolutional layers", ICLR 2019
    (circular padding). R. M. Gray, "Toeplitz and circulant matrices: a review", 2006.

    Examples
    --------
    >>> blur = np.full((1, 1, 3, 3), 1 / 9)
    >>> 1.0 <= convolution_norm(blur, (1, 1), (1, 1)) <= 1.003
    True
    >>> convolution_norm(np.ones((1, 1, 2, 2)), (2, 2), (1, 1))  # disjoint windows
    2.000000000001...
    """
    kernel = _checked(kernel, stride, dilation, groups, error)
    parts = np.split(kernel, groups)
    return max((_group_norm(part, stride, dilation, error) for part in parts), default=0.0)


def _checked(
    kernel: np.ndarray,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    error: float,
) -> np.ndarray:
    """Return a finite float64 kernel, refusing numbers that do not fit."""
    array = np.asarray(kernel)
    axes = array.ndim - 2
    if array.dtype.kind not in "fiub" or axes < 1 or not np.all(np.isfinite(array)):
        raise InputError("kernel must be real and finite, of shape (out, in, taps, ...)")
    for name, numbers in (("stride", stride), ("dilation", dilation)):
        whole = isinstance(numbers, Sequence) and all(
            isinstance(n, (int, np.integer)) and n >= 1 for n in numbers
        )
        if not whole or len(numbers) != axes:
            raise InputError(f"{name} must be {axes} whole numbers >= 1, got {numbers!r}")
    if groups < 1 or array.shape[0] % groups:
        raise InputError(f"groups must divide {array.shape[0]} outputs, got {groups}")
    if not 0.0 <= error < math.inf:
        raise InputError(f"error must be finite and >= 0, got {error!r}")
    return array.astype(np.float64)


def _group_norm(
    kernel: np.ndarray, stride: Sequence[int], dilation: Sequence[int], error: float
) -> float:
    """Return the bound of one group."""
    scaled, exponent = normalise(kernel)
    if not np.any(scaled):
        return error
    coefficients = _polyphase(scaled, stride, dilation)
    counts = [_points(size) for size in coefficients.shape[:-2]]
    size = sum(math.sqrt(absolute_norm_squared(tap)) for tap in _taps(coefficients))
    rounding = (len(counts) + 1) * _ROOT_ERROR + gamma(4 * coefficients[..., 0, 0].size + 16)
    norm = _largest_norm(coefficients, counts) + inflate(2.0 * rounding * size)
    for count, extent in zip(counts, coefficients.shape[:-2]):
        norm /= _least_share(extent, count)
    norm *= 1.0 + 8.0 * UNIT * (len(counts) + 2)  # more than the roundings of these lines
    return round_up(scale_up(norm, exponent) + error)


def _polyphase(kernel: np.ndarray, stride: Sequence[int], dilation: Sequence[int]) -> np.ndarray:
    """Return K_q, first the axes of q, then a matrix with no more rows than columns.

    Only pixels at multiples of g = gcd(s, d) meet. Where s and d are coprime, tap t = sa + b has
    q = da + c(b) and a phase of b's own: up to a unitary factor for each phase, the symbol is that
    of dilation 1 at frequency dθ. So dilations cost nothing.
    """
    out, into = kernel.shape[:2]
    taps = kernel.shape[2:]
    strides = [s // math.gcd(s, d) for s, d in zip(stride, dilation)]
    phases = [min(s, k) for s, k in zip(strides, taps)]
    extents = [(k - 1) // s + 1 for k, s in zip(taps, strides)]
    result = np.zeros((*extents, out, into, math.prod(phases)))
    for tap in np.ndindex(*taps):
        places = [divmod(t, s) for t, s in zip(tap, strides)]
        phase = 0
        for (_, rest), count in zip(places, phases):
            phase = phase * count + rest
        result[(*(q for q, _ in places), slice(None), slice(None), phase)] = kernel[(..., *tap)]
    matrices = result.reshape(*extents, out, -1)
    return matrices if out <= matrices.shape[-1] else np.swapaxes(matrices, -1, -2)


def _taps(coefficients: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the matrices K_q."""
    return iter(coefficients.reshape(-1, *coefficients.shape[-2:]))


def _points(extent: int) -> int:
    """Return how many frequencies an axis gets: a power of two, 1 if nothing depends on it."""
    degree = extent // 2  # of the polynomial after a shift to the middle, which has norm 1
    return 1 if degree == 0 else 2 ** math.ceil(math.log2(_POINTS_A_DEGREE * degree))


def _least_share(extent: int, count: int) -> float:
    """Return a number below cos(πn/N), by 1 − x²/2."""
    angle = _PI_UP * (extent // 2) / count
    return 1.0 - 0.5 * angle * angle * (1.0 + 8.0 * UNIT) - (4.0 * UNIT if angle else 0.0)


def _roots_of_unity(count: int) -> np.ndarray:
    """Return exp(2πij/N), j = 0 … N − 1, for a power of two N; errors below 2⁻⁴⁴.

    By halving angles with square roots, which are correctly rounded, not by a library's
    cosine: each level adds at most four roundings, of numbers of at most 1, to the errors of
    the two roots that it multiplies, so that N = 2ᵖ leaves at most 8p of them.
    """
    roots = np.ones(1, dtype=np.complex128)
    half = np.array(1.0 + 0.0j)  # primitive root of the level before
    for level in range(int(math.log2(count))):
        if level == 0:
            half = np.array(-1.0 + 0.0j)
        elif level == 1:
            half = np.array(0.0 + 1.0j)
        else:
            real = math.sqrt(0.5 * (1.0 + float(half.real)))
            half = np.array(real + 1j * (float(half.imag) / (2.0 * real)))
        roots = np.stack([roots, roots * half], axis=1).ravel()
    return roots


def _largest_norm(coefficients: np.ndarray, counts: Sequence[int]) -> float:
    """Return a proved bound of the computed symbols' norms on the grid."""
    rows, columns = coefficients.shape[-2:]
    square = 0.0
    for symbols in _symbols(coefficients, counts):
        real = np.empty((len(symbols), 2 * rows, 2 * columns))
        real[:, :rows, :columns] = real[:, rows:, columns:] = symbols.real
        real[:, :rows, columns:], real[:, rows:, :columns] = -symbols.imag, symbols.imag
        grams = real @ np.swapaxes(real, -1, -2)
        largest = float(np.max(np.sum(real * real, axis=(1, 2))))
        slack = inflate(gamma(2 * columns + 4) * largest + 1e-280)
        if not _proves(grams, square, slack):
            square = max(square, _proved_square(symbols, grams, slack))
    return math.sqrt(square) * (1.0 + 2.0 * UNIT)


def _proved_square(symbols: np.ndarray, grams: np.ndarray, slack: float) -> float:
    """Return c, close to the least, with c·I − G ⪰ 0 for all of the matrices."""
    adjoint = np.conj(np.swapaxes(symbols, -1, -2))
    found = max(float(np.max(np.linalg.eigvalsh(symbols @ adjoint)[:, -1])), 0.0)
    for step in range(12):
        square = found * (1.0 + _FIRST_MARGIN * 8.0**step)
        square += 4.0 * _shift(grams.shape[-1], square, slack)
        if _proves(grams, square, slack):
            return square
    raise SolverError("the norm of a convolution could not be proved; please report the kernel")


def _proves(grams: np.ndarray, square: float, slack: float) -> bool:
    """Prove c·I − G ⪰ 0 for every G within ``slack`` of one of the matrices.

    Cholesky's method that ends proves that its matrix A is ⪰ −γ·tr(A)·I, with γ for n + 2
    roundings (Rump 2006); the matrix given to it is (c − s)·I − G, s more than all errors.
    """
    shift = _shift(grams.shape[-1], square, slack)
    if not square > shift:
        return False
    try:
        factors = np.linalg.cholesky((square - shift) * np.eye(grams.shape[-1]) - grams)
    except np.linalg.LinAlgError:
        return False
    return bool(np.all(np.isfinite(factors)))


def _shift(size: int, square: float, slack: float) -> float:
    """Return more than all rounding errors of such a proof: G ⪯ c, so that tr(A) ≤ n·c."""
    return inflate(slack + (2.0 * gamma(size + 4) * size + 16.0 * UNIT) * square)


def _symbols(coefficients: np.ndarray, counts: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield chunks of symbols on half of the grid: those at −θ are the conjugates."""
    extents, matrix = coefficients.shape[:-2], coefficients.shape[-2:]
    roots = [_roots_of_unity(count) for count in counts]
    ranges = [np.arange(count) for count in counts]
    if ranges and counts[0] > 1:
        ranges[0] = np.arange(counts[0] // 2 + 1)
    grid = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, len(counts))
    flat = coefficients.reshape(math.prod(extents), -1)
    present = np.any(flat != 0.0, axis=1)
    flat = flat[present]
    taps = [tap for tap, kept in zip(product(*map(range, extents)), present) if kept]
    chunk = max(1, _CHUNK_NUMBERS // max(4 * flat.shape[1], 4 * len(taps)))
    for start in range(0, len(grid), chunk):
        points = grid[start : start + chunk]
        phases = np.ones((len(points), len(taps)), dtype=np.complex128)
        for number, tap in enumerate(taps):
            for axis, q in enumerate(tap):
                phases[:, number] *= roots[axis][points[:, axis] * q % counts[axis]]
        yield (phases @ flat).reshape(len(points), *matrix)
