"""Tables: numbers against independent computations, text against its promises."""

import html.parser
import math
import statistics
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import tables
from tests.report.result_folders import (
    GRID,
    NASTY,
    RADII,
    SEEDS,
    build_attacks,
    build_bounds,
    build_models,
)

MODELS = build_models("sinc", SEEDS, nasty=False)


def members(models, std, noise):
    return [
        row
        for row in models.to_dict("records")
        if row["encoder_std"] == std and row["input_noise_std"] == noise
    ]


def test_lipschitz_table_equals_plain_python_statistics():
    table = tables.lipschitz_table(MODELS)
    place = ["side", "encoder_std", "input_noise_std"]
    assert table[place].to_numpy().tolist() == [
        ["decoder", 1.0, 0.0],
        ["decoder", 0.5, 0.0],
        ["decoder", 0.1, 0.0],
        ["encoder", 0.5, 1.0],
        ["encoder", 0.5, 0.5],
        ["encoder", 0.5, 0.0],
    ]
    for row in table.to_dict("records"):
        side = row["side"]
        chosen = members(MODELS, row["encoder_std"], row["input_noise_std"])
        for label, column in {
            "lower": f"lipschitz_lower_l2_{side}",
            "upper_norm_product": f"lipschitz_upper_l2_{side}_norm_product",
            "upper_eclipse_fast": f"lipschitz_upper_l2_{side}_eclipse_fast",
            "ratio": f"lipschitz_ratio_l2_{side}",
        }.items():
            values = [one[column] for one in chosen]
            assert row[f"{label}_mean"] == pytest.approx(statistics.mean(values))
            assert row[f"{label}_sd"] == pytest.approx(statistics.stdev(values))
            assert row[f"{label}_n"] == row["n"] == 3
    assert table["paper_mean"].tolist() == [2.2, 5.2, 17.9, 13.9, 24.6, 29.8]
    assert table["reproduction_sd"].tolist() == [432.3, 28.8, 211.5, 219.7, 295.5, 43.0]


def test_attack_table_equals_plain_python_statistics():
    attacks = build_attacks(MODELS)
    table = tables.attack_table(attacks, MODELS)
    assert len(table) == len(GRID) * len(RADII)
    for row in table.to_dict("records"):
        chosen = {
            one["model"] for one in members(MODELS, row["encoder_std"], row["input_noise_std"])
        }
        records = [
            one
            for one in attacks.to_dict("records")
            if one["model"] in chosen and one["radius"] == row["radius"]
        ]
        for column in (names.DAMAGE, names.RELATIVE_DAMAGE, names.DEGRADATION):
            means = [
                statistics.mean(one[column] for one in records if one["model"] == model)
                for model in sorted(chosen)
            ]
            assert row[f"{column}_mean"] == pytest.approx(statistics.mean(means))
            assert row[f"{column}_sd"] == pytest.approx(statistics.stdev(means))
        assert row["damage_max"] == max(one["damage"] for one in records)
        assert row["bound_ratio_max"] == max(one["damage_bound_ratio"] for one in records)
        assert (row["n"], row["images"]) == (3, 6)
    assert not [name for name in table if name.startswith(("paper", "reproduction"))]


def test_attack_table_of_cifar10_stands_beside_table_4():
    models = build_models("cifar10", SEEDS, nasty=False)
    table = tables.attack_table(build_attacks(models), models)
    shown = table.set_index(["encoder_std", "input_noise_std", "radius"])["paper_degradation"]
    assert shown[1.0, 0.0, 10.0] == shown[0.5, 1.0, 10.0] == -0.6667
    assert shown[1.0, 0.0, 20.0] == -2.5882
    assert shown.notna().sum() == 4


def test_training_collapse_and_configuration_tables():
    training = tables.training_table(MODELS)
    for row in training.to_dict("records"):
        chosen = members(MODELS, row["encoder_std"], row["input_noise_std"])
        assert row["elbo_mean"] == pytest.approx(statistics.mean(one["elbo"] for one in chosen))
    collapse = tables.collapse_table(MODELS)
    assert collapse["seed"].tolist() == MODELS["seed"].tolist()
    assert collapse["collapsed"].tolist() == MODELS["collapsed"].tolist()
    configurations = tables.configuration_table(MODELS).set_index(
        ["encoder_std", "input_noise_std"]
    )
    assert configurations.loc[(0.5, 0.0), "column"] == "decoder + encoder"
    assert configurations.loc[(1.0, 0.0), "column"] == "decoder"
    assert configurations.loc[(0.5, 1.0), "column"] == "encoder"
    assert configurations["n"].sum() == len(MODELS)
    assert all(seed in configurations.loc[(0.5, 0.0), "seeds"] for seed in SEEDS)


def test_one_seed_has_no_standard_deviation():
    models = build_models("sinc", SEEDS[:1], nasty=False)
    table = tables.lipschitz_table(models)
    assert table["lower_sd"].isna().all()
    shown = tables.presentation(table)
    assert all(cell.endswith("± –") for cell in shown["lower bound"])
    assert "± 0" not in "".join(shown["lower bound"])


def test_missing_and_infinite_values_are_counted_and_shown():
    models = MODELS.copy()
    lower, upper = (
        names.lipschitz_lower("decoder"),
        names.lipschitz_upper("decoder", "norm_product"),
    )
    models.loc[0, lower] = np.nan
    models.loc[0, upper] = np.inf
    row = tables.lipschitz_table(models).iloc[0]
    assert row["lower_n"] == 2
    assert row["lower_mean"] == pytest.approx(models.loc[1:2, lower].mean())
    assert math.isinf(row["upper_norm_product_mean"])
    assert math.isnan(row["upper_norm_product_sd"])
    shown = tables.presentation(tables.lipschitz_table(models)).iloc[0]
    assert shown["lower bound"].endswith("(n=2)")
    assert shown["upper: norm product"] == "∞ ± –"


def test_the_smallest_bound_has_a_column_where_no_method_alone_gives_it():
    models = MODELS.copy()
    assert "upper_best_mean" not in tables.lipschitz_table(models)
    best = names.lipschitz_upper("decoder")
    models[best] *= 0.5
    table = tables.lipschitz_table(models).set_index("side")
    assert table.loc["encoder", "upper_best_mean"].isna().all()
    chosen = [one[best] for one in models.to_dict("records") if one["encoder_std"] == 1.0]
    assert table.loc["decoder", "upper_best_mean"].iloc[0] == pytest.approx(statistics.mean(chosen))
    shown = tables.presentation(tables.lipschitz_table(models))
    assert "upper: smallest" in shown


def test_bounds_with_other_slopes_stand_apart():
    bounds = build_bounds(MODELS)
    other = bounds[bounds["method"] == "norm_product"].assign(slopes="propagated", value=0.5)
    table = tables.bounds_table(pd.concat([bounds, other]))
    rows = table[(table["method"] == "norm_product") & (table["side"] == "encoder")]
    assert rows["slopes"].tolist() == ["activation", "propagated"]
    assert rows["n"].tolist() == [len(MODELS)] * 2
    assert rows["largest"].iloc[1] == 0.5 < rows["smallest"].iloc[0]


@pytest.mark.parametrize("missing", ["encoder_std", "input_noise_std"])
def test_missing_configuration_column_is_named(missing):
    for build in (tables.lipschitz_table, tables.training_table, tables.configuration_table):
        with pytest.raises(InputError, match=missing):
            build(MODELS.drop(columns=missing))


def test_quantities_without_any_value_are_left_out():
    models = MODELS.copy()
    models[[name for name in models if "l2_encoder" in name]] = np.nan
    models[names.lipschitz_upper("decoder", "norm_product")] = np.nan
    table = tables.lipschitz_table(models)
    assert set(table["side"]) == {"decoder"}
    assert "upper_norm_product_mean" not in table
    models[[name for name in models if name.startswith("lipschitz")]] = np.nan
    assert tables.lipschitz_table(models).empty


def test_absent_results_give_empty_tables():
    plain = MODELS[list(names.PARAMETER_COLUMNS)]
    assert tables.lipschitz_table(plain).empty
    assert tables.collapse_table(plain).empty
    assert len(tables.training_table(plain)) == len(GRID)
    assert tables.to_terminal(tables.lipschitz_table(plain)) == ""


def test_mixed_data_sets_are_refused():
    models = pd.concat([MODELS, MODELS.assign(dataset="celeba")])
    with pytest.raises(InputError, match="one data set"):
        tables.lipschitz_table(models)


def test_learned_and_other_grids_all_appear():
    models = pd.DataFrame(
        {
            "model": list("abcde"),
            "encoder_std": ["learned", "1.0", "0.3", "0.3", "learned"],
            "input_noise_std": [0.0, 0.0, 0.2, 0.0, 0.7],
            "lipschitz_upper_l2_decoder": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    columns = tables.study_columns(models)
    expected = {("learned", 0.0), (1.0, 0.0), (0.3, 0.2), (0.3, 0.0), ("learned", 0.7)}
    assert set(columns["decoder"]) | set(columns["encoder"]) == expected
    assert (0.3, 0.2) in columns["encoder"]
    table = tables.lipschitz_table(models)
    assert set(table["upper_mean"]) >= {1.0, 2.0, 4.0}


def test_bounds_table_keeps_estimates_apart():
    bounds = build_bounds(MODELS)
    table = tables.bounds_table(bounds)
    assert set(table.loc[table["kind"] == "estimate", "status"]) == {"estimate"}
    upper = bounds[(bounds["method"] == "norm_product") & (bounds["side"] == "encoder")]["value"]
    row = table[(table["method"] == "norm_product") & (table["side"] == "encoder")].iloc[0]
    assert (row["smallest"], row["largest"], row["n"]) == (upper.min(), upper.max(), len(upper))


finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(mean=finite, sd=st.floats(0, 1e12))
def test_mean_and_sd_can_be_read_back(mean, sd):
    left, _, right = tables.format_mean_sd(mean, sd).replace("−", "-").partition(" ± ")
    scale = max(abs(mean), sd)
    assert abs(float(left) - mean) <= max(0.06 * sd, 1e-3 * abs(mean)) + 1e-6 * (scale < 1)
    assert abs(float(right) - sd) <= 0.06 * sd + 1e-6


@given(
    value=st.one_of(
        st.floats(-1e300, 1e300),
        st.sampled_from([math.inf, -math.inf, math.nan]),
        st.integers(-(10**6), 10**6),
    )
)
def test_numbers_are_short_and_right_to_four_digits(value):
    text = tables.format_number(value)
    assert len(text) <= 11
    if math.isnan(value):
        assert text == "–"
    elif math.isinf(value):
        assert text == ("∞" if value > 0 else "−∞")
    else:
        assert float(text.replace("−", "-")) == pytest.approx(value, rel=5e-4)


texts = st.text(max_size=60)
frames = st.integers(0, 4).flatmap(
    lambda rows: st.dictionaries(
        st.text(min_size=1, max_size=40),
        st.lists(st.one_of(texts, st.floats(), st.none()), min_size=rows, max_size=rows),
        min_size=1,
        max_size=12,
    )
)


@given(columns=frames, width=st.integers(20, 120))
def test_terminal_lines_are_never_too_wide_nor_hold_control_characters(columns, width):
    table = pd.DataFrame({key: pd.Series(values, dtype=object) for key, values in columns.items()})
    text = tables.to_terminal(table, width)
    for line in text.split("\n"):
        wide = sum(unicodedata.east_asian_width(c) in "WF" for c in line)
        marks = sum(bool(unicodedata.combining(c)) for c in line)
        assert len(line) + wide - marks <= width
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in line)


def test_terminal_tables_of_the_study_fit_100_columns_and_repeat_their_row_names():
    models = build_models("cifar10", SEEDS, nasty=True)
    attack = tables.to_terminal(tables.attack_table(build_attacks(models), models))
    assert max(map(len, attack.split("\n"))) <= 100
    assert all("σ_enc" in block for block in attack.split("\n\n"))
    assert max(map(len, tables.to_terminal(tables.lipschitz_table(models)).split("\n"))) <= 100
    with pytest.raises(InputError, match="width must be >= 20"):
        tables.to_terminal(models, 10)


class Cells(html.parser.HTMLParser):
    """The texts of all cells, as a browser reads them."""

    def __init__(self):
        super().__init__()
        self.cells, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@given(text=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30))
def test_any_text_survives_html(text):
    parser = Cells()
    parser.feed(tables.to_html(pd.DataFrame({"x": [text], "y": [NASTY]}), caption=NASTY))
    parser.close()
    assert parser.tags == {"table", "caption", "span", "thead", "tbody", "tr", "th", "td"}
    assert parser.cells[2:] == [text, NASTY]


def test_html_cells_have_scopes():
    text = tables.to_html(tables.lipschitz_table(MODELS), row_headers=3)
    assert text.count('scope="row"') == 6 * 3
    assert text.count("<th ") == text.count("scope=")
