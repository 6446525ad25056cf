"""What a study says in sentences: every number in them is computed from its files."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.report import findings, write_report
from harmonicvae.report.results import load_results
from harmonicvae.report.trends import trend_table


@pytest.fixture
def results(make_results):
    return load_results(make_results())


def sentences(results, heading):
    return findings(results).get(heading, [])


def test_a_study_tells_what_was_claimed_measured_and_its_limits(results):
    told = findings(results)
    assert list(told) == ["Claimed", "Measured", "Limits"]
    assert all(told.values())


def test_the_claim_is_the_published_one(results):
    decoder, encoder = sentences(results, "Claimed")
    assert "σ_enc falls from 1 to 0.1" in decoder
    assert "σ_N falls from 1 to 0" in encoder


def test_cells_are_counted_against_our_own_interval(results):
    models = results.models
    for side in names.SIDES:  # intervals that hold nothing published, from above and from below
        models[names.lipschitz_lower(side)] = 1e7
        for column in [c for c in models if c.startswith(names.lipschitz_upper(side))]:
            models[column] = 1e8
    told = " ".join(sentences(results, "Measured"))
    assert "in 0 of 6 cells, below the lower bound in 6, above the upper bound in 0" in told
    assert "lies above the upper bound in 0." in told


def test_trend_sentences_say_what_the_table_says(results):
    table = trend_table(results.models)
    told = [text for text in sentences(results, "Measured") if text.startswith("From")]
    rows = table[table.quantity.isin(["lower bound", "upper bound"])]
    assert len(told) == len(rows)
    for text, (_, row) in zip(told, rows.iterrows(), strict=True):
        assert f"{row.side}'s {row.quantity}" in text
        assert f"factor {row.change:.3g}" in text
        assert f"in {row.in_order} of {row.n} seeds" in text
        assert (" falls" in text and "neither" not in text) == (row.verdict == "falls")


def test_one_seed_claims_nothing(make_results):
    results = load_results(make_results(seeds=("1",)))
    told = [text for text in sentences(results, "Measured") if text.startswith("From")]
    assert told
    assert all(" changes" in text and "interval" not in text for text in told)


def discrepancy(factor):
    """Bounds of one cell of sinc, where all errors give ``factor`` times the right value."""
    cell = {
        names.DATASET: names.SINC,
        names.SIDE: "decoder",
        names.ENCODER_STD: 1.0,
        names.INPUT_NOISE_STD: 0.0,
        names.SEED: "1",
    }
    everything = "squared_std+noisy_target+shared_noise+kl_form"
    settings = [
        ("none", "lipsdp_neuron", "quarter", 2.0),
        ("none", "lipsdp_neuron", "one", 128.0),
        ("none", "norm_product", "quarter", 6.0),
        (everything, "norm_product", "one", 2.0 * factor),
    ]
    keys = ("training_errors", "method", "slope", "value")
    return pd.DataFrame([cell | dict(zip(keys, row, strict=True)) for row in settings])


@pytest.mark.parametrize(("factor", "within"), [(200.0, 1), (1e6, 0)])
def test_the_explanation_holds_the_factors(results, factor, within):
    results = dataclasses.replace(results, discrepancy=discrepancy(factor))
    told = " ".join(sentences(results, "Explained"))
    assert "[0, ¼]: × 64." in told
    assert "single matrices in place of the whole network: × 3." in told
    assert f"All errors together: × {factor:.0f}." in told
    left_over = np.mean([1071.063, 323.527, 320.910]) / (2 * factor)
    assert f"is {left_over:.3g} times" in told
    assert f"in {within} of 1 cells" in told


def test_fewer_steps_than_the_original_are_said(make_results):
    folder = make_results()
    path = folder / names.FILE_STUDY
    study = json.loads(path.read_text()) | {"n_train": 4096, "epochs": 3, "missing_images": 7}
    path.write_text(json.dumps(study))
    told = " ".join(sentences(load_results(folder), "Limits"))
    assert "48 steps (3 epochs of 4096 samples)" in told
    assert "took 1600" in told
    assert "7 images" in told
    path.write_text(json.dumps(study | {"epochs": 100}))
    assert "the original study's 1600 steps" in " ".join(sentences(load_results(folder), "Limits"))


def test_without_models_nothing_is_said(results):
    assert findings(dataclasses.replace(results, models=results.models.iloc[:0])) == {}


def test_the_page_has_the_findings(make_results):
    folder = make_results()
    page = write_report(folder).read_text(encoding="utf-8")
    section = re.search(r'<section id="findings".*?</section>', page, re.DOTALL)
    assert section is not None
    assert section[0].count("<li>") == sum(map(len, findings(load_results(folder)).values()))
