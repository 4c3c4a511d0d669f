"""How far the ways to compute are from float32: one pass of a released shape, each block of it also in float32.

    python benchmarks/exactness.py --family nano --device cuda
    python benchmarks/exactness.py --family tiny

Weights are random. The float32 pass starts from the same embedded tokens and takes its blocks one by one, so that it
needs no second model's memory. Prints ||velocity - float32|| / ||float32|| of the pictures for the plain path, the fast
one and products in 8 bits.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, cast

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from orrery.model.attention import rotary
from orrery.model.denoiser import Denoiser
from orrery.model.mot import Block, LaysOut, MoT
from orrery.packing.pack import Pack, pack_samples
from orrery.runtime.family.bench import FAMILIES
from orrery.runtime.family.workloads import WORKLOADS, random_mot, sample_of
from orrery.runtime.result import RANDOM_WEIGHTS

SIGMA = 0.7


@dataclass(frozen=True, kw_only=True)
class Exactness:
    """What to compare."""

    family: Literal["tiny", "edge", "nano"] = "tiny"
    device: str = "cpu"
    rows: tuple[str, ...] = ("policy-17", "video-256p")
    """Rows of `runtime.family.workloads`."""


@torch.no_grad()
def main(job: Exactness) -> None:
    """Compare and print."""
    device, config = torch.device(job.device), FAMILIES[job.family]
    mot = random_mot(config, device, torch.bfloat16)
    on_gpu = device.type == "cuda"
    print(f"{job.family}, bfloat16, {torch.cuda.get_device_name(device) if on_gpu else 'CPU'}. {RANDOM_WEIGHTS}")
    ways: dict[str, LaysOut] = {
        "plain": mot,
        "exact": Denoiser(mot, compiled=on_gpu),
        "fp8": Denoiser(mot, linears="fp8", compiled=on_gpu),
    }
    for row in job.rows:
        pack = pack_samples([sample_of(WORKLOADS[row], config, device)], config.clock)
        sigmas = torch.full((len(pack.segments),), SIGMA, device=device)
        expected, memory = in_float32(mot, pack, sigmas), mot.read(pack.text)
        errors = []
        for name, way in ways.items():
            found = way.lay_out(pack, memory)(pack.latents, sigmas)[0]
            errors.append(f"{name} {float((found - expected).norm() / expected.norm()):.2%}")
        print(f"{row:12} {', '.join(errors)}", flush=True)


def in_float32(mot: MoT, pack: Pack, sigmas: Tensor) -> Float[Tensor, "T P C"]:
    """The velocity of the first segment, pictures, of a pack of one sample."""
    c, text = mot.config, pack.text
    ropes = [
        rotary(p, c.head_width, c.rope_theta, c.rope_axes, torch.float32) for p in (text.positions, pack.positions)
    ]
    words, tokens = mot.enter_text(text, None)[0].float(), mot.enter(pack, sigmas)[0].float()
    for block in mot.blocks:
        exact = deepcopy(cast(Block, block)).float()
        words, memory = exact.read(words, ropes[0], text.lengths, None)
        tokens = exact.generate(tokens, ropes[1], list(pack.lengths), memory, text.lengths)
    segment = pack.segments[0]
    hidden = deepcopy(mot.generation_norm).float()(tokens)[: segment.tokens]
    made = deepcopy(mot.vision_out).float()(hidden).unflatten(0, segment.clean.shape[:2])
    return torch.where(segment.active, made, 0.0)


if __name__ == "__main__":
    main(tyro.cli(Exactness))
