"""Codecs without parameters: pixels and samples rearranged into latents, so that a checkpoint needs no autoencoder."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from orrery.errors import SettingsError
from orrery.tokenizers.pixels import check_size, latent_frames, pixels_from_signed, signed_from_pixels
from orrery.tokenizers.samples import cut_to_length, padded_to_hop


@dataclass(frozen=True, kw_only=True)
class PixelPatchCodec:
    """Each latent holds the bytes of `temporal` frames in a square of `spatial` pixels, as [-1, 1].

    Frames and causality are those of the learned video codecs: the first frame alone fills the first latent frame
    (stacked `temporal` times; decoding takes the mean), every later one holds `temporal` frames. Latent channels are
    ordered (frame, row, column, colour), colour fastest. `decode(encode(pixels))` equals `pixels`.
    """

    spatial: int
    temporal: int = 4

    def __post_init__(self) -> None:
        if self.spatial < 1 or self.temporal < 1:
            raise SettingsError(
                f"Patches need sides of 1 or more, got spatial {self.spatial}, temporal {self.temporal}."
            )

    @property
    def channels(self) -> int:
        """Values per latent."""
        return self.temporal * self.spatial**2 * 3

    def encode(self, pixels: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "C t h w"]:
        """Cut a clip into latents.

        Raises:
            MediaError: frames are not 1 + temporal k, or sides no multiple of `spatial`.
        """
        latent_frames(pixels.shape[0], self.temporal)
        check_size(pixels.shape[1], pixels.shape[2], self.spatial)
        signed = signed_from_pixels(pixels)
        whole = torch.cat([repeat(signed[:, :1], "c 1 h w -> c s h w", s=self.temporal), signed[:, 1:]], dim=1)
        return rearrange(
            whole, "c (t s) (h p) (w q) -> (s p q c) t h w", s=self.temporal, p=self.spatial, q=self.spatial
        ).contiguous()

    def decode(self, latents: Float[Tensor, "C t h w"]) -> UInt8[np.ndarray, "T H W 3"]:
        """Undo `encode`; values outside [-1, 1] are cut off."""
        whole = rearrange(
            latents.float(), "(s p q c) t h w -> c (t s) (h p) (w q)", s=self.temporal, p=self.spatial, q=self.spatial
        )
        first = whole[:, : self.temporal].mean(dim=1, keepdim=True)
        return pixels_from_signed(torch.cat([first, whole[:, self.temporal :]], dim=1))

    def codec_config(self) -> dict[str, Any]:
        """What `codecs.vision_from_config` makes this codec from, JSON-able."""
        return {"kind": "pixel_patch", "spatial": self.spatial, "temporal": self.temporal}


@dataclass(frozen=True, kw_only=True)
class PatchSoundCodec:
    """Each latent holds `hop` samples as they are, ordered (sample, channel), channel fastest.

    `decode(encode(samples), len(samples))` equals `samples` in [-1, 1].
    """

    rate: int
    hop: int
    sound_channels: int = 2

    def __post_init__(self) -> None:
        if min(self.rate, self.hop, self.sound_channels) < 1:
            raise SettingsError(
                f"Rate, hop and sound channels must be 1 or more, got {self.rate}, {self.hop}, {self.sound_channels}."
            )

    @property
    def channels(self) -> int:
        """Values per latent."""
        return self.hop * self.sound_channels

    def encode(self, samples: Float32[np.ndarray, "N channels"]) -> Float[Tensor, "T C"]:
        """Cut sound into latents; the last one is filled up with silence, which `decode` drops by the sample count.

        Raises:
            MediaError: no samples, another number of channels, or values that are not finite.
        """
        return rearrange(padded_to_hop(samples, self.hop, self.sound_channels), "(t n) c -> t (n c)", n=self.hop)

    def decode(self, latents: Float[Tensor, "T C"], samples: int) -> Float32[np.ndarray, "N channels"]:
        """Undo `encode`; values outside [-1, 1] are cut off.

        Raises:
            MediaError: `samples` does not end inside the last latent.
        """
        return cut_to_length(rearrange(latents, "t (n c) -> (t n) c", n=self.hop), samples, self.hop)

    def codec_config(self) -> dict[str, Any]:
        """What `codecs.sound_from_config` makes this codec from, JSON-able."""
        return {"kind": "patch_sound", "rate": self.rate, "hop": self.hop, "sound_channels": self.sound_channels}
