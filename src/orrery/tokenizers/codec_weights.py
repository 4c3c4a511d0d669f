"""The stored form of our own small codecs: one safetensors file, matrices in 8 bits with a scale for each output.

A codec is a few megabytes beside a model of a few tens: in 8 bits it is a quarter of float32, and what rounding costs
is measured where a codec is trained. Convolutions read their inputs through all columns of a row, so a scale for each
row (output channel) is as fine as can be had without changing the order of sums.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from orrery.errors import CheckpointError
from orrery.weights.documents import listed
from orrery.weights.shard import read_tensors

FILE = "model.safetensors"
_SCALE = ".rows"
_SMALL = 4096
"""Tensors of fewer values stay as they are: together they weigh little, and the ends of a network are among them."""


def stored_tensors(network: nn.Module) -> dict[str, Tensor]:
    """What is written of a network: weights of 2 dims and more as int8 (out, ...) with `NAME.rows` float32 (out,).

    Other parameters are float16, buffers as they are. `read_weights` undoes it up to half a step of each row,
    max|row| / 254; storing what was read stores the same again.
    """
    tensors: dict[str, Tensor] = {}
    parameters = dict(network.named_parameters())
    for name, tensor in network.state_dict().items():
        if name not in parameters:
            tensors[name] = tensor
        elif tensor.ndim < 2 or tensor.numel() < _SMALL:
            tensors[name] = tensor.half()
        else:
            rows = rearrange(tensor.float(), "o ... -> o (...)")
            scale = rows.abs().amax(dim=1).clamp(min=1e-12) / 127
            tensors[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(tensor.shape)
            tensors[name + _SCALE] = scale
    return tensors


def read_weights(network: nn.Module, folder: Path) -> None:
    """Fill a network from `folder`/model.safetensors, strictly.

    Raises:
        CheckpointError: the file cannot be read, or a tensor is missing, left over or misshapen; it is named.
    """
    path = folder / FILE
    stored = read_tensors(path)
    wanted = network.state_dict()
    problems = _problems(stored, wanted)
    if problems:
        raise CheckpointError(
            f"{path} does not fit the codec's configuration: {'; '.join(problems)}."
            " Check that the weights and the configuration are of the same codec."
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            values = stored[name]
            if values.dtype == torch.int8:
                rows = rearrange(values.float(), "o ... -> o (...)") * stored[name + _SCALE][:, None]
                values = rows.reshape(values.shape)
            tensor.copy_(values)


def _problems(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    known = set(wanted) | {name + _SCALE for name in wanted if name in stored and stored[name].dtype == torch.int8}
    problems = []
    if missing := sorted(known - set(stored)):
        problems.append(f"{len(missing)} missing: {listed(missing)}")
    if unread := sorted(set(stored) - known):
        problems.append(f"{len(unread)} unknown: {listed(unread)}")
    for name in sorted(known & set(stored)):
        shape = wanted[name].shape if name in wanted else wanted[name.removesuffix(_SCALE)].shape[:1]
        if stored[name].shape != shape:
            problems.append(f"{name} has shape {list(stored[name].shape)}, not {list(shape)}")
    return problems
