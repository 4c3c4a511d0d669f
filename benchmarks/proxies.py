"""Which recipe learns more in the same short time: runs of variants of one recipe, a line of JSON each.

    orrery episodes --split train --count 800 --workers 16 --out SHARDS
    orrery episodes --split validation --count 48 --workers 16 --out VALIDATION
    orrery train pico --shards SHARDS/*.npz --ground-only --device cuda --out RUN
    python benchmarks/proxies.py --shards SHARDS/*.npz --validation VALIDATION/*.npz --ground RUN/ground \\
        --seconds 50 --device cuda --variants base velocity

Every run has the same episodes on the device before its clock starts, the same seed and the same noise for what is
sampled; what is compiled or recorded first does not count. One seed says little: two rows that differ by less than two
runs of one row are equal. On a GPU, seconds decide, so a variant that is slower makes fewer steps, as it should.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from einops import rearrange
from torch import Tensor

from orrery.errors import SettingsError
from orrery.evaluation.baselines import copy_last_frame
from orrery.evaluation.metrics import moving_pixels, pixel_error, pooled, r_squared
from orrery.flow.noise_levels import NoiseLevels
from orrery.flow.samplers import euler
from orrery.flow.schedule import grid
from orrery.packing.segment import Sample
from orrery.packing.stack import Track
from orrery.runtime.generate import Job, generate
from orrery.tasks.checks import nearest, shown
from orrery.tasks.defaults import FAMILIES
from orrery.tokenizers.eyes import PICO_EYES
from orrery.training.bank import Bank
from orrery.training.fit import TOGETHER, recipe_named
from orrery.training.ground import check_fits, factory_contract, open_eyes, open_ground
from orrery.training.recipe import ModalityNoise, Recipe
from orrery.training.stacks import PLAIN, Emphasis, Flowing, draw_flow, draw_stacks, moved
from orrery.training.state import new_state
from orrery.training.validation import shuffled_actions, validate
from orrery.training.world import WorldRecipe, flops_of, graphs_of, take_step
from orrery.training.world_model import WorldModel, as_written, compile_blocks
from orrery.worlds.factory.shards import read_shard
from orrery.worlds.factory.stream import Record

AHEAD = 16
"""Steps whose stacks are recorded before the clock starts; not every step has captions of all lengths."""
MOVED = 12
"""As in `orrery eval`: pictures are drawn without noise, so a pixel that changes by more is in motion."""
SAMPLED = FAMILIES["pico"]
"""How `orrery run` samples each task."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is done otherwise."""

    change: Callable[[Recipe], Recipe] = lambda run: run
    keeps: Callable[[Record], bool] = lambda record: True
    """Which episodes it learns from."""
    emphasis: Emphasis | None = None
    """Instead of the recipe's."""


def rate(factor: float) -> Variant:
    """Another learning rate."""
    return Variant(
        change=lambda run: replace(
            run, optimiser=replace(run.optimiser, learning_rate=factor * run.optimiser.learning_rate)
        )
    )


def shift(by: float) -> Variant:
    """Noise levels of all modalities shifted by another factor."""
    levels = NoiseLevels(kind="logitnormal", shift=by)
    return Variant(change=lambda run: replace(run, noise=ModalityNoise(vision=levels, sound=levels, action=levels)))


VARIANTS = {
    "base": Variant(),
    "velocity": Variant(change=lambda run: replace(run, model=replace(run.model, prediction="velocity"))),
    "no_sums": Variant(change=lambda run: replace(run, model=replace(run.model, action_sums=False))),
    "no_sight": Variant(change=lambda run: replace(run, loss_weights=replace(run.loss_weights, sight=0.0))),
    "all_cameras_alike": Variant(emphasis=Emphasis(further_cameras=1.0)),
    "shared_noise": Variant(change=lambda run: replace(run, independent_noise=False)),
    "no_branches": Variant(keeps=lambda record: record.branch is None),
    "no_branches_no_play": Variant(
        keeps=lambda record: record.branch is None and record.behaviour not in ("play", "goals")
    ),
    "rate_double": rate(2.0),
    "rate_half": rate(0.5),
    "shift_3": shift(3.0),
    "shift_10": shift(10.0),
}


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """Train each variant for some seconds and print what it has learned."""

    shards: tuple[Path, ...]
    """Episodes to train on."""
    validation: tuple[Path, ...]
    """Episodes of the validation split."""
    ground: Path
    """Tokenizer and codecs, as `orrery train` makes them."""
    seconds: float = 50.0
    """Of each run."""
    device: str = "cuda"
    """cpu or cuda."""
    recipe: str = "pico"
    """The base: a row of training/recipes.py or a recipe.json."""
    batch: int | None = None
    """Samples of a step; half of the recipe's if left out, so that a short run has more steps."""
    variants: tuple[str, ...] = ()
    """Rows of VARIANTS; all if left out."""
    windows: int = 96
    """Of forward dynamics that are sampled; twice as many of the others."""

    def __call__(self) -> None:
        if unknown := [name for name in self.variants if name not in VARIANTS]:
            raise SettingsError(f"There is no variant {shown(unknown[0])}. {nearest(unknown[0], VARIANTS)}")
        base = recipe_named(self.recipe)
        batch = self.batch or base.run.batch // 2
        base = replace(base, run=replace(base.run, batch=batch, seconds=self.seconds))
        bank_of = banks(base, self.ground, torch.device(self.device))
        records = [record for path in self.shards for record in read_shard(path)]
        validation = bank_of([record for path in self.validation for record in read_shard(path)])
        everything = bank_of(records)
        for name in self.variants or VARIANTS:
            variant = VARIANTS[name]
            kept = [record for record in records if variant.keeps(record)]
            bank = everything if len(kept) == len(records) else bank_of(kept)
            recipe = replace(base, run=variant.change(base.run), emphasis=variant.emphasis or base.emphasis)
            row = proxy(recipe, self.ground, bank, validation, self.windows)
            print(json.dumps({"variant": name, **row}), flush=True)


def banks(recipe: WorldRecipe, ground: Path, device: torch.device) -> Callable[[Sequence[Record]], Bank]:
    """What makes a bank of some records, just large enough."""
    text, vision, sound, _ = open_ground(ground, device)
    check_fits(recipe.run.model, vision, sound)

    def bank_of(records: Sequence[Record]) -> Bank:
        bank = Bank(
            sum(len(record.state) for record in records),
            vision=vision, sound=sound, text=text, eyes=PICO_EYES, contract=factory_contract(), device=device,
        )  # fmt: skip
        for first in range(0, len(records), TOGETHER):
            bank.add(records[first : first + TOGETHER])
        return bank

    return bank_of


def proxy(recipe: WorldRecipe, ground: Path, bank: Bank, validation: Bank, windows: int) -> dict[str, Any]:
    """One run to the end of its recipe, and its figures."""
    model, row = trained(recipe, ground, bank)
    row["validation"] = {name: round(value, 4) for name, value in validate(model, validation, recipe.run).items()}
    model.eval()
    with as_written(model):
        return row | sampled(model, validation, recipe.run, windows)


def trained(recipe: WorldRecipe, ground: Path, bank: Bank) -> tuple[WorldModel, dict[str, Any]]:
    """A model of the recipe, and how many steps it made how fast."""
    run, device = recipe.run, bank.device
    cuda = device.type == "cuda"
    model = WorldModel(run.model, recipe.eyes, run.seed).to(device)
    open_eyes(ground, model)
    if cuda:
        compile_blocks(model)
    state = new_state(model, run)
    model.train()
    graphs = graphs_of(model, run, state) if cuda else None
    if graphs is not None:
        for ahead in range(AHEAD):
            for stack in draw_stacks(bank, run, recipe.emphasis, ahead):
                graphs.record(stack)
        torch.cuda.synchronize()
    began, flops = time.monotonic(), 0.0
    while run.progress(state.step, state.seconds) < 1:
        stacks = draw_stacks(bank, run, recipe.emphasis, state.step)
        take_step(model, stacks, run, state, run.rate(state.step, state.seconds), graphs=graphs)
        flops += flops_of(model, stacks)
        state.step += 1
        if cuda and state.step % 8 == 0:
            # The queue of the GPU would run on long after the clock says stop.
            torch.cuda.synchronize()
        state.seconds = time.monotonic() - began
    if cuda:
        torch.cuda.synchronize()
    seconds = time.monotonic() - began
    return model, {
        "steps": state.step,
        "seconds": round(seconds, 1),
        "episodes": bank.counts.episodes,
        "tflops": round(flops / seconds / 1e12, 3),
    }


def sampled(model: WorldModel, bank: Bank, run: Recipe, windows: int) -> dict[str, Any]:
    """What the model makes from noise: PSNR of the front camera's moving pixels under true and under shuffled actions
    and of the copied frame, in dB, and R2 of each column of the actions that it recovers and takes.

    True pictures are the decoded true latents, so the codec's own loss counts nowhere.
    """
    tasks = {share.task for share in run.mixture}
    found: dict[str, Any] = {}
    if "forward_dynamics" in tasks:
        flowing = drawn("forward_dynamics", bank, run, windows)
        track = flowing.stack.tracks[0]
        true = pictures(bank, track, track.clean)
        other = shuffled_actions(flowing)
        clips = {
            "true actions": pictures(bank, track, made(model, flowing, run)[0]),
            "shuffled actions": pictures(bank, track, made(model, other, run)[0]),
            "copied frame": np.stack([copy_last_frame(clip[:1], len(clip)) for clip in true]),
        }
        masks = [moving_pixels(clip, MOVED) for clip in true]
        for name, those in clips.items():
            errors = [pixel_error(*pair) for pair in zip(those, true, masks, strict=True)]
            found[f"{name}, dB"] = figure(pooled(errors).psnr_db, 2)
    for task in ("inverse_dynamics", "policy", "policy_no_video"):
        if task in tasks:
            flowing = drawn(task, bank, run, 2 * windows)
            track = flowing.stack.tracks[-1]
            guessed, true = (actions(track, x) for x in (made(model, flowing, run)[-1], track.clean))
            found[f"{task}, R2"] = dict(
                zip(
                    bank.contract.action_names,
                    (figure(value, 3) for value in r_squared(guessed, true)),
                    strict=True,
                )
            )
    return found


def drawn(task: str, bank: Bank, run: Recipe, count: int) -> Flowing:
    """Windows of a task, the same in every run; only a policy is told what to do, as in `orrery eval`."""
    share = next(share for share in run.mixture if share.task == task and share.sound is None)
    choice, rng = np.random.default_rng(3), torch.Generator(bank.device).manual_seed(3)
    flowing = draw_flow(bank, share, count, run, PLAIN, choice, rng, level=1.0)
    if share.row().name.startswith("policy"):
        return flowing
    untold = moved(np.tile(bank.empty, (count, 1)), bank.device)
    return replace(flowing, stack=replace(flowing.stack, token_ids=untold))


@torch.no_grad()
def made(model: WorldModel, flowing: Flowing, run: Recipe) -> list[Tensor]:
    """The tracks of a stack, sampled from noise by Euler's method; the noise is the same in every call."""
    rng = torch.Generator().manual_seed(5)
    stack, jobs, row = flowing.stack, [], SAMPLED[flowing.task]
    for index, ids in enumerate(stack.token_ids):
        segments = tuple(track.segment(index) for track in stack.tracks)
        sampler = euler([segment.noise(rng) for segment in segments], grid("flow", row.steps, row.shift))
        sample = Sample(token_ids=ids, segments=segments)
        jobs.append(Job(sample=sample, negative=None, sampler=sampler, turns=row.steps, scales=(1.0,) * len(segments)))
    device = stack.token_ids.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.precision == "bfloat16"):
        latents = generate(model.mot, jobs)
    return [torch.stack(rows) for rows in zip(*latents, strict=True)]


def pictures(bank: Bank, track: Track, latents: Tensor) -> np.ndarray:
    """Clips (B, T, H, W, 3) of a camera's latents (B, t, P, C)."""
    patch = math.isqrt(latents.shape[-1] // bank.vision.channels)
    grids = rearrange(latents, "b t (h w) (p q c) -> b c t (h p) (w q)", h=track.rows, p=patch, q=patch)
    return np.stack([bank.vision.decode(one) for one in grids])


def actions(track: Track, latents: Tensor) -> np.ndarray:
    """Rows that are made, of the columns that exist, of all samples (N, A)."""
    rows = latents[:, ~track.given[0], 0][..., track.valid[0]]
    return rearrange(rows, "b t a -> (b t) a").float().cpu().numpy()


def figure(value: float | None, digits: int) -> float | None:
    """Rounded for reading; None where nothing moved."""
    return None if value is None else round(value, digits)


if __name__ == "__main__":
    tyro.cli(Proxies)()
