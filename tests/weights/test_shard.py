"""One safetensors file: what the safetensors package writes is read, what is written here it reads, damage is named."""

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.errors import CheckpointError
from orrery.weights.shard import STORED, is_finite, open_shard, read_tensors, write_tensors

SHAPES = st.lists(st.integers(0, 4), max_size=3)


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=6), st.tuples(SHAPES, st.sampled_from(list(STORED))), max_size=4
    )
)
def test_files_are_exchanged_with_the_safetensors_package(shapes, tmp_path_factory):
    path = tmp_path_factory.mktemp("exchange") / "t.safetensors"
    tensors = {name: torch.ones(shape).to(STORED[dtype]) for name, (shape, dtype) in shapes.items()}
    tensors.pop("__metadata__", None)
    with path.open("wb") as file:
        write_tensors(file.write, tensors)
    ours = path.read_bytes()
    safetensors.torch.save_file(tensors, path)
    for read in (safetensors.torch.load(ours), read_tensors(path)):
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name].float(), tensor.float())
            assert read[name].shape == tensor.shape


def test_views_and_transposes_are_written_as_their_values(tmp_path):
    table = torch.arange(12.0).reshape(3, 4)
    with (tmp_path / "t.safetensors").open("wb") as file:
        write_tensors(file.write, {"a": table.T, "b": table[:, 1], "c": table})
    read = read_tensors(tmp_path / "t.safetensors")
    assert torch.equal(read["a"], table.T)
    assert torch.equal(read["b"], table[:, 1])


def test_a_tensor_that_is_not_finite_is_not_written(tmp_path):
    for bad in (float("nan"), float("inf"), -float("inf")):
        with (
            (tmp_path / "t.safetensors").open("wb") as file,
            pytest.raises(CheckpointError, match="'b' holds NaN or infinity"),
        ):
            write_tensors(file.write, {"a": torch.ones(2), "b": torch.tensor([1, bad]).bfloat16()})


def test_is_finite_agrees_with_isfinite():
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        for bad in (1.0, float("nan"), float("inf"), -float("inf")):
            tensor = torch.tensor([0.0, bad, 3.0]).to(dtype)
            assert is_finite(tensor) == bool(tensor.isfinite().all())
    assert is_finite(torch.empty(0))


def _file(header: object, data: bytes = b"\0" * 8) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _f32(shape, start, stop):
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


DAMAGED = {
    "empty": (b"", "the file has 0"),
    "header longer than the file": ((10**6).to_bytes(8, "little") + b"{}", "should be 1000000 bytes"),
    "header of 2^63 bytes": ((2**63).to_bytes(8, "little") + b"{}", "should be 9223372036854775808 bytes"),
    "not JSON": (_file(b"PK\3\4"), "not a readable JSON"),
    "a list": (_file([]), "holds a JSON list"),
    "nested too deeply": (_file(b"[" * 100_000 + b"]" * 100_000), "not a readable JSON"),
    "a tensor twice": (
        _file(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
        ),
        "key given twice: a",
    ),
    "NaN in the header": (_file(b'{"a":NaN}'), "NaN is not JSON"),
    "not UTF-8": (_file(b'{"\xff":1}'), "not a readable JSON"),
    "an entry that is a number": (_file({"a": 3}), "entry of tensor 'a'"),
    "an entry with more": (_file({"a": _f32([2], 0, 8) | {"scale": 2}}), "entry of tensor 'a'"),
    "a negative length": (_file({"a": _f32([-1], 0, 8)}), "entry of tensor 'a'"),
    "a truth value as length": (_file({"a": _f32([True, 2], 0, 8)}), "entry of tensor 'a'"),
    "a fractional offset": (_file({"a": _f32([2], 0, 8.0)}), "entry of tensor 'a'"),
    "a shape too small": (_file({"a": _f32([1], 0, 8)}), "'a' has 8 bytes"),
    "a shape of 2^60": (_file({"a": _f32([2**30, 2**30], 0, 8)}), "'a' has 8 bytes"),
    "a hole": (_file({"a": _f32([1], 4, 8)}), "'a' starts at byte"),
    "an overlap": (_file({"a": _f32([2], 0, 8), "b": _f32([1], 4, 8)}), "'b' starts at byte"),
    "bytes at the end": (_file({"a": _f32([1], 0, 4)}), "tensors end at byte"),
    "cut short": (_file({"a": _f32([4], 0, 16)}), "tensors end at byte"),
    "an unknown dtype": (
        _file({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}}),
        "'a' .* is stored as 'F4'",
    ),
    "metadata that is not text": (_file({"__metadata__": {"a": 1}, "a": _f32([2], 0, 8)}), "__metadata__"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_header_is_refused_and_the_file_named(kind, tmp_path):
    data, message = DAMAGED[kind]
    path = tmp_path / "some.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_shard(path)
    assert "some.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            open_shard(path)
