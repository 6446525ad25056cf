"""CIFAR-10: the official files, and errors that name the one at fault."""

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harmonicvae.datasets import load_cifar10
from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.datasets.torchvision_import import import_torchvision
from harmonicvae.exceptions import DatasetCorruptError, DatasetNotFoundError, InputError

FOLDER = "cifar-10-batches-py"
FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """Folder with files of four images each, whose md5s torchvision is told to expect."""
    import_torchvision()
    from torchvision.datasets import CIFAR10

    (tmp_path / FOLDER).mkdir()
    generator = np.random.default_rng(0)
    md5s = []
    for name in FILES[:-1]:
        batch = {
            "data": generator.integers(0, 256, (4, 3072), dtype=np.uint8),
            "labels": generator.integers(0, 10, 4).tolist(),
        }
        md5s.append([name, write_pickle(tmp_path / FOLDER / name, batch)])
    meta = write_pickle(tmp_path / FOLDER / FILES[-1], {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", md5s[:5])
    monkeypatch.setattr(CIFAR10, "test_list", md5s[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return tmp_path


def stored(folder, name):
    with (folder / FOLDER / name).open("rb") as file:
        return pickle.load(file, encoding="latin1")


def test_pixels_are_channels_last(small_cifar10):
    bunch = load_cifar10("validation", data_dir=small_cifar10)
    batch = stored(small_cifar10, "test_batch")
    image = bunch.data[2].reshape(bunch.image_shape)
    for channel in range(3):  # the file holds 1024 reds, 1024 greens, 1024 blues
        plane = batch["data"][2, 1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
        np.testing.assert_allclose(image[..., channel], plane / 127.5 - 1, atol=1e-6)
    assert bunch.target.tolist() == batch["labels"]
    assert bunch.target.dtype == np.int64


def test_splits(small_cifar10):
    train = load_cifar10(data_dir=small_cifar10)
    validation = load_cifar10("validation", data_dir=small_cifar10)
    test = load_cifar10("test", data_dir=small_cifar10)
    assert (train.data.shape, validation.data.shape) == ((20, 3072), (4, 3072))
    assert (train.split, validation.split, test.split) == ("train", "validation", "validation")
    assert validation.digest == test.digest != train.digest
    np.testing.assert_array_equal(np.asarray(validation.data), np.asarray(test.data))


def test_as_array_has_the_same_values(small_cifar10):
    lazy = load_cifar10(data_dir=small_cifar10)
    plain = load_cifar10(data_dir=small_cifar10, as_array=True)
    assert isinstance(lazy.data, ScaledImages)
    assert type(plain.data) is np.ndarray
    np.testing.assert_array_equal(plain.data, lazy.data[:])
    assert not lazy.data.raw.flags.writeable


def test_data_dir_may_be_the_inner_folder(small_cifar10, monkeypatch):
    outer = load_cifar10(data_dir=small_cifar10).digest
    assert load_cifar10(data_dir=str(small_cifar10 / FOLDER)).digest == outer
    monkeypatch.chdir(small_cifar10 / FOLDER)
    assert load_cifar10(data_dir=".").digest == outer


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_damaged_file_is_named(small_cifar10, name, damage):
    path = small_cifar10 / FOLDER / name
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "altered":
        path.write_bytes(content[:-10] + b"0123456789")
    else:
        path.unlink()
    error = DatasetNotFoundError if damage == "missing" else DatasetCorruptError
    with pytest.raises(error) as caught:
        load_cifar10(data_dir=small_cifar10)
    assert str(path) in str(caught.value)
    assert "download=True" in str(caught.value)


def test_altered_pickle_is_never_opened(small_cifar10):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(small_cifar10 / "opened"),)

    write_pickle(small_cifar10 / FOLDER / "data_batch_3", Payload())
    with pytest.raises(DatasetCorruptError, match="data_batch_3"):
        load_cifar10(data_dir=small_cifar10)
    assert not (small_cifar10 / "opened").exists()


@pytest.mark.parametrize("inner", ["", FOLDER])
def test_missing_folder_is_named(tmp_path, inner):
    with pytest.raises(DatasetNotFoundError) as caught:
        load_cifar10(data_dir=tmp_path / inner)
    assert str(tmp_path / FOLDER) in str(caught.value)
    assert "download=True" in str(caught.value)


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import_torchvision()
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(DatasetNotFoundError, match="could not be downloaded"):
        load_cifar10(data_dir=tmp_path / "new", download=True)


def test_download_leaves_complete_files_alone(small_cifar10):
    before = load_cifar10(data_dir=small_cifar10).digest
    assert load_cifar10(data_dir=small_cifar10, download=True).digest == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "split must be"),
        ({"data_dir": None}, "data_dir must be"),
        ({"data_dir": ""}, "data_dir must be"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        load_cifar10(**{"split": "train", "data_dir": tmp_path, **options})


IMPORT = """
from harmonicvae.datasets.torchvision_import import import_torchvision
first = import_torchvision()
assert import_torchvision() is first
import torch
from torchvision import datasets
from torchvision.transforms import v2
from torchvision.utils import make_grid
assert make_grid(torch.zeros(4, 3, 8, 8)).shape == (3, 12, 42)
print(v2.CenterCrop(2)(torch.zeros(3, 4, 4)).shape)
"""


def test_torchvision_works_after_the_import():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.stdout == "torch.Size([3, 2, 2])\n", done.stderr


def test_other_import_errors_pass(monkeypatch):
    def fail(name):
        raise RuntimeError("something else")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()


@pytest.mark.real_data
def test_real_files(cifar10_dir):
    bunch = load_cifar10("test", data_dir=cifar10_dir)
    assert bunch.data.shape == (10_000, 3072)
    assert np.bincount(bunch.target).tolist() == [1000] * 10
    assert bunch.target_names[bunch.target[0]] == "cat"  # the first test image


@pytest.mark.real_data
def test_real_file_truncated(cifar10_dir, tmp_path):
    source = cifar10_dir if cifar10_dir.name == FOLDER else cifar10_dir / FOLDER
    (tmp_path / FOLDER).mkdir()
    for name in FILES:
        (tmp_path / FOLDER / name).symlink_to(Path(source / name).resolve())
    culprit = tmp_path / FOLDER / "data_batch_4"
    content = culprit.read_bytes()
    culprit.unlink()
    culprit.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetCorruptError, match="data_batch_4"):
        load_cifar10(data_dir=tmp_path)
