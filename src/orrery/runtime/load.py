"""Fill a model from a checkpoint, whichever of the three layouts it is in. What is there is found by `outline`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from orrery.errors import CheckpointError
from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.model.offload import Offload, leave_on_cpu, stays
from orrery.model.vision import EdgeVision, QwenVision, vision_encoder
from orrery.model.vision_config import VisionEncoderConfig
from orrery.runtime.generate import Report
from orrery.runtime.model import Model, Origin
from orrery.runtime.outline import Outline, Parts, outline
from orrery.runtime.price import made_fast
from orrery.runtime.selftest import check_numbers
from orrery.runtime.speed import Speed, default_speed, speed_named
from orrery.tasks.defaults import FAMILIES
from orrery.tokenizers.codecs import sound_from_config, vision_from_config
from orrery.weights.folder import sha256_of_file
from orrery.weights.hub import resolve, shadowing
from orrery.weights.reader import load_into
from orrery.weights.sources import open_shards

KEEP_FLOAT32 = ("time_embed",)
"""The noise-level embedding computes in float32 whatever the rest does."""


def load(
    source: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    parts: Parts = "all",
    family: str | None = None,
    verify: bool = True,
    report: Report | None = None,
    speed: Speed | str | None = None,
    offload: Offload | None = None,
) -> Model:
    """Open a checkpoint for `orrery.run`.

    Args:
        source: local folder; or the name of a checkpoint that comes with the package, such as "pico"; or hub id such as
            "nvidia/Cosmos3-Nano" (from the local cache when offline).
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "bfloat16" or "float16", of the network.
        parts: "reasoner" leaves the generation tower unread, about half of the bytes.
        family: whose defaults apply; found from the checkpoint when None.
        verify: False skips the hashes of our own layout, for huge local files.
        report: told the bytes hashed or read and how many there are; hashing comes first, then reading.
        speed: "plain", "fast", "fp8", "8bit" or a `Speed`. None: "fast" on a GPU in bfloat16, "plain" elsewhere. What
            an approximate speed costs is measured here, and stands in `Model.price`.
        offload: "text" leaves the text tower in CPU memory, from where it comes to the device block by block, once a
            prompt and once a written token; "all" the generation tower as well, at every sampling step. The numbers
            stay the same to the bit (`model.offload`).

    Raises:
        SettingsError: a speed that the model, the device or this version does not have, or that costs too much.
        CheckpointError: anything missing, extra, misshapen, not finite or of another hash, by name; or a device or
            number format that computes wrong numbers.
    """
    path = resolve(source)
    place, number = device_named(device), dtype_named(dtype)
    if family is not None and family not in FAMILIES:
        raise CheckpointError(f"There is no model family {family!r}. Known: {', '.join(FAMILIES)}.")
    asked = speed_named(speed) if isinstance(speed, str) else speed
    check_numbers(place, number)
    plan = outline(path, parts=parts, verify=verify, report=report)
    mot, stored = empty_mot(plan.mot), plan.mot_stored
    load_into(
        mot,
        [stored.source],
        stored.layout,
        dtype=number,
        device=place,
        keep_float32=KEEP_FLOAT32,
        stays=stays(mot, offload),
        eight_bit=stored.storage == "int8",
        progress=report,
    )
    if offload is not None:
        leave_on_cpu(mot, offload, place)
    eyes = None
    if plan.eyes is not None and plan.eyes_stored is not None:
        eyes = empty_eyes(plan.eyes)
        load_into(
            eyes,
            [plan.eyes_stored.source],
            plan.eyes_stored.layout,
            dtype=number,
            device=place,
            eight_bit=plan.eyes_stored.storage == "int8",
        )
    vision, sound = plan.vision_codec, plan.sound_codec
    model = Model(
        mot=mot.eval(),
        text=plan.text,
        vision=None if vision is None else vision_from_config(vision, plan.path, place, number),
        # In float32 whatever the rest does: it is small, and its snake activations are not.
        sound=None if sound is None else sound_from_config(sound, plan.path, place, torch.float32),
        eyes=None if eyes is None else eyes.eval(),
        contracts={contract.embodiment: contract for contract in plan.contracts},
        family=plan.family if family is None else family,
        origin=Origin(
            path=plan.path,
            layout=plan.layout,
            weights=hashes_of(plan) if plan.hashes is None else plan.hashes,
            trained=plan.trained,
            licence=plan.licence,
            notes=tuple(note for note in (shadowing(source), *plan.notes) if note),
        ),
        tasks=plan.tasks,
        offload=offload,
    )
    if asked is None:
        resident = offload is None or (offload == "text" and plan.mot.generates)
        asked = default_speed(place.type, dtype) if resident else Speed()
    return made_fast(model, asked)


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where they would be drawn from a normal distribution.

    On the meta device there is nothing to draw, yet torch imports its compiler for it, which takes seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return given["tensor"] if func is nn.init.normal_ else func(*args, **given)


def empty_mot(config: MoTConfig) -> MoT:
    """The network on the meta device: shapes without numbers."""
    with torch.device("meta"), _Unfilled():
        return MoT(config)


def empty_eyes(config: VisionEncoderConfig) -> QwenVision | EdgeVision:
    """The vision encoder on the meta device."""
    with torch.device("meta"), _Unfilled():
        return vision_encoder(config)


def weight_files(plan: Outline) -> list[Path]:
    """Every safetensors file that a load reads, those of the codecs included."""
    stored = [plan.mot_stored.source, *([] if plan.eyes_stored is None else [plan.eyes_stored.source])]
    folders = [config["folder"] for config in (plan.vision_codec, plan.sound_codec) if config and "folder" in config]
    files = [shard.path for source in stored for shard in open_shards([source])]
    return sorted({*files, *(file for folder in folders for file in (plan.path / folder).glob("*.safetensors"))})


def hashes_of(plan: Outline, report: Report | None = None) -> dict[str, str]:
    """sha256 of every weight file, by its name in the folder; each is read once, in pieces."""
    files = weight_files(plan)
    total, done = sum(file.stat().st_size for file in files), 0
    hashes = {}
    for path in files:
        hashes[path.relative_to(plan.path).as_posix()] = sha256_of_file(path)
        done += path.stat().st_size
        if report is not None:
            report(done, total)
    return hashes


def device_named(name: str) -> torch.device:
    """The device called `name`; CheckpointError if it is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"There is no device {name!r}. Give 'cpu' or 'cuda'.") from None
    if device.type not in ("cpu", "cuda"):
        raise CheckpointError(f"Device {name!r} is not supported. Give 'cpu' or 'cuda'.")
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise CheckpointError(
            f"Device {name!r} is not there: {torch.cuda.device_count()} GPUs are seen. Use 'cpu', or another index."
        )
    return device


def dtype_named(name: str) -> torch.dtype:
    """The number format called `name`; CheckpointError for one that is not supported."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise CheckpointError(f"Number format {name!r} is not supported. Known: {', '.join(known)}.")
    return known[name]
