"""Write a model: in our own layout, or back into the released one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from orrery.errors import CheckpointError
from orrery.model.published import config_to_published
from orrery.model.vision import EdgeVision
from orrery.runtime.model import Model
from orrery.runtime.outline import CONFIG_VERSION, Storage
from orrery.weights.eight_bit import to_eight_bit
from orrery.weights.folder import Folder, save_folder
from orrery.weights.layouts import DIFFUSERS, EDGE_EYES, QWEN_EYES
from orrery.weights.writer import MAX_SHARD_BYTES, save_published


@runtime_checkable
class TrainedCodec(Protocol):
    """A codec of ours with weights; its configuration names the folder that they go into."""

    def tensors(self) -> Mapping[str, Tensor]:
        """What is stored, by name."""

    def codec_config(self) -> dict[str, Any]:
        """As `tokenizers.codecs`."""


def save(
    model: Model,
    path: Path,
    *,
    trained: bool,
    licence: str,
    notes: Mapping[str, Any] | None = None,
    storage: Storage = "float",
) -> Folder:
    """Write a model in our own layout: aside, flushed, then put in place of what was at `path`.

    Args:
        trained: False marks random weights, in every output made with them.
        licence: SPDX identifier.
        notes: how it came about, kept in the manifest.
        storage: "int8" rounds the matrices of the network and of the vision encoder to 8 bits; the manifest then says
            what that changes.

    Raises:
        CheckpointError: its codecs have weights that are not ours.
    """
    codecs = {"vision_codec": model.vision, "sound_codec": model.sound}
    configs = {name: None if codec is None else codec.codec_config() for name, codec in codecs.items()}
    document = {
        "version": CONFIG_VERSION,
        "family": model.family,
        "model": model.mot.config.to_json(),
        **configs,
        "eyes": None if model.eyes is None else model.eyes.config.to_json(),
        "storage": storage,
        "contracts": [contract.to_json() for contract in model.contracts.values()],
        "trained": trained,
        "tasks": None if model.tasks is None else list(model.tasks),
        "licence": licence,
    }
    metadata = dict(notes or {})
    tensors: dict[str, Mapping[str, Tensor]] = {"model.safetensors": model.mot.state_dict()}
    if model.eyes is not None:
        tensors["eyes.safetensors"] = model.eyes.state_dict()
    if storage == "int8":
        rounded = {file: to_eight_bit(table) for file, table in tensors.items()}
        tensors = {file: table.tensors for file, table in rounded.items()}
        worst = {file: {"matrix": table.worst[0], "relative": table.worst[1]} for file, table in rounded.items()}
        metadata["rounding"] = worst
    for name, codec in codecs.items():
        config = configs[name]
        if config is not None and "folder" in config:
            tensors[_codec_file(name, config, tensors)] = _codec_tensors(name, config, codec)
    text = {} if model.text is None else {f"tokenizer/{name}": data for name, data in model.text.files.items()}
    return save_folder(path, tensors=tensors, documents={"config.json": document, **text}, metadata=metadata)


def _codec_tensors(name: str, config: Mapping[str, Any], codec: object) -> Mapping[str, Tensor]:
    if not isinstance(codec, TrainedCodec):
        raise CheckpointError(
            f"The {name} of kind {config['kind']!r} has weights that are not ours, which our layout does not carry. "
            "Use save_released for released models."
        )
    return codec.tensors()


def _codec_file(name: str, config: Mapping[str, Any], tensors: Mapping[str, object]) -> str:
    file = f"{config['folder']}/model.safetensors"
    if config["folder"] == "tokenizer" or file in tensors:
        raise CheckpointError(f"The folder {config['folder']!r} of the {name} is taken. Give the codec another one.")
    return file


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
