from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.report.result_folders import write_results


@pytest.fixture
def make_results(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_results, tmp_path)
