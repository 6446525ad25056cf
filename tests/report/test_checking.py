"""Two result folders compared number by number; every folder here is made up."""

import json

import numpy as np
import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report.checking import TOLERANCES, compare_results, worst_by_quantity

COMPARED = {
    names.ELBO: -300.0,
    names.SQUARED_ERROR: 5.0,
    names.ACTIVE_UNITS: 1.0,
    names.COLLAPSED: False,
    names.lipschitz_lower("decoder"): 2.0,
    names.lipschitz_upper("decoder"): 3.0,
    names.lipschitz_upper("encoder", "norm_product"): 70.0,
    names.attack_metric(names.DAMAGE, 10.0): 4.0,
    names.harmonic_metric(names.MEAN_DEGREE, "decoder"): 1.5,
}
OTHERS = {names.TRAIN_SECONDS: 3.0, names.DECODING_VARIANCE_RATIO: 0.5, "run_id": "abc"}


def rows(count=2, **changes):
    table = pd.DataFrame([COMPARED | OTHERS] * count)
    table.insert(0, names.MODEL, [f"model-{place}" for place in range(count)])
    where = {names.ENCODER_STD: 1.0, names.INPUT_NOISE_STD: 0.0, names.SEED: "7"}
    return table.assign(**where, **changes)


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a result folder of the two files that must be there."""

    def write(name, models, digest="0123"):
        target = tmp_path / name
        target.mkdir()
        models.to_csv(target / names.FILE_MODELS, index=False)
        (target / names.FILE_STUDY).write_text(json.dumps({"data_digest": digest}))
        return target

    return write


def test_equal_folders_agree_in_every_quantity_of_every_model(folder):
    table = compare_results(folder("found", rows()), folder("recorded", rows()))
    assert len(table) == 2 * len(COMPARED)
    assert set(table["quantity"]) == set(COMPARED)
    assert table["ok"].all()
    assert (table["difference"] == 0).all()
    assert (table["found"] == table["recorded"]).all()


@pytest.mark.parametrize("quantity", [name for name in COMPARED if name != names.COLLAPSED])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_number_may_move_by_its_tolerance_of_the_recorded_value(folder, quantity, sign):
    (limit,) = {value for start, value in TOLERANCES.items() if quantity.startswith(start)}
    recorded = folder("recorded", rows(1))
    for name, share in (("near", 0.99), ("far", 1.01)):
        moved = COMPARED[quantity] * (1 + sign * (share * limit + (name == "far") * 1e-9))
        table = compare_results(folder(name, rows(1, **{quantity: moved})), recorded)
        row = table.set_index("quantity").loc[quantity]
        assert row["ok"] == (name == "near")
        assert row["difference"] == pytest.approx(share * limit, rel=1e-6, abs=1e-8)
        assert row["tolerance"] == limit
        assert row["recorded"] == COMPARED[quantity]
        assert row["found"] == pytest.approx(moved)
        assert table["ok"].sum() == len(COMPARED) - (name == "far")


def test_another_answer_to_collapsed_is_another_result(folder):
    found = folder("found", rows(1, **{names.COLLAPSED: True}))
    table = compare_results(found, folder("recorded", rows(1)))
    assert table.loc[~table["ok"], "quantity"].tolist() == [names.COLLAPSED]


def test_times_and_names_of_runs_are_not_compared(folder):
    other = dict.fromkeys(OTHERS, 99.0)
    assert compare_results(folder("found", rows(**other)), folder("recorded", rows()))["ok"].all()


def test_models_are_paired_by_name(folder):
    mixed = rows(3).assign(**{names.lipschitz_upper("decoder"): [1.0, 2.0, 3.0]})
    table = compare_results(folder("found", mixed.iloc[[2, 0, 1]]), folder("recorded", mixed))
    assert table["ok"].all()


@pytest.mark.parametrize("quantity", [names.ELBO, names.lipschitz_upper("decoder")])
def test_a_recorded_number_that_is_missing_now_differs_infinitely(folder, quantity):
    lacks = rows()
    lacks.loc[1, quantity] = np.nan
    recorded = folder("recorded", rows())
    table = compare_results(folder("found", lacks), recorded)
    (row,) = table[~table["ok"]].itertuples()
    assert (row.model, row.quantity, row.difference) == ("model-1", quantity, np.inf)
    table = compare_results(folder("without", rows().drop(columns=quantity)), recorded)
    assert table.loc[~table["ok"], "quantity"].tolist() == [quantity] * 2


def test_a_recorded_model_that_is_missing_now_differs_in_everything(folder):
    table = compare_results(folder("found", rows(1)), folder("recorded", rows(2)))
    bad = table[~table["ok"]]
    assert set(bad["model"]) == {"model-1"}
    assert len(bad) == len(COMPARED)
    assert (bad["difference"] == np.inf).all()


def test_what_was_not_recorded_is_not_asked_for(folder):
    gaps = rows()
    gaps.loc[0, names.lipschitz_lower("decoder")] = np.nan
    table = compare_results(folder("found", rows(3)), folder("recorded", gaps))
    assert table["ok"].all()
    assert len(table) == 2 * len(COMPARED) - 1


def test_studies_of_other_data_are_refused(folder):
    with pytest.raises(InputError, match=r"different data.*4567.*0123"):
        compare_results(folder("found", rows(), "4567"), folder("recorded", rows()))


@pytest.mark.parametrize("side", ["found", "recorded"])
def test_folders_without_a_quantity_in_common_are_refused(folder, side):
    bare = folder("bare", rows().drop(columns=list(COMPARED)))
    full = folder("full", rows())
    pair = (bare, full) if side == "found" else (full, bare)
    with pytest.raises(InputError):
        compare_results(*pair)


@pytest.mark.parametrize(
    "record", [rows().iloc[:0], rows().assign(**dict.fromkeys(COMPARED, np.nan))]
)
def test_a_record_without_a_number_is_refused(folder, record):
    with pytest.raises(InputError):
        compare_results(folder("found", rows()), folder("recorded", record))


def test_a_folder_of_something_else_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=names.FILE_STUDY):
        compare_results(folder("found", rows()), tmp_path / "empty")
    with pytest.raises(InputError, match="nowhere"):
        compare_results(tmp_path / "nowhere", tmp_path / "found")


def test_the_worst_model_stands_for_a_quantity(folder):
    upper = names.lipschitz_upper("decoder")
    moved = rows(3).assign(**{upper: [3.0, 3.0 * 1.5, 3.0 * 1.25], names.ELBO: -300.03})
    worst = worst_by_quantity(compare_results(folder("found", moved), folder("old", rows(3))))
    worst = worst.set_index("quantity")
    assert list(worst.index) == list(COMPARED)
    assert (worst["models"] == 3).all()
    assert worst.loc[upper, "largest_difference"] == pytest.approx(0.5)
    assert worst.loc[names.ELBO, "largest_difference"] == pytest.approx(1e-4)
    assert worst["ok"].to_dict() == {name: name != upper for name in COMPARED}
    assert (worst["tolerance"] == [TOLERANCES_OF[name] for name in COMPARED]).all()


TOLERANCES_OF = {
    name: next(limit for start, limit in TOLERANCES.items() if name.startswith(start))
    for name in COMPARED
}
