"""One safetensors file: its header checked in full, its tensors read and written one at a time.

Read here rather than through the safetensors package because its errors name no tensor, a key given twice passes
unseen, and its memory map counts a whole shard as this process's memory. Which tensors belong together is `sources`'.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from jaxtyping import UInt8
from torch import Tensor

from orrery.errors import CheckpointError
from orrery.weights.documents import load_json_object

STORED = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of the dtypes that are read and written."""

# Known so that a quantised file can be refused by the reader in words about its tensors.
_EIGHT_BIT_FLOATS = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
}
_DTYPES = STORED | _EIGHT_BIT_FLOATS
_NAMES = {dtype: name for name, dtype in STORED.items()}

MAX_HEADER_BYTES = 100_000_000
"""The safetensors package's own limit: a longer header is a hostile or damaged file."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one tensor lies in a file. Offsets are bytes from the start of the file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The checked header of one file."""

    path: Path
    entries: Mapping[str, Entry]
    """Tensor name -> entry, in the order of the file."""


def open_shard(path: Path) -> Shard:
    """Read and check a header; no tensor is read.

    Raises:
        CheckpointError: the file is missing, cut short, longer than its header says, or its header is not one.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _damaged(path, f"its header should be {length} bytes, and the file has {size}")
            header = load_json_object(file.read(length), path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Fetch the file again.") from None
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise _damaged(path, "its __metadata__ is not a table of texts")
    entries = sorted((_entry(path, name, value, 8 + length) for name, value in header.items()), key=_position)
    end = 8 + length
    for entry in entries:
        if entry.start != end:
            raise _damaged(path, f"tensor {entry.name!r} starts at byte {entry.start}, and {end} bytes come before it")
        end = entry.stop
    if end != size:
        raise _damaged(path, f"its tensors end at byte {end}, and the file has {size}")
    return Shard(path=path, entries={entry.name: entry for entry in entries})


def read_bytes(file: BinaryIO, entry: Entry, into: UInt8[Tensor, " N"]) -> None:
    """Read one tensor's bytes into memory on the CPU, N of them.

    Raises:
        CheckpointError: the file ends early.
    """
    view = into.numpy().data
    file.seek(entry.start)
    done = 0
    while done < len(view):  # one call reads at most 2 GiB
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise CheckpointError(f"{file.name} ends inside tensor {entry.name!r}. Fetch the file again.")
        done += count


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file, on the CPU, as stored. For training state and tests; models load through `reader`.

    Raises:
        CheckpointError: as `open_shard` and `read_bytes`.
    """
    shard = open_shard(path)
    with path.open("rb", buffering=0) as file:
        tensors = {name: torch.empty(entry.shape, dtype=entry.dtype) for name, entry in shard.entries.items()}
        for name, entry in shard.entries.items():
            read_bytes(file, entry, tensors[name].reshape(-1).view(torch.uint8))
        return tensors


def write_tensors(write: Callable[[bytes | memoryview], object], tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file with one tensor at a time on the CPU, in an order that depends on names and dtypes only.

    Args:
        write: takes the next bytes of the file.
        tensors: on any device, of any strides.

    Raises:
        CheckpointError: a tensor holds NaN or an infinity, or is of a dtype that checkpoints do not store.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"Tensor {name!r} is {tensor.dtype}, which is not stored. Convert it before saving.")
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8, so that others can map them into memory
    write(len(text).to_bytes(8, "little") + text)
    for name in order:
        tensor = tensors[name].detach()
        if not is_finite(tensor):
            raise CheckpointError(
                f"Tensor {name!r} holds NaN or infinity and is not saved. Go back to an earlier step."
            )
        write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite. Needs no memory of the tensor's size, as `isfinite` would."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)
    return bool(low.isfinite() and high.isfinite())


def _position(entry: Entry) -> tuple[int, int]:
    return entry.start, entry.stop


def _entry(path: Path, name: str, value: object, origin: int) -> Entry:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop], **rest} if not rest:
            if dtype not in _DTYPES:
                raise CheckpointError(
                    f"Tensor {name!r} in {path} is stored as {dtype!r}, which is not read. Known: {', '.join(_DTYPES)}."
                )
            numbers = (*shape, start, stop)
            if all(type(number) is int and number >= 0 for number in numbers):
                size = math.prod(shape) * _DTYPES[dtype].itemsize
                if stop - start != size:
                    raise _damaged(
                        path, f"tensor {name!r} has {stop - start} bytes, and its {dtype} {shape} needs {size}"
                    )
                return Entry(
                    name=name, dtype=_DTYPES[dtype], shape=tuple(shape), start=origin + start, stop=origin + stop
                )
    raise _damaged(path, f"the entry of tensor {name!r} is not a dtype, a shape and two offsets")


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or not a safetensors file: {reason}. Fetch the file again.")
