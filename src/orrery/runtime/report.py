"""What a checkpoint is, as plain data and as lines of text, for `orrery inspect`. No tensor is read into memory.

Names, shapes and number formats come from the files' headers and are held against the model that the configuration
describes; hashes read every byte once, in pieces. Values are looked at when a checkpoint is loaded, not here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from orrery.errors import CheckpointError
from orrery.runtime.generate import Report
from orrery.runtime.load import device_named, dtype_named, empty_eyes, empty_mot, hashes_of, weight_files
from orrery.runtime.outline import Outline, Stored, outline
from orrery.runtime.selftest import TOLERANCE, check_numbers
from orrery.tasks.fit import abilities
from orrery.weights.eight_bit import ROWS
from orrery.weights.hub import resolve, shadowing
from orrery.weights.reader import survey
from orrery.weights.shard import Shard
from orrery.weights.sources import open_shards

TRAINED = {
    True: "trained",
    False: "random: nothing here was learned",
    None: "as released; the folder does not say more",
}


@dataclass(frozen=True, kw_only=True)
class CheckpointReport:
    """The facts about one checkpoint."""

    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-able. `tasks` maps each task to None, or to why it cannot be done."""
        return dict(self.facts)

    def to_text(self) -> str:
        """The main facts, for reading."""
        facts = self.facts
        sizes = {name: count for name, count in facts["parameters"].items() if count}
        codecs = {name: facts[name] for name in ("vision_codec", "sound_codec")}
        test = facts["self_test"]
        formats = ", ".join(f"{count:,} in {name}" for name, count in facts["stored"]["values"].items())
        rows = [
            ("path", facts["path"]),
            ("layout", facts["layout"]),
            ("family", facts["family"]),
            ("licence", facts["licence"]),
            ("weights", TRAINED[facts["weights_trained"]]),
            ("stored", f"{facts['stored']['bytes']:,} bytes: {formats} values"),
            *[(f"parameters, {name.replace('_', ' ')}", f"{count:,}") for name, count in sizes.items()],
            *[
                (name.replace("_", " "), "none" if config is None else _pairs(config))
                for name, config in codecs.items()
            ],
            ("tokenizer", "none" if facts["tokenizer"] is None else f"{facts['tokenizer']['size']:,} tokens"),
            *[(f"task {name}", "yes" if why is None else f"no: {why}") for name, why in facts["tasks"].items()],
            ("sees pictures", "yes" if "see" in facts["capabilities"] else "no: there is no vision encoder"),
            ("makes sound", "yes" if "sound" in facts["capabilities"] else "no: there is no sound stream or codec"),
            *[row for name, contract in facts["contracts"].items() for row in _contract_rows(name, contract)],
            *[(f"sha256 {name}", digest or "not read") for name, digest in facts["files"].items()],
            *[(f"checked: {name}", text) for name, text in facts["verified"].items()],
            (
                "self-test",
                f"{test['device']} in {test['dtype']}: {test['error']:.2g} of the largest value off, "
                f"{test['allowed']:g} allowed",
            ),
            *[("note", note) for note in facts["notes"]],
        ]
        width = max(len(label) for label, _ in rows) + 2
        return "\n".join(f"{label:{width}}{value}" for label, value in rows)


def report(
    checkpoint: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    verify: bool = True,
    progress: Report | None = None,
) -> CheckpointReport:
    """Describe a checkpoint from its documents and the headers of its files.

    Args:
        checkpoint: local folder, name of a checkpoint that comes with the package, or hub id.
        device, dtype: what the numeric self-test is run on.
        verify: False leaves the files unread, so that the hashes of a manifest are repeated rather than checked.
        progress: told the bytes hashed and the bytes to hash.

    Raises:
        CheckpointError: no checkpoint, or its files contradict its configuration or manifest; or the device or number
            format computes wrong numbers.
    """
    path = resolve(checkpoint)
    place, number = device_named(device), dtype_named(dtype)
    error = check_numbers(place, number)
    plan = outline(path, verify=verify, report=progress)
    mot = empty_mot(plan.mot)
    eyes = None if plan.eyes is None else empty_eyes(plan.eyes)
    shards = [*_checked(mot, plan.mot_stored), *_checked(eyes, plan.eyes_stored)]
    codecs = {name: _codec_shards(plan, config) for name, config in _codecs(plan).items()}
    every = {shard.path: shard for shard in [*shards, *(shard for found in codecs.values() for shard in found)]}
    files: Mapping[str, str | None] | None = plan.hashes
    if files is None:
        files = hashes_of(plan, progress) if verify else dict.fromkeys(_names(plan))
    return CheckpointReport(
        facts={
            "format": "orrery.inspect",
            "version": 1,
            "path": str(plan.path),
            "layout": plan.layout,
            "family": plan.family,
            "licence": plan.licence,
            "weights_trained": plan.trained,
            "parameters": {
                **_sizes(mot),
                "vision_encoder": None if eyes is None else _count(eyes),
                **{name: sum(_values(shard).total() for shard in found) for name, found in codecs.items()},
            },
            "stored": {
                "bytes": sum(shard.path.stat().st_size for shard in every.values()),
                "values": dict(sum((_values(shard) for shard in every.values()), Counter[str]())),
            },
            "config": plan.mot.to_json(),
            "vision_encoder": None if plan.eyes is None else plan.eyes.to_json(),
            **{name: None if config is None else dict(config) for name, config in _codecs(plan).items()},
            "tokenizer": None if plan.text is None else {"size": plan.text.size, "special": dict(plan.text.special)},
            "capabilities": sorted(plan.capabilities),
            "tasks": abilities(plan.capabilities, plan.family, plan.tasks),
            "contracts": {contract.embodiment: contract.to_json() for contract in plan.contracts},
            "files": dict(files),
            "verified": _verified(plan, verify=verify),
            "self_test": {"device": device, "dtype": dtype, "error": error, "allowed": TOLERANCE[number]},
            "notes": [note for note in (shadowing(checkpoint), *plan.notes) if note],
        }
    )


def _checked(module: nn.Module | None, stored: Stored | None) -> list[Shard]:
    if module is None or stored is None:
        return []
    shards, _ = survey(module, [stored.source], stored.layout, eight_bit=stored.storage == "int8")
    return shards


def _codecs(plan: Outline) -> dict[str, Mapping[str, Any] | None]:
    return {"vision_codec": plan.vision_codec, "sound_codec": plan.sound_codec}


def _codec_shards(plan: Outline, config: Mapping[str, Any] | None) -> list[Shard]:
    """Headers of a codec that has weights; its own loader checks them against its configuration."""
    if config is None or "folder" not in config:
        return []
    folder = plan.path / config["folder"]
    if not folder.is_dir():
        raise CheckpointError(f"{plan.path} lacks the folder {config['folder']}/ of its codec. Fetch it again.")
    return open_shards([folder])


def _sizes(mot: nn.Module) -> dict[str, int]:
    """Parameters of the whole network and of its parts; the parts sum to the whole."""
    sizes = dict.fromkeys(("network", "text_tower", "generation_tower", "vision_head", "sound_head", "action_head"), 0)
    for name, parameter in mot.named_parameters():
        first = name.split(".")[0]
        head = first.split("_")[0]
        # What the generation tower alone reads, the text keys under a norm of their own among it, counts as its own.
        generation = ".generation." in name or ".text_key_norm." in name or first in ("generation_norm", "time_embed")
        is_head = head in ("vision", "sound", "action")
        part = f"{head}_head" if is_head else "generation_tower" if generation else "text_tower"
        sizes["network"] += parameter.numel()
        sizes[part] += parameter.numel()
    return sizes


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _values(shard: Shard) -> Counter[str]:
    """How many values a file stores in each number format."""
    count: Counter[str] = Counter()
    for name, entry in shard.entries.items():
        if name.endswith(ROWS):
            continue  # the scales of a matrix in 8 bits are not values of the model
        size = 1
        for side in entry.shape:
            size *= side
        count[str(entry.dtype).removeprefix("torch.")] += size
    return count


def _names(plan: Outline) -> list[str]:
    return [file.relative_to(plan.path).as_posix() for file in weight_files(plan)]


def _verified(plan: Outline, *, verify: bool) -> dict[str, str]:
    """In words, what was looked at and what was not."""
    if plan.hashes is not None:
        hashes = "every file read, as the manifest says" if verify else "not read; hashes are what the manifest says"
    else:
        hashes = "weight files read; the folder states no hashes to compare with" if verify else "not read"
    weighty = [name for name, config in _codecs(plan).items() if config is not None and "folder" in config]
    return {
        "names and shapes": "every tensor of the network and the vision encoder, from the headers",
        "hashes": hashes,
        "values": "not looked at; loading refuses NaN and infinity",
        "codecs": f"headers of {' and '.join(weighty)} only" if weighty else "none has weights",
    }


def _pairs(config: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in config.items() if name != "kind")
    return f"{config['kind']} ({rest})"


def _contract_rows(name: str, contract: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The whole contract, one entry a line."""
    rows = []
    for key, value in contract.items():
        if key in ("normaliser", "state_normaliser") and value is not None:
            text = f"{value['kind']}, sha256 {value['sha256']}"
        elif key == "cameras":
            text = "; ".join(_camera_line(camera) for camera in value) or "none"
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
        rows.append((f"contract {name}: {key}", text))
    return rows


def _camera_line(camera: Mapping[str, Any]) -> str:
    size = f"{camera['height']} x {camera['width']}"
    return f"{camera['name']} ({size}, layout {camera['layout']}, flip {camera['flip']})"
