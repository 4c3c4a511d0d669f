"""A small convolutional autoencoder of single frames (8 x 8 pixels a latent), as a video codec that stacks frames.

Made to be trained in minutes (`training.codec`) and decoded on a CPU. No convolution runs at full resolution: pixels
are rearranged into quarter resolution first, and most of the work is done at an eighth. Norms are of each place alone:
statistics of a whole frame would leak from a bright corner into a dark one.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from orrery.errors import SettingsError
from orrery.tokenizers.codec_weights import read_weights, stored_tensors
from orrery.tokenizers.pixels import check_size, latent_frames

SPATIAL = 8
TEMPORAL = 4
_CHUNK = 32
"""Frames that `decode` and `encode` take at once, so that a long clip needs no more memory than a short one."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of a frame autoencoder."""

    channels: int = 16
    """Values of a latent of one frame; a latent frame of the codec stacks those of 4 frames."""
    fine: int = 64
    """Width at a quarter of the resolution."""
    coarse: int = 192
    """Width at an eighth."""
    encoder_blocks: tuple[int, int] = (1, 1)
    """Residual blocks at a quarter, then at an eighth of the resolution."""
    decoder_blocks: tuple[int, int] = (3, 2)
    """Residual blocks at an eighth, then at a quarter of the resolution."""
    differences: bool = True
    """Latent frames after the first hold what their frames differ from the first one, so what stands still is 0."""

    def __post_init__(self) -> None:
        blocks = (*self.encoder_blocks, *self.decoder_blocks)
        if min(self.channels, self.fine, self.coarse) < 1 or len(blocks) != 4 or min(blocks) < 0:
            raise SettingsError(
                f"A frame autoencoder needs widths of 1 or more and two counts of blocks each, got {self}."
            )


class _Block(nn.Module):
    """x + convolution(relu(convolution(norm(x)))), the second begun at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Float[Tensor, "N W h w"]) -> Float[Tensor, "N W h w"]:
        # Without a norm, training at the learning rates that a few minutes ask for runs away.
        normed = x * (x.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()
        change: Tensor = self.second(F.relu(self.first(normed), inplace=True))
        return x + change


class FrameAutoencoder(nn.Module):
    """Frames in [-1, 1] to latents of an eighth of the sides and back; whitening is kept in two buffers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        fine, coarse = config.fine, config.coarse
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, fine, 3, padding=1),
            *(_Block(fine) for _ in range(config.encoder_blocks[0])),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            *(_Block(coarse) for _ in range(config.encoder_blocks[1])),
            nn.Conv2d(coarse, config.channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.channels, coarse, 3, padding=1),
            *(_Block(coarse) for _ in range(config.decoder_blocks[0])),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(_Block(fine) for _ in range(config.decoder_blocks[1])),
            nn.Conv2d(fine, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("deviation", torch.ones(config.channels))

    def encode(self, signed: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """Whitened latents: mean 0 and deviation 1 in each channel over the frames that were trained on."""
        raw: Tensor = self.encoder(signed)
        return (raw - self.mean[:, None, None]) / self.deviation[:, None, None]

    def decode(self, latents: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 3 H W"]:
        """Frames about in [-1, 1], of whitened latents."""
        signed: Tensor = self.decoder(latents * self.deviation[:, None, None] + self.mean[:, None, None])
        return signed

    @torch.no_grad()
    def whiten(self, latents: Float[Tensor, "N C"]) -> None:
        """Make these latents, which `encode` gave, have mean 0 and deviation 1 from now on; frames stay the same."""
        self.mean += latents.mean(dim=0) * self.deviation
        self.deviation *= latents.std(dim=0).clamp(min=1e-6)


class AutoencoderCodec:
    """Pixels to whitened latents and back, without gradients; a `codecs.VisionCodec`.

    Each frame is coded alone. A latent frame stacks the latents of `temporal` frames, ordered (frame, channel), channel
    fastest; the first holds those of the first frame `temporal` times, and decoding takes their mean.
    """

    spatial = SPATIAL
    temporal = TEMPORAL

    def __init__(self, network: FrameAutoencoder, config: AutoencoderConfig, folder: str = "vision_codec") -> None:
        """Wrap a network.

        Args:
            network: in evaluation mode, of these sizes.
            config: its sizes; goes into the saved configuration.
            folder: where the weights lie inside the checkpoint; likewise.
        """
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in stubs
        self.config = config
        self.folder = folder

    @property
    def channels(self) -> int:
        """Values per latent: those of `temporal` frames."""
        return self.temporal * self.config.channels

    @torch.no_grad()
    def encode(self, pixels: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "C t h w"]:
        """Whitened latents, float32, on the network's device.

        Raises:
            MediaError: frames are not 1 + 4 k, or sides no multiple of 8.
        """
        latent_frames(pixels.shape[0], self.temporal)
        check_size(pixels.shape[1], pixels.shape[2], self.spatial)
        device = self.network.mean.device
        frames = torch.from_numpy(np.ascontiguousarray(pixels))
        with torch.autocast(device.type, enabled=False):
            coded = torch.cat([self.encode_frames(part.to(device)) for part in frames.split(_CHUNK)])
        return stack_latents(coded[None], differences=self.config.differences)[0]

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "C t h w"]) -> UInt8[np.ndarray, "T H W 3"]:
        """Pixels of whitened latents; 1 + 4 (t - 1) frames."""
        device = self.network.mean.device
        coded = unstack_latents(latents[None].to(device), differences=self.config.differences)[0]
        with torch.autocast(device.type, enabled=False):
            frames = torch.cat([self.decode_frames(part).cpu() for part in coded.split(_CHUNK)])
        array: UInt8[np.ndarray, "T H W 3"] = frames.numpy()
        return array

    @torch.no_grad()
    def encode_frames(self, frames: UInt8[Tensor, "N H W 3"]) -> Float[Tensor, "N C h w"]:
        """Whitened latents of single frames, float32, under whatever autocast the caller has chosen."""
        signed = signed_frames(frames).to(self.network.mean.dtype)
        return self.network.encode(signed).float()

    @torch.no_grad()
    def decode_frames(self, latents: Float[Tensor, "N C h w"]) -> UInt8[Tensor, "N H W 3"]:
        """The nearest bytes of single frames, under whatever autocast the caller has chosen."""
        whitened = latents.to(self.network.mean.dtype).contiguous(memory_format=torch.channels_last)
        signed = self.network.decode(whitened).float()
        levels = ((signed.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return rearrange(levels, "n c h w -> n h w c").contiguous()

    def tensors(self) -> dict[str, Tensor]:
        """What belongs into `folder`/model.safetensors, by name."""
        return stored_tensors(self.network)

    def codec_config(self) -> dict[str, Any]:
        """What `codecs.vision_from_config` makes this codec from, JSON-able."""
        return {"kind": "autoencoder", "folder": self.folder, **asdict(self.config)}


def load_autoencoder(
    folder: Path, config: AutoencoderConfig, device: torch.device, dtype: torch.dtype
) -> AutoencoderCodec:
    """Load a frame autoencoder from its folder in a checkpoint.

    Args:
        folder: the folder; its own name goes into the saved configuration.
        config: its sizes.
        device: where it computes.
        dtype: its precision.

    Raises:
        CheckpointError: the folder is unreadable, or tensors are missing, left over or misshapen.
    """
    network = FrameAutoencoder(config)
    read_weights(network, folder)
    return AutoencoderCodec(network.to(device=device, dtype=dtype).eval(), config, folder.name)


def signed_frames(frames: UInt8[Tensor, "N H W 3"]) -> Float[Tensor, "N 3 H W"]:
    """Bytes to float32 in [-1, 1] as x / 127.5 - 1; the memory stays in the order of the bytes (channels last)."""
    return rearrange(frames, "n h w c -> n c h w").float() / 127.5 - 1


def stack_latents(coded: Float[Tensor, "N T C h w"], *, differences: bool) -> Float[Tensor, "N stacked t h w"]:
    """Latents of 1 + 4 k frames to 1 + k latent frames of 4 C channels, ordered (frame, channel).

    Args:
        coded: of single frames.
        differences: all but the first latent frame are what they differ from it.

    Raises:
        MediaError: the count is not 1 + 4 k.
    """
    latent_frames(coded.shape[1], TEMPORAL)
    first, others = coded[:, :1], coded[:, 1:]
    frames = torch.cat([first.expand(-1, TEMPORAL, -1, -1, -1), others - first if differences else others], dim=1)
    return rearrange(frames, "n (t s) c h w -> n (s c) t h w", s=TEMPORAL).contiguous()


def unstack_latents(latents: Float[Tensor, "N stacked t h w"], *, differences: bool) -> Float[Tensor, "N T C h w"]:
    """Undo `stack_latents`; the first frame is the mean of its four."""
    coded = rearrange(latents, "n (s c) t h w -> n (t s) c h w", s=TEMPORAL)
    first, others = coded[:, :TEMPORAL].mean(dim=1, keepdim=True), coded[:, TEMPORAL:]
    return torch.cat([first, others + first if differences else others], dim=1)
