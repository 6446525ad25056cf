"""Promotion of a compared model: rules on its metrics, and the alias that the best one gets."""

from __future__ import annotations

import difflib
import logging
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import MetricThreshold
from mlflow.models.evaluation import EvaluationResult
from mlflow.models.evaluation.validation import ModelValidationFailedException

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.metric_groups import TRAINING, evaluator_of

BASELINE = "baseline"
_RULE = re.compile(r"\s*([^\s<>=]+)\s*(<=|>=|<|>)\s*(.+?)\s*")
_RELATIVE = re.compile(rf"{BASELINE}\s*(?:([+*-])\s*(\S+))?")
_CHANGES = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_FORM = (
    "METRIC<VALUE, <=, > or >=, where VALUE is a number, baseline, baseline+X, baseline-X or "
    "baseline*X"
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A condition on one metric.

    Parameters
    ----------
    metric : str
    sign : {"<", "<=", ">", ">="}
    value : float
        Finite: the threshold, or the X of ``baseline+X``.
    change : {"", "+", "-", "*"}
        How ``value`` is joined to the baseline's metric; "" for an absolute threshold.
    """

    metric: str
    sign: str
    value: float
    change: str = ""

    def __str__(self) -> str:
        number = f"{self.value!r}".removesuffix(".0")
        right = f"{BASELINE}{self.change}{number}" if self.change else number
        return f"{self.metric}{self.sign}{right}"

    def threshold(self, baseline: Mapping[str, float]) -> float:
        """Return the number that the metric is held against; NaN if the baseline has none.

        Raises
        ------
        InputError
            If a negative metric of the baseline is to be multiplied: 1.01 times −300 is less.

        Examples
        --------
        >>> parse_rule("elbo > baseline + 0.5").threshold({"elbo": -3.0})
        -2.5
        """
        if not self.change:
            return self.value
        known = baseline.get(self.metric, math.nan)
        if self.change == "*" and known < 0:
            raise InputError(
                f"rule {str(self)!r}: the baseline's {self.metric} is {known:g}, and a negative "
                "number is not made better by a factor; write baseline+X or baseline-X"
            )
        return float(_CHANGES[self.change](known, self.value))

    def judge(self, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> str:
        """Return why a model fails, "" if it passes.

        Parameters
        ----------
        metrics, baseline : mapping of str to float
            Of the model, and of the baseline.

        Returns
        -------
        str
            A missing, NaN or infinite metric fails, as does a missing one of the baseline.

        Notes
        -----
        ``mlflow.validate_evaluation_results`` decides.  Its thresholds let equality pass, so a
        strict one is moved to the next float.
        """
        value, limit = metrics.get(self.metric, math.nan), self.threshold(baseline)
        if not math.isfinite(value):
            shown = "not measured" if math.isnan(value) else "infinite"
            return f"{self.metric} is {shown}{_filler(self.metric)}"
        if not math.isfinite(limit):
            return f"the baseline's {self.metric} is not measured{_filler(self.metric)}"
        greater = self.sign.startswith(">")
        if "=" not in self.sign:
            limit = math.nextafter(limit, math.inf if greater else -math.inf)
        threshold = MetricThreshold(threshold=float(limit), greater_is_better=greater)
        candidate = EvaluationResult({self.metric: float(value)}, {})
        try:
            with _quiet():
                mlflow.validate_evaluation_results({self.metric: threshold}, candidate)
        except ModelValidationFailedException:
            told = f" = {self.threshold(baseline):.6g}" if self.change else ""
            return f"{self.metric} = {value:.6g}, not {str(self).removeprefix(self.metric)}{told}"
        return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow from logging two lines for every rule and model."""
    logger = logging.getLogger("mlflow.models.evaluation.validation")
    former = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(former)


def parse_rule(text: str) -> Rule:
    """Read a rule such as ``lipschitz_upper_l2_decoder<20`` or ``elbo>baseline+0.5``.

    Raises
    ------
    InputError
        If it has another form, or its number is not finite.

    Examples
    --------
    >>> rule = parse_rule("damage_l2_r10_mean <= baseline*0.9")
    >>> rule.metric, rule.sign, rule.change, rule.value
    ('damage_l2_r10_mean', '<=', '*', 0.9)
    """
    match = _RULE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"require must be {_FORM}; got {text!r}")
    relative = _RELATIVE.fullmatch(match[3])
    change, number = "", match[3]
    if relative:
        change, number = relative[1] or "+", relative[2] or "0"
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"require must be {_FORM}; got {text!r}")
    return Rule(metric=match[1], sign=match[2], value=value, change=change)


def check_metric(name: str, known: Sequence[str], option: str = "require") -> None:
    """Refuse a metric that neither a model has nor harmonicvae measures.

    Raises
    ------
    InputError
        With the nearest names.
    """
    if name in known or evaluator_of(name):
        return
    near = difflib.get_close_matches(name, sorted(known), n=4, cutoff=0.4)
    near += [item for item in sorted(known) if name in item and item not in near][:4]
    listed = ", ".join(near) or ", ".join(sorted(known)[:8]) or "none is recorded"
    raise InputError(f"{option} names no metric of these models: {name!r}; near: {listed}")


def check_alias(alias: str) -> str:
    """Return an alias that MLflow takes.

    Raises
    ------
    InputError
        If it holds other than letters, digits, "-" and "_", or means something else.

    Examples
    --------
    >>> check_alias("champion")
    'champion'
    """
    taken = alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", alias) or taken:
        raise InputError(
            "alias must be letters, digits, '-' and '_', and not 'latest' or like 'v1'; got "
            f"{alias!r}"
        )
    return alias


def preferred(prefer: str) -> tuple[str, bool]:
    """Return the metric that decides between models, and whether the highest is best.

    Examples
    --------
    >>> preferred("elbo"), preferred("-squared_error")
    (('elbo', True), ('squared_error', False))
    """
    return prefer.removeprefix("-"), not prefer.startswith("-")


def best_of(candidates: Sequence[tuple[Any, Mapping[str, float]]], prefer: str) -> Any:
    """Return the candidate with the best metric; one without it comes last.

    Parameters
    ----------
    candidates : sequence of (anything, metrics)
        At least one; of equal ones the first wins.
    prefer : str
        Metric, highest is best; "-metric" for lowest.
    """
    metric, highest = preferred(prefer)

    def rank(candidate: tuple[Any, Mapping[str, float]]) -> float:
        value = candidate[1].get(metric, math.nan)
        return -math.inf if math.isnan(value) else (value if highest else -value)

    return max(candidates, key=rank)[0]


def set_alias(client: Any, name: str, alias: str, version: str) -> str:
    """Point an alias to a version and return the version it pointed to before, or ""."""
    try:
        former = str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException:
        former = ""
    client.set_registered_model_alias(name, alias, version)
    return former


def _filler(metric: str) -> str:
    """Say who would fill a missing metric."""
    evaluator = evaluator_of(metric)
    if evaluator == TRAINING:
        return " (recorded by training)"
    verb = {names.EVALUATOR_LIPSCHITZ: "lipschitz", names.EVALUATOR_MAX_DAMAGE: "attack"}
    return f" (harmonicvae {verb[evaluator]} fills it)" if evaluator in verb else ""
