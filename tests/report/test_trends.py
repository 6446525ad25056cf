"""The table of trends against a count by hand and scipy's t interval."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import trend_table

#: (σ_enc, σ_N) of each column of a study, σ rising.
COLUMNS = {
    "decoder": ((0.1, 0.0), (0.5, 0.0), (1.0, 0.0)),
    "encoder": ((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)),
}
GRID = sorted({pair for pairs in COLUMNS.values() for pair in pairs})
SEEDS = [f"1460971406936680{place}" for place in range(4)]  # told apart by their last digits only
METRICS = {
    "lower bound": names.lipschitz_lower,
    "mean degree": lambda side: names.harmonic_metric(names.MEAN_DEGREE, side),
}

usual = st.integers(1, 2000).map(lambda number: number / 7)
absent = st.sampled_from([np.nan, 0.0, -3.0, np.inf])
values = st.one_of(usual, usual, usual, usual, usual, absent)


@st.composite
def studies(draw, numbers=values):
    """Return a table of models, and its numbers by (column, seed, σ_enc, σ_N)."""
    rows, known = [], {}
    for seed in SEEDS[: draw(st.integers(1, len(SEEDS)))]:
        for std, noise in GRID:
            row = {names.ENCODER_STD: std, names.INPUT_NOISE_STD: noise, names.SEED: seed}
            for side in names.SIDES:
                for column_of in METRICS.values():
                    row[column_of(side)] = draw(numbers)
                    known[column_of(side), seed, std, noise] = row[column_of(side)]
            rows.append(row)
    return pd.DataFrame(rows), known


def by_hand(known, side, column):
    """Return what the table promises of one quantity, from plain loops; None if left out."""
    pairs = COLUMNS[side]
    n = in_order = 0
    logs = []
    for seed in SEEDS:
        line = [known.get((column, seed, *pair), np.nan) for pair in pairs]
        fine = [0 < value < np.inf for value in line]
        if all(fine):
            n += 1
            in_order += line[0] > line[1] > line[2]
        if fine[0] and fine[2]:
            logs.append(np.log(line[2]) - np.log(line[0]))
    if not logs:
        return None
    middle = np.mean(logs)
    low = high = np.nan
    if len(logs) > 1 and np.ptp(logs) > 1e-12:
        low, high = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    elif len(logs) > 1:
        low = high = middle
    verdict = "unclear"
    if high < 0:
        verdict = "falls"
    elif low > 0:
        verdict = "rises"
    edge = not min(abs(low), abs(high)) > 1e-9  # rounding decides
    return n, in_order, np.exp([middle, low, high]), verdict, edge and len(logs) > 1


@settings(max_examples=40)
@given(studies())
def test_every_row_is_what_scipy_and_a_count_by_hand_give(study):
    models, known = study
    table = trend_table(models)
    expected = {
        (side, label): by_hand(known, side, column_of(side))
        for side in COLUMNS
        for label, column_of in METRICS.items()
    }
    expected = {key: row for key, row in expected.items() if row is not None}
    assert len(table) == len(expected)
    for row in table.itertuples():
        n, in_order, change, verdict, edge = expected[row.side, row.quantity]
        assert (row.n, row.in_order) == (n, in_order)
        found = [row.change, row.change_low, row.change_high]
        np.testing.assert_allclose(found, change, rtol=1e-8)
        assert row.verdict == verdict or edge
        assert row.varied == {"decoder": "σ_enc", "encoder": "σ_N"}[row.side]
        assert (row.smallest, row.largest) == {"decoder": (0.1, 1), "encoder": (0, 1)}[row.side]


@settings(max_examples=15)
@given(studies(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(study, random):
    models, _ = study
    order = list(range(len(models)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(trend_table(models), trend_table(models.iloc[order]), rtol=1e-12)


@settings(max_examples=15)
@given(studies(), st.integers(-30, 30))
def test_other_units_change_nothing(study, exponent):
    models, _ = study
    columns = [column_of(side) for side in names.SIDES for column_of in METRICS.values()]
    scaled = models.assign(**{column: models[column] * 2.0**exponent for column in columns})
    pd.testing.assert_frame_equal(trend_table(models), trend_table(scaled), rtol=1e-12)


@settings(max_examples=15)
@given(studies(usual))
def test_reciprocals_turn_falls_into_rises(study):
    models, _ = study
    columns = [column_of(side) for side in names.SIDES for column_of in METRICS.values()]
    table = trend_table(models)
    turned = trend_table(models.assign(**{column: 1 / models[column] for column in columns}))
    np.testing.assert_allclose(turned["change_low"], 1 / table["change_high"], rtol=1e-9)
    mirror = {"falls": "rises", "rises": "falls", "unclear": "unclear"}
    sure = (np.log(table[["change_low", "change_high"]]).abs() > 1e-9).all(axis=1)
    assert (turned["verdict"] == table["verdict"].map(mirror))[sure].all()


def frame(rows):
    """Return models from (σ_enc, seed, lower bound of the decoder)."""
    table = pd.DataFrame(rows, columns=[names.ENCODER_STD, names.SEED, "value"])
    table[names.INPUT_NOISE_STD] = 0.0
    return table.rename(columns={"value": names.lipschitz_lower("decoder")})


def test_a_single_seed_has_no_interval_and_is_unclear_however_far_it_falls():
    (row,) = trend_table(frame([(1.0, "1", 1e-6), (0.1, "1", 1e6)])).itertuples()
    assert (row.n, row.in_order, row.verdict) == (1, 1, "unclear")
    assert row.change == pytest.approx(1e-12)
    assert np.isnan([row.change_low, row.change_high]).all()


def test_a_seed_without_a_value_in_the_middle_counts_for_the_change_only():
    rows = [(1.0, "1", 1.0), (0.5, "1", np.nan), (0.1, "1", 4.0)]
    rows += [(1.0, "2", 1.0), (0.5, "2", 2.0), (0.1, "2", 9.0)]
    (row,) = trend_table(frame(rows)).itertuples()
    assert (row.n, row.in_order) == (1, 1)
    assert row.change == pytest.approx(1 / 6)


def test_equal_neighbours_are_not_in_order():
    (row,) = trend_table(frame([(1.0, "1", 1), (0.5, "1", 2), (0.1, "1", 2)])).itertuples()
    assert (row.n, row.in_order) == (1, 0)


def test_sigmas_are_ordered_as_numbers_not_as_text():
    rows = [(std, "1", 1 / std) for std in (10.0, 9.0, 0.5)]
    (row,) = trend_table(frame(rows)).itertuples()
    assert (row.smallest, row.largest, row.in_order) == (0.5, 10, 1)


def test_a_learned_sigma_is_no_step_of_the_trend():
    rows = [(1.0, "1", 1.0), (0.1, "1", 2.0), ("learned", "1", 50.0)]
    (row,) = trend_table(frame(rows)).itertuples()
    assert (row.smallest, row.largest, row.n, row.in_order) == (0.1, 1.0, 1, 1)


def test_in_a_whole_grid_each_side_varies_its_own_sigma_only():
    rows = [
        {
            names.ENCODER_STD: std,
            names.INPUT_NOISE_STD: noise,
            names.SEED: seed,
            names.lipschitz_lower("decoder"): (1 + noise) / std,
            names.lipschitz_lower("encoder"): std / (1 + noise),
        }
        for seed in ("1", "2")
        for std in (1.0, 0.5, 0.1)
        for noise in (1.0, 0.5, 0.0)
    ]
    decoder, encoder = trend_table(pd.DataFrame(rows)).itertuples()
    assert (decoder.n, decoder.in_order, encoder.n, encoder.in_order) == (2, 2, 2, 2)
    assert (decoder.change, encoder.change) == (pytest.approx(0.1), pytest.approx(0.5))


@pytest.mark.parametrize(
    "models",
    [
        frame([(0.5, "1", 1.0), (0.5, "2", 2.0)]),
        frame([(1.0, "1", 1.0), (0.1, "2", 2.0)]),  # no seed at both ends
        frame([(1.0, "1", 1.0), (0.1, "1", 2.0)]).rename(columns=lambda name: name[:15]),
        frame([]),
    ],
    ids=["one σ", "unpaired seeds", "nothing measured", "no models"],
)
def test_where_there_is_nothing_to_compare_the_table_is_empty(models):
    assert trend_table(models).empty


@pytest.mark.parametrize("column", [names.ENCODER_STD, names.INPUT_NOISE_STD])
def test_models_without_a_sigma_are_refused(column):
    with pytest.raises(InputError, match=column):
        trend_table(frame([(1.0, "1", 1.0), (0.1, "1", 2.0)]).drop(columns=column))
