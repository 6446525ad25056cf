"""MLflow evaluator plugin "harmonics": spectra of a registered model's encoder and decoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.harmonics import hermite_spectrum, radial_spectrum, slice_spectrum
from harmonicvae.records import Spectrum
from harmonicvae.report import figures
from harmonicvae.tracking.evaluator_base import VAEEvaluator

#: Metric of each side → quantity of the headline Hermite spectrum, and of the slices.
_HERMITE = {
    names.MEAN_DEGREE: "mean_degree",
    names.HERMITE_VARIANCE: "variance",
    names.W1_SHARE: "fitted_first_share",
    names.JACOBIAN_ENERGY: "jacobian_energy",
}
_FREQUENCY = {
    names.SPECTRAL_CENTROID: "centroid",
    names.HIGH_FREQUENCY_SHARE: "high_frequency_share",
}


@dataclass(frozen=True)
class _Measured:
    """A spectrum, of what it is, and whether its numbers are the metrics of its side."""

    side: str
    centre: str
    std: float
    spectrum: Spectrum
    headline: bool = True


class HarmonicsEvaluator(VAEEvaluator):
    """Hermite and power spectra of decoder and encoder mean: estimates, never bounds.

    The decoder under N(0, I), the prior (**headline**: the same measure for every σ_enc), and
    under N(p(x), σ_enc²·I) around codes of data; the encoder under N(x, σ²·I) around data, for
    each σ of ``encoder_stds`` (headline: the first).  Along random lines: the decoder through
    draws of the prior, the encoder through data.

    Options (``evaluator_config``): ``sides`` (both), ``encoder_stds`` ((1.0, 0.5)),
    ``n_samples`` (2000 rings a Gaussian, see :func:`harmonicvae.hermite_spectrum`),
    ``n_centres`` (16 codes and data points, evenly spaced rows; intervals are over them),
    ``max_degree`` (8), ``n_slices`` (128), ``slice_points`` (128), ``slice_length`` (8.0, of the
    decoder; the encoder's is twice the rms distance of the data from their mean),
    ``n_pictures`` (256, of the radial spectra), ``confidence`` (0.95), ``random_state`` (0),
    ``image_shape`` (None; (h, w, c) adds radial spectra of data and reconstructions) and
    ``figures`` (True).

    Metrics for each side: ``hermite_mean_degree_{side}``, ``hermite_variance_{side}``,
    ``hermite_w1_share_{side}`` (fitted), ``jacobian_energy_{side}`` (E‖J‖_F²),
    ``spectral_centroid_{side}`` (cycles per input unit) and ``high_frequency_share_{side}``
    (above 4 cycles a slice); the last two for "data" and "reconstructions" too (cycles per
    pixel, above ¼), and ``harmonics_seconds``.

    Artifacts in ``harmonics/``: ``spectra.csv`` (a row a point, with its interval),
    ``harmonics.csv`` (a row a derived number) and ``spectra.png``.
    """

    name = names.EVALUATOR_HARMONICS
    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "sides": names.SIDES,
        "encoder_stds": (1.0, 0.5),
        "n_samples": 2000,
        "n_centres": 16,
        "max_degree": 8,
        "n_slices": 128,
        "slice_points": 128,
        "slice_length": 8.0,
        "n_pictures": 256,
        "confidence": 0.95,
        "random_state": 0,
        "image_shape": None,
        "figures": True,
    }

    def _measure(
        self, estimator: Any, X: np.ndarray, options: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        started = time.perf_counter()
        _check(options)
        X = X.astype(np.float64)
        found: list[_Measured] = []
        if "decoder" in options["sides"]:
            found += _decoder_spectra(estimator, X, options)
        if "encoder" in options["sides"]:
            found += _encoder_spectra(estimator, X, options)
        found += _picture_spectra(estimator, X, options)
        spectra = pd.concat([_points(item) for item in found], ignore_index=True)
        contents: dict[str, Any] = {
            names.ARTIFACT_SPECTRA: spectra,
            names.ARTIFACT_HARMONICS: pd.concat(
                [_numbers(item) for item in found], ignore_index=True
            ),
        }
        if options["figures"]:
            contents[names.ARTIFACT_HARMONIC_FIGURE] = figures.plot_model_spectra(spectra)
        metrics = _metrics(found) | {names.HARMONIC_SECONDS: time.perf_counter() - started}
        return metrics, contents


def _check(options: dict[str, Any]) -> None:
    """Refuse what the spectra themselves do not check."""
    unknown = sorted(set(options["sides"]) - set(names.SIDES))
    if unknown or not options["sides"]:
        raise InputError(
            f"sides must be among {names.SIDES}, got {', '.join(map(str, unknown)) or 'none'}"
        )
    for name in ("n_centres", "n_slices", "n_pictures"):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 2:
            raise InputError(f"{name} must be an integer >= 2, got {value!r}")
    stds = options["encoder_stds"]
    if np.ndim(stds) != 1 or not len(stds):
        raise InputError(f"encoder_stds must be numbers > 0, at least one, got {stds!r}")


def _rows(X: np.ndarray, count: int) -> np.ndarray:
    """Return at most ``count`` evenly spaced rows."""
    return X[np.unique(np.linspace(0, len(X) - 1, min(len(X), count)).astype(int))]


def _hermite(function: Any, mean: np.ndarray, std: float, options: dict[str, Any]) -> Spectrum:
    """Return the Hermite spectrum with the evaluator's options."""
    keys = ("max_degree", "n_samples", "confidence", "random_state")
    return hermite_spectrum(function, mean, std, **{key: options[key] for key in keys})


def _slices(function: Any, base: np.ndarray, length: float, options: dict[str, Any]) -> Spectrum:
    """Return the power spectrum of ``n_slices`` lines, evenly many through each base point."""
    return slice_spectrum(
        function,
        base,
        length,
        n_points=options["slice_points"],
        n_directions=-(-options["n_slices"] // len(base)),
        confidence=options["confidence"],
        random_state=options["random_state"],
    )


def _decoder_spectra(estimator: Any, X: np.ndarray, options: dict[str, Any]) -> list[_Measured]:
    """Measure the decoder under the prior, around codes and along lines."""
    decoder, latent = estimator.decoder_, estimator.latent_dim
    rows = _rows(X, options["n_centres"])
    draw = np.random.default_rng(options["random_state"])
    base = draw.standard_normal((options["n_slices"], latent))
    spread = _spread(estimator, rows)
    codes = estimator.transform(rows)
    length = options["slice_length"]
    return [
        _Measured("decoder", "prior", 1.0, _hermite(decoder, np.zeros(latent), 1.0, options)),
        _Measured("decoder", "codes", spread, _hermite(decoder, codes, spread, options), False),
        _Measured("decoder", "prior", np.nan, _slices(decoder, base, length, options)),
    ]


def _spread(estimator: Any, rows: np.ndarray) -> float:
    """Return σ_enc, the root mean square over data and units where it is learned."""
    spread = estimator.encoder_spread_
    if isinstance(spread, float):
        return spread
    with torch.no_grad():
        x = torch.as_tensor(rows).to(next(spread.parameters()))
        return float(spread(x).double().square().mean().sqrt())


def _encoder_spectra(estimator: Any, X: np.ndarray, options: dict[str, Any]) -> list[_Measured]:
    """Measure the encoder mean around data and along lines through them."""
    rows, encoder = _rows(X, options["n_centres"]), estimator.encoder_
    found = []
    for place, value in enumerate(options["encoder_stds"]):
        spectrum = _hermite(encoder, rows, value, options)
        found.append(_Measured("encoder", "data", float(value), spectrum, place == 0))
    length = 2.0 * float(np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean()))
    base = _rows(X, options["n_slices"])
    if length > 0:  # the data vary
        slices = _slices(encoder, base, length, options)
        found.append(_Measured("encoder", "data", np.nan, slices))
    return found


def _picture_spectra(estimator: Any, X: np.ndarray, options: dict[str, Any]) -> list[_Measured]:
    """Measure pictures and their reconstructions over radial frequency."""
    shape = options["image_shape"]
    rows = _rows(X, options["n_pictures"])
    if shape is None or len(shape) != 3 or len(rows) < 2:
        return []
    keys = ("confidence", "random_state")
    shared = {key: options[key] for key in keys}
    return [
        _Measured(side, "picture", np.nan, radial_spectrum(pictures, shape, **shared))
        for side, pictures in (("data", rows), ("reconstructions", estimator.reconstruct(rows)))
    ]


def _labels(item: _Measured) -> dict[str, Any]:
    """Return the columns that say what a spectrum is of."""
    return {names.SIDE: item.side, names.CENTRE: item.centre, names.STD: item.std}


def _points(item: _Measured) -> pd.DataFrame:
    """Return the rows of spectra.csv; the noise-stability curve after the weights."""
    curve = item.spectrum.stability
    parts = [item.spectrum.to_frame()] + ([] if curve is None else [curve.to_frame()])
    table = pd.concat(parts, ignore_index=True).assign(**_labels(item))
    return table[[column for column in names.SPECTRUM_COLUMNS if column != names.MODEL]]


def _numbers(item: _Measured) -> pd.DataFrame:
    """Return the rows of harmonics.csv."""
    spectrum = item.spectrum
    table = spectrum.summary_frame().assign(
        confidence=spectrum.confidence,
        status=spectrum.status,
        units=spectrum.units,
        n_units=spectrum.n_units,
        n_samples=spectrum.n_samples,
        **_labels(item),
    )
    first = [*_labels(item)]
    return table[first + [column for column in table if column not in first]]


def _metrics(found: list[_Measured]) -> dict[str, float]:
    """Return the headline numbers of each side."""
    metrics = {}
    for item in found:
        if item.headline:
            chosen = _HERMITE if item.spectrum.name == "hermite" else _FREQUENCY
            for metric, quantity in chosen.items():
                value = item.spectrum[quantity].value
                metrics[names.harmonic_metric(metric, item.side)] = value
    return metrics
