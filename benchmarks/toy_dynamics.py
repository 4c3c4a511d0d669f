"""Forward dynamics in miniature: what makes a Mixture-of-Transformers listen to actions early, in minutes on a CPU.

A mark moves over a still, random background of 8 x 8 tokens as eight actions push it; from the first of three frames
and the actions the model makes the other two. Everything is as in Pico but small: 4 layers of width 128, data
prediction, Muon. Rows differ in one thing each.

    python benchmarks/toy_dynamics.py --steps 300
    python benchmarks/toy_dynamics.py --variants base coarse_positions --seed 1

A line of JSON for each 50 steps: the mean squared error near noise (level 0.95) of all tokens and of those that move,
the latter under the actions of another sample too; only a model that listens has the last two apart. What frames after
the first hold differs between rows, but not the error of a frame that is put together again.
"""

import json
import time
from dataclasses import dataclass, replace

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from orrery.errors import SettingsError
from orrery.flow.noise_levels import NoiseLevels
from orrery.model.config import PICO, MoTConfig
from orrery.model.mot import MoT
from orrery.packing.positions import Clock
from orrery.packing.stack import Track, stack_tracks
from orrery.tasks.checks import nearest, shown
from orrery.training.optim import OptimiserSettings, build_optimiser
from orrery.training.start import start_weights

SIDE, FRAMES, ACTIONS, CHANNELS, BATCH = 8, 3, 8, 32, 24
SMALL = replace(
    PICO, width=128, layers=4, heads=2, kv_heads=1, ffn_width=384, vocab=16, vision_channels=8, cameras=0,
    sound_width=None,
)  # fmt: skip
LEVELS = NoiseLevels(kind="logitnormal", shift=5.0)
MOVED = 0.05
"""Mean square by which a token differs from the first frame where it counts as moving."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row."""

    config: MoTConfig = SMALL
    differences: bool = True
    """As `AutoencoderConfig.differences`."""


COARSE = replace(SMALL, rope_theta=1e4, clock=Clock(margin=64))
VARIANTS = {
    "base": Variant(),
    "no_sums": Variant(config=replace(SMALL, action_sums=False)),
    "whole_frames": Variant(differences=False),
    "coarse_positions": Variant(config=COARSE),
    "whole_frames_coarse_positions": Variant(config=COARSE, differences=False),
}


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Train each variant for some steps and print how it is doing."""

    steps: int = 300
    """Of each run."""
    variants: tuple[str, ...] = ()
    """Rows of VARIANTS; all if left out."""
    learning_rate: float = 3e-3
    """Of Muon."""
    seed: int = 0
    """Of weights and data."""

    def __call__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise SettingsError(f"There is no variant {shown(unknown[0])}. {nearest(unknown[0], VARIANTS)}")
        for name in self.variants or VARIANTS:
            self._train(name, VARIANTS[name])

    def _train(self, name: str, variant: Variant) -> None:
        mot = MoT(variant.config)
        start_weights(mot, self.seed)
        settings = OptimiserSettings(rule="muon", learning_rate=self.learning_rate, betas=(0.9, 0.95))
        optimiser = build_optimiser(mot.named_parameters(), settings)
        began = time.monotonic()
        for step in range(self.steps + 1):
            if step % 50 == 0:
                row = {"variant": name, "step": step, **measured(mot, variant, self.seed)}
                print(json.dumps(row | {"seconds": round(time.monotonic() - began)}), flush=True)
            error, level, _ = errors(mot, variant, generator(self.seed, step + 1))
            optimiser.clear_gradients()
            (error / level.clamp(min=variant.config.sigma_floor).square()).mean().backward()
            optimiser.step(min(1.0, (step + 1) / 50) * min(1.0, max(0.02, 2 * (1 - step / self.steps))))


def generator(seed: int, place: int) -> torch.Generator:
    """Of the data of one batch."""
    return torch.Generator().manual_seed(1_000_003 * seed + place)


def drawn(rng: torch.Generator) -> tuple[Float[Tensor, "B A 2"], Float[Tensor, "B T P C"]]:
    """Actions, and what the frames show: at the beginning, halfway and at the end."""
    pushes = (torch.rand(BATCH, ACTIONS, 2, generator=rng) * 2 - 1) * 0.6
    pushes += (torch.rand(BATCH, 1, 2, generator=rng) * 2 - 1) * 0.8
    begin = torch.rand(BATCH, 1, 2, generator=rng) * SIDE
    places = torch.cat([begin, begin + pushes.cumsum(1)], dim=1).clamp(0, SIDE - 1)[:, :: ACTIONS // (FRAMES - 1)]
    fixed = torch.Generator().manual_seed(1)
    looks, mark = torch.randn(4, CHANNELS, generator=fixed), 1.2 * torch.randn(CHANNELS, generator=fixed)
    background = torch.randn(BATCH, 1, SIDE**2, 4, generator=rng) @ looks / 2
    tokens = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    away = (tokens - places[:, :, None]).square().sum(-1, keepdim=True)
    near = torch.exp(-away / 0.8)
    return pushes, background * (1 - near) + near * mark


def errors(
    mot: MoT, variant: Variant, rng: torch.Generator, *, level: float | None = None, others: bool = False
) -> tuple[Float[Tensor, "B T P C"], Float[Tensor, "B 1 1 1"], Float[Tensor, "B T P 1"]]:
    """Squared errors of the made frames, their noise levels, and what moves; under the actions of `others` if asked."""
    pushes, frames = drawn(rng)
    clean = torch.cat([frames[:, :1], frames[:, 1:] - (frames[:, :1] if variant.differences else 0)], dim=1)
    given = torch.zeros(BATCH, FRAMES, dtype=torch.bool)
    given[:, 0] = True
    film = Track(
        kind="vision", clean=clean, given=given, valid=torch.ones(SIDE**2, CHANNELS, dtype=torch.bool),
        rows=SIDE, cols=SIDE, fps=20.0,
    )  # fmt: skip
    assert variant.config.action_width is not None
    rows = torch.zeros(BATCH, ACTIONS, 1, variant.config.action_width)
    rows[:, :, 0, :2] = pushes.roll(1, 0) if others else pushes
    actions = Track(
        kind="action", clean=rows, given=torch.ones(BATCH, ACTIONS, dtype=torch.bool),
        valid=(torch.arange(variant.config.action_width) < 2)[None], fps=20.0, start=1, domain=24,
    )  # fmt: skip
    stack = stack_tracks(torch.zeros(BATCH, 4, dtype=torch.long), [film, actions], variant.config.clock)
    sigma = LEVELS.draw(BATCH, rng) if level is None else torch.full((BATCH,), level)
    spread = sigma[:, None, None, None]
    noise = torch.randn(clean.shape, generator=rng)
    noised = torch.where(film.active, (1 - spread) * clean + spread * noise, clean)
    made = mot.forward_stack(stack.with_latents([noised, rows]), sigma[:, None].expand(-1, 2)).out[0]
    moving = (frames - frames[:, :1]).square().mean(-1, keepdim=True) > MOVED
    return (made - clean)[:, 1:].square(), spread, moving[:, 1:]


@torch.no_grad()
def measured(mot: MoT, variant: Variant, seed: int, batches: int = 3) -> dict[str, float]:
    """Errors near noise, the same samples and noise in every call."""
    sums = dict.fromkeys(("all", "moving", "moving, other actions"), 0.0)
    for number in range(batches):
        for others in (False, True):
            error, _, moving = errors(mot, variant, generator(seed, -1 - number), level=0.95, others=others)
            there = float(error[moving.expand_as(error)].mean()) / batches
            sums["moving, other actions" if others else "moving"] += there
            sums["all"] += 0.0 if others else float(error.mean()) / batches
    return {name: round(value, 4) for name, value in sums.items()}


if __name__ == "__main__":
    tyro.cli(Toy)()
