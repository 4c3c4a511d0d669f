"""Fill a module from safetensors files, strictly: what is not read or not filled is an error that lists names.

It knows no model: the module says what must be there, the layout how it is called. Files are found by `sources`.
"""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from orrery.errors import CheckpointError
from orrery.weights.documents import listed
from orrery.weights.eight_bit import ROWS, restored
from orrery.weights.rename import Layout, Place, Placement, published_shape
from orrery.weights.shard import Entry, Shard, is_finite, read_bytes
from orrery.weights.sources import open_shards

_STORED_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_SCALES = ("*_scale", "*_scale_inv", "*_scale_2", "*_quantizer.*", "*.scales", "*.zero_point", "*.qzeros")
_QUANTISED = (
    "These weights are quantised, and converting them without their scales gives garbage: take a bf16 revision."
)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What a load did with every published tensor."""

    read: Mapping[str, str]
    """Our name -> published name."""
    ignored: Mapping[str, str]
    """Published name -> why it was left unread."""
    files: tuple[Path, ...]
    bytes_read: int


def load_into(
    module: nn.Module,
    sources: Sequence[Path],
    layout: Layout | None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    keep_float32: tuple[str, ...] = (),
    stays: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    eight_bit: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> LoadReport:
    """Fill every parameter and persistent buffer of `module` from safetensors files.

    Names, shapes and dtypes are checked from the headers before anything is read; then one tensor at a time is read,
    converted and placed, so that memory grows by the module and one tensor. If a tensor turns out to hold NaN, the
    module is left partly filled: throw it away.

    Args:
        module: on the meta device, to be given memory as it fills; or with memory, to be filled in place.
        sources: safetensors files, index files or folders that hold them.
        layout: how the files call their tensors; None where they use the module's own names.
        dtype: of floating tensors that were on the meta device; None keeps what is stored.
        device: of tensors that were on the meta device.
        keep_float32: names, or names of submodules, that are float32 whatever `dtype` says.
        stays: names, or names of submodules, whose tensors stay on the CPU whatever `device` says.
        ignore: patterns (`*` stands for anything) of published names to leave unread.
        eight_bit: matrices may be stored as `weights.eight_bit` does; they are restored.
        progress: called with the bytes read and the bytes to read.

    Raises:
        ValueError: `dtype` is given for a module that has memory already.
        CheckpointError: a tensor is missing, unknown, misshapen, quantised, not finite or there twice, or a file is
            missing or damaged. The message names tensors and files.
    """
    targets = module.state_dict(keep_vars=True)
    if dtype is not None and not all(target.is_meta for target in targets.values()):
        raise ValueError(f"dtype={dtype} is for a module on the meta device; this one keeps its own dtypes.")
    shards, placement = survey(module, sources, layout, ignore=ignore, eight_bit=eight_bit)
    entries = {name: (shard, entry) for shard in shards for name, entry in shard.entries.items()}

    sizes = [entries[name][1].stop - entries[name][1].start for name in placement.places]
    # One buffer for every tensor to be converted: freed and taken anew, the allocator would keep them all.
    buffer = torch.empty(max(sizes, default=0), dtype=torch.uint8)
    done = 0
    for shard in shards:
        with shard.path.open("rb", buffering=0) as file:
            for name, entry in shard.entries.items():
                place = placement.places.get(name)
                if place is None:
                    continue
                tensor = targets[place.ours].detach()
                if tensor.is_meta:
                    kept = _is_under(place.ours, keep_float32)
                    wanted = entry.dtype if not tensor.is_floating_point() else torch.float32 if kept else dtype
                    if wanted is None and entry.dtype == torch.int8 and tensor.is_floating_point():
                        wanted = torch.float32
                    where = "cpu" if _is_under(place.ours, stays) else device
                    tensor = torch.empty(tensor.shape, dtype=wanted or entry.dtype, device=where)
                    _put(module, place.ours, tensor)
                if tensor.device.type == "cpu" and tensor.dtype == entry.dtype and tensor.is_contiguous():
                    read_bytes(file, entry, tensor.view(-1).view(torch.uint8))
                else:
                    stored = buffer[: entry.stop - entry.start]
                    read_bytes(file, entry, stored)
                    values = stored.view(entry.dtype).view(tensor.shape)
                    if entry.dtype == torch.int8 and tensor.is_floating_point():
                        steps = torch.empty(shard.entries[name + ROWS].shape)
                        read_bytes(file, shard.entries[name + ROWS], steps.view(-1).view(torch.uint8))
                        values = restored(values, steps)
                    tensor.copy_(values)
                if not is_finite(tensor):
                    raise CheckpointError(
                        f"Tensor {name!r} in {shard.path} holds NaN or infinity as {tensor.dtype}. "
                        "Fetch the file again, or load it as float32."
                    )
                done += entry.stop - entry.start
                if progress is not None:
                    progress(done, sum(sizes))
    left = [name for name, tensor in chain(module.named_parameters(), module.named_buffers()) if tensor.is_meta]
    assert not left, f"not stored and still on the meta device: {left}"
    return LoadReport(
        read={place.ours: name for name, place in placement.places.items()},
        ignored=placement.ignored,
        files=tuple(shard.path for shard in shards),
        bytes_read=done,
    )


def survey(
    module: nn.Module,
    sources: Sequence[Path],
    layout: Layout | None,
    *,
    ignore: tuple[str, ...] = (),
    eight_bit: bool = False,
) -> tuple[list[Shard], Placement]:
    """Check names, shapes and dtypes of every tensor against a module, from the files' headers alone.

    Args:
        module: may be on the meta device.
        sources, layout, ignore, eight_bit: as `load_into`.

    Returns:
        The headers, and where each tensor goes.

    Raises:
        CheckpointError: as `load_into`, but for values, which are not read.
    """
    shards = open_shards(sources)
    entries = {name: (shard, entry) for shard in shards for name, entry in shard.entries.items()}
    names = list(entries)
    rounded = {name for name in names if entries[name][1].dtype == torch.int8} if eight_bit else set()
    steps = {name + ROWS for name in rounded}
    placement = _place_names([name for name in names if name not in steps], layout, ignore)
    where = listed(str(source) for source in sources)
    _check(placement, entries, module.state_dict(keep_vars=True), where, rounded)
    return shards, placement


def _place_names(names: list[str], layout: Layout | None, ignore: tuple[str, ...]) -> Placement:
    left_out = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)}
    kept = [name for name in names if name not in left_out]
    if layout is None:
        placement = Placement(places={name: Place(ours=name) for name in kept}, ignored={})
    else:
        placement = layout.place(kept)
    asked = dict.fromkeys(left_out, "the caller asked to leave it unread")
    return replace(placement, ignored={**placement.ignored, **asked})


def _check(
    placement: Placement,
    entries: Mapping[str, tuple[Shard, Entry]],
    targets: Mapping[str, Tensor],
    where: str,
    rounded: Collection[str],
) -> None:
    """Raise one error for all that is wrong between the headers and the module."""
    problems: list[str] = []

    def report(what: str, names: Iterable[str]) -> None:
        if found := list(names):
            problems.append(f"{len(found)} {what}: {listed(found)}")

    def named(name: str) -> str:
        return f"{name!r} in {entries[name][0].path.name}"

    scales = [name for name in placement.unknown if any(fnmatch.fnmatchcase(name, pattern) for pattern in _SCALES)]
    report("are quantisation scales", map(named, scales))
    report("unknown", (named(name) for name in placement.unknown if name not in scales))
    filled: dict[str, str] = {}
    quantised = bool(scales)
    for name, place in placement.places.items():
        target, entry = targets.get(place.ours), entries[name][1]
        if target is None:
            problems.append(f"{named(name)} has no place in this model (it would be {place.ours!r})")
            continue
        if place.ours in filled:
            problems.append(f"{named(name)} and {named(filled[place.ours])} are both {place.ours!r}")
        filled[place.ours] = name
        expected = published_shape(place.form, tuple(target.shape))
        if entry.shape != expected:
            problems.append(f"{named(name)} has shape {list(entry.shape)}, this model needs {list(expected)}")
        if name in rounded and target.is_floating_point():
            shard, steps = entries.get(name + ROWS, (None, None))
            fits = steps is not None and (steps.dtype, steps.shape) == (torch.float32, entry.shape[:-1])
            if not fits or shard is not entries[name][0] or len(entry.shape) < 2:
                problems.append(f"{named(name)} has no float32 scale for each of its rows beside it, {name + ROWS!r}")
        elif entry.dtype not in (_STORED_FLOATS if target.is_floating_point() else (target.dtype,)):
            quantised = quantised or target.is_floating_point()
            problems.append(f"{named(name)} is stored as {entry.dtype}, this model needs {target.dtype}")
    report("missing", (repr(name) for name in targets if name not in filled))
    if problems:
        rest = f"; and {len(problems) - 8} more problems" if len(problems) > 8 else ""
        advice = _QUANTISED if quantised else "Check that the weights and the configuration are of the same model."
        raise CheckpointError(f"{where} does not fit the model: {'; '.join(problems[:8])}{rest}. {advice}")


def _is_under(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Give the parameter or buffer `name`, so far on the meta device, its memory."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    old = owner.get_parameter(leaf) if leaf in dict(owner.named_parameters(recurse=False)) else None
    setattr(owner, leaf, tensor if old is None else nn.Parameter(tensor, requires_grad=old.requires_grad))
