"""The page: self-contained, escaped, complete, the same twice, and calm about broken input."""

import ast
import html.parser
import json
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import lipschitz_table, write_report
from tests.report.result_folders import (
    NASTY,
    SEEDS,
    build_attacks,
    build_history,
    build_models,
    write_results,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}
SECTIONS = [
    "Summary",
    "Configurations",
    "Training",
    "Reconstructions",
    "Lipschitz constants",
    "Attacks",
    "Collapse",
    "Machine load",
    "Definitions",
]


class Page(html.parser.HTMLParser):
    """Tags, attributes and visible text of a page; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def small(dataset="sinc", seeds=SEEDS[:1], **options):
    shape = {"sinc": (172, 2)}.get(dataset, (8, 8, 3))
    return {"dataset": dataset, "image_shape": shape, "seeds": seeds, **options}


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Result folder and page of one study of each kind, for tests that only read."""
    found = {}
    for dataset in ("sinc", "cifar10"):
        parent = tmp_path_factory.mktemp(dataset)
        folder = write_results(parent, **small(dataset))
        found[dataset] = (folder, write_report(folder, parent / "new" / "place"))
    return found


@pytest.mark.parametrize("dataset", ["sinc", "cifar10"])
def test_page_is_complete_and_self_contained(reports, dataset):
    _, path = reports[dataset]
    page = read(path)
    assert path.name == "report.html"
    assert [value for tag, key, value in page.attributes if (tag, key) == ("html", "lang")] == [
        "en"
    ]
    for title in SECTIONS:
        identifier = title.lower().replace(" ", "-")
        assert identifier in page.values("id")
        assert f"#{identifier}" in page.values("href")
    assert len(page.values("id")) == len(set(page.values("id")))
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert not re.search(r"url\(|@import|https?://", files_text("style.css"))
    assert page.tags.count("img") == len(page.values("alt")) == 5 + 5 + 4
    assert all(page.values("alt"))
    assert page.tags.count("th") == len([v for v in page.values("scope") if v in ("row", "col")])


def files_text(name):
    return files("harmonicvae.report").joinpath(name).read_text(encoding="utf-8")


def test_everything_from_outside_is_escaped(make_results):
    hostile = dict.fromkeys(
        ("dataset", "preset", "data_digest", "started", "version", "experiment", "command"), NASTY
    )
    hostile |= {
        "seeds": [NASTY],
        "machine": {"cpu": NASTY, "device": NASTY},
        "failures": [{"model": NASTY, "reason": NASTY}],
        "reproduction_errors": [NASTY],
    }
    models = build_models("cifar10", SEEDS[:1], nasty=True).assign(seed=NASTY)
    attacks = build_attacks(models).assign(method=NASTY)
    options = small("cifar10", nasty=True, study=hostile, models=models, attacks=attacks)
    path = write_report(make_results(**options))
    page = read(path)
    assert "script" not in page.tags
    assert "<script" not in path.read_text(encoding="utf-8")
    assert page.text.count(NASTY) >= 10 + 2 * len(models)
    assert NASTY in "".join(page.values("alt"))
    assert page.tags.count("img") == 5 + 5 + 4


def test_passwords_in_uris_are_left_out(reports):
    text = reports["sinc"][1].read_text(encoding="utf-8")
    assert "secret" not in text
    assert "https://example.org/mlflow" in text


def test_tables_and_figures_lie_beside_the_page(reports):
    folder, path = reports["sinc"]
    untouched = {
        "study.json",
        "models.csv",
        "history.csv",
        "bounds.csv",
        "attacks.csv",
        "margins.csv",
        "load.csv",
    }
    assert {file.name for file in folder.iterdir()} == untouched | {"arrays"}
    written = {str(file.relative_to(path.parent)) for file in path.parent.rglob("*.*")}
    assert {f"tables/{name}.csv" for name in ("lipschitz", "attacks", "collapse")} <= written
    for stem in ("losses", "lipschitz", "load", "attack-01", "reconstructions-05"):
        assert {f"figures/{stem}.svg", f"figures/{stem}.png"} <= written
    assert not [name for name in written if name.endswith(".tmp")]
    saved = pd.read_csv(path.parent / "tables" / "lipschitz.csv")
    models = pd.read_csv(folder / "models.csv", dtype={"seed": str})
    pd.testing.assert_frame_equal(saved, lipschitz_table(models), check_dtype=False)


def test_seeds_keep_all_their_digits(make_results):
    page = read(write_report(make_results(**small(seeds=SEEDS, arrays=False))))
    for seed in SEEDS:
        assert page.text.count(seed) >= 1 + 5 + 5


def test_two_runs_give_the_same_bytes(make_results, tmp_path):
    folder = make_results(**small("cifar10"))
    one, two = (write_report(folder, tmp_path / name, spectra=True) for name in ("one", "two"))
    first = sorted(path for path in one.parent.rglob("*") if path.is_file())
    assert len(first) > 20
    for path in first:
        other = two.parent / path.relative_to(one.parent)
        assert path.read_bytes() == other.read_bytes(), path.name


@pytest.mark.parametrize("name", ["study.json", "models.csv"])
def test_missing_required_file_is_named(make_results, name):
    folder = make_results(**small())
    (folder / name).unlink()
    with pytest.raises(InputError, match=re.escape(name) + " is missing"):
        write_report(folder)
    with pytest.raises(InputError, match="must be a folder"):
        write_report(folder / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00"])
def test_broken_study_file_is_named(make_results, content):
    folder = make_results(**small())
    (folder / "study.json").write_bytes(content)
    with pytest.raises(InputError, match=r"study\.json"):
        write_report(folder)


@pytest.mark.parametrize("content", [None, b"", b"model,epoch\n", b"\xff\xfe\x00\x80", b'a,"b\nc'])
def test_missing_or_broken_optional_tables_are_explained(make_results, content):
    broken = dict.fromkeys(("history", "bounds", "attacks", "load"), content)
    folder = make_results(**small(arrays=False), **broken)
    page = read(write_report(folder))
    for table in broken:
        assert f"{table}.csv" in page.text
    assert {f"#{title.lower().replace(' ', '-')}" for title in SECTIONS} <= {*page.values("href")}


def test_missing_and_broken_arrays_are_explained(make_results):
    folder = make_results(**small())
    arrays = folder / "arrays"
    (arrays / "model-00.npz").unlink()
    (arrays / "model-01.npz").write_bytes(b"PK\x03\x04 not a zip")
    np.savez(arrays / "model-02.npz", originals=np.array([{}], dtype=object))
    np.savez(arrays / "model-03.npz", originals=np.zeros((1, 7)), reconstructions=np.zeros((1, 7)))
    np.savez(arrays / "model-04.npz", unrelated=np.zeros(1))
    page = read(write_report(folder))
    assert "arrays/model-00.npz is missing" in page.text
    assert "arrays/model-01.npz cannot be read" in page.text
    assert "arrays/model-02.npz cannot be read" in page.text
    assert "samples must have shape" in page.text
    assert page.text.count("not drawn") == 10


def test_models_named_like_paths_stay_in_their_folder(make_results, tmp_path):
    models = build_models("sinc", SEEDS[:1], nasty=False)
    np.savez(tmp_path / "outside.npz", originals=np.zeros((1, 344)))
    models.loc[0, "model"] = "../../outside"
    page = read(write_report(make_results(**small(arrays=False, models=models))))
    assert "must be a file name, got '../../outside'" in page.text


def test_study_without_models_still_has_its_failures(make_results):
    study = {"failures": [{"model": "sinc-e0.5", "reason": "loss is NaN"}, {}, "odd"]}
    page = read(write_report(make_results(**small(study=study, models=b""))))
    assert "loss is NaN" in page.text
    assert "No model was trained." in page.text
    assert "3 models failed at a step that was not recorded: in no table" in page.text
    assert "0 trained, 3 failed" in page.text


def test_failures_of_evaluation_and_of_training_are_told_apart(make_results):
    models = build_models("sinc", SEEDS[:1], nasty=False)
    failures = [
        {"model": "model-00", "reason": "no bound", "step": "evaluation"},
        {"model": "model-01", "reason": "an older file: it is in models.csv"},
        {"model": "absent", "reason": "loss is NaN", "step": "training"},
    ]
    options = small(models=models, study={"failures": failures}, arrays=False)
    page = read(write_report(make_results(**options)))
    assert "5 trained, 1 failed; 2 of those trained could not be evaluated" in page.text
    assert "1 model failed in training: in no table" in page.text
    assert "2 models trained, but not evaluated: in the training tables" in page.text
    assert "not recorded: in no table" not in page.text


def test_rows_of_the_evaluation_and_missing_images_are_said(make_results, reports):
    study = {"evaluation_rows": {"validation": 1, "training": 1023}, "missing_images": 17}
    attacks = build_attacks(build_models("sinc", SEEDS[:1], nasty=False), images=4)
    attacks["split"] = np.where(attacks["image"] == 0, "validation", "train")
    page = read(write_report(make_results(**small(study=study, attacks=attacks, arrays=False))))
    assert "lower bounds were taken from 1 validation row and 1023 training rows" in page.text
    assert "Attacked: 1 validation row and 3 training rows with each model." in page.text
    assert "17 listed, but not in the folder" in page.text
    silent = read(reports["sinc"][1]).text
    assert "Missing images" not in silent
    assert "Attacked:" not in silent


@pytest.mark.parametrize("missing", [0, True, "many", None])
def test_no_missing_images_are_not_mentioned(make_results, missing):
    options = small(arrays=False, study={"missing_images": missing})
    assert "Missing images" not in read(write_report(make_results(**options))).text


def test_losses_are_named_as_drawn(make_results, reports):
    alone = build_history(build_models("sinc", SEEDS[:1], nasty=False)).drop(columns="valid_loss")
    page = read(write_report(make_results(**small(history=alone, arrays=False))))
    assert "validation loss" not in " ".join(page.values("alt")) + page.text
    assert [alt for alt in page.values("alt") if alt.startswith("Training loss over epochs")]
    both = " ".join(read(reports["sinc"][1]).values("alt"))
    assert "Training and validation loss over epochs" in both


def test_several_models_a_configuration_stand_under_its_heading(make_results, reports):
    page = read(write_report(make_results(**small(seeds=SEEDS[:2]))))
    assert page.text.count("σ_enc = 1, σ_N = 0; seed") == 0
    assert read(reports["sinc"][1]).text.count(f"σ_enc = 1, σ_N = 0; seed {SEEDS[0]}") == 1


def test_missing_columns_and_odd_numbers_are_survived(make_results):
    models = build_models("sinc", SEEDS, nasty=False)
    models = models[[c for c in models if "encoder" not in c or c == "encoder_std"]]
    models = models.drop(columns=["elbo", "active_units", "seed"])
    models.loc[0, names.lipschitz_lower("decoder")] = np.nan
    models.loc[1, names.lipschitz_upper("decoder", "norm_product")] = np.inf
    models[names.COLLAPSED] = models[names.COLLAPSED].astype(object)
    models.loc[2, names.COLLAPSED] = np.nan
    attacks = build_attacks(models).drop(columns=["relative_damage"])
    attacks.loc[0, "damage"] = np.nan
    page = read(
        write_report(
            make_results(**small(seeds=SEEDS, arrays=False, models=models, attacks=attacks))
        )
    )
    assert "(n=2)" in page.text
    assert "∞ ± –" in page.text
    assert "nan" not in page.text.lower().replace("mean", "")


def test_study_file_may_be_nearly_empty(make_results):
    folder = make_results(**small())
    (folder / "study.json").write_text(json.dumps({"image_shape": "x", "wall_seconds": "long"}))
    page = read(write_report(folder))
    assert "not recorded" in page.text
    assert "not drawn" in page.text


def test_unsound_results_are_marked(make_results, reports):
    models = build_models("sinc", SEEDS[:1], nasty=False)
    models[names.lipschitz_ratio("decoder")] = 0.5
    attacks = build_attacks(models)
    attacks[names.BOUND_RATIO] = 1.5
    page = read(write_report(make_results(**small(arrays=False, models=models, attacks=attacks))))
    assert "A lower bound exceeds an upper bound" in page.text
    assert "A damage exceeds its upper bound" in page.text
    assert "exceeds" not in read(reports["sinc"][1]).text


def test_collapsed_models_are_counted(make_results):
    models = build_models("sinc", SEEDS, nasty=False)
    models[names.COLLAPSED] = [True, True, *[False] * 13]
    page = read(write_report(make_results(**small(seeds=SEEDS, arrays=False, models=models))))
    assert "2 of 15 models collapsed." in page.text


def imports_of(name):
    """Modules that a module of the package imports when it is imported itself."""
    tree = ast.parse(files_text(f"{name}.py"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_importing_the_package_draws_in_no_matplotlib():
    known = {
        file.name[:-3] for file in files("harmonicvae.report").iterdir() if file.name[-3:] == ".py"
    }
    seen, todo = set(), ["__init__"]
    while todo:
        name = todo.pop()
        seen.add(name)
        found = imports_of(name)
        assert not [module for module in found if module.split(".")[0] in ("matplotlib", "torch")]
        parts = {module.removeprefix("harmonicvae.report.").split(".")[0] for module in found}
        todo += sorted((parts & known) - seen)
    assert "tables" in seen
    assert "figures" not in seen
