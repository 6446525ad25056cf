"""Exact Hermite weights of functions of one variable, by Gauss–Hermite quadrature."""

import math

import numpy as np


def weights(function, mean, std, count=13, points=180):
    """W_0 … W_{count−1} of a scalar function under N(mean, std²)."""
    x, w = np.polynomial.hermite_e.hermegauss(points)
    w = w / w.sum()
    values = function(mean + std * x)
    before, now, found = np.zeros_like(x), np.ones_like(x), []
    for degree in range(count):
        found.append((w * values * now).sum() ** 2 / math.factorial(degree))
        before, now = now, x * now - degree * before
    return np.array(found)


def moments(function, slope, mean, std, points=180):
    """Squared mean, variance and E of the squared slope under N(mean, std²)."""
    x, w = np.polynomial.hermite_e.hermegauss(points)
    w = w / w.sum()
    z = mean + std * x
    first = (w * function(z)).sum()
    return first**2, (w * (function(z) - first) ** 2).sum(), (w * slope(z) ** 2).sum()


def quantities(function, slope, mean, std):
    """What hermite_spectrum reports, by name."""
    squared_mean, variance, energy = moments(function, slope, mean, std)
    known = weights(function, mean, std)
    return {
        "squared_mean": squared_mean,
        "variance": variance,
        "jacobian_energy": energy,
        "mean_degree": std**2 * energy / variance,
        "first_weight": known[1],
        "first_weight_share": known[1] / variance,
        "tail": variance - known[1:9].sum(),
    }
