import json
import pickle

import numpy as np
import pytest

from orrery.errors import RequestError
from orrery.tasks.action_file import read_actions

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("document", [ROWS.tolist(), {"actions": ROWS.tolist()}, {"action": ROWS.tolist(), "fps": 5}])
def test_rows_of_json_come_back_equal(document, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    np.testing.assert_array_equal(read_actions(path), ROWS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_an_array_comes_back_as_float32(dtype, tmp_path):
    np.save(tmp_path / "a.npy", ROWS.astype(dtype))
    read = read_actions(tmp_path / "a.npy")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, ROWS.astype(dtype).astype(np.float32))


def _header(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"1,2,3"),
        ("a.json", b"{}"),
        ("a.json", b'{"actions": [], "action": []}'),
        ("a.json", b'{"actions": 3}'),
        ("a.json", b"[[1, NaN]]"),
        ("a.npy", b""),
        ("a.npy", b"\x93NUMPY"),
        ("a.npy", pickle.dumps([[1.0]])),
        ("a.npy", _header((4, 3))),
        ("a.npy", _header((2**40, 3)) + bytes(64)),
        ("a.npy", _header((-1, 3)) + bytes(64)),
    ],
)
def test_a_file_that_holds_no_table_is_refused_on_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read_actions(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 65)), np.full((2, 2), np.inf), np.array([["a"]])])
def test_an_array_that_is_no_table_is_refused(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(RequestError):
        read_actions(tmp_path / "a.npy")


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RequestError, match="ValueError"):
        read_actions(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.json", "a.npy"])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(RequestError, match=name):
        read_actions(tmp_path / name)
