"""The first and the last section: what was run, and what the words mean."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from harmonicvae import names
from harmonicvae.report import markup
from harmonicvae.report.formatting import format_number
from harmonicvae.report.results import Results

UNKNOWN = "not recorded"
#: Step of a failure → what it means for the tables.
FAILED_STEPS = {
    "training": "failed in training: in no table of results",
    "evaluation": "trained, but not evaluated: in the training tables, without Lipschitz bounds "
    "and attacks",
    UNKNOWN: "failed at a step that was not recorded: in no table of results",
}


def summary_parts(results: Results) -> Iterator[str]:
    """Return the parts of the first section: what was run, where, and how to repeat it."""
    study = results.study
    missing = study.get("missing_images")
    absent = _is_count(missing) and {"Missing images": f"{missing} listed, but not in the folder"}
    yield markup.facts(
        {
            "Data set": _text(study, names.DATASET)
            + f", {_text(study, 'n_train')} training and {_text(study, 'n_validation')} "
            + f"validation samples of shape {_shape(results.image_shape)}",
            **(absent or {}),
            "Data digest": _text(study, "data_digest"),
            "Preset": f"{_text(study, 'preset')}, {_text(study, 'epochs')} epochs",
            "Models": _model_counts(results),
            "Seeds": _text(study, "seeds"),
            "Started": _text(study, "started"),
            "Wall time": _duration(study.get("wall_seconds")),
            "Machine": _machine(study.get("machine")),
            "harmonicvae": _text(study, "version"),
            "MLflow": f"experiment {_text(study, 'experiment')}, run "
            f"{_text(study, 'study_run_id')}, store {_without_password(study, 'tracking_uri')}",
        }
    )
    errors = study.get("reproduction_errors")
    if errors:
        yield markup.paragraph(
            "Known errors of the reproduction were switched on on purpose: "
            f"{_plain(errors)}. These numbers are not those of a sound study.",
            "warning",
        )
    if study.get("command"):
        yield markup.heading("Run it again")
        yield markup.code(_without_password(study, "command"))


def definition_parts(results: Results) -> Iterator[str]:
    """Return the parts of the last section: what every word and number means."""
    size = int(np.prod(results.image_shape)) if results.image_shape else 0
    constant = f"{-size / 2 * math.log(2 * math.pi):.1f} nats here, d = {size}" if size else "nats"
    yield markup.facts(
        {
            "Lipschitz constant": "The smallest L with ‖f(x) − f(y)‖₂ ≤ L·‖x − y‖₂ for all x, y. "
            "Encoder: the mean p(x); decoder: g(z). Output units per input unit.",
            "Lower bound": "The constant is at least this, shown by an input: the largest sampled "
            "norm of the Jacobian.",
            "Upper bound": "The constant is at most this, for every input, not only the data.",
            "Smallest upper bound": "By the best of several methods, with propagated slopes and, "
            "for one input, by branch and bound.",
            "Slopes": "How steep the activations may be. activation: from the function alone, as "
            "the methods are published. propagated: from the outputs of the layers before as "
            "well, still for every input. box: for the inputs of a box only.",
            "Certified": "Proved, all rounding errors of the computation included.",
            "float64": "Computed in float64 and right up to rounding, which was not proved.",
            "Estimate": "No guarantee in either direction; never called a bound.",
            "Mean ± sd": "Over the n models (seeds) of a configuration, sd with n − 1; “–” where "
            "one model allows none or nothing was measured.",
            "Training loss": "‖x − g(z)‖² + KL per sample, the mean over a batch and over the "
            "batches of an epoch, one code z drawn a sample. Up to a constant the negative ELBO of "
            "a decoder of variance ½, so not the negative of the ELBO below. KL is larger for a "
            "smaller σ_enc: not comparable between values of σ_enc.",
            "ELBO": "For a decoder of unit variance: log N(x; g(z), I) − KL in nats per sample, "
            "the mean over codes z and validation samples; larger is better. The constant "
            f"−(d/2)·log 2π ({constant}) is included.",
            "Squared error": "‖x − g(p(x))‖² per sample, mean over the validation samples.",
            "Decoding variance ratio": "Variance of the decoded means over the data, summed over "
            "outputs, divided by that of the data.",
            "Active units": "Latent units whose mean has a variance > 0.01 over the data.",
            "Mean degree": "σ²·E‖J‖² over the variance of the map under N(μ, σ²I): the mean of the "
            "degrees k weighted with the Hermite weights W_k; 1 for an affine map. Estimated.",
            "Damage, relative damage": "‖g(p(x+δ)) − g(p(x))‖₂, and this divided by ‖g(p(x))‖₂.",
            "Max damage / abC": "Largest damage divided by its upper bound a·b·C: a and b upper "
            "bounds of encoder and decoder, C the radius. At most 1.",
            "Log-likelihood degradation": "|log p(x|z*) − log p(x|z)| / log p(x|z), with z and z* "
            "the mean codes of x and x+δ; negative where log p(x|z) < 0.",
        },
        "terms",
    )


def failed_models(results: Results) -> list[dict[str, str]]:
    """Return model, step and reason of every failure in study.json.

    The step is "training" or "evaluation".  Where the file does not say, it is
    "evaluation" for a model that stands in models.csv, else "not recorded".
    """
    failures = results.study.get("failures")
    trained = set(results.models[names.MODEL])
    found = []
    for failure in failures if isinstance(failures, list) else []:
        entry = failure if isinstance(failure, dict) else {"reason": failure}
        model, step = (_plain(entry.get(key, UNKNOWN)) for key in ("model", "step"))
        if step not in ("training", "evaluation"):
            step = "evaluation" if model in trained else UNKNOWN
        found.append({"model": model, "step": step, "reason": _plain(entry.get("reason", UNKNOWN))})
    return found


def failure_lines(failed: list[dict[str, str]]) -> list[str]:
    """Return how many models failed at each step, and what it means for the tables.

    Examples
    --------
    >>> failure_lines([{"model": "a", "step": "training", "reason": "loss is NaN"}])
    ['1 model failed in training: in no table of results']
    """
    steps = [failure["step"] for failure in failed]
    return [
        f"{steps.count(step)} model{'s' if steps.count(step) > 1 else ''} {text}"
        for step, text in FAILED_STEPS.items()
        if step in steps
    ]


def evaluated_rows(study: dict[str, Any]) -> str:
    """Return the rows handed to the evaluation as text, "" if study.json does not say.

    Examples
    --------
    >>> evaluated_rows({"evaluation_rows": {"validation": 1, "training": 1023}})
    '1 validation row and 1023 training rows'
    """
    rows = study.get("evaluation_rows")
    return _row_counts(rows, "row") if isinstance(rows, dict) else ""


def attacked_rows(results: Results) -> str:
    """Return the attacked images as text, by split if it is known, "" if nothing is."""
    attacks = results.attacks
    if {"split", names.MODEL, names.IMAGE} <= set(attacks.columns):
        images = attacks.drop_duplicates([names.MODEL, names.IMAGE])
        splits = images["split"].replace("train", "training")
        counts = splits.groupby(images[names.MODEL]).value_counts().unstack(fill_value=0)
        text = _row_counts({str(name): int(counts[name].max()) for name in counts}, "row")
        return f"{text} with each model" if text else ""
    rows = evaluated_rows(results.study)
    return f"evenly spaced ones of {rows}" if rows else ""


def collapsed_models(models: pd.DataFrame) -> int:
    """Return how many models collapsed, 0 if there is no diagnostic."""
    if names.COLLAPSED not in models:
        return 0
    return int((models[names.COLLAPSED] == True).sum())  # noqa: E712 (None may be among them)


def _model_counts(results: Results) -> str:
    steps = [failure["step"] for failure in failed_models(results)]
    failed, unevaluated = len(steps) - steps.count("evaluation"), steps.count("evaluation")
    text = f"{len(results.models)} trained, {failed} failed"
    return f"{text}; {unevaluated} of those trained could not be evaluated" if unevaluated else text


def _row_counts(counts: dict[str, Any], noun: str) -> str:
    """Return "1 validation row and 7 training rows"; what is 0 or no number is left out."""
    return " and ".join(
        f"{counts[split]} {split} {noun}{'s' if counts[split] != 1 else ''}"
        for split in ("validation", "training")
        if _is_count(counts.get(split))
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)


def _text(study: dict[str, Any], key: str) -> str:
    value = study.get(key)
    return UNKNOWN if value in (None, "", []) else _plain(value)


def _without_password(study: dict[str, Any], key: str) -> str:
    """Return the text without user name and password of the URIs in it."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", _text(study, key))


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or UNKNOWN


def _duration(seconds: object) -> str:
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 100:
        return f"{format_number(float(seconds), 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _machine(machine: object) -> str:
    if not isinstance(machine, dict):
        return UNKNOWN
    parts = [_text(machine, "cpu")]
    units = (("cores", "{} cores"), ("memory_gib", "{} GiB memory"), ("device", "device {}"))
    for key, pattern in (*units, ("python", "Python {}"), ("torch", "torch {}")):
        if key in machine:
            value = machine[key]
            parts.append(pattern.format(format_number(value, 3) if key == "memory_gib" else value))
    return ", ".join(parts)
