"""The MATLAB reader against SciPy's on valid files, and on files that are not."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harmonicvae.exceptions import InputError
from harmonicvae.network import LayeredNetwork
from harmonicvae.readers import mat_reader
from harmonicvae.readers.mat_files import read_cells, write_cells
from harmonicvae.readers.mat_reader import read_variables

NUMBERS = ["f8", "f4", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=5)
matrices = st.sampled_from(NUMBERS).flatmap(lambda kind: hnp.arrays(kind, shapes))


@st.composite
def sparse_matrices(draw):
    dense = draw(hnp.arrays("f8", hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
    mask = draw(hnp.arrays("?", dense.shape))
    return scipy.sparse.csc_matrix(np.where(mask, dense, 0.0))


def cell_of(items, column=False):
    cell = np.empty((len(items), 1) if column else (1, len(items)), dtype=object)
    for i, item in enumerate(items):
        cell.flat[i] = item
    return cell


def dense(value):
    return value.toarray() if hasattr(value, "toarray") else value


OTHERS = {
    "text": "words",
    "structure": {"a": np.ones(3), "b": {"c": 2.0}},
    "imaginary": np.ones(2) * 1j,
    "nested": cell_of([cell_of([np.ones(2)])]),
}


@given(
    items=st.lists(st.one_of(matrices, sparse_matrices()), max_size=4),
    single=st.one_of(matrices, sparse_matrices()),
    packed=st.booleans(),
    column=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_valid_files_are_read_as_scipy_reads_them(tmp_path_factory, items, single, packed, column):
    path = tmp_path_factory.mktemp("mat") / "file.mat"
    content = {
        "before": OTHERS["text"],
        "cells": cell_of(items, column),
        "single": single,
        **OTHERS,
    }
    scipy.io.savemat(path, content, do_compression=packed)
    expected = scipy.io.loadmat(path)
    found = read_variables(path, frozenset(["cells", "single"]))
    assert set(found) == set(content)
    assert all(found[name] is None for name in (*OTHERS, "before"))
    pairs = [*zip(found["cells"], expected["cells"].ravel()), (found["single"], expected["single"])]
    assert len(found["cells"]) == len(items)
    for mine, theirs in pairs:
        np.testing.assert_array_equal(dense(mine), dense(theirs))


def element(kind, content, order):
    pad = b"\0" * (-len(content) % 8)
    return struct.pack(order + "II", kind, len(content)) + content + pad


def array(values, order, name=b"", kind=6):
    """A matrix element of doubles, written out by hand; the oracle for byte order."""
    values = np.asarray(values)
    parts = [
        element(6, struct.pack(order + "II", kind, 0), order),
        element(5, struct.pack(order + "ii", *values.shape), order),
        element(1, name, order),
    ]
    if kind == 1:
        parts += [array(item, order) for item in values.ravel("F")]
    else:
        parts.append(element(9, values.ravel("F").astype(order + "f8").tobytes(), order))
    return element(14, b"".join(parts), order)


def file_of(variables, order, compress=False):
    mark = b"IM" if order == "<" else b"MI"
    start = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + mark
    if compress:
        packed = [zlib.compress(item) for item in variables]
        variables = [struct.pack(order + "II", 15, len(item)) + item for item in packed]
    return start + b"".join(variables)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compress", [False, True])
def test_both_byte_orders_are_read(tmp_path, order, compress):
    cell = cell_of([np.arange(6.0).reshape(2, 3), np.array([[7.0, -0.5]])])
    path = tmp_path / "w.mat"
    path.write_bytes(file_of([array(cell, order, b"weights", kind=1)], order, compress))
    network = LayeredNetwork.from_mat(path, "relu")
    np.testing.assert_array_equal(network.weights[0], cell[0, 0])
    np.testing.assert_array_equal(network.weights[1], cell[0, 1])
    np.testing.assert_array_equal(scipy.io.loadmat(path)["weights"][0, 1], cell[0, 1])


def test_empty_cells_are_read_as_empty_matrices(tmp_path):
    path = tmp_path / "w.mat"
    empty = struct.pack("<II", 14, 0)
    head = [
        element(6, struct.pack("<II", 1, 0), "<"),
        element(5, struct.pack("<ii", 1, 1), "<"),
        element(1, b"weights", "<"),
    ]
    path.write_bytes(file_of([element(14, b"".join(head) + empty, "<")], "<"))
    assert read_cells(path, ["weights"], [])["weights"][0].shape == (0, 0)


def write(path, **variables):
    scipy.io.savemat(path, variables)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 2)), "must be a cell array"),
        ("relu", "'weights': a matrix of numbers is needed, got char"),
        ({"a": 1}, "got struct"),
        (cell_of(["relu"]), "got char"),
        (cell_of([cell_of([1.0])]), "got cell"),
        (cell_of([np.array([[1j]])]), "must be real"),
        (np.array([[1, 2], [3, 4]], dtype=object), "one row or column"),
        (cell_of([]), "at least one weight"),
        (cell_of([np.array([[np.nan]])]), r"weights\[0\] must be finite, got 1 NaN"),
        (cell_of([np.ones((2, 3)), np.ones((2, 3))]), r"weights\[1\] must have 2 columns"),
    ],
)
def test_cells_that_hold_something_else_are_refused(tmp_path, value, message):
    write(tmp_path / "w.mat", weights=value)
    with pytest.raises(InputError, match=message):
        LayeredNetwork.from_mat(tmp_path / "w.mat", "relu")


def test_a_bias_that_is_not_finite_is_refused(tmp_path):
    write(tmp_path / "w.mat", weights=cell_of([np.ones((1, 1))]), bias=cell_of([[[np.inf]]]))
    with pytest.raises(InputError, match=r"biases\[0\] must be finite"):
        LayeredNetwork.from_mat(tmp_path / "w.mat", "relu")


def test_versions_7_3_and_4_are_named(tmp_path):
    path = tmp_path / "w.mat"
    start = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(384)
    for content in (start + b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(500)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"7\.3 \(HDF5\) file; in MATLAB, save it with -v7"):
            LayeredNetwork.from_mat(path, "relu")
    scipy.io.savemat(path, {"weights": np.eye(5)}, format="4")
    with pytest.raises(InputError, match=r"version 4, .* save it with -v7"):
        LayeredNetwork.from_mat(path, "relu")


def test_compressed_data_may_not_swell(tmp_path, monkeypatch):
    path = tmp_path / "w.mat"
    content = file_of([array(cell_of([np.zeros((1, 10**5))]), "<", b"weights", 1)], "<", True)
    assert len(content) < 2000
    path.write_bytes(content)
    read_cells(path, ["weights"], [])
    monkeypatch.setattr(mat_reader, "MAX_BYTES", 10**5)
    with pytest.raises(InputError, match="at most 100000 bytes"):
        read_cells(path, ["weights"], [])


def test_sizes_that_are_too_large_are_refused_before_memory_is_taken(tmp_path):
    huge = scipy.sparse.csc_matrix((10**6, 10**6))
    write(tmp_path / "w.mat", weights=cell_of([huge]))
    with pytest.raises(InputError, match="must take at most 2147483648 bytes"):
        read_cells(tmp_path / "w.mat", ["weights"], [])


def test_truncated_compressed_data_are_refused_even_within_a_complete_file(tmp_path):
    whole = zlib.compress(array(cell_of([np.arange(50.0)[None]]), "<", b"weights", 1))
    for packed in (whole[:-5], whole[:20], whole[:-1] + bytes([whole[-1] ^ 1])):
        content = file_of([], "<") + struct.pack("<II", 15, len(packed)) + packed
        (tmp_path / "w.mat").write_bytes(content)
        with pytest.raises(InputError, match="compressed data"):
            read_cells(tmp_path / "w.mat", ["weights"], [])


def test_two_variables_of_one_name_are_refused(tmp_path):
    one = array(cell_of([np.ones((1, 1))]), "<", b"weights", 1)
    (tmp_path / "w.mat").write_bytes(file_of([one, one], "<"))
    with pytest.raises(InputError, match="two variables 'weights'"):
        read_cells(tmp_path / "w.mat", ["weights"], [])


def test_writing_into_a_missing_folder_is_our_error(tmp_path):
    with pytest.raises(InputError, match="its folder must exist"):
        write_cells(tmp_path / "none" / "w.mat", {"weights": [np.eye(2)]})
    with pytest.raises(InputError, match="is not a file"):
        read_cells(tmp_path, ["weights"], [])
