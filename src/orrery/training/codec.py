"""Training of our own small codecs, by the clock or by steps, on any device.

Where pictures and sounds come from is the caller's: it hands in a function of the step. What is returned is a finished
codec, whitened on what it was trained on, and figures over held-out media.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from orrery.errors import SettingsError
from orrery.tokenizers.autoencoder import AutoencoderCodec, AutoencoderConfig, FrameAutoencoder, signed_frames
from orrery.tokenizers.sound_autoencoder import (
    QUIET,
    SIDES,
    AutoencoderSoundCodec,
    Drawn,
    SoundAutoencoder,
    SoundAutoencoderConfig,
    middle_and_side,
)
from orrery.training.muon import Muon

Frames = UInt8[Tensor, "B H W 3"]
Batches = Sequence[UInt8[Tensor, "_ _ _ 3"]]
"""Frames of any sizes."""
DrawFrames = Callable[[int], Frames | tuple[Frames, Float[Tensor, "B H W"]]]
"""A batch for a step, on the device, and perhaps a weight for each pixel. Batches may differ in size."""
Sounds = Float[Tensor, "B N 2"]
SoundBatches = Sequence[Float[Tensor, "_ _ 2"]]
DrawSounds = Callable[[int], Sounds]
"""A batch for a step, on the device: stereo sound in [-1, 1] of whole hops."""
Report = Callable[[int, dict[str, float]], None]
"""Is told the step and figures now and then."""
_WHITENING_BATCHES = 16
_REPORT_STEPS = 100
_WINDOWS = (128, 512, 2048)
"""Samples of the windows of spectra, a quarter apart: 8 ms for blows, 128 ms for tones, at 16 kHz."""


@dataclass(frozen=True, kw_only=True)
class CodecTraining:
    """How a codec is trained. Exactly one of `seconds` and `steps` is given."""

    seconds: float | None = None
    """How long, compilation included."""
    steps: int | None = None
    learning_rate: float = 2e-3
    """The highest, of Muon; what is no matrix (biases) is trained by AdamW at half of it."""
    warmup_steps: int = 100
    decay: float = 0.6
    """The last part of the time, in which the learning rate falls evenly to 0."""
    latent_noise: float = 0.05
    """Noise that the decoder is trained with, relative to each latent channel's deviation in the batch."""
    gradient_weight: float = 0.5
    """Of the edge loss against the loss of pixels."""
    square_weight: float = 4.0
    """Of the squared error of pixels, which counts what is far off: small things, and edges that move."""
    lines_weight: float = 0.3
    """Of the waveform of sound, as companded lines, against its spectra."""
    compiled: bool = True
    """Compile where there is a GPU; on the CPU nothing is compiled."""

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise SettingsError(f"Give seconds or steps, not both, got {self.seconds} and {self.steps}.")
        if not (self.seconds or self.steps or 0) > 0:
            raise SettingsError(f"Training needs more than 0 seconds or steps, got {self.seconds or self.steps}.")
        if not 0 < self.learning_rate < math.inf or self.warmup_steps < 0 or not 0 <= self.decay <= 1:
            raise SettingsError(f"The learning rate must be above 0 and the decay in 0 to 1, got {self}.")
        if min(self.latent_noise, self.gradient_weight, self.square_weight, self.lines_weight) < 0:
            raise SettingsError(f"Noise and weights must be 0 or more, got {self}.")


def train_vision_codec(
    config: AutoencoderConfig,
    draw: DrawFrames,
    training: CodecTraining,
    *,
    device: torch.device,
    seed: int,
    held_out: Batches = (),
    report: Report = lambda step, figures: None,
    folder: str = "vision_codec",
) -> tuple[AutoencoderCodec, dict[str, float]]:
    """Train a frame autoencoder from nothing.

    The loss is |difference| of pixels and of their neighbours' differences (edges), each weighted by `draw`'s weights.

    Args:
        draw: asked once for every step from 0 on, and for _WHITENING_BATCHES more.
        held_out: batches of frames, on the device, that are only measured.
        folder: where the codec will lie inside a checkpoint.

    Returns:
        The codec in evaluation mode, float32, and figures: steps, seconds, loss, and psnr_db over `held_out`, over all
        and one `psnr_HxW_db` for each size.
    """
    torch.manual_seed(seed)
    network = FrameAutoencoder(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(signed: Tensor, weights: Tensor | None, noise: Tensor) -> Tensor:
        raw = network.encoder(signed)
        spread = raw.detach().float().std(dim=(0, 2, 3), keepdim=True)
        shown = network.decoder(raw + training.latent_noise * spread * noise)
        return picture_loss(shown.float(), signed, weights, training.gradient_weight, training.square_weight)

    step_loss = torch.compile(loss_of, dynamic=False) if _compiles(training, device) else loss_of
    generator = torch.Generator(device).manual_seed(seed)

    def one_step(step: int) -> Tensor:
        frames, weights = _with_weights(draw(step))
        signed = signed_frames(frames)
        count, height, width, _ = frames.shape
        shape = (count, config.channels, height // AutoencoderCodec.spatial, width // AutoencoderCodec.spatial)
        noise = torch.randn(shape, generator=generator, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss: Tensor = step_loss(signed, weights, noise)
        return loss

    steps, seconds, loss = run_by_clock(network, one_step, training, device, report)
    codec = AutoencoderCodec(network.eval(), config, folder)
    seen = [_with_weights(draw(steps + index))[0] for index in range(_WHITENING_BATCHES)]
    # Of every batch as many latents, whatever its size: neither camera outweighs the other.
    network.whiten(torch.cat([_some_rows(codec.encode_frames(frames), generator) for frames in seen]))
    figures = {"steps": float(steps), "seconds": seconds, "loss": loss, **psnr_of(codec, held_out)}
    return codec, figures


def train_sound_codec(
    config: SoundAutoencoderConfig,
    draw: DrawSounds,
    training: CodecTraining,
    *,
    device: torch.device,
    seed: int,
    held_out: SoundBatches = (),
    report: Report = lambda step, figures: None,
    folder: str = "sound_codec",
) -> tuple[AutoencoderSoundCodec, dict[str, float]]:
    """Train a sound autoencoder from nothing.

    The loss is |difference| of companded lines, without the noise, and the spectral loss of lines and noise together.

    Args:
        draw: asked once for every step from 0 on, and for _WHITENING_BATCHES more.
        held_out: batches of sounds, on the device, that are only measured.
        folder: where the codec will lie inside a checkpoint.

    Returns:
        The codec in evaluation mode, float32, and figures: steps, seconds, loss, and `sound_figures` over `held_out`.
    """
    torch.manual_seed(seed)
    network = SoundAutoencoder(config).to(device)
    generator = torch.Generator(device).manual_seed(seed)

    def drawn_of(frames: Tensor, spectra: Tensor, noise: Tensor) -> Drawn:
        raw = network.raw_latents(frames, spectra)
        spread = raw.detach().float().std(dim=(0, 2), keepdim=True)
        return network.drawn(raw + training.latent_noise * spread * noise)

    draw_again = torch.compile(drawn_of, dynamic=False) if _compiles(training, device) else drawn_of

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def one_step(step: int) -> Tensor:
        sound = draw(step)
        count, samples, _ = sound.shape
        frames, spectra = network.heard(sound)
        noise = normal(count, config.channels, samples // config.hop)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            drawn = draw_again(frames, spectra, noise)
        fillings = (normal(count, SIDES, samples // lines, lines) for lines in (config.lines, config.long_lines))
        heard = network.filled(drawn, *fillings)
        near = (drawn.lines - frames).abs().mean()
        loss: Tensor = training.lines_weight * near + spectral_loss(heard, sound)
        return loss

    steps, seconds, loss = run_by_clock(network, one_step, training, device, report)
    codec = AutoencoderSoundCodec(network.eval(), folder)
    seen = [codec.encode_sounds(draw(steps + index)) for index in range(_WHITENING_BATCHES)]
    network.whiten(torch.cat([rearrange(latents, "b t c -> (b t) c") for latents in seen]))
    figures = {"steps": float(steps), "seconds": seconds, "loss": loss, **sound_figures(codec, held_out)}
    return codec, figures


def spectral_loss(heard: Sounds, true: Sounds) -> Float[Tensor, ""]:
    """|difference| of log spectra plus the distance of spectra relative to the true, mean over window lengths.

    The first makes the quiet as important as the loud, the second a blow more than the hum around it. Of left, right
    and side, so that the place of a sound counts.
    """
    total = heard.new_zeros(())
    for length in _WINDOWS:
        mine, other = _spectra(heard, length), _spectra(true, length)
        total = total + (mine.log() - other.log()).abs().mean()
        distance = (mine - other).square().sum(dim=(1, 2, 3)).sqrt()
        total = total + 0.5 * (distance / other.square().sum(dim=(1, 2, 3)).sqrt()).mean()
    return total / len(_WINDOWS)


def sound_figures(codec: AutoencoderSoundCodec, batches: SoundBatches) -> dict[str, float]:
    """How sounds come out of the codec, over all batches; nothing where there are none.

    log_spectrum_db: mean |difference| of log spectra over the three windows, and silence_db the same of silence. Two
    noises of the same colour are up to 6 apart. snr_db: of waveforms; noise keeps it low. onset_ms: how far the
    steepest rise of loudness (5 ms) is moved, looked for within one latent of where it was; the mean over sounds with a
    rise of 12 dB, NaN where there is none. By chance it would be half a latent.
    """
    if not batches:
        return {}
    rows: list[tuple[Tensor, ...]] = []
    for sound in batches:
        heard = codec.decode_sounds(codec.encode_sounds(sound)).clamp(-1, 1)
        power, error = sound.square().mean(dim=(1, 2)), (heard - sound).square().mean(dim=(1, 2))
        apart = _log_spectra_apart_db(heard, sound), _log_spectra_apart_db(torch.zeros_like(sound), sound)
        rows.append((*apart, power, error, _onset_ms(heard, sound, codec.rate, codec.hop)))
    log_db, silence_db, power, error, onset = (torch.cat(column).double() for column in zip(*rows, strict=True))
    return {
        "log_spectrum_db": float(log_db.mean()),
        "silence_db": float(silence_db.mean()),
        "snr_db": 10 * math.log10(float(power.sum() / error.sum().clamp(min=1e-12))),
        "onset_ms": float(onset.nanmean()),
    }


def _log_spectra_apart_db(heard: Sounds, true: Sounds) -> Float[Tensor, " B"]:
    apart = [(_spectra(heard, length) / _spectra(true, length)).log().abs().mean(dim=(1, 2, 3)) for length in _WINDOWS]
    return 20 / math.log(10) * torch.stack(apart).mean(dim=0)


def _spectra(sound: Sounds, length: int) -> Float[Tensor, "B sides K M"]:
    """Magnitudes of left, right and side, lifted by that of the quietest noise so that logarithms stay finite."""
    left_right = rearrange(sound, "b n c -> b c n")
    sides = torch.cat([left_right, middle_and_side(left_right)[:, 1:]], dim=1)
    window = torch.hann_window(length, device=sound.device)
    complex_values = torch.stft(
        rearrange(sides, "b s n -> (b s) n"), length, length // 4, window=window, center=False, return_complex=True
    )
    # Of white noise whose MDCT lines have deviation QUIET / 4, in this window.
    floor = (QUIET / 4) ** 2 * float(window.square().sum())
    return rearrange((complex_values.abs().square() + floor).sqrt(), "(b s) k m -> b s k m", s=3)


def _onset_ms(heard: Sounds, true: Sounds, rate: int, hop: int) -> Float[Tensor, " B"]:
    step = rate // 1000  # where loudness is measured; it is that of 5 ms

    def rises(sound: Sounds) -> Float[Tensor, "B R"]:
        power = sound.square().mean(dim=2).unfold(1, 5 * step, step).mean(dim=2)
        level = 10 * (power + (QUIET / 4) ** 2).log10()
        return level[:, 5:] - level[:, :-5]

    mine, other = rises(heard), rises(true)
    most, where = other.max(dim=1)
    far = (torch.arange(other.shape[1], device=other.device) - where[:, None]).abs() > hop // step
    found = mine.masked_fill(far, -math.inf).argmax(dim=1)
    return torch.where(most > 12, (where - found).abs() * step / rate * 1000, torch.nan)


def picture_loss(
    shown: Float[Tensor, "B 3 H W"],
    true: Float[Tensor, "B 3 H W"],
    weights: Float[Tensor, "B H W"] | None,
    gradient_weight: float,
    square_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean |error| plus `square_weight` times its square, plus `gradient_weight` times the mean |error of differences|
    along rows and columns, weighted."""
    error = shown - true
    edges = (error.diff(dim=2).abs(), error.diff(dim=3).abs())
    pixels = error.abs() + square_weight * error.square()
    if weights is None:
        return pixels.mean() + gradient_weight * (edges[0].mean() + edges[1].mean())
    each = (weights / weights.mean())[:, None]
    down = (edges[0] * torch.maximum(each[:, :, 1:], each[:, :, :-1])).mean()
    across = (edges[1] * torch.maximum(each[:, :, :, 1:], each[:, :, :, :-1])).mean()
    return (pixels * each).mean() + gradient_weight * (down + across)


def psnr_of(codec: AutoencoderCodec, batches: Batches, part: int = 64) -> dict[str, float]:
    """PSNR in dB of bytes, coded and decoded, pooled over pixels: of all sizes (as psnr_db) and of each."""
    squares: dict[str, list[tuple[float, int]]] = {}
    for frames in batches:
        for some in frames.split(part):
            decoded = codec.decode_frames(codec.encode_frames(some))
            error = (decoded.float() - some.float()).square()
            size = f"psnr_{some.shape[1]}x{some.shape[2]}_db"
            squares.setdefault(size, []).append((float(error.double().sum()), error.numel()))
    pooled = {"psnr_db": list(itertools.chain(*squares.values())), **squares} if squares else {}
    return {name: _db(sum(s for s, _ in rows) / sum(n for _, n in rows)) for name, rows in pooled.items()}


def _db(mean_square: float) -> float:
    return 10 * math.log10(255**2 / max(mean_square, 1e-3))


def _with_weights(drawn: Frames | tuple[Frames, Tensor]) -> tuple[Frames, Tensor | None]:
    return drawn if isinstance(drawn, tuple) else (drawn, None)


def _some_rows(latents: Float[Tensor, "N C h w"], generator: torch.Generator, most: int = 4096) -> Tensor:
    rows = rearrange(latents, "n c h w -> (n h w) c")
    return rows[torch.randint(len(rows), (most,), generator=generator, device=rows.device)]


def _compiles(training: CodecTraining, device: torch.device) -> bool:
    return training.compiled and device.type == "cuda"


def run_by_clock(
    network: nn.Module, one_step: Callable[[int], Tensor], training: CodecTraining, device: torch.device, report: Report
) -> tuple[int, float, float]:
    """Step until time or steps are up. Returns the steps made, the seconds, and the mean loss of the last tenth."""
    optimisers = list(_optimisers(network, training.learning_rate))
    begun = time.monotonic()
    losses: list[Tensor] = []
    for step in itertools.count():
        if training.seconds is not None:
            done = (time.monotonic() - begun) / training.seconds
        else:
            assert training.steps is not None
            done = step / training.steps
        if done >= 1:
            break
        rise = min(1.0, (step + 1) / max(training.warmup_steps, 1))
        factor = rise * min(1.0, (1 - done) / max(training.decay, 1e-9))
        for optimiser, rate in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        loss = one_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        losses.append(loss.detach())
        if step % _REPORT_STEPS == _REPORT_STEPS - 1:
            recent = float(torch.stack(losses[-_REPORT_STEPS:]).mean())
            if not math.isfinite(recent):
                raise SettingsError(f"The loss is {recent} at step {step}. Lower the learning rate.")
            report(step + 1, {"loss": recent, "seconds": time.monotonic() - begun, "done": done})
        elif device.type == "cuda" and step % 8 == 7:
            # Without a wait now and then, the queue of the GPU would run on long after the clock says stop.
            torch.cuda.synchronize(device)
    last = losses[-max(1, len(losses) // 10) :]
    return len(losses), time.monotonic() - begun, float(torch.stack(last).mean())


def _optimisers(network: nn.Module, rate: float) -> Iterator[tuple[torch.optim.Optimizer, float]]:
    """Muon for weights, each as a matrix (outputs, all else), and AdamW for biases; with their highest rates."""
    weights = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    yield _ConvolutionMuon(weights), rate
    yield torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0), rate / 2


class _ConvolutionMuon(torch.optim.Optimizer):
    """Muon on kernels (out, in, ...) seen as matrices (out, all else), which share their memory."""

    def __init__(self, kernels: Sequence[nn.Parameter]) -> None:
        super().__init__(kernels, {"lr": 1e-3})
        self._views = [nn.Parameter(_as_matrix(kernel.detach(), kernel)) for kernel in kernels]
        assert all(view.data_ptr() == kernel.data_ptr() for view, kernel in zip(self._views, kernels, strict=True))
        self._muon = Muon([{"params": self._views, "lr": 1e-3, "weight_decay": 0.0}])

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Hand gradients over as matrices and update."""
        (group,) = self.param_groups
        self._muon.param_groups[0]["lr"] = group["lr"]
        for kernel, view in zip(group["params"], self._views, strict=True):
            view.grad = None if kernel.grad is None else _as_matrix(kernel.grad, kernel)
        self._muon.step()


def _as_matrix(values: Tensor, kernel: Tensor) -> Float[Tensor, "out rest"]:
    """Values of a kernel's shape, in the order in which that kernel lies in memory."""
    last = kernel.ndim == 4 and kernel.is_contiguous(memory_format=torch.channels_last)
    return (values.movedim(1, -1) if last else values).reshape(len(values), -1)
