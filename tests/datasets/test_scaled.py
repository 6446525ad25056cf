"""ScaledImages: one value by whichever way it is read."""

import pickle
import pickletools

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.model_selection import KFold, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing, check_array

from harmonicvae.datasets.scaled import ScaledImages
from harmonicvae.exceptions import (
    DatasetCorruptError,
    DatasetNotFoundError,
    HarmonicVAEError,
    InputError,
)

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
BYTES = SHAPES.flatmap(lambda shape: hnp.arrays(np.uint8, shape))


def reference(raw):
    """2·raw/255 − 1 in float64, rounded once to float32."""
    return ((2.0 * raw.astype(np.float64) - 255.0) / 255.0).astype(np.float32)


def random_bytes(n, d, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, d), dtype=np.uint8)


@pytest.fixture
def mapped(tmp_path):
    """Images over a memory-mapped file of 50 rows, and the file's path."""
    path = tmp_path / "images.npy"
    np.save(path, random_bytes(50, 600))
    return ScaledImages(np.load(path, mmap_mode="r")), path


def test_every_byte_has_the_nearest_float32():
    raw = np.arange(256, dtype=np.uint8)[np.newaxis]
    values = np.asarray(ScaledImages(raw))
    np.testing.assert_array_equal(values, reference(raw))
    np.testing.assert_array_equal(values[0], -values[0, ::-1])
    assert values.min() == -1
    assert values.max() == 1


@given(raw=BYTES, data=st.data())
def test_indexing_equals_indexing_of_the_array(raw, data):
    images, values = ScaledImages(raw), reference(raw)
    key = data.draw(
        st.one_of(
            hnp.basic_indices(raw.shape, allow_newaxis=True),
            hnp.integer_array_indices(raw.shape),
            hnp.arrays(np.bool_, len(raw)),
            hnp.arrays(np.bool_, raw.shape),
        )
    )
    found = images[key]
    assert np.shape(found) == values[key].shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[key])


@given(raw=BYTES, data=st.data())
def test_take_equals_rows_of_the_array(raw, data):
    count = len(raw)
    indices = data.draw(st.lists(st.integers(-count, count - 1), max_size=20))
    dtype = data.draw(st.sampled_from([np.int64, np.int32, np.int8]))
    out = np.full((len(indices), raw.shape[1]), np.nan, dtype=np.float32)
    assert ScaledImages(raw).take(np.array(indices, dtype=dtype), out=out) is out
    np.testing.assert_array_equal(out, reference(raw)[np.array(indices, dtype=int)])
    np.testing.assert_array_equal(ScaledImages(raw).take(indices), out)


@settings(deadline=None, max_examples=20)
@given(width=st.sampled_from([1, 3072, 12288, 300_000]), count=st.integers(1, 60))
def test_take_agrees_over_several_blocks(width, count):
    raw = random_bytes(7, width)
    indices = np.random.default_rng(count).integers(-7, 7, count)
    np.testing.assert_array_equal(ScaledImages(raw).take(indices), reference(raw)[indices])


def test_take_writes_into_strided_and_unsigned_batches():
    raw = random_bytes(9, 5)
    out = np.zeros((3, 10), dtype=np.float32)
    ScaledImages(raw).take(np.array([8, 0, 8], dtype=np.uint64), out=out[:, ::2])
    np.testing.assert_array_equal(out[:, ::2], reference(raw)[[8, 0, 8]])
    assert not out[:, 1::2].any()


@pytest.mark.parametrize("indices", [[3], [-4], [0.5], [True, False, True], [[0]], 0])
def test_take_refuses_indices(indices):
    with pytest.raises(InputError, match="indices must"):
        ScaledImages(random_bytes(3, 2)).take(indices)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((1, 2)),
        np.empty((2, 2), dtype=np.float32),
        np.broadcast_to(np.float32(0), (1, 2)),
    ],
)
def test_take_refuses_out(out):
    with pytest.raises(InputError, match="out must be"):
        ScaledImages(random_bytes(3, 2)).take([0], out=out)


@pytest.mark.parametrize(
    "raw",
    [
        np.zeros((2, 2)),
        np.zeros(4, dtype=np.uint8),
        [[1, 2]],
        np.zeros((4, 4), dtype=np.uint8)[:, ::2],
    ],
)
def test_refuses_what_is_not_rows_of_bytes(raw):
    with pytest.raises(InputError, match="raw must be"):
        ScaledImages(raw)


@given(raw=BYTES, dtype=st.sampled_from([None, np.float32, np.float64]))
def test_array_protocol(raw, dtype):
    images = ScaledImages(raw)
    values = np.asarray(images, dtype=dtype)
    assert values.dtype == (dtype or np.float32)
    assert values.flags.writeable
    np.testing.assert_array_equal(values, reference(raw))
    np.testing.assert_array_equal(np.array(list(images)), values)
    assert (len(images), images.shape, images.ndim) == (len(raw), raw.shape, 2)
    assert (images.size, images.nbytes) == (values.size, values.size)
    with pytest.raises(ValueError):
        np.array(images, copy=False)


@given(raw=BYTES, data=st.data())
def test_rows_is_a_view(raw, data):
    start, stop = data.draw(st.tuples(st.integers(-13, 13), st.integers(-13, 13)))
    part = ScaledImages(raw).rows(slice(start, stop))
    np.testing.assert_array_equal(np.asarray(part), reference(raw)[start:stop])
    assert part.nbytes == 0 or np.shares_memory(part.raw, raw)


@pytest.mark.parametrize("span", [slice(0, 4, 2), slice(None, None, -1), 3, [0, 1]])
def test_rows_refuses_other_steps(span):
    with pytest.raises(InputError, match="span must be"):
        ScaledImages(random_bytes(5, 2)).rows(span)


def test_scikit_learn_takes_it_for_an_array():
    raw = random_bytes(20, 6)
    images, values = ScaledImages(raw), reference(raw)
    checked = check_array(images, dtype=[np.float64, np.float32])
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, values)
    for train, test in KFold(4).split(images):
        np.testing.assert_array_equal(_safe_indexing(images, train), values[train])
        np.testing.assert_array_equal(_safe_indexing(images, test), values[test])
    for found, expected in zip(
        train_test_split(images, random_state=0), train_test_split(values, random_state=0)
    ):
        np.testing.assert_array_equal(found, expected)
    scaled = StandardScaler().fit_transform(images)
    np.testing.assert_array_equal(scaled, StandardScaler().fit_transform(values))


def test_pickle_in_memory_by_content():
    images = ScaledImages(random_bytes(5, 3))
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again.raw, images.raw)


@pytest.mark.parametrize("span", [slice(None), slice(7, 31), slice(49, 50), slice(20, 20)])
def test_pickle_of_a_mapped_file_by_path(mapped, span):
    images, path = mapped
    part = images.rows(span)
    pickled = pickle.dumps(part)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickled)), np.asarray(images)[span])
    assert len(pickled) < 600
    if part.nbytes:
        texts = [argument for _, argument, _ in pickletools.genops(pickled)]
        assert str(path) in texts


def test_pickle_of_pickled_rows(mapped):
    part = pickle.loads(pickle.dumps(mapped[0].rows(slice(10, 40)))).rows(slice(5, 9))
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(np.asarray(again), mapped[0][15:19])


def test_private_changes_of_a_mapped_file_are_pickled_by_content(mapped):
    raw = np.load(mapped[1], mmap_mode="c")
    raw[:] = 7
    assert (pickle.loads(pickle.dumps(ScaledImages(raw))).raw == 7).all()


def first_row(images, row):
    return type(images.raw).__name__, images[row]


@pytest.mark.slow
def test_worker_processes_map_the_same_file(mapped):
    tasks = (joblib.delayed(first_row)(mapped[0], row) for row in (0, 49))
    for row, (kind, values) in zip((0, 49), joblib.Parallel(n_jobs=2)(tasks)):
        assert kind == "memmap"
        np.testing.assert_array_equal(values, mapped[0][row])


def test_unpickling_without_the_file_is_an_error(mapped):
    pickled = pickle.dumps(mapped[0])
    with mapped[1].open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DatasetCorruptError, match="shorter"):
        pickle.loads(pickled)
    mapped[1].unlink()
    with pytest.raises(DatasetNotFoundError, match="gone"):
        pickle.loads(pickled)
    with pytest.raises(HarmonicVAEError):
        pickle.loads(pickled)


def test_repr_says_where_the_bytes_are(mapped):
    assert repr(mapped[0]) == "ScaledImages(shape=(50, 600), dtype=float32, storage=file)"
    assert "storage=memory" in repr(ScaledImages(mapped[0].raw[[0]]))
