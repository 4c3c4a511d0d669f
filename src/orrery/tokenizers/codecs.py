"""What a codec is, and how a checkpoint's saved configuration becomes one.

A codec stands between media (numpy) and latents (torch). Cutting latents into tokens is `packing.patches`; resizing
media to a size that a codec takes is `data`.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from orrery.errors import CheckpointError
from orrery.tokenizers.autoencoder import AutoencoderConfig, load_autoencoder
from orrery.tokenizers.avae import load_avae
from orrery.tokenizers.pixel_patch import PatchSoundCodec, PixelPatchCodec
from orrery.tokenizers.sound_autoencoder import SoundAutoencoderConfig, load_sound_autoencoder
from orrery.tokenizers.wan import load_wan


@runtime_checkable
class VisionCodec(Protocol):
    """Between RGB bytes and latents (C, t, h, w), causal in time."""

    @property
    def channels(self) -> int:
        """C."""

    @property
    def temporal(self) -> int:
        """Frames per latent frame after the first, which is filled by one frame."""

    @property
    def spatial(self) -> int:
        """Pixels per latent along a side."""

    def encode(self, pixels: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "C t h w"]:
        """Latents, float32. MediaError: frames are not 1 + temporal k, or sides no multiple of `spatial`."""

    def decode(self, latents: Float[Tensor, "C t h w"]) -> UInt8[np.ndarray, "T H W 3"]:
        """Pixels, 1 + temporal (t - 1) frames."""

    def codec_config(self) -> dict[str, Any]:
        """JSON-able, for `vision_from_config`."""


@runtime_checkable
class SoundCodec(Protocol):
    """Between samples and latents (T, C)."""

    @property
    def rate(self) -> int:
        """Samples per second and channel."""

    @property
    def hop(self) -> int:
        """Samples per latent."""

    @property
    def channels(self) -> int:
        """C."""

    @property
    def sound_channels(self) -> int:
        """Channels of the sound itself; 2 is stereo."""

    def encode(self, samples: Float32[np.ndarray, "N channels"]) -> Float[Tensor, "T C"]:
        """Latents, float32, `samples.latent_count(N, hop)` of them: the last one is filled up with silence."""

    def decode(self, latents: Float[Tensor, "T C"], samples: int) -> Float32[np.ndarray, "N channels"]:
        """The first `samples` samples; MediaError unless they end inside the last latent."""

    def codec_config(self) -> dict[str, Any]:
        """JSON-able, for `sound_from_config`."""


def vision_from_config(config: Mapping[str, Any], root: Path, device: torch.device, dtype: torch.dtype) -> VisionCodec:
    """Make the vision codec that a checkpoint was trained with.

    Args:
        config: what its `codec_config` gave.
        root: the checkpoint's folder; a codec with weights lies below it.
        device: where a codec with weights computes.
        dtype: in what precision it does.

    Raises:
        CheckpointError: an unknown kind, missing or unknown keys, or weights that cannot be read.
        SettingsError: a value out of range.
    """
    sizes = {field.name for field in fields(AutoencoderConfig)}
    kinds = {"pixel_patch": {"spatial", "temporal"}, "autoencoder": {"folder", *sizes}, "wan": {"folder"}}
    kind = _kind(config, kinds)
    if kind == "pixel_patch":
        return PixelPatchCodec(spatial=config["spatial"], temporal=config["temporal"])
    if kind == "autoencoder":
        # JSON has no tuples.
        values = {name: config[name] for name in sizes}
        values |= {name: tuple(values[name]) for name in ("encoder_blocks", "decoder_blocks")}  # JSON has no tuples
        network = AutoencoderConfig(**values)
        return load_autoencoder(_inside(root, config["folder"]), network, device, dtype)
    return load_wan(_inside(root, config["folder"]), device, dtype)


def sound_from_config(config: Mapping[str, Any], root: Path, device: torch.device, dtype: torch.dtype) -> SoundCodec:
    """Make the sound codec that a checkpoint was trained with; arguments and errors as `vision_from_config`."""
    sizes = {field.name for field in fields(SoundAutoencoderConfig)}
    kinds = {
        "patch_sound": {"rate", "hop", "sound_channels"},
        "sound_autoencoder": {"folder", *sizes},
        "avae": {"folder"},
    }
    kind = _kind(config, kinds)
    if kind == "patch_sound":
        return PatchSoundCodec(rate=config["rate"], hop=config["hop"], sound_channels=config["sound_channels"])
    if kind == "sound_autoencoder":
        network = SoundAutoencoderConfig(**{name: config[name] for name in sizes})
        return load_sound_autoencoder(_inside(root, config["folder"]), network, device, dtype)
    return load_avae(_inside(root, config["folder"]), device, dtype)


def _kind(config: Mapping[str, Any], keys: Mapping[str, set[str]]) -> str:
    kind = str(config.get("kind"))
    if kind not in keys:
        raise CheckpointError(f"No such codec: {kind!r}. Known: {', '.join(keys)}.")
    if odd := sorted((config.keys() - {"kind"}) ^ keys[kind]):
        raise CheckpointError(
            f"The {kind} codec needs {', '.join(sorted(keys[kind]))}; missing or unknown: {', '.join(odd)}."
        )
    return kind


def _inside(root: Path, folder: str) -> Path:
    # A checkpoint is a document from elsewhere: it may not point outside its own folder.
    if Path(folder).name != folder or folder in ("", ".."):
        raise CheckpointError(f"A codec's folder must be a plain name inside the checkpoint, got {folder!r}.")
    return root / folder
