"""MLflow evaluator plugin "max_damage": attacks on a registered model, and its margins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.attacks import ATTACKS, OBJECTIVES, as_objective, attack, check_damage
from harmonicvae.attacks.metrics import (
    log_likelihood_degradation,
    relative_damage,
    reproduction_log_ratio,
)
from harmonicvae.attacks.ssim import WINDOW, structural_similarity
from harmonicvae.attacks.success import success_rate
from harmonicvae.exceptions import InputError
from harmonicvae.network import LayeredNetwork
from harmonicvae.records import AttackResult, Bound
from harmonicvae.report import figures
from harmonicvae.tracking.evaluator_base import VAEEvaluator
from harmonicvae.tracking.lipschitz_bounds import best_bound
from harmonicvae.tracking.model_margins import ModelMargins

#: Objectives that need nothing but the model.
OBJECTIVE_CHOICES = tuple(name for name, item in OBJECTIVES.items() if "target" not in item.needs)
#: Thresholds of the success rate: this many, evenly spaced up to the largest damage.
_THRESHOLDS = 41


class MaxDamageEvaluator(VAEEvaluator):
    """Attacks on the reconstruction x ↦ g(p(x)), and margins within which none succeeds.

    Options (``evaluator_config``): ``radii`` ((10.0, 20.0), ℓ2, in input units), ``n_images``
    (16, evenly spaced rows of the data), ``methods`` (("best",): keys of
    ``harmonicvae.attacks.ATTACKS``), ``objective`` ("damage"; also "stochastic_damage" and
    "latent", with the model's own encoder spread), ``n_steps``, ``n_restarts`` (None: the
    method's own), ``box`` (None, or (low, high) for x+δ), ``random_state`` (0), ``n_panels`` (4
    images kept for figure 9), ``image_shape`` (None; (h, w, c) adds SSIM and pictures),
    ``relative_r`` ((0.25, 0.5, 1.0): margins are for r = this times ‖g(p(x))‖ of each image; ()
    for none), ``n_samples`` (200 pairs of codes, of the simulated robustness) and ``figures``
    (True).

    Metrics at each radius, mean and maximum over images, of the strongest method for each
    image: ``damage``, ``relative_damage``, ``log_likelihood_degradation``,
    ``reproduction_log_ratio``, ``ssim`` (pictures), ``damage_bound_ratio`` (damage over radius
    times the smallest certified bounds of both networks, those of the evaluator "lipschitz" if
    it has just run); ``attack_seconds`` and ``attack_warnings`` (findings of the self-audit).
    Margins, mean over images, for each relative r:
    ``certified_margin``, ``first_order_margin`` (an estimate), and
    ``robustness_probability`` at the attacked inputs.

    Artifacts in ``max_damage/``: ``attacks.csv`` and ``margins.csv`` (a row an image),
    ``success.csv`` (share of images whose damage exceeds r), ``warnings.json``, ``arrays.npz``,
    and figures.
    """

    name = names.EVALUATOR_MAX_DAMAGE
    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "radii": (10.0, 20.0),
        "n_images": 16,
        "methods": ("best",),
        "objective": "damage",
        "n_steps": None,
        "n_restarts": None,
        "box": None,
        "random_state": 0,
        "n_panels": 4,
        "image_shape": None,
        "relative_r": (0.25, 0.5, 1.0),
        "n_samples": 200,
        "figures": True,
    }

    def _measure(
        self, estimator: Any, X: np.ndarray, options: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        methods = _checked_methods(options)
        images = np.unique(np.linspace(0, len(X) - 1, min(len(X), options["n_images"])).astype(int))
        x = X[images].astype(np.float64)
        sides = [LayeredNetwork.from_module(getattr(estimator, f"{s}_")) for s in names.SIDES]
        bounds = (best_bound(sides[0]), best_bound(sides[1]))
        started = time.perf_counter()
        results = {method: _attacked(estimator, x, method, options) for method in methods}
        seconds = time.perf_counter() - started
        shape = options["image_shape"]
        table = pd.concat(
            [
                _attack_table(result, images, x, bounds, shape)
                for every in results.values()
                for result in every
            ],
            ignore_index=True,
        )
        strongest = [_strongest(every) for every in zip(*results.values(), strict=True)]
        margins = ModelMargins(estimator, bounds, sides[0], options).frame(x, images, strongest)
        success = _success_table(strongest)
        metrics = _attack_metrics(table) | _margin_metrics(margins)
        warnings = [
            {"method": result.method, names.RADIUS: result.radius, "warning": text}
            for every in results.values()
            for result in every
            for text in result.warnings
        ]
        contents = {
            names.ARTIFACT_ATTACKS: table,
            names.ARTIFACT_MARGINS: margins,
            names.ARTIFACT_SUCCESS: success,
            names.ARTIFACT_ATTACK_WARNINGS: warnings,
            names.ARTIFACT_ATTACK_ARRAYS: _attack_arrays(
                strongest, images, x, min(options["n_panels"], len(images))
            ),
        }
        if options["figures"]:
            contents |= _figures(contents, bounds, shape)
        metrics |= {names.ATTACK_SECONDS: seconds, names.ATTACK_WARNINGS: float(len(warnings))}
        return metrics, contents


def _checked_methods(options: dict[str, Any]) -> list[str]:
    """Return the methods' names, each once; refuse unknown ones and unknown objectives."""
    methods = options["methods"]
    methods = [methods] if isinstance(methods, str) else list(dict.fromkeys(methods))
    unknown = sorted(set(methods) - set(ATTACKS))
    if unknown or not methods:
        raise InputError(
            f"methods must be among {sorted(ATTACKS)}, got {', '.join(map(str, unknown)) or 'none'}"
        )
    if options["objective"] not in OBJECTIVE_CHOICES:
        raise InputError(
            f"objective must be one of {OBJECTIVE_CHOICES}, got {options['objective']!r}"
        )
    return methods


def _attacked(
    estimator: Any, x: np.ndarray, method: str, options: dict[str, Any]
) -> list[AttackResult]:
    """Return one result a radius."""
    budget = {key: options[key] for key in ("n_steps", "n_restarts") if options[key] is not None}
    objective: Any = options["objective"]
    spread = estimator.encoder_spread_ if OBJECTIVES[objective].needs else None
    results: Any = attack(
        estimator.encoder_,
        estimator.decoder_,
        x,
        _numbers("radii", options["radii"]),
        method,
        objective=as_objective(objective, spread),
        box=options["box"],
        random_state=options["random_state"],
        **budget,
    )
    return list(results)


def _numbers(name: str, values: Any) -> list[float]:
    """Return numbers as floats; their range is checked where they are used."""
    try:
        return [float(value) for value in np.atleast_1d(values)]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be numbers >= 0, got {values!r}") from None


def _attack_table(
    result: AttackResult,
    images: np.ndarray,
    x: np.ndarray,
    bounds: tuple[Bound, Bound],
    image_shape: Any,
) -> pd.DataFrame:
    """Return one row an image with all metrics at one radius."""
    before, after = result.decoding, result.attacked_decoding
    columns = {
        names.IMAGE: images,
        names.RADIUS: result.radius,
        "method": result.method,
        "objective": result.objective,
        "value": result.value,
        names.DAMAGE: result.damage,
        names.RELATIVE_DAMAGE: relative_damage(result.damage, before),
        names.DEGRADATION: log_likelihood_degradation(x, before, after),
        names.REPRODUCTION_DEGRADATION: reproduction_log_ratio(before, after)[0],
        names.BOUND_RATIO: check_damage(result, *bounds),
        "radius_used": result.radius_used,
        "gradient_evaluations": result.gradient_evaluations,
    }
    if _is_picture(image_shape):
        span = 2.0 if np.abs(x).max() <= 1.0 else float(np.ptp(x))
        columns[names.SSIM] = structural_similarity(before, after, tuple(image_shape), span)
    return pd.DataFrame(columns)


def _is_picture(image_shape: Any) -> bool:
    """Return whether samples of that shape are images that SSIM's window fits into."""
    return image_shape is not None and len(image_shape) == 3 and min(image_shape[:2]) >= WINDOW


def _strongest(results: tuple[AttackResult, ...]) -> AttackResult:
    """Return the largest value of several methods at one radius, image by image."""
    if len(results) == 1:
        return results[0]
    rows = np.arange(len(results[0].value))
    winner = np.argmax([result.value for result in results], axis=0)

    def pick(name: str) -> np.ndarray:
        return np.stack([getattr(result, name) for result in results])[winner, rows]

    picked: dict[str, Any] = {
        name: pick(name)
        for name in ("perturbation", "value", "damage", "attacked_decoding", "radius_used")
    }
    return replace(results[0], method="+".join(r.method for r in results), **picked)


def _success_table(results: list[AttackResult]) -> pd.DataFrame:
    """Return the share of images whose damage exceeds r, for each radius."""
    largest = max(float(result.damage.max()) for result in results)
    thresholds = np.linspace(0.0, largest, _THRESHOLDS)
    parts = [
        success_rate(result.damage, thresholds).assign(**{names.RADIUS: result.radius})
        for result in results
    ]
    return pd.concat(parts, ignore_index=True)


def _attack_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return mean and maximum over images at each radius, of the strongest method each."""
    best = table.loc[table.groupby([names.RADIUS, names.IMAGE])["value"].idxmax()]
    measured = [column for column in names.ATTACK_METRICS if column in table.columns]
    radii = [float(radius) for radius in table[names.RADIUS].unique()]
    return {
        names.attack_metric(column, radius, statistic): float(part[column].agg(statistic))
        for radius, part in ((r, best[best[names.RADIUS] == r]) for r in radii)
        for column in measured
        for statistic in ("mean", "max")
    }


def _margin_metrics(margins: pd.DataFrame) -> dict[str, float]:
    """Return means over images for each relative r."""
    metrics = {}
    for share in map(float, margins[names.RELATIVE_R].unique()):
        part = margins[margins[names.RELATIVE_R] == share]
        for column in part.columns:
            if column.startswith(names.MARGIN_COLUMNS) and not column.endswith(names.LIMITS):
                metrics[names.margin_metric(column, share)] = float(part[column].mean())
    return metrics


def _attack_arrays(
    results: list[AttackResult], images: np.ndarray, x: np.ndarray, kept: int
) -> dict[str, np.ndarray]:
    """Return what figure 9 shows, for the first images."""
    arrays = {
        "attack_images": images[:kept],
        "attack_radii": np.array([result.radius for result in results]),
        "attack_originals": x[:kept],
        "attack_inputs": np.stack([x[:kept] + result.perturbation[:kept] for result in results]),
        "attack_decodings": np.stack([result.attacked_decoding[:kept] for result in results]),
        "decodings": results[0].decoding[:kept],
    }
    return {
        key: value.astype(np.float32) if value.ndim > 1 else value for key, value in arrays.items()
    }


def _figures(
    contents: dict[str, Any], bounds: tuple[Bound, Bound], image_shape: Any
) -> dict[str, Any]:
    """Return figure 9 of every kept image, and the curves."""
    drawn: dict[str, Any] = {}
    slope = bounds[0].value * bounds[1].value
    certified = all(record.status == "certified" for record in bounds)
    table = contents[names.ARTIFACT_ATTACKS]
    drawn[names.figure_artifact("damage")] = figures.plot_damage(
        table, slope if certified else None
    )
    if len(contents[names.ARTIFACT_MARGINS]):
        drawn[names.figure_artifact("margins")] = figures.plot_margins(
            contents[names.ARTIFACT_MARGINS]
        )
    if image_shape is not None:
        arrays = contents[names.ARTIFACT_ATTACK_ARRAYS]
        for position, image in enumerate(arrays["attack_images"]):
            drawn[names.figure_artifact(f"attack_{image}")] = figures.plot_attack(
                arrays, tuple(image_shape), position
            )
    return drawn
