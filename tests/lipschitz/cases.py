"""Networks for the tests of methods: seeded, of any shape, with known constants."""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from harmonicvae.activations import elu, gelu, leaky_relu
from harmonicvae.lipschitz import METHODS
from harmonicvae.network import LayeredNetwork
from harmonicvae.norms import spectral_norm
from tests.lipschitz.proposals import exact_product, squared_norm_below

#: Activations with slope 1 at positive numbers: with nonnegative weights and no biases a network
#: of them is linear at positive inputs, so that its constant is at least the product's norm.
SLOPE_ONE = ("relu", leaky_relu(0.1), "relu", leaky_relu(-0.5))
#: Every kind of slope range: α = 0, α > 0, α < 0 < β, β ≠ 1 and |α| > β.
ACTIVATIONS = (
    "relu",
    "sigmoid",
    "tanh",
    "softplus",
    "elu",
    "silu",
    "gelu",
    gelu("tanh"),
    elu(2.0),
    leaky_relu(0.01),
    leaky_relu(0.5),
    leaky_relu(-0.5),
    leaky_relu(-1.0),
    leaky_relu(3.0),
)
#: Shapes of the entries of a layer.
KINDS = (
    "dense",
    "dense",
    "lognormal",
    "rank one",
    "nearly rank one",
    "sparse",
    "zero row",
    "zero column",
    "diagonal",
    "duplicate rows",
    "uneven rows",
    "constant",
)
SCALES = (1.0, 1.0, 1e-12, 1e12)


def sizes(rng, max_depth, max_width):
    """Widths of a network's vectors: of all orders of size, small ones oftener."""
    depth = round(max_depth ** rng.random() ** 2)
    width = max_width ** rng.random() ** 2
    return [max(1, round(width ** rng.uniform(0.5, 1.0))) for _ in range(depth + 1)]


def layer(rng, rows, columns, kind, signed):
    """One weight matrix of a kind, entries of order one."""
    shape = (rows, columns)
    draw = rng.standard_normal if signed else rng.random
    weight = draw(shape)
    if kind == "lognormal":
        weight = np.sign(weight) * np.exp(3.0 * rng.standard_normal(shape))
    if kind in ("rank one", "nearly rank one"):
        small = 1e-9 if kind == "nearly rank one" else 0.0
        weight = np.outer(weight[:, 0], weight[0]) + small * draw(shape)
    if kind == "sparse":
        weight = weight * (rng.random(shape) < 0.3)
    if kind == "zero row":
        weight[rng.integers(rows)] = 0.0
    if kind == "zero column":
        weight[:, rng.integers(columns)] = 0.0
    if kind == "diagonal":
        weight = weight * np.eye(rows, columns)
    if kind == "duplicate rows":
        weight[:] = weight[rng.integers(rows, size=rows)]
    if kind == "uneven rows":
        weight = weight * 10.0 ** rng.uniform(-8, 8, (rows, 1))
    if kind == "constant":
        weight[:] = weight[0, 0]
    return weight


def random_weights(seed, signed=False, max_depth=20, max_width=64, scales=SCALES):
    """Weight matrices of random depth, widths, ranks and scales; one in 50 networks is zero."""
    rng = np.random.default_rng(seed)
    dims = sizes(rng, max_depth, max_width)
    one_kind = rng.choice(KINDS) if rng.random() < 0.5 else None
    weights = [
        layer(rng, after, before, one_kind or rng.choice(KINDS), signed) * rng.choice(scales)
        for before, after in pairwise(dims)
    ]
    if rng.random() < 0.02:
        weights[rng.integers(len(weights))][:] = 0.0
    return weights


def dense_weights(seed, dims, signed=True):
    """Dense weights whose vectors keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal if signed else rng.random
    return [draw((after, before)) / math.sqrt(before) for before, after in pairwise(dims)]


def mixed_network(seed, max_depth=4, max_width=6, min_depth=2):
    """A signed network with an activation drawn for each layer, and biases."""
    rng = np.random.default_rng(seed)
    depth = rng.integers(min_depth, max_depth + 1)
    dims = rng.integers(1, max_width + 1, depth + 1)
    chosen = [ACTIVATIONS[i] for i in rng.integers(len(ACTIVATIONS), size=depth - 1)]
    biases = [rng.standard_normal(size) for size in dims[1:]]
    return LayeredNetwork.from_arrays(dense_weights(seed, dims), biases, chosen)


@dataclass(frozen=True)
class Norm:
    """‖W_L⋯W_0‖₂ = mantissa · 2**exponent of nonnegative matrices, right to 1e-12.

    No sum cancels, so that an entry of the product is right to (widest layer + 2) · layers
    units in the last place, at most 1,400 or 1.6e-13, and the norm to little more.
    """

    mantissa: float
    exponent: int

    @classmethod
    def of(cls, weights):
        """Multiply from the right, scaled, so that nothing over- or underflows."""
        product, exponent = np.eye(weights[0].shape[1]), 0
        for weight in weights:
            product = weight @ product
            shift = math.frexp(np.max(product))[1]
            product, exponent = np.ldexp(product, -shift), exponent + shift
        return cls(spectral_norm(product), exponent)

    @property
    def fraction(self):
        return Fraction(self.mantissa) * Fraction(2) ** self.exponent

    def excess(self, value):
        """value / norm − 1; ``inf`` for an infinite value or a zero norm."""
        if math.isinf(value) or self.mantissa == 0.0:
            return math.inf
        return float(Fraction(value) / self.fraction - 1)


def is_surely_below(value, weights):
    """True if value < ‖W_L⋯W_0‖₂ in exact arithmetic; for small matrices."""
    if math.isinf(value):
        return False
    return Fraction(value) ** 2 < squared_norm_below(exact_product(weights))


#: Options without which a method takes minutes for some networks.
OPTIONS = {"interval": {"max_boxes": 1000}, "lipsdp_cvxpy": {"limit": 16}}
#: The methods that take networks of any size and any number of inputs.
GENERAL = tuple(sorted(set(METHODS) - {"interval", "lipsdp_cvxpy"}))


def applicable(network, names=tuple(METHODS)):
    """The methods that take a network, with the options above."""
    return [
        name for name in names if not METHODS[name](**OPTIONS.get(name, {})).unsuitable(network)
    ]
