"""The report's section on harmonics, from synthetic spectra."""

import numpy as np
import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.report import figures, write_report
from harmonicvae.report.harmonic_curves import headline_spectrum
from harmonicvae.report.harmonic_tables import harmonic_table
from tests.report.result_folders import SEEDS, build_models, write_results


def with_metrics():
    models = build_models("sinc", SEEDS, nasty=False)
    draw = np.random.default_rng(3)
    for side in names.SIDES:
        for metric in names.HARMONIC_METRICS:
            models[names.harmonic_metric(metric, side)] = draw.uniform(1, 2, len(models))
    return models


def build_spectra(models):
    measured = (("decoder", "prior", 1.0), ("decoder", "codes", 0.5), ("encoder", "data", 1.0))
    rows = [
        (model, *labels, kind, place, 2.0**-place, 3.0**-place, 1.5**-place, "ratio")
        for model in models[names.MODEL]
        for labels in measured
        for kind in ("hermite", "slice_power")
        for place in range(9)
    ]
    return pd.DataFrame(rows, columns=list(names.SPECTRUM_COLUMNS))


def test_the_section_has_table_and_figures(tmp_path):
    models = with_metrics()
    folder = write_results(tmp_path, models=models, spectra=build_spectra(models))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Mean Hermite degree" in page
    assert "not drawn" not in page
    table = pd.read_csv(folder / "tables" / "harmonics.csv")
    rows = models[(models[names.ENCODER_STD] == 0.1)]
    column = names.harmonic_metric(names.MEAN_DEGREE, "decoder")
    mine = table[(table["side"] == "decoder") & (table[names.ENCODER_STD] == 0.1)].iloc[0]
    assert mine["hermite_mean_degree_mean"] == pytest.approx(rows[column].mean())
    for name in ("degrees", "harmonics"):
        assert (folder / "figures" / f"{name}.svg").exists()


def test_without_spectra_the_section_says_so_and_without_metrics_there_is_none(tmp_path):
    page = write_report(write_results(tmp_path, models=with_metrics(), name="a"))
    assert "No spectra: spectra.csv is not among" in page.read_text(encoding="utf-8")
    page = write_report(write_results(tmp_path, name="b"))
    assert 'id="harmonics"' not in page.read_text(encoding="utf-8")


def test_the_headline_is_the_first_centre():
    spectra = build_spectra(with_metrics())
    rows = headline_spectrum(spectra, "decoder", "hermite")
    assert set(rows[names.CENTRE]) == {"prior"}
    assert rows["abscissa"].min() == 1
    with pytest.raises(InputError, match=r"spectra.csv must have the columns"):
        headline_spectrum(spectra.drop(columns="value"), "decoder", "hermite")


def test_one_seed_has_no_interval_and_no_metric_no_figure():
    models = with_metrics()
    figures.plot_degrees(models[models[names.SEED] == SEEDS[0]])
    plain = build_models("sinc", SEEDS, nasty=False)
    assert harmonic_table(plain).empty
    with pytest.raises(InputError, match="no mean degree"):
        figures.plot_degrees(plain)
