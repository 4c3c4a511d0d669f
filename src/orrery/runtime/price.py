"""Switch a speed on, and measure what an approximate one costs: its velocities against those of the plain path.

The probe is made from the model's own shape, a few noise tokens of every kind that it makes, so that it can be measured
wherever a model is loaded. What a speed costs in pictures and actions is measured by `benchmarks/price.py`.
"""

import importlib.util
import os
import shutil
from dataclasses import replace

import torch

from orrery.errors import SettingsError
from orrery.model import attention_kernels
from orrery.model.attention_kernels import Kernel
from orrery.model.config import MoTConfig
from orrery.model.denoiser import Denoiser
from orrery.model.matrix import FP8_FROM
from orrery.model.mot import LaysOut, MoT
from orrery.model.reader import Reader
from orrery.packing.pack import Pack, pack_samples
from orrery.packing.segment import Sample, Segment
from orrery.runtime.model import Model, Price
from orrery.runtime.speed import Speed

LEVELS = (0.9, 0.5, 0.1)
"""Noise levels of the probe: near the beginning, in the middle and near the end of a run."""
BOUND = 0.15
"""Largest price that is accepted. Pico in 8 bits comes to .16 on the probe, which is harsher than what is sampled: its
films are within the bound of `benchmarks/price.py` then, the actions of its policy are not (docs/performance.md)."""
NOT_COMPILED = "Nothing was compiled, for Triton or a C compiler is missing: sampling is slower than it could be."
SEED = 0
TEXT_TOKENS = 32
FRAMES, SIDE = 5, 8
"""Latent frames of the probe's video, the first of them given, and tokens along each side of them."""
ROWS = 16
"""Actions, and latents of sound."""
RATE = 20.0
"""Frames and actions in a second."""
MULTIPLE = 16
"""What the widths of such a product have to be multiples of."""


def made_fast(model: Model, speed: Speed, *, bound: float = BOUND) -> Model:
    """The same model at another speed. Its matrices become parts of the fast path's, so that nothing is held twice.

    Args:
        bound: largest price that is accepted.

    Raises:
        SettingsError: the model has nothing to sample, the device or this version cannot, or the price is too high.
    """
    if speed.denoiser == "plain":
        return replace(model, speed=speed, denoiser=None, reader=None, price=None)
    mot, device = model.mot, model.device
    on_gpu = device.type == "cuda"
    compiled = on_gpu and can_compile()
    if on_gpu and not compiled:
        model = replace(model, origin=replace(model.origin, notes=(*model.origin.notes, NOT_COMPILED)))
    reader = Reader(mot, compiled=compiled) if model.offload is None else None
    if not mot.config.generates:
        if speed.approximate:
            raise SettingsError(
                f"A reasoner has nothing to sample, and speed {speed.to_text()} is of sampling. Take the speed 'fast'."
            )
        return replace(model, speed=speed, denoiser=None, reader=reader, price=None)
    if model.offload == "all":
        raise SettingsError(
            "The fast path needs the generation tower on the device, and offload 'all' leaves it on the CPU. "
            "Take the speed 'plain', or offload 'text'."
        )
    if speed.linears == "fp8":
        _check_eight_bits(mot.config, device)
    denoiser = Denoiser(mot, linears=speed.linears, kernel=_kernel(speed, device), compiled=compiled, recorded=on_gpu)
    price = None
    if speed.approximate:
        contract = next(iter(model.contracts.values()), None)
        domain, columns = (0, None) if contract is None else (contract.domain_id, contract.width)
        # The probe is too short for the kernel in 8 bits, which attends exactly to what is short.
        probed = denoiser if speed.attention == "exact" else denoiser.attending_by(attention_kernels.emulated_eight_bit)
        price = measure(mot, probed, domain=domain, columns=columns)
        check(price, bound)
    return replace(model, speed=speed, denoiser=denoiser, reader=reader, price=price)


def can_compile() -> bool:
    """Whether what PyTorch's compiler needs on a GPU is there: Triton, and the C compiler that Triton looks for."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and importlib.util.find_spec("triton") is not None


@torch.no_grad()
def measure(mot: MoT, denoiser: LaysOut, *, domain: int = 0, columns: int | None = None) -> Price:
    """How far the velocities of a denoiser are from the plain ones, on the probe.

    Args:
        domain: of the actions.
        columns: of the actions; all that the model takes when None.
    """
    pack = probe(mot.config, mot.text_norm.weight.device, domain=domain, columns=columns)
    memory = mot.read(pack.text)
    plain, fast = mot.lay_out(pack, memory), denoiser.lay_out(pack, memory)
    errors: dict[str, float] = {segment.kind: 0.0 for segment in pack.segments}
    for level in LEVELS:
        sigmas = torch.full((len(pack.segments),), level, device=pack.positions.device)
        found = zip(pack.segments, plain(pack.latents, sigmas), fast(pack.latents, sigmas), strict=True)
        for segment, expected, velocity in found:
            error = float((velocity - expected).norm() / expected.norm())
            # A comparison that NaN passes as the largest, which the bound then refuses.
            errors[segment.kind] = errors[segment.kind] if error <= errors[segment.kind] else error
    return Price(errors=errors)


def check(price: Price, bound: float = BOUND) -> None:
    """Refuse a price above the bound.

    Raises:
        SettingsError: with the price and the bound.
    """
    if not all(error <= bound for error in price.errors.values()):
        raise SettingsError(
            f"At this speed velocities are off by {price.to_text()} of their size, and at most {bound:.0%} is "
            "accepted. Take the speed 'fast', which is exact to rounding."
        )


def probe(config: MoTConfig, device: torch.device, *, domain: int, columns: int | None) -> Pack:
    """Noise of every kind that a model makes, under random words: the same for the same shape everywhere."""
    rng = torch.Generator().manual_seed(SEED)

    def noise(frames: int, tokens: int, width: int) -> torch.Tensor:
        return torch.randn(frames, tokens, width, generator=rng).to(device)

    segments = [
        Segment(
            kind="vision",
            clean=noise(FRAMES, SIDE**2, config.vision_width),
            given=(torch.arange(FRAMES) == 0).to(device),
            valid=torch.ones(SIDE**2, config.vision_width, dtype=torch.bool, device=device),
            rows=SIDE,
            cols=SIDE,
            fps=RATE,
        )
    ]
    if config.sound_width is not None:
        segments.append(
            Segment(
                kind="sound",
                clean=noise(ROWS, 1, config.sound_width),
                given=torch.zeros(ROWS, dtype=torch.bool, device=device),
                valid=torch.ones(1, config.sound_width, dtype=torch.bool, device=device),
                fps=config.sound_fps,
            )
        )
    if config.action_width is not None:
        valid = (torch.arange(config.action_width) < (columns or config.action_width))[None].to(device)
        segments.append(
            Segment(
                kind="action",
                clean=noise(ROWS, 1, config.action_width) * valid,
                given=torch.zeros(ROWS, dtype=torch.bool, device=device),
                valid=valid,
                fps=RATE,
                start=1,
                domain=domain,
            )
        )
    words = torch.randint(config.vocab, (TEXT_TOKENS,), generator=rng).to(device)
    return pack_samples([Sample(token_ids=words, segments=tuple(segments))], config.clock)


def _kernel(speed: Speed, device: torch.device) -> Kernel:
    if speed.attention == "exact":
        return attention_kernels.exact
    # Where there is no such kernel its numbers can be had, though not its speed: as with products in 8 bits.
    return attention_kernels.eight_bit if device.type == "cuda" else attention_kernels.emulated_eight_bit


def _check_eight_bits(config: MoTConfig, device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_FROM:
        major, minor = torch.cuda.get_device_capability(device)
        raise SettingsError(
            f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor}) has no products in 8 bits, "
            f"which begin with {FP8_FROM[0]}.{FP8_FROM[1]}. Take the speed 'fast'."
        )
    odd = [width for width in (config.width, config.ffn_width, config.heads * config.head_width) if width % MULTIPLE]
    if odd:
        raise SettingsError(
            f"Products in 8 bits need widths that are multiples of {MULTIPLE}, this model has {odd[0]}. "
            "Take the speed 'fast'."
        )
