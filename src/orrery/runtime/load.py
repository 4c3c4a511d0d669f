"""Open a checkpoint, whichever of the three layouts it is in. Writing is `runtime.save`'s.

- ours: `config.json`, `model*.safetensors`, `tokenizer/`, contracts, sealed by a sha256 manifest;
- diffusers: `model_index.json` with `transformer/`, `vae/`, `text_tokenizer/`, `sound_tokenizer/`, `scheduler/`, and
  `vision_encoder/` beside them for the reasoner;
- reasoner: `config.json` of model type cosmos3_omni or cosmos3_edge, alone or at the root of a released folder.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from orrery.errors import CheckpointError
from orrery.model.config import MoTConfig
from orrery.model.mot import MoT
from orrery.model.published import config_from_published, reasoner_from_published, vision_from_published
from orrery.model.vision import EdgeVision, QwenVision, vision_encoder
from orrery.model.vision_config import VisionEncoderConfig
from orrery.runtime.generate import Report
from orrery.runtime.model import Model, Origin
from orrery.runtime.selftest import check_numbers
from orrery.tasks.contract import ActionContract
from orrery.tasks.defaults import FAMILIES
from orrery.tokenizers.avae import load_avae
from orrery.tokenizers.codecs import sound_from_config, vision_from_config
from orrery.tokenizers.text import FILES, TextTokenizer
from orrery.tokenizers.wan import load_wan
from orrery.weights.documents import load_json_object
from orrery.weights.folder import Folder, open_folder
from orrery.weights.hub import resolve
from orrery.weights.layouts import (
    COSMOS3_EDGE,
    COSMOS3_OMNI,
    DIFFUSERS,
    EDGE_EYES,
    EDGE_MODULES,
    OMNI_MODULES,
    QWEN_EYES,
)
from orrery.weights.reader import LoadReport, load_into

CONFIG_VERSION = 1
CONFIG_KEYS = {"version", "family", "model", "vision_codec", "sound_codec", "eyes", "contracts", "trained", "licence"}
KEEP_FLOAT32 = ("time_embed",)
"""The noise-level embedding computes in float32 whatever the rest does."""
Parts = Literal["all", "reasoner"]


def load(
    source: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    parts: Parts = "all",
    family: str | None = None,
    verify: bool = True,
    report: Report | None = None,
) -> Model:
    """Open a checkpoint for `orrery.run`.

    Args:
        source: local folder, or hub id such as "nvidia/Cosmos3-Nano" (from the local cache when offline).
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "bfloat16" or "float16", of the network.
        parts: "reasoner" leaves the generation tower unread, about half of the bytes.
        family: whose defaults apply; found from the checkpoint when None.
        verify: False skips the hashes of our own layout, for huge local files.
        report: told the bytes read and the bytes to read.

    Raises:
        CheckpointError: anything missing, extra, misshapen, not finite or of another hash, by name; or a device or
            number format that computes wrong numbers.
    """
    path = resolve(source)
    place, number = _device(device), _dtype(dtype)
    check_numbers(place, number)
    if (path / "manifest.json").is_file():
        model = _load_own(open_folder(path, verify=verify), place, number, parts, report)
    elif (path / "model_index.json").is_file():
        model = _load_diffusers(path, place, number, parts, report)
    elif (path / "config.json").is_file():
        model = _load_reasoner(path, place, number, report)
    else:
        found = sorted(item.name for item in path.iterdir())[:8] if path.is_dir() else []
        raise CheckpointError(
            f"{path} is no checkpoint: it has neither manifest.json nor model_index.json nor config.json, but {found}. "
            "Give the folder that holds one of them."
        )
    if family is not None:
        if family not in FAMILIES:
            raise CheckpointError(f"There is no model family {family!r}. Known: {', '.join(FAMILIES)}.")
        model = replace(model, family=family)
    return model


def _load_own(folder: Folder, device: torch.device, dtype: torch.dtype, parts: Parts, report: Report | None) -> Model:
    document = folder.document("config.json")
    if not isinstance(document, dict) or document.get("version") != CONFIG_VERSION or set(document) != CONFIG_KEYS:
        raise CheckpointError(
            f"{folder.path / 'config.json'} is not a configuration of version {CONFIG_VERSION}. Update."
        )
    config = MoTConfig.from_json(document["model"])
    if parts == "reasoner":
        raise CheckpointError(f"{folder.path} is loaded whole: parts='reasoner' is for released folders. Leave it out.")
    mot = _empty_mot(config)
    load_into(
        mot,
        [folder.file("model.safetensors")],
        None,
        dtype=dtype,
        device=device,
        keep_float32=KEEP_FLOAT32,
        progress=report,
    )
    eyes = None
    if document["eyes"] is not None:
        eyes = _empty_eyes(VisionEncoderConfig.from_json(document["eyes"]))
        load_into(eyes, [folder.file("eyes.safetensors")], None, dtype=dtype, device=device)
        eyes.eval()
    names = [name for name in folder.files if name.startswith("tokenizer/")]
    text = None
    if names:
        text = TextTokenizer.from_files({Path(n).name: folder.file(n).read_bytes() for n in names})
    contracts = [ActionContract.from_json(contract) for contract in document["contracts"]]
    vision, sound = document["vision_codec"], document["sound_codec"]
    return Model(
        mot=mot.eval(),
        text=text,
        vision=None if vision is None else vision_from_config(vision, folder.path, device, torch.float32),
        sound=None if sound is None else sound_from_config(sound, folder.path, device, torch.float32),
        eyes=eyes,
        contracts={contract.embodiment: contract for contract in contracts},
        family=document["family"],
        origin=Origin(
            path=folder.path,
            layout="orrery",
            weights={name: record.sha256 for name, record in folder.files.items()},
            trained=document["trained"],
            licence=document["licence"],
            notes=tuple(folder.metadata.get("warnings", ())),
        ),
    )


def _load_diffusers(path: Path, device: torch.device, dtype: torch.dtype, parts: Parts, report: Report | None) -> Model:
    index = _json(path / "model_index.json")
    config = config_from_published(_json(path / "transformer" / "config.json"))
    layout = DIFFUSERS
    if parts == "reasoner":
        config = replace(config, generates=False, action_width=None, sound_width=None)
        layout = DIFFUSERS.only("text")
    mot = _empty_mot(config)
    loaded = load_into(
        mot, [path / "transformer"], layout, dtype=dtype, device=device, keep_float32=KEEP_FLOAT32, progress=report
    )
    hashes = _hashes(path, loaded)
    eyes = None
    if (path / "vision_encoder").is_dir() and (path / "config.json").is_file():
        eyes = _empty_eyes(vision_from_published(_json(path / "config.json")))
        layout = EDGE_EYES if isinstance(eyes, EdgeVision) else QWEN_EYES
        hashes |= _hashes(path, load_into(eyes, [path / "vision_encoder"], layout, dtype=dtype, device=device))
    present = {name for name, parts_ in index.items() if isinstance(parts_, list) and parts_[:1] != [None]}
    sound = None
    if "sound_tokenizer" in present and config.sound_width is not None:
        sound = load_avae(path / "sound_tokenizer", device, torch.float32)
    return Model(
        mot=mot.eval(),
        text=_tokenizer(path),
        vision=load_wan(path / "vae", device, dtype) if config.generates else None,
        sound=sound,
        eyes=None if eyes is None else eyes.eval(),
        contracts={},
        family=_family(path, config),
        origin=Origin(path=path, layout="diffusers", weights=hashes, trained=None, licence="OpenMDW-1.1"),
    )


def _load_reasoner(path: Path, device: torch.device, dtype: torch.dtype, report: Report | None) -> Model:
    document = _json(path / "config.json")
    config, eyes = reasoner_from_published(document), _empty_eyes(vision_from_published(document))
    edge = document["model_type"] == "cosmos3_edge"
    # The root index of a released folder names tensors as the transformer's files do; a fine-tuned copy as its modules.
    released = (path / "transformer").is_dir()
    layout = (COSMOS3_EDGE if edge else COSMOS3_OMNI) if released else (EDGE_MODULES if edge else OMNI_MODULES)
    mot = _empty_mot(config)
    loaded = load_into(mot, [path], layout.only("text"), dtype=dtype, device=device, progress=report)
    load_into(eyes, [path], layout.only("eyes"), dtype=dtype, device=device)
    return Model(
        mot=mot.eval(),
        text=_tokenizer(path),
        vision=None,
        sound=None,
        eyes=eyes.eval(),
        contracts={},
        family=_family(path, config),
        origin=Origin(path=path, layout="reasoner", weights=_hashes(path, loaded), trained=None, licence="OpenMDW-1.1"),
    )


def _empty_mot(config: MoTConfig) -> MoT:
    with torch.device("meta"):
        return MoT(config)


def _empty_eyes(config: VisionEncoderConfig) -> QwenVision | EdgeVision:
    with torch.device("meta"):
        return vision_encoder(config)


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


def _hashes(root: Path, loaded: LoadReport) -> dict[str, str]:
    return {str(file.relative_to(root)): _sha256(file) for file in loaded.files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}). Fetch the file again.") from None
    return load_json_object(data, path)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CheckpointError(f"There is no device {name!r}. Give 'cpu' or 'cuda'.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"Device {name!r} is not there: no GPU, or torch built without CUDA. Use 'cpu'.")
    return device


def _dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise CheckpointError(f"Number format {name!r} is not supported. Known: {', '.join(known)}.")
    return known[name]
