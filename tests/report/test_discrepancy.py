"""The factors of the reproduction's errors against numbers worked out by hand."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from harmonicvae.exceptions import InputError
from harmonicvae.report import discrepancy_table
from harmonicvae.report.discrepancy import SWITCHES

ALL = "squared_std+noisy_target+shared_noise+kl_form"
COLUMNS = ["seed", "training_errors", "method", "slope", "value"]
FACTORS = list(SWITCHES)
#: Two seeds; every value of the second row of a pair is of seed "b".
ROWS = [
    ("a", "none", "lipsdp_neuron", "quarter", 2.0),
    ("b", "none", "lipsdp_neuron", "quarter", 8.0),
    ("a", "none", "lipsdp_neuron", "one", 20.0),  # ×10
    ("b", "none", "lipsdp_neuron", "one", 320.0),  # ×40
    ("a", "none", "lipsdp_layer", "quarter", 2.5),  # ×1.25
    ("b", "none", "lipsdp_layer", "quarter", 40.0),  # ×5
    ("a", "none", "norm_product", "quarter", 6.0),  # ×3
    ("b", "none", "norm_product", "quarter", 96.0),  # ×12
    ("a", "squared_std", "lipsdp_neuron", "quarter", 1.0),  # ×0.5
    ("b", "squared_std", "lipsdp_neuron", "quarter", 16.0),  # ×2
    ("a", "noisy_target", "lipsdp_neuron", "quarter", 18.0),  # ×9, one seed only
    ("b", "shared_noise", "lipsdp_neuron", "quarter", 56.0),  # ×7, the other only
    ("a", "none", "norm_product", "one", 128.0),  # ×64
    ("b", "none", "norm_product", "one", 32.0),  # ×4
    ("a", ALL, "norm_product", "one", 100.0),
    ("b", ALL, "norm_product", "one", 400.0),
]


def bounds(rows=ROWS, dataset="sinc", side="decoder", std=1.0, noise=0.0):
    table = pd.DataFrame(rows, columns=COLUMNS)
    where = {"dataset": dataset, "side": side, "encoder_std": std, "input_noise_std": noise}
    return table.assign(**where)


def reference(seeds=(150.0, 250.0, 500.0), paper=2.2, side="decoder"):
    rows = [("reproduction", value) for value in seeds] + [("paper", paper)]
    table = pd.DataFrame(rows, columns=["source", "value"])
    where = {"dataset": "sinc", "side": side, "encoder_std": 1.0, "input_noise_std": 0.0}
    return table.assign(quantity="lipschitz_l2", **where)


def one(rows=ROWS, published=None):
    table = discrepancy_table(bounds(rows), reference() if published is None else published)
    assert len(table) == 1
    return table.iloc[0]


def test_factors_are_geometric_means_of_ratios_within_a_seed():
    row = one()
    assert (row["n"], row["right"]) == (2, pytest.approx(4.0))
    expected = {
        "slope_1": 20.0,
        "layer_form": 2.5,
        "single_matrices": 6.0,
        "squared_std": 1.0,
        "noisy_target": 9.0,
        "shared_noise": 7.0,
        "evaluation": 16.0,
        "all_errors": 200.0,
    }
    assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_an_error_that_was_not_measured_is_missing():
    assert np.isnan(one()["kl_form"])
    alone = one(ROWS[:2])
    assert alone[[*FACTORS, "all_errors", "left_over"]].isna().all()
    assert pd.isna(alone["within"])
    assert alone["right"] == pytest.approx(4.0)


def test_seeds_of_one_side_only_do_not_enter_a_factor():
    other = ("c", "none", "lipsdp_neuron", "one", 1e9)  # wrong, without a right value
    lone = ("d", "none", "lipsdp_neuron", "quarter", 2.0**10)  # right, without wrong values
    row = one([*ROWS, other, lone])
    assert row["slope_1"] == pytest.approx(20.0)
    assert (row["n"], row["right"]) == (3, pytest.approx((2 * 8 * 2.0**10) ** (1 / 3)))
    nobody = one([ROWS[0], ROWS[3]])
    assert np.isnan(nobody["slope_1"])


def test_the_order_of_rows_and_the_type_of_seeds_do_not_matter():
    table = bounds()
    for seed in range(3):
        mixed = table.sample(frac=1, random_state=seed)
        pd.testing.assert_frame_equal(
            discrepancy_table(mixed, reference()), discrepancy_table(table, reference())
        )
    numbers = table.assign(seed=table["seed"].map({"a": 2**64 - 1, "b": 2**64 - 2}))
    pd.testing.assert_frame_equal(
        discrepancy_table(numbers, reference()), discrepancy_table(table, reference())
    )


def test_published_values_stand_beside_all_errors():
    row = one()
    assert row["published"] == pytest.approx(300.0)
    assert (row["published_low"], row["published_high"], row["paper"]) == (150, 500, 2.2)
    assert row["left_over"] == pytest.approx(300 / 200)


@pytest.mark.parametrize(
    ("seeds", "within"),
    [
        ((150.0, 500.0), True),  # 400, of one seed; not the mean alone
        ((150.0, 250.0), False),  # the mean, 200, but neither seed
        ((400.0, 500.0), True),  # the ends count
        ((50.0, 100.0), True),
        ((100.1, 399.9), False),
        ((401.0, 500.0), False),
    ],
)
def test_within_asks_whether_some_seed_lies_in_the_published_range(seeds, within):
    assert bool(one(published=reference(seeds))["within"]) is within


@pytest.mark.parametrize("published", [reference(()), reference(side="encoder")])
def test_within_of_nothing_published_is_missing_not_no(published):
    row = one(published=published)
    assert np.isnan([row["published"], row["published_low"], row["left_over"]]).all()
    assert pd.isna(row["within"])


def test_the_packages_own_published_values_are_used_without_a_reference():
    table = discrepancy_table(bounds(side="encoder", std=0.5, noise=1.0))
    (row,) = table.itertuples()
    published = pd.read_csv(files("harmonicvae.report") / "reference.csv")
    same = published.query(
        "dataset == 'sinc' and quantity == 'lipschitz_l2' and side == 'encoder' and "
        "encoder_std == 0.5 and input_noise_std == 1 and source == 'reproduction'"
    )["value"]
    assert len(same) == 3
    assert row.published == pytest.approx(sum(same) / 3)
    assert (row.published_low, row.published_high) == (min(same), max(same))
    assert row.paper == 13.9


def test_configurations_do_not_mix_and_stand_in_the_studys_order():
    wanted = [
        ("celeba", "decoder", 1.0, 0.0),
        ("sinc", "decoder", 1.0, 0.0),
        ("sinc", "decoder", 0.5, 0.0),
        ("sinc", "decoder", 0.1, 0.0),
        ("sinc", "encoder", 0.5, 1.0),
        ("sinc", "encoder", 0.5, 0.5),
        ("sinc", "encoder", 0.5, 0.0),
    ]
    parts = []
    for place, where in enumerate(wanted):
        part = bounds(ROWS, *where)
        wrong = part["slope"] == "one"
        part.loc[wrong, "value"] *= 2.0**place
        parts.append(part)
    table = discrepancy_table(pd.concat(parts[::-1]))
    keys = ["dataset", "side", "encoder_std", "input_noise_std"]
    assert list(table[keys].itertuples(index=False, name=None)) == wanted
    np.testing.assert_allclose(table["slope_1"], 20 * 2.0 ** np.arange(len(wanted)))
    np.testing.assert_allclose(table["single_matrices"], 6.0)


def test_a_configuration_without_a_right_value_has_no_row():
    assert discrepancy_table(bounds(ROWS[2:])).empty
    assert discrepancy_table(bounds([])).empty


@pytest.mark.parametrize("column", ["dataset", "side", "encoder_std", "input_noise_std", *COLUMNS])
def test_a_missing_column_is_named(column):
    with pytest.raises(InputError, match=f"{column} is missing"):
        discrepancy_table(bounds().drop(columns=column))
