"""The released video autoencoder (Wan 2.2: 4 x 16 x 16, 48 channels), by way of diffusers.

Only the agreed interface is here: posterior mean, normalisation, bytes. The network itself is `AutoencoderKLWan` of
diffusers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from orrery.errors import CheckpointError
from orrery.tokenizers.pixels import check_size, latent_frames, pixels_from_signed, signed_from_pixels
from orrery.tokenizers.pretrained import read_pretrained


class WanCodec:
    """Pixels to normalised latents and back, without gradients, in the autoencoder's own precision.

    Temporally causal: the latents of a prefix of frames are the prefix of the latents.
    """

    def __init__(self, vae: Any, folder: str) -> None:
        """Wrap an autoencoder.

        Args:
            vae: a diffusers `AutoencoderKLWan` in evaluation mode.
            folder: where it lies inside the checkpoint; goes into the saved configuration.

        Raises:
            CheckpointError: its configuration contradicts itself.
        """
        config = vae.config
        self.spatial = (config.patch_size or 1) * 2 ** (len(config.dim_mult) - 1)
        self.temporal = 2 ** sum(config.temperal_downsample)
        self.channels: int = config.z_dim
        stated = (config.scale_factor_temporal, config.scale_factor_spatial)
        if stated != (self.temporal, self.spatial):
            raise CheckpointError(
                f"The video autoencoder states scale factors {stated} (time, space), but its layers give"
                f" {(self.temporal, self.spatial)}. Mend its config.json."
            )
        if not len(config.latents_mean) == len(config.latents_std) == self.channels:
            raise CheckpointError(
                f"The video autoencoder needs {self.channels} latent means and deviations, got"
                f" {len(config.latents_mean)} and {len(config.latents_std)}. Mend its config.json."
            )
        self._vae = vae
        self._folder = folder
        # Rounded to the network's precision before the reciprocal, as in training of the released models: in bfloat16,
        # float32 statistics differ by 1e-3.
        mean = torch.tensor(config.latents_mean, dtype=vae.dtype, device=vae.device)
        deviation = torch.tensor(config.latents_std, dtype=vae.dtype, device=vae.device)
        self._mean = rearrange(mean, "c -> c 1 1 1")
        self._per_deviation = rearrange(1 / deviation, "c -> c 1 1 1")

    @torch.no_grad()
    def encode(self, pixels: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "C t h w"]:
        """Normalised posterior mean, float32, on the autoencoder's device.

        Raises:
            MediaError: frames are not 1 + 4 k, or sides no multiple of the spatial factor.
        """
        latent_frames(pixels.shape[0], self.temporal)
        check_size(pixels.shape[1], pixels.shape[2], self.spatial)
        signed = signed_from_pixels(pixels).to(device=self._vae.device, dtype=self._vae.dtype)
        with torch.autocast(self._vae.device.type, enabled=False):
            mean = self._vae.encode(signed[None]).latent_dist.mode()[0]
            latents: Tensor = (mean - self._mean) * self._per_deviation
        return latents.float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "C t h w"]) -> UInt8[np.ndarray, "T H W 3"]:
        """Pixels of normalised latents; 1 + 4 (t - 1) frames."""
        z = latents.to(device=self._vae.device, dtype=self._vae.dtype)
        with torch.autocast(self._vae.device.type, enabled=False):
            signed = self._vae.decode((z / self._per_deviation + self._mean)[None]).sample[0]
        return pixels_from_signed(signed)

    def codec_config(self) -> dict[str, Any]:
        """What `codecs.vision_from_config` finds this codec by, JSON-able."""
        return {"kind": "wan", "folder": self._folder}


def load_wan(folder: Path, device: torch.device, dtype: torch.dtype) -> WanCodec:
    """Load an autoencoder from its folder in a checkpoint (config.json and safetensors).

    Args:
        folder: the folder; its own name goes into the saved configuration.
        device: where it computes.
        dtype: its precision; bfloat16 is what the released models were trained with.

    Raises:
        CheckpointError: diffusers is missing, the folder is unreadable, or tensors are missing, left over or misshapen.
    """
    try:
        from diffusers import AutoencoderKLWan
    except ImportError as error:
        raise CheckpointError(
            "The Wan video autoencoder needs diffusers, which is not installed. Install the extra: orrery[cosmos]."
        ) from error
    vae = read_pretrained(AutoencoderKLWan, folder).to(device=device, dtype=dtype).eval()
    if device.type == "cuda":
        channels_last(vae)
    return WanCodec(vae, folder.name)


def channels_last(vae: Any) -> None:
    """Lay the weights of convolutions out as a GPU's kernels like them best (`benchmarks/video_codec.py`)."""
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.Conv2d):
            volume = isinstance(module, torch.nn.Conv3d)
            form = torch.channels_last_3d if volume else torch.channels_last
            module.weight.data = module.weight.data.contiguous(memory_format=form)
