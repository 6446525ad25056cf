"""The table of data sets, and what importing it costs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harmonicvae import names
from harmonicvae.datasets import DATASETS, load_celeba, load_cifar10, load_dataset, load_sinc
from harmonicvae.datasets.bunches import content_digest
from harmonicvae.exceptions import InputError


def test_table():
    assert dict(DATASETS) == {
        names.SINC: load_sinc,
        names.CIFAR10: load_cifar10,
        names.CELEBA: load_celeba,
    }


def test_dispatch(tmp_path):
    bunch = load_dataset("sinc", "validation", data_dir=tmp_path, n_points=5, n_samples=9)
    expected = load_sinc("validation", n_points=5, n_samples=9)
    np.testing.assert_array_equal(bunch.data, expected.data)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", {}, "name must be one of celeba, cifar10, sinc, got 'mnist'"),
        (None, {}, "name must be one of"),
        ("cifar10", {}, "data_dir must name the folder of the cifar10 files"),
        ("sinc", {"n_sample": 3}, "options of sinc are .*n_samples.* got n_sample"),
        ("cifar10", {"n_images": 3}, "options of cifar10 are as_array, download, got n_images"),
    ],
)
def test_errors(name, options, message):
    with pytest.raises(InputError, match=message):
        load_dataset(name, "train", **options)


IMPORT = """
import sys, types
package = types.ModuleType("harmonicvae")  # without what the top __init__ imports
package.__path__ = [sys.argv[1]]
sys.modules["harmonicvae"] = package
import harmonicvae.datasets
print([name for name in ("torch", "torchvision", "mlflow", "skorch") if name in sys.modules])
"""


def test_import_is_light():
    folder = str(Path(names.__file__).parent)
    done = subprocess.run([sys.executable, "-c", IMPORT, folder], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "other", [np.zeros((2, 3)), np.zeros((3, 2), dtype=np.float32), np.ones((2, 3), np.float32)]
)
def test_digest_tells_type_shape_and_values(other):
    array = np.zeros((2, 3), dtype=np.float32)
    assert content_digest(array) == content_digest(array.copy(order="F"))
    assert content_digest(array) != content_digest(other)
