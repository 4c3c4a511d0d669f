"""What every sound codec asks of samples, and how many latents they fill."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from orrery.errors import MediaError


def samples_of_clip(frames: int, fps: float, rate: int) -> int:
    """How many samples sound over a clip of `frames` pictures, rounded down: 189 at 24 fps are 378000 at 48 kHz."""
    return int(frames / fps * rate)


def latent_count(samples: int, hop: int) -> int:
    """How many latents hold that many samples; the last one may be part padding."""
    return -(-samples // hop)


def padded_to_hop(
    samples: Float32[np.ndarray, "N channels"], hop: int, channels: int
) -> Float[Tensor, "padded channels"]:
    """The samples with silence behind them up to a whole hop.

    Raises:
        MediaError: no samples, another number of channels, or values that are not finite.
    """
    count, got = samples.shape
    if got != channels:
        raise MediaError(
            f"This sound codec takes {channels} channels, got {got}. Mix or repeat channels before encoding."
        )
    if count == 0:
        raise MediaError("A sound of 0 samples cannot be encoded. Leave the sound out instead.")
    if not np.isfinite(samples).all():
        raise MediaError(
            f"The sound holds {int((~np.isfinite(samples)).sum())} values that are not finite. Mend the file."
        )
    sound = torch.from_numpy(np.ascontiguousarray(samples))
    return F.pad(sound, (0, 0, 0, latent_count(count, hop) * hop - count))


def cut_to_length(sound: Float[Tensor, "padded channels"], samples: int, hop: int) -> Float32[np.ndarray, "N channels"]:
    """Drop the padding of the last latent.

    Args:
        sound: decoded samples, a whole number of hops.
        samples: how many to keep; must end inside the last hop.

    Raises:
        MediaError: `samples` belongs to another number of latents.
    """
    hops = len(sound) // hop
    if latent_count(samples, hop) != hops:
        raise MediaError(
            f"{hops} latents of {hop} samples hold {(hops - 1) * hop + 1} to {hops * hop} samples, got {samples}."
        )
    kept: Float32[np.ndarray, "N channels"] = sound[:samples].float().clamp(-1, 1).cpu().numpy()
    return kept
