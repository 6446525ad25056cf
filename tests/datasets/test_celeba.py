"""CelebA: cropping and resizing, the cache, and errors that name the file."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from harmonicvae.datasets import celeba, load_celeba
from harmonicvae.datasets.bunches import content_digest
from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import DatasetCorruptError, DatasetNotFoundError, InputError

COUNT = 150  # more than two blocks of 64
LIST = "list_eval_partition.txt"


def write_jpeg(path, seed, size=(178, 218)):
    """Write a smooth random JPEG, so that compression keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """Folder of COUNT training, 5 validation and 2 test images, and their list."""
    folder = tmp_path_factory.mktemp("celeba")
    (folder / "img_align_celeba").mkdir()
    rows = []
    for number in range(1, COUNT + 8):
        name = f"{number:06d}.jpg"
        write_jpeg(folder / "img_align_celeba" / name, number)
        rows.append(f"{name} {0 if number <= COUNT else 1 if number <= COUNT + 5 else 2}\n")
    (folder / LIST).write_text("".join(rows))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy that a test may damage, with the original's modification times."""
    return shutil.copytree(original, tmp_path / "celeba")


@pytest.fixture
def load(folder, tmp_path):
    """Load with a cache folder of the test's own."""

    def call(split="train", **options):
        defaults = {"data_dir": folder, "cache_dir": tmp_path / "cache", "verbose": False}
        return load_celeba(split, **(defaults | options))

    return call


@pytest.fixture
def forbid_decoding(monkeypatch):
    """Call to make any further decoding fail."""

    def forbid():
        def fail(path):
            raise RuntimeError(f"decoded {path}")

        monkeypatch.setattr(celeba, "_decode_image", fail)

    return forbid


def cache_files(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def resized_by_torch(path):
    """Centre 148×148, resized to 64×64 by torch's antialiased bilinear filter."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    cropped = pixels[None, :, 35:183, 15:163].double()
    small = torch.nn.functional.interpolate(
        cropped, size=(64, 64), mode="bilinear", antialias=True, align_corners=False
    )
    return small[0].permute(1, 2, 0).numpy()


def test_crop_and_resize_agree_with_torch(load, folder):
    bunch = load()
    images = bunch.data.raw.reshape(-1, *bunch.image_shape)
    for row in (0, 63, 64, COUNT - 1):
        expected = resized_by_torch(folder / "img_align_celeba" / f"{row + 1:06d}.jpg")
        # Pillow rounds to bytes after each of its two passes
        assert np.abs(images[row] - expected).max() <= 1.001


def test_splits_and_numbers(load):
    assert load().data.shape == (COUNT, 12288)
    assert load("validation").data.shape == (5, 12288)
    assert load("test").data.shape == (2, 12288)
    assert load(n_images=70).data.shape == (70, 12288)
    np.testing.assert_array_equal(load(n_images=70).data.raw, load().data.raw[:70])
    assert load("validation").missing == 0


def test_bunch(load):
    bunch = load("validation")
    assert isinstance(bunch.data, ScaledImages)
    assert bunch.image_shape == (64, 64, 3)
    assert bunch.digest == content_digest(np.array(bunch.data.raw))
    low, high = bunch.scaling["minimum"], bunch.scaling["maximum"]
    raw = bunch.data.raw.astype(np.float64)
    np.testing.assert_allclose(bunch.data[:], 2 * (raw - low) / (high - low) - 1, atol=1e-7)
    plain = load("validation", as_array=True).data
    assert type(plain) is np.ndarray
    np.testing.assert_array_equal(plain, bunch.data[:])


@pytest.mark.parametrize("n_jobs", [None, 1, 2, 3, -1])
def test_threads_do_not_change_the_bytes(load, tmp_path, n_jobs):
    bunch = load(n_jobs=n_jobs, cache_dir=tmp_path / "other")
    assert bunch.digest == load(n_jobs=1).digest


def test_second_load_decodes_nothing(load, forbid_decoding):
    first = load()
    forbid_decoding()
    second = load()
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.data.raw, first.data.raw)


def test_cache_is_pickled_by_path(load):
    data = load().data
    pickled = pickle.dumps(data.rows(slice(100, 120)))
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).raw, data.raw[100:120])


def test_cache_opens_with_numpy(load, tmp_path):
    data = load().data
    (path,) = cache_files(tmp_path)
    np.testing.assert_array_equal(np.load(path), data.raw)


def test_changed_image_is_decoded_anew(load, folder):
    before = load().data.raw[3].copy()
    path = folder / "img_align_celeba" / "000004.jpg"
    write_jpeg(path, seed=10**6)
    assert (load().data.raw[3] != before).any()


def test_image_changed_at_equal_size_is_decoded_anew(load, folder, forbid_decoding):
    load()
    path = folder / "img_align_celeba" / "000004.jpg"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    forbid_decoding()
    with pytest.raises(RuntimeError, match="decoded"):
        load()


def cut(path, keep):
    with path.open("r+b") as file:
        file.truncate(keep)


@pytest.mark.parametrize("keep", [0, 5, 100, 128, 1_000_000, -70, -1])
def test_truncated_cache_is_rebuilt(load, tmp_path, keep):
    expected = np.array(load().data.raw)
    (path,) = cache_files(tmp_path)
    cut(path, keep if keep >= 0 else path.stat().st_size + keep)
    np.testing.assert_array_equal(load().data.raw, expected)


@pytest.mark.parametrize("content", [b"", b"not a cache", b"\x93NUMPY\x01\x00", b"\0" * 2_000_000])
def test_foreign_cache_file_is_rebuilt(load, tmp_path, content):
    expected = np.array(load().data.raw)
    (path,) = cache_files(tmp_path)
    path.write_bytes(content)
    np.testing.assert_array_equal(load().data.raw, expected)


def test_extended_and_misplaced_caches_are_rebuilt(load, tmp_path):
    expected, other = np.array(load().data.raw), np.array(load(n_images=COUNT - 1).data.raw)
    large, small = sorted(cache_files(tmp_path), key=lambda path: -path.stat().st_size)
    with large.open("ab") as file:
        file.write(b"x")
    np.testing.assert_array_equal(load().data.raw, expected)
    shutil.copy(large, small)
    np.testing.assert_array_equal(load(n_images=COUNT - 1).data.raw, other)
    content = large.read_bytes()
    assert content.count(b'"key": "') == 1
    foreign = content.replace(b'"key": "', b'"key": "0')
    large.write_bytes(foreign[:5000] + bytes(1000) + foreign[6000:])
    np.testing.assert_array_equal(load().data.raw, expected)
    large.write_bytes(content[: content.rindex(b"{")] + b"[]")
    np.testing.assert_array_equal(load().data.raw, expected)


BUILD = """
import sys, time
from harmonicvae.datasets import celeba
decode = celeba._decode_image
def slowly(path):
    time.sleep(float(sys.argv[3]))
    return decode(path)
celeba._decode_image = slowly
bunch = celeba.load_celeba(data_dir=sys.argv[1], cache_dir=sys.argv[2], n_jobs=1, verbose=False)
print(bunch.digest)
"""


def start_build(folder, cache, seconds):
    command = [sys.executable, "-c", BUILD, str(folder), str(cache), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_partial(cache, least_bytes):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [path for path in cache.glob("*.partial") if path.stat().st_size > least_bytes]
        if found:
            return found[0]
        time.sleep(0.01)
    raise TimeoutError("no partial file appeared")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_cache_of_a_killed_run_is_never_used(load, folder, tmp_path):
    process = start_build(folder, tmp_path / "cache", 0.03)
    try:
        partial = wait_for_partial(tmp_path / "cache", 64 * 12288)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert partial.exists()
    assert partial.stat().st_size < COUNT * 12288
    expected = load(cache_dir=tmp_path / "fresh")
    bunch = load()
    np.testing.assert_array_equal(bunch.data.raw, expected.data.raw)
    assert len(cache_files(tmp_path)) == 1  # what the killed run left is gone


def test_simultaneous_builds_agree(load, folder, tmp_path):
    processes = [start_build(folder, tmp_path / "cache", 0.005) for _ in range(2)]
    wait_for_partial(tmp_path / "cache", 0)
    digests = {process.communicate()[0].strip() for process in processes}
    assert digests == {load(cache_dir=tmp_path / "fresh").digest}
    assert load().digest in digests
    assert len(cache_files(tmp_path)) == 1


def test_simultaneous_threads_agree(load, tmp_path):
    digests = []
    threads = [threading.Thread(target=lambda: digests.append(load().digest)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [load(cache_dir=tmp_path / "fresh").digest] * 4


@pytest.mark.parametrize("keep", [0, 1, 300, 0.3, 0.7, -20, -2, -1])
@pytest.mark.parametrize("tolerant", [False, True])
def test_truncated_image_is_named(load, folder, tmp_path, monkeypatch, keep, tolerant):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    path = folder / "img_align_celeba" / "000100.jpg"
    size = path.stat().st_size
    cut(path, int(size * keep) if 0 < keep < 1 else keep if keep >= 0 else size + keep)
    with pytest.raises(DatasetCorruptError, match=r"000100\.jpg"):
        load()
    assert cache_files(tmp_path) == []


@pytest.mark.parametrize("content", [b"nonsense\xff\xd9", b"\xff\xd8\xff\xe0\xff\xd9"])
def test_what_is_no_jpeg_is_named(load, folder, content):
    (folder / "img_align_celeba" / "000002.jpg").write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=r"000002\.jpg"):
        load()


@pytest.mark.parametrize("size", [(178, 217), (218, 178), (64, 64), (1024, 1024)])
def test_image_of_another_size_is_named(load, folder, size):
    write_jpeg(folder / "img_align_celeba" / "000002.jpg", 0, size)
    with pytest.raises(DatasetCorruptError, match=rf"000002\.jpg must be 178×218 .*{size[0]}×"):
        load()


def test_folder_in_place_of_an_image_is_named(load, folder):
    path = folder / "img_align_celeba" / "000002.jpg"
    path.unlink()
    path.mkdir()
    with pytest.raises(DatasetCorruptError, match=r"000002\.jpg"):
        load()


def test_image_that_cannot_be_read_is_named(load, folder):
    path = folder / "img_align_celeba" / "000002.jpg"
    path.unlink()
    path.symlink_to(folder / "nowhere")
    with pytest.raises(DatasetNotFoundError, match=r"000002\.jpg"):
        load()


def test_grey_images_become_three_channels(load, folder):
    path = folder / "img_align_celeba" / "000001.jpg"
    with Image.open(path) as image:
        image.convert("L").save(path)
    pixels = load().data.raw[0].reshape(64, 64, 3)
    assert (pixels == pixels[..., :1]).all()


def test_missing_images_are_named_or_counted(load, folder):
    for number in (2, 3, 5, 140):
        (folder / "img_align_celeba" / f"{number:06d}.jpg").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"4 of 150 .*000002\.jpg, 000003\.jpg, 000005"):
        load()
    with pytest.raises(DatasetNotFoundError, match="allow_missing=True"):
        load(n_images=2)
    bunch = load(allow_missing=True)
    assert (len(bunch.data), bunch.missing) == (COUNT - 4, 4)
    few = load(allow_missing=True, n_images=3)
    assert (len(few.data), few.missing) == (3, 3)  # 1, 4 and 6
    np.testing.assert_array_equal(few.data.raw, bunch.data.raw[:3])
    assert load(n_images=1).missing == 0


def test_no_image_at_all_is_an_error(load, folder):
    for path in (folder / "img_align_celeba").iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFoundError, match="150 of 150"):
        load(allow_missing=True)


@pytest.mark.parametrize("allow_missing", [False, True])
def test_split_without_rows_is_an_error(load, folder, allow_missing):
    (folder / LIST).write_text("000001.jpg 0\n")
    with pytest.raises(DatasetNotFoundError, match="no row of this split"):
        load("validation", allow_missing=allow_missing)


@pytest.mark.parametrize("name", ["img_align_celeba", LIST])
def test_missing_folder_or_list_is_named(load, folder, name):
    os.rename(folder / name, folder / "elsewhere")
    with pytest.raises(DatasetNotFoundError) as caught:
        load()
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize(
    "row",
    ["000002.jpg", "000002.jpg 3", "000002.jpg 0 0", "000002.jpg -1", "../secret.jpg 0", "",
     "/etc/passwd 0", ".. 0", "000001.jpg 1", "000002.jpg 0.0", "\xff 0"],
)  # fmt: skip
def test_malformed_row_is_named(load, folder, row):
    (folder / LIST).write_text(f"000001.jpg 0\n{row}\n000003.jpg 0\n", encoding="latin1")
    with pytest.raises(DatasetCorruptError, match=f"line 2 of .*{LIST}"):
        load()


@pytest.mark.parametrize(
    "text", ["000001.jpg 0\r\n000002.jpg 0\r\n", "000001.jpg\t0\n000002.jpg 0"]
)
def test_other_line_ends_are_fine(load, folder, text):
    (folder / LIST).write_text(text, newline="")
    assert len(load().data) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, "split must be one of train, validation, test, got 'valid'"),
        ({"n_images": 0}, "n_images must be >= 1, got 0"),
        ({"n_images": 2.5}, "n_images must be an integer"),
        ({"n_images": COUNT + 1}, f"n_images must be <= {COUNT}"),
        ({"n_images": COUNT + 1, "allow_missing": True}, f"n_images must be <= {COUNT}"),
        ({"n_jobs": 0}, "n_jobs must not be 0"),
        ({"n_jobs": "2"}, "n_jobs must be an integer"),
        ({"data_dir": None}, "data_dir must be a folder"),
        ({"data_dir": ""}, "data_dir must be a folder"),
    ],
)
def test_errors(load, options, message):
    with pytest.raises(InputError, match=message):
        load(**options)


def test_cache_dir_that_cannot_be_written(load, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another cache_dir"):
        load(cache_dir=tmp_path / "file")


def test_full_disc_is_reported_and_leaves_nothing(load, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"150 images \(2 MB\).*No space left"):
        load()
    assert cache_files(tmp_path) == []


def test_default_cache_lies_beside_the_data(load, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    load("validation", cache_dir=None)
    assert [path.suffix for path in (folder / "harmonicvae-cache").iterdir()] == [".npy"]
    assert not (tmp_path / "home").exists()


def test_default_cache_of_a_read_only_folder(load, folder, tmp_path, monkeypatch, forbid_decoding):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder.chmod(0o555)
    try:
        load("validation", cache_dir=None)
        assert not (folder / "harmonicvae-cache").exists()
        assert len(list((tmp_path / "home" / "harmonicvae").glob("*.npy"))) == 1
        forbid_decoding()
        load("validation", cache_dir=None)
    finally:
        folder.chmod(0o755)


def test_cache_beside_read_only_data_is_read(load, folder, tmp_path, monkeypatch, forbid_decoding):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    load("validation", cache_dir=None)
    folder.chmod(0o555)
    try:
        forbid_decoding()
        load("validation", cache_dir=None)
    finally:
        folder.chmod(0o755)


@pytest.mark.parametrize("verbose", [False, True])
def test_progress_bar(load, capsys, verbose):
    load(verbose=verbose)
    captured = capsys.readouterr()
    assert ("150/150" in captured.err) is verbose
    assert captured.out == ""


@pytest.mark.real_data
def test_real_images(celeba_dir, celeba_cache_dir, monkeypatch):
    options = {"data_dir": celeba_dir, "cache_dir": celeba_cache_dir, "verbose": False}
    bunch = load_celeba("validation", allow_missing=True, **options)
    assert len(bunch.data) + bunch.missing == 19_867  # rows of the official split
    assert 0.2 < np.asarray(bunch.data).std() < 1
    name = next(
        row.split()[0]
        for row in (celeba_dir / LIST).read_text().splitlines()
        if row.endswith(" 1") and (celeba_dir / "img_align_celeba" / row.split()[0]).exists()
    )
    expected = resized_by_torch(celeba_dir / "img_align_celeba" / name)
    assert np.abs(bunch.data.raw[0].reshape(64, 64, 3) - expected).max() <= 1.001
