"""The metrics of a compared model: which there are, who measures them, how they are called."""

import re
from collections.abc import Iterable

from harmonicvae import names

CERTIFIED = names.CERTIFIED_MARGIN
#: Where a metric comes from when no evaluator measures it.
TRAINING = "training"
_OF_TRAINING = (
    names.ELBO,
    names.SQUARED_ERROR,
    names.ACTIVE_UNITS,
    names.DECODING_VARIANCE_RATIO,
    names.COLLAPSED,
    names.TRAIN_SECONDS,
)
_OF_LIPSCHITZ = tuple(
    name(side)
    for side in ("decoder", "encoder")
    for name in (names.lipschitz_lower, names.lipschitz_upper, names.lipschitz_ratio)
)
_NUMBER = r"[0-9.]+(?:e[+-]?[0-9]+)?"
_LIPSCHITZ = re.compile(
    r"lipschitz_(?:upper_l2_(?:encoder|decoder)(?:_\w+)?|(?:lower|ratio|gap)_l2_(?:encoder|decoder)"
    r"|seconds_(?:encoder|decoder))"
)
_ATTACK = re.compile(rf"(\w+)_l2_r({_NUMBER})_(mean|max)")
_MARGIN = re.compile(rf"(\w+_l2)(?:_r({_NUMBER}))?_rel({_NUMBER})_mean")
_WORDS = {
    names.ELBO: "ELBO (nats)",
    names.SQUARED_ERROR: "squared error",
    names.TRAIN_SECONDS: "training (s)",
    names.DAMAGE: "damage",
    names.CERTIFIED_MARGIN: "certified margin",
    names.FIRST_ORDER_MARGIN: "first-order margin (estimate)",
    names.ROBUSTNESS: "simulated robustness",
    names.BOUND_RATIO: "damage / abC",
    names.SSIM: "SSIM",
}


def evaluator_of(metric: str) -> str:
    """Return which evaluator measures a metric, "training", or "" for none of harmonicvae's.

    Examples
    --------
    >>> [evaluator_of(name) for name in ("elbo", "lipschitz_upper_l2_decoder", "accuracy")]
    ['training', 'lipschitz', '']
    >>> evaluator_of("damage_l2_r10_mean"), evaluator_of("certified_margin_l2_rel0.5_mean")
    ('max_damage', 'max_damage')
    """
    if metric in _OF_TRAINING:
        return TRAINING
    if _LIPSCHITZ.fullmatch(metric):
        return names.EVALUATOR_LIPSCHITZ
    attack, margin = _ATTACK.fullmatch(metric), _MARGIN.fullmatch(metric)
    known = (attack and attack[1] in names.ATTACK_METRICS) or (
        margin and margin[1] in names.MARGIN_COLUMNS
    )
    extra = metric in (names.ATTACK_SECONDS, names.ATTACK_WARNINGS)
    return names.EVALUATOR_MAX_DAMAGE if known or extra else ""


def attack_radii(metrics: Iterable[str]) -> list[float]:
    """Return the ℓ2 radii at which damage was measured, rising.

    Examples
    --------
    >>> attack_radii(["damage_l2_r20_mean", "damage_l2_r0.5_max", "elbo"])
    [0.5, 20.0]
    """
    found = [_ATTACK.fullmatch(metric) for metric in metrics]
    return sorted({float(match[2]) for match in found if match and match[1] == names.DAMAGE})


def margin_shares(metrics: Iterable[str]) -> list[float]:
    """Return the relative r for which a certified margin was measured, rising.

    Examples
    --------
    >>> margin_shares(["certified_margin_l2_rel0.5_mean", "elbo"])
    [0.5]
    """
    found = [_MARGIN.fullmatch(metric) for metric in metrics]
    return sorted({float(match[3]) for match in found if match and match[1] == CERTIFIED})


def compared_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the metrics that a comparison shows, in its order.

    Parameters
    ----------
    metrics : iterable of str
        Those that some model has: its radii and relative r are taken up.

    Returns
    -------
    list of str
        ELBO, squared error and active units; bounds of decoder and encoder with their
        ratio; mean and maximum damage at each radius, mean damage over its bound; certified
        and first-order margin for each relative r.  Named whether measured or not.
    """
    known = list(metrics)
    shown = [names.ELBO, names.SQUARED_ERROR, names.ACTIVE_UNITS, *_OF_LIPSCHITZ]
    for radius in attack_radii(known):
        shown += [names.attack_metric(names.DAMAGE, radius, part) for part in ("mean", "max")]
        shown.append(names.attack_metric(names.BOUND_RATIO, radius, "max"))
    for column in (names.CERTIFIED_MARGIN, names.FIRST_ORDER_MARGIN):
        shown += [names.margin_metric(column, share) for share in margin_shares(known)]
    return shown


def headline_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the few metrics that are drawn, and printed in the terminal's differences.

    Examples
    --------
    >>> headline_metrics(["elbo", "damage_l2_r10_mean", "damage_l2_r10_max"])
    ['elbo', 'damage_l2_r10_mean']
    """
    known = set(metrics)
    wanted = [names.ELBO, names.SQUARED_ERROR]
    wanted += [names.lipschitz_upper(side) for side in ("decoder", "encoder")]
    wanted += [names.attack_metric(names.DAMAGE, radius) for radius in attack_radii(known)]
    wanted += [names.margin_metric(CERTIFIED, share) for share in margin_shares(known)]
    return [metric for metric in wanted if metric in known]


def metric_heading(metric: str) -> str:
    """Return a metric's name in words.

    Examples
    --------
    >>> metric_heading("lipschitz_upper_l2_decoder")
    'decoder: upper bound'
    >>> metric_heading("damage_l2_r10_max"), metric_heading("certified_margin_l2_rel0.5_mean")
    ('damage max, C = 10', 'certified margin, r = 0.5‖g‖')
    """
    bound = re.fullmatch(r"lipschitz_(upper|lower|ratio)_l2_(encoder|decoder)(?:_(\w+))?", metric)
    if bound:
        what = {"upper": "upper bound", "lower": "lower bound", "ratio": "upper / lower"}[bound[1]]
        return f"{bound[2]}: {what}" + (f" ({bound[3].replace('_', ' ')})" if bound[3] else "")
    attack, margin = _ATTACK.fullmatch(metric), _MARGIN.fullmatch(metric)
    if margin:
        at = f" at C = {margin[2]}" if margin[2] else ""
        return f"{_words(margin[1])}{at}, r = {margin[3]}‖g‖"
    if attack:
        return f"{_words(attack[1])} {attack[3]}, C = {attack[2]}"
    return _words(metric)


def _words(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))
