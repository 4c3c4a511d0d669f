"""The released sound autoencoder (48 kHz stereo, 25 latents a second, 64 channels), by way of diffusers."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32
from torch import Tensor

from orrery.errors import CheckpointError
from orrery.tokenizers.pretrained import read_pretrained
from orrery.tokenizers.samples import cut_to_length, padded_to_hop


class AvaeCodec:
    """Sound to latents and back, without gradients. Latents are not normalised.

    Where `normalises_volume` is true, encoding first brings the peak of the clip to 0.95: decoding gives that volume,
    not the one of the recording.
    """

    def __init__(self, vae: Any, folder: str) -> None:
        """Wrap an autoencoder.

        Args:
            vae: a diffusers `Cosmos3AVAEAudioTokenizer` in evaluation mode; one without an encoder can only decode.
            folder: where it lies inside the checkpoint; goes into the saved configuration.

        Raises:
            CheckpointError: its hop is not the product of its strides.
        """
        config = vae.config
        self.rate: int = config.sampling_rate
        self.hop = math.prod(config.dec_strides)
        if config.hop_size not in (None, self.hop):
            raise CheckpointError(
                f"The sound autoencoder states a hop of {config.hop_size}, but its strides give {self.hop}."
                " Mend its config.json."
            )
        self.channels: int = config.vocoder_input_dim
        self.sound_channels: int = config.dec_out_channels
        self.normalises_volume: bool = config.normalize_volume
        self.can_encode: bool = vae.encoder is not None
        self._vae = vae
        self._folder = folder

    @torch.no_grad()
    def encode(self, samples: Float32[np.ndarray, "N channels"]) -> Float[Tensor, "T C"]:
        """Posterior mean, float32, on the autoencoder's device.

        The last latent is filled up with silence, which `decode` drops by the sample count.

        Raises:
            CheckpointError: the checkpoint holds no encoder.
            MediaError: no samples, another number of channels, or values that are not finite.
        """
        if not self.can_encode:
            raise CheckpointError(
                "This checkpoint's sound autoencoder has a decoder only, so sound cannot be given. Make sound instead,"
                " or convert the checkpoint with its encoder."
            )
        sound = padded_to_hop(samples, self.hop, self.sound_channels).to(self._vae.device)
        with torch.autocast(self._vae.device.type, enabled=False):
            mean: Tensor = self._vae.encode(rearrange(sound, "n c -> 1 c n")).latent_dist.mode()
        return rearrange(mean, "1 c t -> t c").float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "T C"], samples: int) -> Float32[np.ndarray, "N channels"]:
        """Sound of latents, in [-1, 1].

        Args:
            latents: as from `encode`.
            samples: how many samples to keep; `samples.samples_of_clip` gives it for a video.

        Raises:
            MediaError: `samples` does not end inside the last latent.
        """
        z = rearrange(latents, "t c -> 1 c t").to(device=self._vae.device, dtype=self._vae.dtype)
        with torch.autocast(self._vae.device.type, enabled=False):
            sound = self._vae.decode(z)
        return cut_to_length(rearrange(sound, "1 c n -> n c"), samples, self.hop)

    def codec_config(self) -> dict[str, Any]:
        """What `codecs.sound_from_config` finds this codec by, JSON-able."""
        return {"kind": "avae", "folder": self._folder}


def load_avae(folder: Path, device: torch.device, dtype: torch.dtype) -> AvaeCodec:
    """Load an autoencoder from its folder in a checkpoint (config.json and safetensors).

    Args:
        folder: the folder; its own name goes into the saved configuration.
        device: where it computes.
        dtype: its precision.

    Raises:
        CheckpointError: diffusers is missing, the folder is unreadable, or tensors are missing, left over or misshapen.
    """
    try:
        from diffusers import Cosmos3AVAEAudioTokenizer
    except ImportError as error:
        raise CheckpointError(
            "The sound autoencoder needs diffusers, which is not installed. Install the extra: orrery[cosmos]."
        ) from error
    with warnings.catch_warnings():
        # diffusers builds it with the older weight_norm of torch, which says so at every layer.
        warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)
        vae = read_pretrained(Cosmos3AVAEAudioTokenizer, folder)
    return AvaeCodec(vae.to(device=device, dtype=dtype).eval(), folder.name)
