"""One training run of a world model on streamed or stored episodes of the factory cell: codecs given, everything else
learned in one loop of text, pictures, sound and actions.

The run is a `WorldRecipe`; its data arrive while it runs. What a step consists of is in `training.stacks`.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orrery.errors import DatasetError, SettingsError
from orrery.model.vision_config import VisionEncoderConfig
from orrery.tokenizers.autoencoder import AutoencoderConfig
from orrery.tokenizers.sound_autoencoder import SoundAutoencoderConfig
from orrery.training.bank import Bank
from orrery.training.curves import CURVES, Drawing
from orrery.training.feed import Feed, Filling
from orrery.training.graphs import Graphs
from orrery.training.loop import LOG, STATE, keep_log, stop_on_sigterm
from orrery.training.optim import NonFiniteGradientsError
from orrery.training.parallel import ALONE, Team, shard
from orrery.training.recipe import Recipe
from orrery.training.settings_json import settings_from_json, settings_to_json
from orrery.training.stacks import Asking, Emphasis, Flowing, draw_stacks
from orrery.training.state import TrainingState, new_state, save_state
from orrery.training.validation import validate
from orrery.training.world_model import WorldModel

_VERSION = 3
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0}
"""Dense bfloat16, by the vendor's datasheet; what utilisation is measured against."""


@dataclass(frozen=True, kw_only=True)
class WorldRecipe:
    """Everything that decides a run beside its data and codecs."""

    run: Recipe
    eyes: VisionEncoderConfig
    vision_codec: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    sound_codec: SoundAutoencoderConfig = field(default_factory=SoundAutoencoderConfig)
    codec_seconds: tuple[float, float] = (240.0, 120.0)
    """For pictures and for sound."""
    eyes_seconds: float = 60.0
    """For the eyes' first lesson."""
    codec_episodes: int = 1500
    """That codecs, eyes and the tokenizer are made from."""
    emphasis: Emphasis = field(default_factory=Emphasis)
    room: int = 1_800_000
    """Frames of both cameras that fit into memory."""
    first: int = 20_000
    """Frames that are waited for before the first step."""
    validation: int = 48
    """Episodes of the validation split."""
    validate_every: int = 2000
    """Steps between validations."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, all of them, and the version of their meaning."""
        return {"version": _VERSION, **settings_to_json(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "WorldRecipe":
        """Inverse of `to_json`.

        Raises:
            SettingsError: another version, a key that is missing or unknown, a value of another type or out of range.
        """
        if document.get("version") != _VERSION:
            raise SettingsError(f"The recipe has version {document.get('version')!r}, this program reads {_VERSION}.")
        return settings_from_json(cls, {k: v for k, v in document.items() if k != "version"}, "recipe")


def shard_world(model: WorldModel, recipe: WorldRecipe, state: TrainingState | None, team: Team) -> TrainingState:
    """Spread a model over the processes of a team; see `parallel.shard`."""
    blocks: dict[nn.Module, Sequence[str]] = dict.fromkeys(model.mot.blocks, ("read", "generate"))
    blocks |= dict.fromkeys(model.eyes.blocks, ())
    return shard(model, blocks, ("losses", "likeliest"), recipe.run, state, team)


def graphs_of(model: WorldModel, recipe: Recipe, state: TrainingState) -> Graphs:
    """What works out the stacks of a run on one GPU."""
    return Graphs(
        lambda stack: model.losses(stack, recipe.loss_weights),
        list(state.optimiser.parameters.values()),
        bfloat16=recipe.precision == "bfloat16",
    )


def take_step(
    model: WorldModel,
    stacks: list[Flowing | Asking],
    recipe: Recipe,
    state: TrainingState,
    factor: float,
    team: Team = ALONE,
    graphs: Graphs | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """One update by the sum of what all stacks cost.

    Returns:
        The part of the team's process in each loss, and the norm of all gradients. They stay on the device, so that
        nothing waits for them.
    """
    optimiser = state.optimiser
    if graphs is None:
        optimiser.clear_gradients()
    else:
        torch._foreach_zero_([p.grad for p in optimiser.parameters.values() if p.grad is not None])
    device = model.mot.embed.weight.device
    parts: dict[str, Tensor] = {}
    # Stack by stack, so that only one holds its activations.
    for whole in stacks:
        if graphs is not None:
            parts |= graphs(whole)
            continue
        stack, share = team.part(whole)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            losses = model.losses(stack, recipe.loss_weights)
        (losses.total * share).backward()
        parts |= {name: part.detach() * share for name, part in losses.parts.items()}
    gradients = []
    for parameter in optimiser.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    norm = team.norm(gradients)
    if recipe.clip_norm is not None:
        torch._foreach_mul_(gradients, (recipe.clip_norm / (norm + 1e-6)).clamp(max=1.0))
    optimiser.step(factor)
    if state.ema is not None:
        state.ema.update(optimiser.parameters.items())
    return parts, norm


def flops_of(model: WorldModel, stacks: list[Flowing | Asking]) -> float:
    """Operations of the matrix products of a step, forward and backward (3 x forward), of both towers.

    The vision encoder, the heads and the optimiser are left out, so utilisation is understated a little.
    """
    c = model.mot.config
    linear = 2 * c.width * (2 * c.heads + 2 * c.kv_heads) * c.head_width
    linear += 2 * c.width * c.ffn_width * (3 if c.activation == "swiglu" else 2)
    pairs = 4 * c.heads * c.head_width
    total = 0.0
    for stack in stacks:
        if isinstance(stack, Flowing):
            count, text = stack.stack.token_ids.shape
            made = stack.stack.positions.shape[1]
            total += count * ((text + made) * linear + pairs * (text * text / 2 + made * (text + made)))
        else:
            count, text = stack.labels.shape
            total += count * (text * linear + pairs * text * text / 2)
    return 3 * c.layers * total


Tell = Callable[[dict[str, Any]], None]


def train_world(
    recipe: WorldRecipe,
    model: WorldModel,
    bank: Bank,
    feed: Feed,
    *,
    out: Path,
    validation: Bank | None = None,
    state: TrainingState | None = None,
    tell: Tell = lambda row: None,
    log_every: int = 20,
    save_every_s: float | None = None,
    saved: Callable[[TrainingState], None] = lambda state: None,
    clock: Callable[[], float] = time.monotonic,
    team: Team = ALONE,
) -> TrainingState:
    """Train to the end of the recipe, or until SIGTERM, which lets the step end and saves.

    Args:
        model: on the bank's device, float32; its configuration is that of `recipe.run.model`.
        bank: may hold episodes already; takes in what `feed` brings until it is full.
        out: gets `state/`, `log.jsonl` and, drawn from it at every validation, `curves.png`.
        validation: episodes that are never trained on; None leaves validation out.
        state: a run to go on with; None starts one.
        tell: given every line of the log.
        save_every_s: seconds between saves of `state/`; None saves at the end only.
        saved: called after each of them but the last, in every process of the team.
        clock: says the same in every process of the team.
        team: several processes have the same bank, and a model and a state of `parallel.shard`. One writes.

    Raises:
        DatasetError: the feed ends before there is anything to train on.
        NonFiniteGradientsError: the norm of the gradients is not finite; the last save stays.
    """
    run = recipe.run
    if model.mot.config != run.model:
        raise SettingsError("The recipe is for another model than the one given.")
    while bank.used < recipe.first:
        bank.add(feed.take(wait_s=1.0))
        if feed.ended and not bank.windows:
            bank.add(feed.take())
            if not bank.windows:
                raise DatasetError("The data ended before the first window. Give shards, or workers that simulate.")
        if feed.ended:
            break
    state = new_state(model, run) if state is None else state
    out.mkdir(parents=True, exist_ok=True)
    if team.leads:
        keep_log(out / LOG, state.step)
    began, last_save = clock() - state.seconds, clock()
    flops, tokens, since = 0.0, 0, clock()
    model.train()
    name = torch.cuda.get_device_name() if bank.device.type == "cuda" else "cpu"
    peak = next((team.size * value for key, value in PEAK_TFLOPS.items() if key in name), None)
    graphs = graphs_of(model, run, state) if bank.device.type == "cuda" and team.size == 1 else None
    stopped, drawing = False, Drawing(out / LOG, out / CURVES)
    if graphs is not None:
        # Before another thread uses the GPU; a caption's length decides the shape, so not every step has all of them.
        for ahead in range(state.step, state.step + 16):
            for stack in draw_stacks(bank, run, recipe.emphasis, ahead):
                graphs.record(stack)
    with (
        Filling(bank, feed) as filling,
        stop_on_sigterm() as stop,
        Path(out / LOG if team.leads else os.devnull).open("a") as log,
    ):
        while run.progress(state.step, state.seconds) < 1 and not stopped:
            filling.check()
            factor = run.rate(state.step, state.seconds)
            stacks = draw_stacks(bank, run, recipe.emphasis, state.step)
            parts, norm = take_step(model, stacks, run, state, factor, team, graphs)
            flops += flops_of(model, stacks)
            tokens += sum(
                s.stack.token_ids.numel() + s.stack.positions.shape[1] * len(s.stack.token_ids)
                if isinstance(s, Flowing)
                else s.labels.numel()
                for s in stacks
            )
            state.step += 1
            state.seconds = clock() - began
            if state.step % log_every == 0 or run.progress(state.step, state.seconds) >= 1:
                row: dict[str, Any] = {
                    "step": state.step - 1,
                    "progress": run.progress(state.step, state.seconds),
                    "losses": {kind: round(part, 5) for kind, part in team.total(parts).items()},
                    "learning_rate": factor * run.optimiser.learning_rate,
                    "grad_norm": float(norm),
                }
                now = clock()
                row |= {
                    "seconds": now - began,
                    "episodes": bank.counts.episodes,
                    "frames": bank.used,
                    "tokens_per_s": tokens / (now - since),
                    "tflops": flops / (now - since) / 1e12,
                    "mfu": None if peak is None else flops / (now - since) / 1e12 / peak,
                }
                flops, tokens, since = 0.0, 0, now
                if not np.isfinite(row["grad_norm"]):
                    raise NonFiniteGradientsError(f"Gradients are not finite at step {row['step']}: {row['losses']}.")
                if validation is not None and (state.step // log_every * log_every) % recipe.validate_every == 0:
                    row["validation"] = validate(model, validation, run)
                    since = clock()
                log.write(json.dumps(row) + "\n")
                log.flush()
                tell(row)
                if team.leads and "validation" in row:
                    drawing.again()
            if save_every_s is not None and clock() - last_save > save_every_s:
                save_state(out / STATE, model, run, state, gather=team.gather)
                saved(state)
                last_save = clock()
            stopped = team.any(stop.is_set())
        # Who asks a run to stop may not wait for its validation.
        save_state(out / STATE, model, run, state, gather=team.gather)
        if validation is not None and not stopped:
            row = {"step": state.step, "validation": validate(model, validation, run)}
            log.write(json.dumps(row) + "\n")
            log.flush()
            tell(row)
        if team.leads and (why := drawing.finish()):
            row = {"step": state.step, "curves": f"not drawn: {why}"}
            log.write(json.dumps(row) + "\n")
            tell(row)
    return state
