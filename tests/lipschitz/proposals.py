"""Proposals, networks and exact values for the tests of proofs; no solver of the package."""

from fractions import Fraction
from itertools import pairwise

import numpy as np

from harmonicvae.lipschitz.certificate import LayerNorms, Multipliers, Split
from harmonicvae.lipschitz.products import chain_parts
from harmonicvae.lipschitz.slopes import SlopeRanges
from harmonicvae.network import LayeredNetwork


def gershgorin_multipliers(chain, factor=0.45):
    """One multiplier a neuron from Gershgorin's circles, layer by layer, and the ρ they allow."""
    chain = chain.with_square_input()
    state = np.eye(chain.blocks[0].matrix.shape[1])
    values, shifts = [], []
    for block, low, high in zip(chain.blocks, chain.alphas, chain.betas):
        top = np.maximum(np.abs(low), np.abs(high))
        gram = block.matrix @ np.linalg.solve(state, block.matrix.T)
        gram = np.abs(top[:, None] * gram * top)
        root = np.sqrt(np.diag(gram))
        size = root * np.sum(gram / root, axis=1)
        shift = round(-0.5 * np.log2(np.max(size)))
        weight, t = np.ldexp(block.matrix, shift), 2 * factor / np.ldexp(size, 2 * shift)
        link = (0.5 * (low + high) * t)[:, None] * weight
        before = state + weight.T @ ((low * high * t)[:, None] * weight)
        state = np.diag(t) - link @ np.linalg.solve(before, link.T)
        values.append(t)
        shifts.append(shift)
    last = chain.blocks[-1].matrix
    rho = np.linalg.eigvalsh(last @ np.linalg.solve(state, last.T))[-1]
    return Multipliers(tuple(values), tuple(shifts), float(rho))


def propose(kind, chain):
    """A proposal of a kind; a product has parts of one, two and then the other blocks."""
    if kind == "norm_product":
        return LayerNorms(chain.layer_norms())
    if kind == "lmi":
        return gershgorin_multipliers(chain)
    count = len(chain.blocks)
    lengths = (1, 2, count - 3) if count > 3 else (1,) * count
    parts = tuple(gershgorin_multipliers(part) for part in chain_parts(chain, lengths))
    return Split(parts, lengths)


KINDS = ("norm_product", "lmi", "product")


def random_network(seed, dims, activation="relu", signed=True, spread=0.0, rank_one=False):
    """Random weights; each hidden neuron's in- and outgoing weights scaled by 10**±spread."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal if signed else rng.random
    weights = [draw((b, a)) for a, b in pairwise(dims)]
    if rank_one:
        weights[0] = np.outer(weights[0][:, 0], weights[0][0])
    for i, size in enumerate(dims[1:-1]):
        scale = 10.0 ** rng.uniform(-spread, spread, size)
        weights[i] = scale[:, None] * weights[i]
        weights[i + 1] = weights[i + 1] / scale
    biases = [rng.standard_normal(size) for size in dims[1:]]
    return LayeredNetwork.from_arrays(weights, biases, activation)


def random_slopes(seed, network, dead=0.0):
    """Slope ranges drawn at random for every neuron, some of them [0, 0], one the other sign."""
    rng = np.random.default_rng(seed)
    alphas, betas = [], []
    for size in network.hidden_dims:
        low, high = np.sort(rng.uniform(-0.3, 1.0, (2, size)), axis=0)
        off = rng.random(size) < dead
        alphas.append(np.where(off, 0.0, low))
        betas.append(np.where(off, 0.0, high))
    return SlopeRanges(tuple(alphas), tuple(betas), "activation")


def exact_product(weights):
    """The product W_L⋯W_0 as lists of fractions."""
    product = [[Fraction(float(x)) for x in row] for row in weights[0]]
    for weight in weights[1:]:
        columns = list(zip(*product))
        rows = [[Fraction(float(x)) for x in row] for row in weight]
        product = [[sum(a * b for a, b in zip(row, column)) for column in columns] for row in rows]
    return product


def squared_norm_below(product):
    """A lower bound of ‖A‖₂² that is exact arithmetic, and the norm itself but for rounding."""
    peak = max(abs(x) for row in product for x in row)
    if peak == 0:
        return Fraction(0)
    rounded = np.array([[float(x / peak) for x in row] for row in product])
    vector = [Fraction(float(x)) for x in np.linalg.svd(rounded)[2][0]]
    image = [sum(a * b for a, b in zip(row, vector)) for row in product]
    return sum(x * x for x in image) / sum(x * x for x in vector)
