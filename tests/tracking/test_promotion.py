"""Rules: how they are read, and that equality, NaN and what is missing go the right way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.tracking.promotion import Rule, best_of, check_alias, parse_rule

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)
SIGNS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@given(st.sampled_from(sorted(SIGNS)), st.sampled_from(["", "+", "-", "*"]), FINITE)
def test_rules_read_back_as_written(sign, change, value):
    rule = Rule(metric=names.lipschitz_upper("decoder"), sign=sign, value=value, change=change)
    assert parse_rule(str(rule)) == rule
    assert (
        parse_rule(f"  {rule.metric} {sign} {str(rule)[len(rule.metric) + len(sign) :]} ") == rule
    )


@given(st.text(max_size=30))
def test_any_text_is_a_rule_or_an_input_error(text):
    try:
        rule = parse_rule(text)
    except InputError as error:
        told = str(error)
    else:
        assert math.isfinite(rule.value)
        told = repr(text) if rule.metric in text else ""
    assert repr(text) in told


@given(st.sampled_from(sorted(SIGNS)), FINITE, FINITE)
def test_rules_compare_as_their_sign_says(sign, value, limit):
    for number in (value, limit, math.nextafter(limit, math.inf), math.nextafter(limit, -math.inf)):
        reason = parse_rule(f"x{sign}{limit!r}").judge({"x": number}, {})
        assert (reason == "") == SIGNS[sign](number, limit)


@pytest.mark.parametrize("sign", sorted(SIGNS))
@pytest.mark.parametrize("metrics", [{}, {"elbo": math.nan}, {"elbo": math.inf}])
def test_what_is_not_a_finite_number_fails_every_rule(sign, metrics):
    rule = parse_rule(f"elbo{sign}0")
    assert rule.judge(metrics, {})
    assert rule.judge({"elbo": -math.inf}, {})
    against = parse_rule(f"elbo{sign}baseline")
    assert against.judge({"elbo": 1.0}, metrics)


@pytest.mark.parametrize(
    ("text", "baseline", "expected"),
    [
        ("elbo>baseline", -3.0, -3.0),
        ("elbo>baseline+0.5", -3.0, -2.5),
        ("elbo > baseline - 1e1", -3.0, -13.0),
        ("elbo<baseline*1.5", 2.0, 3.0),
        ("elbo<baseline+-1", 2.0, 1.0),
        ("elbo<7", 2.0, 7.0),
    ],
)
def test_thresholds_beside_the_baseline(text, baseline, expected):
    assert parse_rule(text).threshold({"elbo": baseline}) == expected


@pytest.mark.parametrize(
    "text",
    ["", "elbo", "<3", "elbo<", "elbo=3", "elbo==3", "elbo<>3", "elbo<inf", "elbo<baseline/2",
     "elbo<baseline*", "elbo<3<4", "elbo<1e999", "elbo<baseline*nan", None],
)  # fmt: skip
def test_other_forms_are_refused(text):
    with pytest.raises(InputError, match="require must be METRIC<VALUE"):
        parse_rule(text)


def test_the_best_is_the_highest_or_lowest_and_nan_comes_last():
    candidates = [("a", {}), ("b", {"x": 2.0}), ("c", {"x": 1.0}), ("d", {"x": math.nan})]
    assert best_of(candidates, "x") == "b"
    assert best_of(candidates, "-x") == "c"
    assert best_of(candidates, "y") == "a"


@pytest.mark.parametrize(
    "alias", ["", "latest", "LATEST", "v1", "V20", "a b", "a/b", "ä", "a" * 256]
)
def test_aliases_that_mlflow_refuses(alias):
    with pytest.raises(InputError, match="alias must be"):
        check_alias(alias)
