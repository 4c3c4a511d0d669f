"""Write a model: in our own layout, or back into the released one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from orrery.errors import CheckpointError
from orrery.model.published import config_to_published
from orrery.model.vision import EdgeVision
from orrery.runtime.model import Model
from orrery.runtime.outline import CONFIG_VERSION
from orrery.weights.folder import Folder, save_folder
from orrery.weights.layouts import DIFFUSERS, EDGE_EYES, QWEN_EYES
from orrery.weights.writer import MAX_SHARD_BYTES, save_published


def save(model: Model, path: Path, *, trained: bool, licence: str, notes: Mapping[str, Any] | None = None) -> Folder:
    """Write a model in our own layout: aside, flushed, then put in place of what was at `path`.

    Args:
        trained: False marks random weights, in every output made with them.
        licence: SPDX identifier.
        notes: how it came about, kept in the manifest.

    Raises:
        CheckpointError: its codecs have weights of their own, which this layout does not carry yet.
    """
    codecs = {"vision_codec": model.vision, "sound_codec": model.sound}
    configs = {name: None if codec is None else codec.codec_config() for name, codec in codecs.items()}
    for name, config in configs.items():
        if config is not None and "folder" in config:
            raise CheckpointError(
                f"The {name} of kind {config['kind']!r} has weights, which our layout does not carry. "
                "Use save_released for released models."
            )
    document = {
        "version": CONFIG_VERSION,
        "family": model.family,
        "model": model.mot.config.to_json(),
        **configs,
        "eyes": None if model.eyes is None else model.eyes.config.to_json(),
        "contracts": [contract.to_json() for contract in model.contracts.values()],
        "trained": trained,
        "tasks": None if model.tasks is None else list(model.tasks),
        "licence": licence,
    }
    tensors: dict[str, Mapping[str, torch.Tensor]] = {"model.safetensors": model.mot.state_dict()}
    if model.eyes is not None:
        tensors["eyes.safetensors"] = model.eyes.state_dict()
    text = {} if model.text is None else {f"tokenizer/{name}": data for name, data in model.text.files.items()}
    return save_folder(path, tensors=tensors, documents={"config.json": document, **text}, metadata=dict(notes or {}))


def save_released(model: Model, path: Path, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write a model that came from a released folder back in that layout; what was not loaded is copied.

    Tensors keep the number format they have in memory; the noise-level embedding, which computes in float32, is stored
    in that of the rest. So a folder loaded in its own format and written again holds the same bits.

    Raises:
        CheckpointError: the model did not come from a released folder, or something is at `path`.
    """
    source = model.origin.path
    if model.origin.layout != "diffusers":
        raise CheckpointError(
            f"{source} is in the {model.origin.layout} layout, which has no autoencoders to copy. Use save()."
        )
    kept = [file for file in sorted(source.rglob("*")) if file.is_file() and _is_copied(file.relative_to(source))]
    documents: dict[str, object] = {file.relative_to(source).as_posix(): file.read_bytes() for file in kept}
    documents["transformer/config.json"] = config_to_published(model.mot.config)
    dtype = model.mot.embed.weight.dtype
    save_published(
        path,
        transformer={name: tensor.to(dtype) for name, tensor in model.mot.state_dict().items()},
        layout=DIFFUSERS,
        documents=documents,
        eyes=None if model.eyes is None else model.eyes.state_dict(),
        eyes_layout=None if model.eyes is None else EDGE_EYES if isinstance(model.eyes, EdgeVision) else QWEN_EYES,
        max_shard_bytes=max_shard_bytes,
    )


def _is_copied(name: Path) -> bool:
    """Everything but the weights that are written anew, and their indices."""
    return name.parts[0] not in ("transformer", "vision_encoder") and name.name != "model.safetensors.index.json"
