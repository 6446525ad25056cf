"""The terminal text of a study: what it holds, what it leaves out, and its width."""

import unicodedata

import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import summarise
from tests.report.result_folders import NASTY, SEEDS, build_attacks, build_models

MODELS = build_models("cifar10", SEEDS, nasty=False)


def columns_of(line):
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return len(line) + wide - sum(bool(unicodedata.combining(character)) for character in line)


def blocks(text):
    return text.split("\n\n")


@pytest.mark.parametrize("dataset", ["sinc", "cifar10", "celeba"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_both_tables_stand_in_one_block_each(make_results, dataset, scale):
    models = build_models(dataset, SEEDS, nasty=False).assign(collapsed=False)
    bounds = [name for name in models if name.startswith("lipschitz_")]
    models[bounds] *= scale
    attacks = build_attacks(models)
    attacks["damage"] *= scale
    text = summarise(
        make_results(dataset, seeds=SEEDS, models=models, attacks=attacks, arrays=False)
    )
    assert len(blocks(text)) == 4
    assert max(map(columns_of, text.split("\n"))) <= 100
    lipschitz, attack = blocks(text)[1::2]
    assert len(lipschitz.split("\n")[-7:]) == 6 + 1
    assert attack.count("\n") >= 10
    assert "apgd" in blocks(text)[2]
    assert "apgd" not in attack
    assert "table 4" not in text


def test_several_methods_stay_apart(make_results):
    attacks = pd.concat([build_attacks(MODELS), build_attacks(MODELS).assign(method="pgd")])
    text = summarise(make_results("cifar10", seeds=SEEDS, attacks=attacks, arrays=False))
    table = next(block for block in blocks(text) if "method" in block)
    lines = table.split("\n")
    assert sum("apgd" in line for line in lines) == sum(" pgd" in line for line in lines) == 10


@pytest.mark.parametrize("content", [None, b"", b"model,radius\n", b"no,such,columns\n1,2,3\n"])
def test_absent_parts_leave_no_heading(make_results, content):
    plain = MODELS[list(names.PARAMETER_COLUMNS)]
    everything = make_results("cifar10", seeds=SEEDS, arrays=False, attacks=content)
    text = summarise(everything)
    assert "ttack" not in text
    assert "Lipschitz" in text
    folder = make_results("cifar10", name="only", seeds=SEEDS, arrays=False, models=plain)
    text = summarise(folder)
    assert "ttack" in text.split("\n")[0]
    assert "Lipschitz" not in text
    folder = make_results("cifar10", name="none", arrays=False, models=plain, attacks=content)
    text = summarise(folder)
    assert text == "No Lipschitz bounds and no attacks were computed in this study."


@pytest.mark.parametrize("count", [0, 1, 15])
def test_collapsed_models_are_counted(make_results, count):
    models = MODELS.assign(collapsed=[1.0] * count + [0.0] * (15 - count))
    text = summarise(make_results("cifar10", seeds=SEEDS, models=models, arrays=False))
    assert (f"{count} of 15 models collapsed" in text) == (count > 0)
    assert ("collapsed" in text) == (count > 0)


def test_rows_and_failures_are_said(make_results):
    study = {
        "evaluation_rows": {"validation": 1, "training": 7},
        "failures": [{"model": "model-00", "reason": "x", "step": "evaluation"}],
    }
    text = summarise(make_results(study=study, arrays=False))
    assert "lower bounds from 1 validation row and 7 training rows" in text
    assert "Attacked: evenly spaced ones of 1 validation row and 7 training rows" in text
    assert "1 model trained, but not evaluated" in text
    assert "no table" not in text


def test_hostile_names_neither_break_lines_nor_send_control_characters(make_results):
    attacks = build_attacks(MODELS).assign(method="\x1b[31m" + NASTY * 9)
    text = summarise(make_results("cifar10", seeds=SEEDS, attacks=attacks, arrays=False))
    assert max(map(columns_of, text.split("\n"))) <= 100
    assert "\x1b" not in text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"study\.json is missing"):
        summarise(tmp_path)
