"""Matrices in 8 bits: half a step of error, the same again when stored again, and strict reading."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orrery.errors import CheckpointError
from orrery.weights.eight_bit import LEAST_VALUES, ROWS, restored, rounded, to_eight_bit
from orrery.weights.folder import write_file
from orrery.weights.reader import load_into
from orrery.weights.shard import read_tensors, write_tensors

SIDE = 80
assert SIDE * SIDE > LEAST_VALUES


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(SIDE, SIDE)
        self.map = nn.Linear(SIDE, SIDE)
        self.cube = nn.Parameter(torch.randn(20, 20, 20))
        self.small = nn.Linear(4, 4)


def made(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = Net()
    with torch.no_grad():
        net.map.weight[3] = 0
        net.map.weight[5] *= 1e4
    return net


def store(folder, tensors):
    write_file(folder / "net.safetensors", lambda write: write_tensors(write, tensors))
    return folder / "net.safetensors"


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
)
def test_the_error_is_at_most_half_a_step_of_the_row(rows):
    matrix = torch.tensor(rows)
    whole, steps = rounded(matrix)
    assert whole.abs().max() <= 127
    assert ((restored(whole, steps) - matrix).abs() <= steps[:, None] * (0.5 + 1e-4) + 1e-35).all()


def test_a_matrix_stored_again_is_the_same():
    matrix = made().map.weight.detach()
    once = restored(*rounded(matrix))
    assert torch.equal(rounded(once)[0], rounded(matrix)[0])
    assert torch.allclose(restored(*rounded(once)), once, rtol=1e-6, atol=0)


def test_only_large_matrices_are_rounded_and_the_worst_is_named():
    net = made()
    table = to_eight_bit(net.state_dict())
    assert {name for name, tensor in table.tensors.items() if tensor.dtype == torch.int8} == {
        "embed.weight",
        "map.weight",
        "cube",
    }
    assert table.tensors["cube.rows"].shape == (20, 20)
    assert torch.equal(table.tensors["small.weight"], net.small.weight)
    assert table.worst[0] in ("embed.weight", "map.weight", "cube")
    assert 1e-4 < table.worst[1] < 0.02


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_a_module_is_filled_with_what_was_stored(tmp_path, dtype):
    net = made()
    file = store(tmp_path, to_eight_bit(net.state_dict()).tensors)
    with torch.device("meta"):
        read = Net()
    load_into(read, [file], None, dtype=dtype, eight_bit=True)
    assert {parameter.dtype for parameter in read.parameters()} == {dtype or torch.float32}
    for name, tensor in net.state_dict().items():
        step = tensor.abs().amax(dim=-1, keepdim=True) / 127 if tensor.numel() > LEAST_VALUES else 0.0
        room = 0.5 * step + (0.01 * tensor.abs() if dtype == torch.bfloat16 else 0) + 1e-6
        assert ((read.state_dict()[name].float() - tensor).abs() <= room * 1.001).all(), name


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda tensors: tensors.pop("map.weight" + ROWS), "scale for each of its rows"),
        (lambda tensors: tensors.update({"map.weight.rows": torch.ones(SIDE - 1)}), "scale for each of its rows"),
        (lambda tensors: tensors.update({"map.weight.rows": torch.ones(SIDE).double()}), "scale for each of its rows"),
        (lambda tensors: tensors.update({"map.bias.rows": torch.ones(SIDE)}), r"map\.bias\.rows"),
        (lambda tensors: tensors.update({"map.weight.rows": torch.full((SIDE,), torch.inf)}), "not saved"),
        (lambda tensors: tensors.pop("map.weight"), "missing"),
    ],
)
def test_scales_that_do_not_fit_are_refused(tmp_path, spoil, named):
    tensors = dict(to_eight_bit(made().state_dict()).tensors)
    spoil(tensors)
    with torch.device("meta"):
        read = Net()
    with pytest.raises(CheckpointError, match=named):
        load_into(read, [store(tmp_path, tensors)], None, eight_bit=True)


def test_eight_bits_are_refused_where_they_were_not_said(tmp_path):
    file = store(tmp_path, to_eight_bit(made().state_dict()).tensors)
    assert read_tensors(file)["map.weight"].dtype == torch.int8
    with torch.device("meta"):
        read = Net()
    with pytest.raises(CheckpointError, match="int8"):
        load_into(read, [file], None)
