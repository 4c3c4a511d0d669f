"""What a checkpoint folder says it holds, found from its documents before any tensor is read.

- ours: `config.json`, `model.safetensors`, `tokenizer/`, contracts, sealed by a sha256 manifest;
- diffusers: `model_index.json` with `transformer/`, `vae/`, `text_tokenizer/`, `sound_tokenizer/`, `scheduler/`, and
  `vision_encoder/` beside them for the reasoner;
- reasoner: `config.json` of model type cosmos3_omni or cosmos3_edge, alone or at the root of a released folder.

`runtime.load` fills what is outlined here, `runtime.report` describes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from orrery.errors import CheckpointError
from orrery.model.config import MoTConfig
from orrery.model.published import config_from_published, reasoner_from_published, vision_from_published
from orrery.model.vision_config import VisionEncoderConfig
from orrery.tasks.contract import ActionContract
from orrery.tasks.defaults import FAMILIES
from orrery.tasks.fit import Capability
from orrery.tasks.task import TASKS
from orrery.tokenizers.text import FILES, TextTokenizer
from orrery.weights.documents import load_json_object
from orrery.weights.folder import Folder, open_folder
from orrery.weights.layouts import (
    COSMOS3_EDGE,
    COSMOS3_EDGE_RESAVED,
    COSMOS3_OMNI,
    DIFFUSERS,
    EDGE_EYES,
    EDGE_MODULES,
    OMNI_MODULES,
    QWEN_EYES,
)
from orrery.weights.rename import Layout
from orrery.weights.sources import open_shards

CONFIG_VERSION = 2
CONFIG_KEYS = frozenset(
    {
        *("version", "family", "model", "vision_codec", "sound_codec", "eyes", "contracts"),
        *("storage", "trained", "tasks", "licence"),
    }
)
RELEASED_LICENCE = "OpenMDW-1.1"
Parts = Literal["all", "reasoner"]
Storage = Literal["float", "int8"]
"""How our layout stores matrices: as they are in memory, or in 8 bits with a scale for each row."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where the tensors of one module lie, and how they are called there."""

    source: Path
    """A safetensors file, or a folder of them."""
    layout: Layout | None
    storage: Storage = "float"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """A checkpoint without its numbers."""

    path: Path
    layout: Literal["orrery", "diffusers", "reasoner"]
    mot: MoTConfig
    mot_stored: Stored
    eyes: VisionEncoderConfig | None = None
    eyes_stored: Stored | None = None
    vision_codec: Mapping[str, Any] | None = None
    """For `tokenizers.codecs.vision_from_config`; one with weights names its folder."""
    sound_codec: Mapping[str, Any] | None = None
    text: TextTokenizer | None = None
    contracts: tuple[ActionContract, ...] = ()
    family: str
    trained: bool | None = None
    tasks: tuple[str, ...] | None = None
    """What it was trained for, where a checkpoint says."""
    licence: str
    notes: tuple[str, ...] = ()
    hashes: Mapping[str, str] | None = None
    """File -> sha256 by the manifest; None for released folders, which carry none."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the checkpoint has, in the words of `tasks.fit`."""
        return capabilities(
            self.mot,
            text=self.text is not None,
            eyes=self.eyes is not None,
            vision=self.vision_codec is not None,
            sound=self.sound_codec is not None,
        )


def capabilities(config: MoTConfig, *, text: bool, eyes: bool, vision: bool, sound: bool) -> frozenset[Capability]:
    """What a network of this configuration can do beside a tokenizer, a vision encoder and codecs."""
    has: Mapping[Capability, bool] = {
        "write": text,
        "see": text and eyes,
        "vision": config.generates and vision and text,
        "sound": config.generates and sound and config.sound_width is not None,
        "action": config.generates and config.action_width is not None,
    }
    return frozenset(name for name, present in has.items() if present)


def outline(path: Path, *, parts: Parts = "all", verify: bool = True, report: Progress | None = None) -> Outline:
    """Find out what lies in a folder.

    Args:
        parts: "reasoner" leaves out all that only generation needs.
        verify: False skips the hashes of our own layout, for huge local files.
        report: told the bytes hashed and the bytes to hash.

    Raises:
        CheckpointError: no checkpoint, damaged documents, or files of another hash than the manifest says.
    """
    if (path / "manifest.json").is_file():
        return _outline_own(open_folder(path, verify=verify, progress=report), parts)
    if (path / "model_index.json").is_file():
        return _outline_diffusers(path, parts)
    if (path / "config.json").is_file():
        return _outline_reasoner(path)
    found = sorted(item.name for item in path.iterdir())[:8] if path.is_dir() else []
    raise CheckpointError(
        f"{path} is no checkpoint: it has neither manifest.json nor model_index.json nor config.json, but {found}. "
        "Give the folder that holds one of them."
    )


def _outline_own(folder: Folder, parts: Parts) -> Outline:
    document = folder.document("config.json")
    if not isinstance(document, dict) or document.get("version") != CONFIG_VERSION or set(document) != CONFIG_KEYS:
        raise CheckpointError(
            f"{folder.path / 'config.json'} is not a configuration of version {CONFIG_VERSION}. Update."
        )
    if (storage := document["storage"]) not in get_args(Storage):
        raise CheckpointError(f"{folder.path / 'config.json'} says storage {storage!r}; known: float, int8. Update.")
    if parts == "reasoner":
        raise CheckpointError(f"{folder.path} is loaded whole: parts='reasoner' is for released folders. Leave it out.")
    eyes = None if document["eyes"] is None else VisionEncoderConfig.from_json(document["eyes"])
    names = [name for name in folder.files if name.startswith("tokenizer/")]
    config = MoTConfig.from_json(document["model"])
    contracts = tuple(ActionContract.from_json(contract) for contract in document["contracts"])
    for contract in contracts:
        if len(contract.views) > config.cameras:
            raise CheckpointError(
                f"{folder.path / 'config.json'}: {contract.embodiment} is seen by {len(contract.views)} cameras, and "
                f"the model tells {config.cameras} apart. Restore the checkpoint."
            )
    return Outline(
        path=folder.path,
        layout="orrery",
        mot=config,
        mot_stored=Stored(source=folder.file("model.safetensors"), layout=None, storage=storage),
        eyes=eyes,
        eyes_stored=None
        if eyes is None
        else Stored(source=folder.file("eyes.safetensors"), layout=None, storage=storage),
        vision_codec=document["vision_codec"],
        sound_codec=document["sound_codec"],
        text=TextTokenizer.from_files({Path(n).name: folder.file(n).read_bytes() for n in names}) if names else None,
        contracts=contracts,
        family=document["family"],
        trained=document["trained"],
        tasks=_tasks(document["tasks"], folder.path),
        licence=document["licence"],
        notes=tuple(folder.metadata.get("warnings", ())),
        hashes={name: record.sha256 for name, record in folder.files.items()},
    )


def _tasks(names: object, path: Path) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or not all(name in TASKS for name in names):
        raise CheckpointError(f"{path / 'config.json'} names tasks {names!r}; known: {', '.join(TASKS)}. Update.")
    return tuple(names)


def _outline_diffusers(path: Path, parts: Parts) -> Outline:
    index = _json(path / "model_index.json")
    config, layout = config_from_published(_json(path / "transformer" / "config.json")), DIFFUSERS
    if parts == "reasoner":
        config = replace(config, generates=False, action_width=None, sound_width=None)
        layout = DIFFUSERS.only("text")
    eyes = eyes_stored = None
    if (path / "vision_encoder").is_dir() and (path / "config.json").is_file():
        eyes = vision_from_published(_json(path / "config.json"))
        eyes_stored = Stored(source=path / "vision_encoder", layout=EDGE_EYES if eyes.kind == "edge" else QWEN_EYES)
    present = {name for name, parts_ in index.items() if isinstance(parts_, list) and parts_[:1] != [None]}
    sounds = "sound_tokenizer" in present and config.sound_width is not None
    return Outline(
        path=path,
        layout="diffusers",
        mot=config,
        mot_stored=Stored(source=path / "transformer", layout=layout),
        eyes=eyes,
        eyes_stored=eyes_stored,
        vision_codec={"kind": "wan", "folder": "vae"} if config.generates else None,
        sound_codec={"kind": "avae", "folder": "sound_tokenizer"} if sounds else None,
        text=_tokenizer(path),
        family=_family(path, config),
        licence=RELEASED_LICENCE,
    )


def _outline_reasoner(path: Path) -> Outline:
    document = _json(path / "config.json")
    config, eyes = reasoner_from_published(document), vision_from_published(document)
    edge = document["model_type"] == "cosmos3_edge"
    layout = _reasoner_layout({name for shard in open_shards([path]) for name in shard.entries}, edge=edge)
    return Outline(
        path=path,
        layout="reasoner",
        mot=config,
        mot_stored=Stored(source=path, layout=layout.only("text")),
        eyes=eyes,
        eyes_stored=Stored(source=path, layout=layout.only("eyes")),
        text=_tokenizer(path),
        family=_family(path, config),
        licence=RELEASED_LICENCE,
    )


def _reasoner_layout(names: set[str], *, edge: bool) -> Layout:
    """Copies saved from a state dict name tensors as modules do; released folders as the transformer's files do."""
    if any(name.startswith("model.language_model.") for name in names):
        return EDGE_MODULES if edge else OMNI_MODULES
    if not edge:
        return COSMOS3_OMNI
    resaved = any(name.startswith("model.visual.") and ".self_attn.to_q." in name for name in names)
    return COSMOS3_EDGE_RESAVED if resaved else COSMOS3_EDGE


def _tokenizer(path: Path) -> TextTokenizer | None:
    for folder in (path / "text_tokenizer", path):
        if any((folder / name).is_file() for name in FILES):
            return TextTokenizer.from_folder(folder)
    return None


def _family(path: Path, config: MoTConfig) -> str:
    """Whose defaults a released folder follows, from its scheduler and its policy block."""
    scheduler = _json(path / "scheduler" / "scheduler_config.json") if (path / "scheduler").is_dir() else {}
    policy = _json(path / "transformer" / "config.json").get("policy") if (path / "transformer").is_dir() else None
    base = config.family if config.family in FAMILIES else "edge" if config.activation == "relu2" else "nano"
    if "fixed_step_sampler_config" in scheduler:
        return "super-image-to-video-4step" if config.clock.base_fps == 16 else "super-text-to-image-4step"
    if policy is not None:
        return "edge-policy-droid" if base == "edge" else "policy-droid"
    return base


def _json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Fetch the file again.") from None
    return load_json_object(data, path)
