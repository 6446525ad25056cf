"""Data that the tests of the estimator share."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="module")
def digits():
    """300 digits of 64 pixels, scaled to [−1, 1]."""
    return (load_digits().data[:300] / 8 - 1).astype(np.float32)
