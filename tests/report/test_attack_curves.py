"""The table of margins and the curves of damage and margins."""

import numpy as np
import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import figures
from harmonicvae.report.margin_tables import margin_table
from tests.report.result_folders import SEEDS, build_attacks, build_margins, build_models

MODELS = build_models("cifar10", SEEDS, nasty=False)


def test_margins_are_means_over_images_then_over_models():
    margins = build_margins(MODELS)
    table = margin_table(margins, MODELS)
    first = table.iloc[0]
    chosen = MODELS[
        (MODELS[names.ENCODER_STD].astype(float) == float(first[names.ENCODER_STD]))
        & (MODELS[names.INPUT_NOISE_STD].astype(float) == float(first[names.INPUT_NOISE_STD]))
    ][names.MODEL]
    rows = margins[
        margins[names.MODEL].isin(chosen) & (margins[names.RELATIVE_R] == first[names.RELATIVE_R])
    ]
    for column in (names.CERTIFIED_MARGIN, names.robustness_column(10.0)):
        each = [rows.loc[rows[names.MODEL] == model, column].mean() for model in chosen]
        assert first[f"{column}_mean"] == pytest.approx(np.mean(each))
        assert first[f"{column}_sd"] == pytest.approx(np.std(each, ddof=1))
    assert first["n"] == len(chosen)
    assert first["images"] == len(rows)


def test_missing_columns_are_named():
    with pytest.raises(InputError, match="relative_r"):
        margin_table(build_margins(MODELS).drop(columns=names.RELATIVE_R), MODELS)
    with pytest.raises(InputError, match="damage"):
        figures.plot_damage(build_attacks(MODELS).drop(columns=names.DAMAGE))
    with pytest.raises(InputError, match=names.CERTIFIED_MARGIN):
        figures.plot_margins(build_margins(MODELS).drop(columns=names.CERTIFIED_MARGIN))


def test_the_bound_is_drawn_above_every_damage():
    attacks = build_attacks(MODELS)
    slope = float((attacks[names.DAMAGE] / attacks[names.RADIUS]).max())
    left, right = figures.plot_damage(attacks, slope).axes
    radii, heights = left.lines[-1].get_data()
    np.testing.assert_allclose(heights, slope * np.asarray(radii))
    assert left.get_yscale() == "log"
    assert right.get_yscale() == "linear"
    assert max(attacks[names.DAMAGE] - slope * attacks[names.RADIUS]) <= 1e-12


def test_shares_of_images_fall_from_one_and_count_equal_margins():
    margins = pd.DataFrame(
        {
            names.RELATIVE_R: 1.0,
            names.CERTIFIED_MARGIN: [0.0, 0.0, 1.0, 2.0],
            names.FIRST_ORDER_MARGIN: [np.inf, 1.0, 1.0, 3.0],
        }
    )
    axes = figures.plot_margins(margins).axes[0]
    certified = axes.lines[0]
    ends, heights = (np.asarray(part) for part in certified.get_data())
    for radius, share in ((0.5, 0.5), (1.5, 0.25), (1.0, 0.5)):
        assert heights[np.searchsorted(ends, radius)] == pytest.approx(share)
    assert (np.diff(heights) <= 0).all()
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["r = 1·‖g(p(x))‖, certified", "r = 1·‖g(p(x))‖, estimate"]


@pytest.mark.parametrize("damage", [0.0, 1.0])
def test_degenerate_attacks_are_drawn(damage, tmp_path):
    attacks = build_attacks(MODELS).assign(**{names.DAMAGE: damage})
    for slope in (None, 0.0, np.inf, 2.0):
        figures.save(figures.plot_damage(attacks, slope), tmp_path / "damage")
    only = build_margins(MODELS).assign(**{names.CERTIFIED_MARGIN: 0.0})
    figures.save(figures.plot_margins(only), tmp_path / "margins")
    assert (tmp_path / "margins.png").stat().st_size > 1000
