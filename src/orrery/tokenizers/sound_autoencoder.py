"""A small sound autoencoder: what can follow the waveform follows it, the rest is noise of the right colour and time.

64 values cannot hold the waveform of 1600 samples of hum and scraping, and no ear asks for it. So the decoder adds up
three things: lines of a short transform (6 ms), which follow the waveform of blows as far as they can; noise in bands
of the same short transform, for when it is loud; and noise in narrow lines of a long transform (25 ms, 20 Hz apart),
for tones. Which noise fills them is fixed. Transforms are invertible and not learned. Made to be trained in minutes
(`training.codec`).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Float32
from torch import Tensor, nn

from orrery.errors import SettingsError
from orrery.tokenizers.codec_weights import read_weights, stored_tensors
from orrery.tokenizers.samples import cut_to_length, padded_to_hop

SIDES = 2
QUIET = 0.004
"""Companding is asinh(x / QUIET): about linear up to the noise that is always there, logarithmic from there up to the
loudest blow, 70 dB above it. Without it a network learns blows alone."""
LOUDEST = 8.0
"""Companded values and logarithms of loudness are held within this: beyond full scale."""
_TABLE_FRAMES = 1024


@dataclass(frozen=True, kw_only=True)
class SoundAutoencoderConfig:
    """Sizes of a sound autoencoder of stereo sound."""

    rate: int = 16_000
    hop: int = 800
    """Samples a latent: 20 latents a second, the rate of control."""
    channels: int = 64
    """Values of a latent, of 2 x 800 samples. Each costs the model that makes sound an input and an output."""
    lines: int = 100
    """Samples from one short frame to the next, and lines of each; divides the hop."""
    bands: int = 20
    """Bands of noise of a short frame; divides the lines."""
    long_lines: int = 400
    """The same of long frames; all of a latent share their loudness."""
    frame_width: int = 128
    """Width of the network at the rate of MDCT frames."""
    width: int = 256
    """Width at the rate of latents."""
    encoder_blocks: int = 1
    decoder_blocks: int = 2
    """Residual blocks at either rate."""

    def __post_init__(self) -> None:
        sizes = (self.rate, self.hop, self.channels, self.lines, self.bands, self.long_lines)
        if min(*sizes, self.frame_width, self.width) < 1 or self.lines % self.bands:
            raise SettingsError(
                f"A sound autoencoder needs sizes of 1 or more and bands that divide the lines, got {self}."
            )
        if any(self.hop % lines or lines % 2 for lines in (self.lines, self.long_lines)):
            raise SettingsError(f"A sound autoencoder needs even numbers of lines that divide the hop, got {self}.")
        if min(self.encoder_blocks, self.decoder_blocks) < 0:
            raise SettingsError(f"Counts of blocks must be 0 or more, got {self}.")


class Mdct(nn.Module):
    """The modified discrete cosine transform with a sine window, orthonormal, of sound that is silent around.

    Frame j is centred on the middle of its own `lines` samples and reaches half as many to either side. Outside the
    sound there is silence, so the first and the last half frame can be undone without neighbours.
    """

    basis: Tensor
    gain: Tensor

    def __init__(self, lines: int) -> None:
        super().__init__()
        n, k = torch.arange(2 * lines, dtype=torch.float64), torch.arange(lines, dtype=torch.float64)
        window = torch.sin(math.pi * (n + 0.5) / (2 * lines))
        turns = math.pi / lines * torch.outer(n + 0.5 + lines / 2, k + 0.5)
        basis = math.sqrt(2 / lines) * window[:, None] * torch.cos(turns)
        self.lines = lines
        self.register_buffer("basis", basis.float(), persistent=False)
        # What is left of a sample near the ends, where one of two frames is missing: the window squared.
        self.register_buffer("gain", window[lines // 2 : lines].square().float(), persistent=False)

    def forward(self, sound: Float[Tensor, "B c N"]) -> Float[Tensor, "B c M lines"]:
        """Frames of sound, N = M lines."""
        half = self.lines // 2
        return F.pad(sound, (half, half)).unfold(-1, 2 * self.lines, self.lines) @ self.basis

    def inverse(self, frames: Float[Tensor, "B c M lines"]) -> Float[Tensor, "B c N"]:
        """Undo `forward`."""
        parts = frames @ self.basis.mT
        early, late = parts[..., : self.lines], parts[..., self.lines :]
        whole = F.pad(early, (0, 0, 0, 1)) + F.pad(late, (0, 0, 1, 0))
        half = self.lines // 2
        sound = rearrange(whole, "b c m n -> b c (m n)")[..., half:-half]
        return torch.cat(
            [sound[..., :half] / self.gain, sound[..., half:-half], sound[..., -half:] / self.gain.flip(0)], dim=-1
        )


class _Block(nn.Module):
    """x + convolution(relu(convolution(norm(x)))) in time, the second begun at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Float[Tensor, "B W T"]) -> Float[Tensor, "B W T"]:
        normed = x * (x.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()
        change: Tensor = self.second(F.relu(self.first(normed)))
        return x + change


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What the decoder makes of latents. Loudness is log(deviation / QUIET)."""

    lines: Float[Tensor, "B 2 M lines"]
    """Companded, of short frames."""
    loudness: Float[Tensor, "B 2 M bands"]
    long_loudness: Float[Tensor, "B 2 T long"]


class SoundAutoencoder(nn.Module):
    """Sound to latents and back, as middle and side; whitening is kept in two buffers."""

    mean: Tensor
    deviation: Tensor
    short_table: Tensor
    long_table: Tensor

    def __init__(self, config: SoundAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.frames = config.hop // config.lines
        narrow, wide = config.frame_width, config.width
        per_frame, per_latent = SIDES * (config.lines + config.bands), SIDES * config.long_lines
        self.mdct, self.long_mdct = Mdct(config.lines), Mdct(config.long_lines)
        self.frame_encoder = nn.Sequential(
            nn.Conv1d(per_frame, narrow, 3, padding=1), *(_Block(narrow) for _ in range(config.encoder_blocks))
        )
        self.encoder = nn.Sequential(
            nn.Conv1d(self.frames * narrow + per_latent, wide, 1),
            *(_Block(wide) for _ in range(config.encoder_blocks)),
            nn.Conv1d(wide, config.channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(config.channels, wide, 3, padding=1), *(_Block(wide) for _ in range(config.decoder_blocks))
        )
        self.unfold = nn.Conv1d(wide, self.frames * narrow, 1)
        self.frame_decoder = nn.Sequential(*(_Block(narrow) for _ in range(config.decoder_blocks)))
        self.short_out = nn.Conv1d(narrow, per_frame, 3, padding=1)
        self.long_out = nn.Conv1d(wide, per_latent, 1)
        for out, loudness in ((self.short_out, SIDES * config.bands), (self.long_out, per_latent)):
            # Begin as the noise that is always there: no lines, and both kinds of noise a little below QUIET.
            nn.init.zeros_(out.weight)
            assert out.bias is not None
            nn.init.zeros_(out.bias)
            nn.init.constant_(out.bias[-loudness:], -1.2)
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("deviation", torch.ones(config.channels))
        chance = torch.Generator().manual_seed(0)
        for name, lines in (("short_table", config.lines), ("long_table", config.long_lines)):
            table = torch.randn(_TABLE_FRAMES, SIDES, lines, generator=chance)
            self.register_buffer(name, table, persistent=False)

    def heard(self, sound: Float[Tensor, "B N 2"]) -> tuple[Float[Tensor, "B 2 M lines"], Float[Tensor, "B V T"]]:
        """What the encoder is given of a sound: companded short frames, and logarithms of long spectra."""
        sides = middle_and_side(rearrange(sound, "b n c -> b c n"))
        size = self.config.long_lines
        spectra = torch.stft(
            rearrange(F.pad(sides, (size // 2, size // 2)), "b s n -> (b s) n"),
            2 * size, size, window=torch.hann_window(2 * size, device=sound.device), center=False, return_complex=True,
        )  # fmt: skip
        power = rearrange(
            spectra[:, :size].abs().square(), "(b s) k (t f) -> b s k t f", s=SIDES, f=self.config.hop // size
        )
        # Of white noise of deviation QUIET this is about 1 before the logarithm.
        level = (power.mean(dim=-1) / (QUIET**2 * 0.75 * size) + 1e-2).log() / 2
        return torch.asinh(self.mdct(sides) / QUIET), rearrange(level, "b s k t -> b (s k) t")

    def raw_latents(self, frames: Float[Tensor, "B 2 M lines"], spectra: Float[Tensor, "B V T"]) -> Tensor:
        """Latents (B, C, T) before whitening."""
        bands = rearrange(frames, "b s m (k each) -> b s m k each", k=self.config.bands)
        loudness = (bands.square().mean(dim=-1) + 1e-2).log() / 2
        given = torch.cat([frames, loudness], dim=-1)
        each = self.frame_encoder(rearrange(given, "b s m v -> b (s v) m"))
        raw: Tensor = self.encoder(
            torch.cat([rearrange(each, "b w (t f) -> b (f w) t", f=self.frames), spectra], dim=1)
        )
        return raw

    def drawn(self, raw: Float[Tensor, "B C T"]) -> Drawn:
        """Lines and loudness of latents before whitening."""
        each = self.decoder(raw)
        long_loudness = self.long_out(each)
        frames = self.frame_decoder(rearrange(self.unfold(each), "b (f w) t -> b w (t f)", f=self.frames))
        values = self.short_out(frames).float()
        lines, loudness = values.split([SIDES * self.config.lines, SIDES * self.config.bands], dim=1)
        return Drawn(
            lines=rearrange(lines, "b (s k) m -> b s m k", s=SIDES).clamp(-LOUDEST, LOUDEST),
            loudness=rearrange(loudness, "b (s k) m -> b s m k", s=SIDES).clamp(-LOUDEST, LOUDEST),
            long_loudness=rearrange(long_loudness.float(), "b (s k) t -> b s t k", s=SIDES).clamp(-LOUDEST, LOUDEST),
        )

    def filled(self, drawn: Drawn, noise: Tensor, long_noise: Tensor) -> Float[Tensor, "B N 2"]:
        """Sound of lines and noise, which is standard normal: (B or 1, 2, frames, lines) of short and long frames."""
        wide = repeat(drawn.loudness, "b s m k -> b s m (k each)", each=self.config.lines // self.config.bands)
        short = self.mdct.inverse(QUIET * (torch.sinh(drawn.lines) + wide.exp() * noise))
        many = repeat(drawn.long_loudness, "b s t k -> b s (t f) k", f=self.config.hop // self.config.long_lines)
        sides = short + self.long_mdct.inverse(QUIET * many.exp() * long_noise)
        return rearrange(middle_and_side(sides), "b c n -> b n c")

    def encode(self, sound: Float[Tensor, "B N 2"]) -> Float[Tensor, "B T C"]:
        """Whitened latents of sound of whole hops."""
        raw = self.raw_latents(*self.heard(sound))
        return (rearrange(raw, "b c t -> b t c") - self.mean) / self.deviation

    def decode(self, latents: Float[Tensor, "B T C"]) -> Float[Tensor, "B N 2"]:
        """Sound of whitened latents; noise is the same in every call."""
        drawn = self.drawn(rearrange(latents * self.deviation + self.mean, "b t c -> b c t"))
        short, long = (
            rearrange(table[torch.arange(count, device=table.device) % _TABLE_FRAMES], "m s k -> 1 s m k")
            for table, count in (
                (self.short_table, drawn.lines.shape[2]),
                (self.long_table, latents.shape[1] * self.config.hop // self.config.long_lines),
            )
        )
        return self.filled(drawn, short, long)

    @torch.no_grad()
    def whiten(self, latents: Float[Tensor, "N C"]) -> None:
        """Make these latents, which `encode` gave, have mean 0 and deviation 1 from now on; sound stays the same."""
        self.mean += latents.mean(dim=0) * self.deviation
        self.deviation *= latents.std(dim=0).clamp(min=1e-6)


class AutoencoderSoundCodec:
    """Stereo sound to whitened latents and back, without gradients; a `codecs.SoundCodec`."""

    sound_channels = SIDES

    def __init__(self, network: SoundAutoencoder, folder: str = "sound_codec") -> None:
        """Wrap a network.

        Args:
            network: in evaluation mode.
            folder: where the weights lie inside the checkpoint; goes into the saved configuration.
        """
        self.network = network
        self.config = network.config
        self.folder = folder

    @property
    def rate(self) -> int:
        """Samples per second and channel."""
        return self.config.rate

    @property
    def hop(self) -> int:
        """Samples per latent."""
        return self.config.hop

    @property
    def channels(self) -> int:
        """Values per latent."""
        return self.config.channels

    def encode(self, samples: Float32[np.ndarray, "N channels"]) -> Float[Tensor, "T C"]:
        """Whitened latents, float32, on the network's device; the last one is filled up with silence.

        Raises:
            MediaError: no samples, another number of channels, or values that are not finite.
        """
        sound = padded_to_hop(samples, self.hop, self.sound_channels).to(self.network.mean.device)
        with torch.autocast(sound.device.type, enabled=False):
            return self.encode_sounds(sound[None])[0]

    def decode(self, latents: Float[Tensor, "T C"], samples: int) -> Float32[np.ndarray, "N channels"]:
        """The first `samples` samples, in [-1, 1].

        Raises:
            MediaError: `samples` does not end inside the last latent.
        """
        with torch.autocast(self.network.mean.device.type, enabled=False):
            return cut_to_length(self.decode_sounds(latents[None])[0], samples, self.hop)

    @torch.no_grad()
    def encode_sounds(self, sound: Float[Tensor, "B N 2"]) -> Float[Tensor, "B T C"]:
        """Whitened latents of sounds of whole hops, float32, under whatever autocast the caller has chosen."""
        return self.network.encode(sound.to(self.network.mean.dtype)).float()

    @torch.no_grad()
    def decode_sounds(self, latents: Float[Tensor, "B T C"]) -> Float[Tensor, "B N 2"]:
        """Sounds of whole hops, float32, not cut to [-1, 1], under whatever autocast the caller has chosen."""
        mean = self.network.mean
        return self.network.decode(latents.to(device=mean.device, dtype=mean.dtype)).float()

    def tensors(self) -> dict[str, Tensor]:
        """What belongs into `folder`/model.safetensors, by name."""
        return stored_tensors(self.network)

    def codec_config(self) -> dict[str, Any]:
        """What `codecs.sound_from_config` makes this codec from, JSON-able."""
        return {"kind": "sound_autoencoder", "folder": self.folder, **asdict(self.config)}


def load_sound_autoencoder(
    folder: Path, config: SoundAutoencoderConfig, device: torch.device, dtype: torch.dtype
) -> AutoencoderSoundCodec:
    """Load a sound autoencoder from its folder in a checkpoint.

    Args:
        folder: the folder; its own name goes into the saved configuration.
        config: its sizes.
        device: where it computes.
        dtype: its precision.

    Raises:
        CheckpointError: the folder is unreadable, or tensors are missing, left over or misshapen.
    """
    network = SoundAutoencoder(config)
    read_weights(network, folder)
    return AutoencoderSoundCodec(network.to(device=device, dtype=dtype).eval(), folder.name)


def middle_and_side(sound: Float[Tensor, "B 2 N"]) -> Float[Tensor, "B 2 N"]:
    """(left + right, left - right) / sqrt 2; its own inverse."""
    left, right = sound.unbind(dim=1)
    return torch.stack([left + right, left - right], dim=1) * math.sqrt(0.5)
