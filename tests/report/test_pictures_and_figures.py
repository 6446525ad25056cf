"""Figures: what is drawn, that bytes repeat, and that no text or setting breaks them."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harmonicvae import names
from harmonicvae.exceptions import InputError
from harmonicvae.harmonics import log_spectra
from harmonicvae.report import figures
from harmonicvae.report.pictures import as_curves, as_images, tile
from tests.report.result_folders import (
    SEEDS,
    build_arrays,
    build_history,
    build_load,
    build_models,
)

MODELS = build_models("sinc", SEEDS, nasty=True)
ARRAYS = {shape: build_arrays(shape, 1) for shape in ((172, 2), (32, 32, 3), (8, 6, 1))}


def pair(shape):
    return ARRAYS[shape]["originals"], ARRAYS[shape]["reconstructions"]


DRAWN = {
    "losses": lambda: figures.plot_losses(build_history(MODELS), MODELS),
    "curves": lambda: figures.plot_reconstructions(*pair((172, 2)), (172, 2)),
    "pictures": lambda: figures.plot_reconstructions(*pair((32, 32, 3)), (32, 32, 3)),
    "spectra": lambda: figures.plot_spectra(*pair((8, 6, 1)), (8, 6, 1)),
    "brackets": lambda: figures.plot_brackets(MODELS),
    "attack on a curve": lambda: figures.plot_attack(ARRAYS[172, 2], (172, 2)),
    "attack on a picture": lambda: figures.plot_attack(ARRAYS[32, 32, 3], (32, 32, 3)),
    "load": lambda: figures.plot_load(build_load()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_is_drawn_with_the_same_bytes_whatever_the_settings(name, tmp_path):
    before = dict(matplotlib.rcParams)
    first = figures.save(DRAWN[name](), tmp_path / "first.v1")
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red", "axes.linewidth": 5}):
        second = figures.save(DRAWN[name](), tmp_path / "second.v1")
    assert [path.name for path in first] == ["first.v1.svg", "first.v1.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert dict(matplotlib.rcParams) == before
    root = ET.fromstring(first[0].read_bytes())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"date" not in first[0].read_bytes()


def test_brackets_show_every_model_and_every_published_mean():
    figure = figures.plot_brackets(MODELS)
    assert len(figure.axes) == 2
    for axes, side in zip(figure.axes, ("decoder", "encoder"), strict=True):
        lines = [line.get_xdata().tolist() for line in axes.lines if len(line.get_xdata()) == 2]
        chosen = MODELS[
            (MODELS["input_noise_std"] == 0)
            if side == "decoder"
            else (MODELS["encoder_std"] == 0.5)
        ]
        lower, upper = chosen[names.lipschitz_lower(side)], chosen[names.lipschitz_upper(side)]
        assert sorted(lines) == sorted(map(list, zip(lower, upper, strict=True)))
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("D", "o")]
        assert len(marks) == 6


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_brackets_without_a_finite_end_reach_the_edge(value, tmp_path):
    models = MODELS.copy()
    for side in names.SIDES:
        models.loc[0, names.lipschitz_lower(side)] = value
        models.loc[1, [c for c in models if c.startswith(names.lipschitz_upper(side))]] = np.inf
    figure = figures.plot_brackets(models)
    markers = [line.get_marker() for line in figure.axes[0].lines]
    assert "<" in markers
    assert ">" in markers
    figures.save(figure, tmp_path / "brackets")


def test_brackets_without_any_bound_are_refused():
    with pytest.raises(InputError, match="no finite positive"):
        figures.plot_brackets(MODELS[list(names.PARAMETER_COLUMNS)].assign(dataset="other"))


def test_losses_that_are_not_finite_leave_a_note():
    history = build_history(MODELS).assign(train_loss=np.nan, valid_loss=np.inf)
    panel = figures.plot_losses(history, MODELS).axes[0]
    assert [text.get_text() for text in panel.texts] == ["no finite loss"]


def test_losses_are_those_of_the_models():
    history = build_history(MODELS)
    panel = figures.plot_losses(history, MODELS).axes[0]
    assert len(panel.lines) == 2 * len(SEEDS)
    first = history[history["model"] == MODELS["model"][0]]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), first["train_loss"])
    np.testing.assert_allclose(panel.lines[1].get_ydata(), first["valid_loss"])


def test_training_loss_alone_has_no_legend_and_whole_epochs():
    history = build_history(MODELS, epochs=7).drop(columns="valid_loss")
    figure = figures.plot_losses(history, MODELS)
    assert not figure.legends
    assert figure.get_supylabel() == "training loss per sample"
    for axes in figure.axes:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())
    below = [axes.xaxis.get_tick_params()["labelbottom"] for axes in figure.axes]
    assert below == [False, False, True, True, True, True]
    assert len(figures.plot_losses(build_history(MODELS), MODELS).legends) == 1


def test_dollar_signs_and_unknown_glyphs_are_drawn_as_text(tmp_path, recwarn):
    load = build_load(8).assign(
        phase=["$\\frac{", "日本", "\x1b[31m", "", "$\\frac{$", "x" * 500, "b", "c"]
    )
    figure = figures.plot_load(load)
    figures.save(figure, tmp_path / "load")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:5] == ["$\\frac{", "□□", "□[31m", "no phase", "$\\frac{$"]
    assert len(texts[5]) < 60
    assert not [str(warning.message) for warning in recwarn]


def test_attack_figure_names_what_is_missing_or_wrong():
    arrays = dict(ARRAYS[32, 32, 3])
    with pytest.raises(InputError, match="position must be in 0 … 0, got 1"):
        figures.plot_attack(arrays, (32, 32, 3), position=1)
    del arrays["attack_inputs"]
    with pytest.raises(InputError, match="lack attack_inputs"):
        figures.plot_attack(arrays, (32, 32, 3))


def test_tables_without_the_columns_are_refused():
    with pytest.raises(InputError, match="seconds and cpu_percent"):
        figures.plot_load(pd.DataFrame({"seconds": [1.0]}))
    with pytest.raises(InputError, match="model and epoch"):
        figures.plot_losses(pd.DataFrame({"epoch": [1]}), MODELS)
    with pytest.raises(InputError, match="at least one model"):
        figures.plot_losses(build_history(MODELS), MODELS.iloc[:0])


samples = hnp.arrays(np.float64, (3, 24), elements=st.floats(width=32))


@given(samples=samples)
def test_pictures_are_always_within_0_and_1_and_keep_their_order(samples):
    images = as_images(samples, (2, 4, 3))
    assert images.shape == (3, 2, 4, 3)
    assert ((images >= 0) & (images <= 1)).all()
    inside = np.clip(np.nan_to_num(samples), -1, 1)
    np.testing.assert_allclose(images.reshape(3, 24) * 2 - 1, inside, atol=1e-12)


@given(
    images=hnp.arrays(np.float64, (5, 2, 3), elements=st.floats(0, 1)),
    columns=st.integers(1, 6),
    gap=st.integers(0, 2),
)
def test_tiles_are_the_pictures_row_by_row(images, columns, gap):
    tiles = tile(images, columns, gap)
    for index, image in enumerate(images):
        top, left = divmod(index, columns)
        top, left = top * (2 + gap), left * (3 + gap)
        np.testing.assert_array_equal(tiles[top : top + 2, left : left + 3], image)


@given(samples=hnp.arrays(np.float64, (1, 48), elements=st.floats(-1, 1, width=16)))
def test_spectra_keep_the_energy(samples):
    amplitudes = 10 ** (log_spectra(samples, (4, 4, 3)) / 20)
    energy = (samples.reshape(16, 3).mean(axis=1) ** 2).sum()
    assert (amplitudes**2).sum() == pytest.approx(16 * energy, abs=1e-6)


def test_curves_are_read_as_f_and_t():
    f, t = as_curves(ARRAYS[172, 2]["originals"], (172, 2))
    assert (np.diff(t) >= 0).all()
    np.testing.assert_allclose(f, np.sinc(5 * t) * 1.6 - 0.6, atol=1e-4)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 4), (3072,), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match="image_shape must be"):
        as_images(np.zeros((1, 3072)), shape)


def test_wrong_sample_sizes_are_refused():
    with pytest.raises(InputError, match=re.escape("(1, 3071)")):
        as_images(np.zeros((1, 3071)), (32, 32, 3))
    with pytest.raises(InputError, match="spectrum needs pictures"):
        log_spectra(np.zeros((1, 344)), (172, 2))
