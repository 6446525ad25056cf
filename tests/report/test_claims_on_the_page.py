"""The page's sections on trends and on the reproduction's errors: there where there is data."""

import pandas as pd
import pytest

from harmonicvae import names
from harmonicvae.report import discrepancy_table, trend_table, write_report
from tests.report.result_folders import SEEDS, build_models
from tests.report.test_document import read, small

ALL = "squared_std+noisy_target+shared_noise+kl_form"


def bounds(**columns):
    rows = [
        ("none", "lipsdp_neuron", "quarter", 16.0),
        ("none", "lipsdp_neuron", "one", 1024.0),
        (ALL, "norm_product", "one", 2048.0),
    ]
    table = pd.DataFrame(rows, columns=["training_errors", "method", "slope", "value"])
    where = {"dataset": "sinc", "side": "decoder", "encoder_std": 1.0, "input_noise_std": 0.0}
    return table.assign(seed=SEEDS[0], **(where | columns))


def page_of(make_results, **tables):
    path = write_report(make_results(**small(arrays=False, **tables)))
    return path, read(path)


def test_discrepancy_csv_gets_a_section_with_its_factors(make_results):
    path, page = page_of(make_results, discrepancy=bounds())
    assert "discrepancy" in page.values("id")
    assert "#discrepancy" in page.values("href")
    assert "The reproduction's constants taken apart" in page.text
    stored = pd.read_csv(path.parent / "tables" / "discrepancy.csv")
    assert stored["slope_1"].tolist() == [pytest.approx(64.0)]
    expected = discrepancy_table(bounds())
    pd.testing.assert_frame_equal(stored, expected, check_dtype=False)


def test_trends_of_two_sigmas_get_a_section(make_results):
    path, page = page_of(make_results)
    models = build_models("sinc", SEEDS[:1], nasty=False)
    assert "trends" in page.values("id")
    assert "#trends" in page.values("href")
    assert "unclear" in page.text  # one seed
    stored = pd.read_csv(path.parent / "tables" / "trends.csv")
    pd.testing.assert_frame_equal(stored, trend_table(models), check_dtype=False)
    assert set(stored["side"]) == {"decoder", "encoder"}


@pytest.mark.parametrize("section", ["discrepancy", "trends"])
def test_without_data_there_is_no_section(make_results, section):
    models = build_models("sinc", SEEDS[:1], nasty=False).iloc[:1]
    _, page = page_of(make_results, models=models)
    assert section not in page.values("id")
    assert f"#{section}" not in page.values("href")


@pytest.mark.parametrize("content", [b"", b"side,value\n", b"side,value\ndecoder,1\n", b"\xff\xfe"])
def test_a_damaged_discrepancy_csv_leaves_the_rest_of_the_page(make_results, content):
    _, page = page_of(make_results, discrepancy=content)
    assert "lipschitz-constants" in page.values("id")
    assert "taken apart" not in page.text


def test_a_missing_column_of_discrepancy_csv_is_told(make_results):
    _, page = page_of(make_results, discrepancy=bounds().drop(columns="slope"))
    assert f"{names.FILE_DISCREPANCY} must have the columns" in page.text
    assert "slope is missing" in page.text


def test_numbers_that_are_none_in_discrepancy_csv_do_not_end_the_report(make_results):
    _, page = page_of(make_results, discrepancy=bounds(value="many"))
    assert "lipschitz-constants" in page.values("id")
