"""The first and the last section: what was run, and what the words mean."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from harmonicvae import names
from harmonicvae.report import markup
from harmonicvae.report.formatting import format_number
from harmonicvae.report.results import Results

UNKNOWN = "not recorded"


def summary_parts(results: Results) -> Iterator[str]:
    """Return the parts of the first section: what was run, where, and how to repeat it."""
    study = results.study
    yield markup.facts(
        {
            "Data set": _text(study, names.DATASET)
            + f", {_text(study, 'n_train')} training and {_text(study, 'n_validation')} "
            + f"validation samples of shape {_shape(results.image_shape)}",
            "Data digest": _text(study, "data_digest"),
            "Preset": f"{_text(study, 'preset')}, {_text(study, 'epochs')} epochs",
            "Models": f"{len(results.models)} trained, {len(failed_models(study))} failed",
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
            "Certified": "Proved, all rounding errors of the computation included.",
            "float64": "Computed in float64 and right up to rounding, which was not proved.",
            "Estimate": "No guarantee in either direction; never called a bound.",
            "Mean ± sd": "Over the n models (seeds) of a configuration, sd with n − 1; “–” where "
            "one model allows none or nothing was measured.",
            "ELBO": "Mean per sample of log N(x; g(z), 1) − KL, in nats, larger is better. The "
            f"constant −(d/2)·log 2π ({constant}) is included. With σ_enc fixed, the loss is "
            "not comparable between values of σ_enc.",
            "Decoding variance ratio": "Variance of the decoded means over the data, summed over "
            "outputs, divided by that of the data.",
            "Active units": "Latent units whose mean has a variance > 0.01 over the data.",
            "Damage, relative damage": "‖g(p(x+δ)) − g(p(x))‖₂, and this divided by ‖g(p(x))‖₂.",
            "Max damage / abC": "Largest damage divided by its upper bound a·b·C: a and b upper "
            "bounds of encoder and decoder, C the radius. At most 1.",
            "Log-likelihood degradation": "|log p(x|z*) − log p(x|z)| / log p(x|z), with z and z* "
            "the mean codes of x and x+δ; negative where log p(x|z) < 0.",
        },
        "terms",
    )


def failed_models(study: dict[str, Any]) -> list[dict[str, str]]:
    """Return model and reason of every failure in study.json."""
    failures = study.get("failures")
    if not isinstance(failures, list):
        return []
    return [
        {key: _plain(failure.get(key, UNKNOWN)) for key in ("model", "reason")}
        if isinstance(failure, dict)
        else {"model": UNKNOWN, "reason": _plain(failure)}
        for failure in failures
    ]


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
