"""Comparison tables and page: statistics against scipy, escaping, what is missing, the figure."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import figures
from harmonicvae.report.comparison_page import ComparisonTables, write_comparison
from harmonicvae.report.comparison_tables import (
    UNKNOWN,
    difference_table,
    missing_table,
    model_table,
    seed_siblings,
    spread_table,
    with_configurations,
)
from harmonicvae.report.comparison_views import summarise_comparison
from harmonicvae.report.metric_groups import compared_metrics, evaluator_of
from harmonicvae.report.spread import welch_difference
from tests.report.result_folders import NASTY
from tests.report.test_document import read

VALUES = st.lists(
    st.floats(-1e6, 1e6).map(lambda v: round(v, 3)), min_size=2, max_size=6, unique=True
)
UPPER = names.lipschitz_upper("decoder")
PARAMETERS = (names.DATASET, names.ENCODER_STD, names.INPUT_NOISE_STD, names.EPOCHS)


def table(*rows):
    """Models by (model, σ_enc, seed, ELBO), all of them compared, the last one newest."""
    found = [
        {
            names.MODEL: model,
            "compared": True,
            "order": (place, 1),
            "uri": f"models:/{model}",
            "model_uri": f"models:/{model}",
            "model_id": "",
            "run_id": "0" * 32,
            names.DATASET: "sinc",
            names.ENCODER_STD: std,
            names.INPUT_NOISE_STD: "0",
            names.EPOCHS: "3",
            names.SEED: seed,
            names.ELBO: elbo,
        }
        for place, (model, std, seed, elbo) in enumerate(rows)
    ]
    return with_configurations(pd.DataFrame(found), PARAMETERS)


GRID = table(
    ("a/1", "1", "1", -300.0),
    ("a/2", "1", "2", -302.0),
    ("a/3", "0.1", "1", -310.0),
    ("a/4", "0.1", "2", -315.0),
)


def page_of(models, folder, **changes):
    baseline = models[names.MODEL].iloc[0]
    shown = {
        "models": models,
        "configurations": spread_table(models),
        "differences": difference_table(models, models["configuration"].iloc[0]),
        "missing": missing_table(models),
        "sources": pd.DataFrame(columns=[names.MODEL, "evaluator", "metric", "run_id", "ended",
                                         "rows", "images", "methods"]),
        "baseline": baseline,
    }  # fmt: skip
    return write_comparison(ComparisonTables(**shown | changes), folder)


# ---------------------------------------------------------------------------- statistics


@given(VALUES, VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_welch_agrees_with_scipy(values, baseline, confidence):
    found = welch_difference(values, baseline, confidence)
    test = scipy.stats.ttest_ind(values, baseline, equal_var=False)
    interval = test.confidence_interval(confidence)
    scale = max(map(abs, [*values, *baseline]))
    assert found.degrees == pytest.approx(test.df, rel=1e-6)
    assert found.low == pytest.approx(interval.low, rel=1e-6, abs=1e-9 * scale)
    assert found.high == pytest.approx(interval.high, rel=1e-6, abs=1e-9 * scale)
    beyond = found.low > 0 or found.high < 0
    assert found.verdict.endswith("beyond the seed-to-seed spread") == beyond
    if beyond:
        assert found.verdict.startswith("higher" if found.value > 0 else "lower")


def test_welch_by_hand():
    """s² = 1 and 4 with n = 2 and 4: variance 1.5, ν = 1.5² / (0.5² + 1/3) = 27/7."""
    found = welch_difference(
        [10 - math.sqrt(0.5), 10 + math.sqrt(0.5)],
        [-math.sqrt(3), -math.sqrt(3)] + [math.sqrt(3)] * 2,
    )
    assert found.value == pytest.approx(10)
    assert found.degrees == pytest.approx(27 / 7)
    reach = scipy.stats.t.ppf(0.975, 27 / 7) * math.sqrt(1.5)
    assert (found.low, found.high) == pytest.approx((10 - reach, 10 + reach))


@pytest.mark.parametrize(
    ("values", "baseline", "verdict"),
    [
        ([1.0], [2.0, 3.0], "no spread known (1 seed)"),
        ([1.0, 2.0], [3.0], "no spread known (1 seed)"),
        ([1.0, math.nan], [3.0, 4.0], "no spread known (1 seed)"),
        ([], [3.0, 4.0], "not measured"),
        ([math.nan], [3.0, 4.0], "not measured"),
        ([math.inf, 1.0], [3.0, 4.0], "not finite"),
        ([1.0, 1.0], [1.0, 1.0], "the same for every seed"),
        ([2.0, 2.0], [1.0, 1.0], "higher, beyond the seed-to-seed spread"),
        ([1e-200, 2e-200], [1e-200, 2e-200], "the same for every seed"),
    ],
)
def test_what_welch_cannot_say(values, baseline, verdict):
    found = welch_difference(values, baseline)
    assert found.verdict == verdict
    assert math.isnan(found.low) == (verdict.startswith("no"))


def test_confidence_is_checked():
    with pytest.raises(InputError, match="confidence must be in"):
        welch_difference([1.0, 2.0], [1.0, 2.0], 95)


# -------------------------------------------------------------------------------- tables


def test_spread_and_differences_of_a_grid():
    spread = spread_table(GRID).set_index("configuration")
    assert spread["n"].tolist() == [2, 2]
    assert spread["elbo_mean"].tolist() == [-301.0, -312.5]
    assert spread["elbo_sd"].tolist() == pytest.approx([math.sqrt(2), math.sqrt(12.5)])
    (row,) = difference_table(GRID, "σ_enc = 1, σ_N = 0").to_dict("records")
    assert row["configuration"] == "σ_enc = 0.1, σ_N = 0"
    assert row["difference"] == -11.5
    test = scipy.stats.ttest_ind([-310, -315], [-300, -302], equal_var=False)
    assert row["low"] == pytest.approx(test.confidence_interval().low)


def test_a_seed_counts_once():
    models = table(
        ("a/1", "1", "1", -300.0), ("a/2", "1", "1", -310.0), ("a/3", "1", "2", -320.0),
        ("a/4", "1", UNKNOWN, -1.0), ("a/5", "0.1", UNKNOWN, -2.0), ("a/6", "0.1", UNKNOWN, -3.0),
    )  # fmt: skip
    assert seed_siblings(models)[names.MODEL].tolist() == ["a/2", "a/3", "a/6"]
    models.loc[1, "compared"] = False
    assert seed_siblings(models)[names.MODEL].tolist() == ["a/1", "a/3", "a/6"]


def test_unknown_noise_is_a_configuration_of_its_own():
    models = table(("a/1", UNKNOWN, "1", -300.0), ("a/2", UNKNOWN, "2", -310.0))
    assert models["configuration"].nunique() == 2


def test_the_model_table_has_every_column_and_keeps_long_seeds():
    models = table(("a/1", "1", "14609714069366804553", -300.0))
    shown = model_table(models)
    assert shown[names.SEED].tolist() == ["14609714069366804553"]
    for side in names.SIDES:
        assert shown[names.lipschitz_upper(side)].isna().all()


@pytest.mark.parametrize("radius", [0.25, 10.0, 1e6, 1e-5])
def test_every_metric_shown_has_somebody_who_measures_it(radius):
    known = [
        names.attack_metric(names.DAMAGE, radius),
        names.margin_metric(names.CERTIFIED_MARGIN, radius),
        names.margin_metric(names.robustness_column(radius), radius),
    ]
    shown = compared_metrics(known)
    assert set(known[:2]) < set(shown)
    assert all(evaluator_of(metric) for metric in [*shown, *known])
    assert evaluator_of("damage_l2_rten_mean") == evaluator_of("lipschitz") == ""


# ---------------------------------------------------------------------------------- page


def test_the_page_is_self_contained_and_complete(tmp_path):
    models = GRID.assign(**{UPPER: [1.0, 2.0, 3.0, np.nan], "damage_l2_r1_mean": 0.5})
    models.loc[1, "compared"] = False
    decisions = pd.DataFrame(
        {"model": ["a/1"], "rule": ["elbo>-400"], "passed": [True], "reason": [""]}
    )
    path = page_of(models, tmp_path, decisions=decisions, sentence="Alias 'x' is set.")
    page = read(path)
    for text in ("−300.0", "σ_enc = 0.1, σ_N = 0", "Welch", "elbo>-400", "Alias 'x' is set.",
                 "a/4 lacks decoder: lower bound, decoder: upper bound", "–"):  # fmt: skip
        assert text in page.text, text
    assert all(source.startswith("data:") for source in page.values("src"))
    assert not [link for link in page.values("href") if not link.startswith("#")]
    anchors = set(page.values("id"))
    assert {link.removeprefix("#") for link in page.values("href")} <= anchors
    for name in (names.FILE_COMPARED_MODELS, names.FILE_CONFIGURATIONS, names.FILE_DIFFERENCES):
        assert len(pd.read_csv(tmp_path / name)) > 0
    assert (tmp_path / "figures" / "comparison.svg").exists()
    written = path.read_bytes()
    assert page_of(models, tmp_path, decisions=decisions, sentence="Alias 'x' is set.") == path
    assert path.read_bytes() == written


def test_every_text_is_escaped(tmp_path):
    models = table((NASTY, NASTY, NASTY, -300.0), ("a/2", "1", "2", -301.0))
    decisions = pd.DataFrame(
        {"model": [NASTY], "rule": [NASTY], "passed": [False], "reason": NASTY}
    )
    sources = pd.DataFrame(
        [dict.fromkeys((names.MODEL, "evaluator", "metric", "run_id", "ended", "rows", "images",
                        "methods"), NASTY)]
    )  # fmt: skip
    path = page_of(models, tmp_path, decisions=decisions, sources=sources, sentence=NASTY,
                   notes=(NASTY,), facts={NASTY: NASTY})  # fmt: skip
    page = read(path)
    assert "script" not in page.tags
    assert page.text.count(NASTY) >= 10


def test_names_with_underscores_stay_as_they_are(tmp_path):
    page = read(
        page_of(table(("my_model/1", "1", "1", -3.0), ("b_mean/2", "2", "1", -4.0)), tmp_path)
    )
    for text in ("my_model/1", "b_mean/2", "σ_enc = 1, σ_N = 0"):
        assert page.text.count(text) > 1
    assert "my model" not in page.text
    assert "σ enc" not in page.text


@pytest.mark.parametrize("elbo", [math.nan, -math.inf, None])
def test_models_without_any_number_make_a_page_all_the_same(tmp_path, elbo):
    models = table(("a/1", "1", "1", elbo), ("a/2", "0.1", UNKNOWN, elbo))
    page = read(page_of(models, tmp_path))
    assert "No figure: no metric of the compared models can be drawn" in page.text
    text = summarise_comparison(
        models, spread_table(models), difference_table(models, models["configuration"].iloc[0]),
        missing_table(models),
    )  # fmt: skip
    assert "harmonicvae attack models:/a/2" in text


def test_tables_for_the_terminal_are_narrow():
    models = GRID.assign(**{UPPER: 1.0, "damage_l2_r1_mean": 0.5})
    text = summarise_comparison(
        models, spread_table(models), difference_table(models, "σ_enc = 1, σ_N = 0"),
        missing_table(models).iloc[:0],
    )  # fmt: skip
    assert max(map(len, text.splitlines())) <= 100
    assert "the same" in text


def test_the_figure_has_a_panel_a_metric_and_marks_who_is_compared():
    models = GRID.assign(**{UPPER: [0.01, 0.02, 5.0, 6.0]})
    models.loc[1, "compared"] = False
    figure = figures.plot_comparison(models)
    assert len(figure.axes) == 2
    elbo, upper = figure.axes
    assert upper.get_yscale() == "log"
    assert elbo.get_yscale() == "linear"
    points = [line for line in elbo.lines if line.get_marker() in ("o", "s")]
    assert [line.get_ydata()[0] for line in points] == GRID[names.ELBO].tolist()
    hollow = [line.get_markerfacecolor() == "white" for line in points]
    assert hollow == [False, True, False, False]
    assert len({line.get_marker() for line in points}) == 2
    (first, second) = elbo.containers
    bars = [first[2][0].get_segments()[0][:, 1], second[2][0].get_segments()[0][:, 1]]
    np.testing.assert_allclose(bars[0], -301 + math.sqrt(2) * np.array([-1, 1]))
