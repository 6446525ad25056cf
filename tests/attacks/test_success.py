import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonicvae.attacks.success import success_rate
from harmonicvae.exceptions import InputError

numbers = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8)


@given(numbers, numbers)
def test_counts_damage_above_each_threshold(values, thresholds):
    frame = success_rate(values, thresholds)
    assert list(frame.columns) == ["r", "success_rate"]
    assert frame["r"].tolist() == thresholds
    for r, share in frame.itertuples(index=False):
        assert share == sum(value > r for value in values) / len(values)


def test_ends():
    frame = success_rate([1.0, 2.0], [0.0, 2.0, np.inf])
    assert frame["success_rate"].tolist() == [1.0, 0.0, 0.0]
    assert success_rate(np.array([1.0, 2.0]), 1.0)["success_rate"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("values", "thresholds", "message"),
    [
        ([], [1.0], "values must be a non-empty array"),
        ([[1.0]], [1.0], r"values must be .* got \(1, 1\)"),
        (1.0, [1.0], "values must be a non-empty array"),
        ([np.nan], [1.0], "values must be >= 0 and not NaN"),
        ([np.inf], [1.0], "values must be finite"),
        ([-1.0], [1.0], "values must be >= 0 and not NaN, got -1.0"),
        ([1.0], [], "thresholds must be a non-empty array"),
        ([1.0], [-0.5], "thresholds must be >= 0 and not NaN, got -0.5"),
        ([1.0], [np.nan], "thresholds must be"),
        (["a"], [1.0], "values must be numbers"),
    ],
)
def test_bad_input_is_named(values, thresholds, message):
    with pytest.raises(InputError, match=message):
        success_rate(values, thresholds)
