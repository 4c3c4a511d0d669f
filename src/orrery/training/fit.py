"""From a recipe to a trained world model: episodes, tokenizer and codecs, the run, the checkpoint's parts.

A run on shards alone has all its episodes before the first step. If its recipe counts steps and not seconds, it is a
function of recipe and shards: stopped and gone on with, it ends with the same bits. Episodes from workers arrive by the
clock, so which of them a step draws from depends on the machine: such a run, too, goes on where it stopped, but with
the episodes that arrive then, and not to the bit.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from orrery.errors import SettingsError
from orrery.tasks.checks import nearest, shown
from orrery.tokenizers.autoencoder import AutoencoderCodec
from orrery.tokenizers.eyes import PICO_EYES
from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec
from orrery.tokenizers.text import TextTokenizer
from orrery.training.bank import Bank
from orrery.training.feed import Feed
from orrery.training.ground import (
    check_fits,
    factory_contract,
    looker_of,
    make_ground,
    open_eyes,
    open_ground,
    save_ground,
)
from orrery.training.loop import STATE
from orrery.training.parallel import team_of
from orrery.training.recipes import RECIPES
from orrery.training.state import TrainingState, load_state
from orrery.training.validation import validate_in_eight_bits
from orrery.training.world import WorldRecipe, shard_world, train_world
from orrery.training.world_model import WorldModel, compile_blocks
from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.shards import read_shard
from orrery.worlds.factory.stream import Record, stream

TOGETHER = 32
"""Episodes that are drawn and encoded at once."""
SAVE_S = 300.0
"""Seconds between saves of a run."""
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a run leaves behind, or goes on from, on the CPU."""

    model: WorldModel
    text: TextTokenizer
    vision: AutoencoderCodec
    sound: AutoencoderSoundCodec
    facts: dict[str, Any]
    """How it came about, for the checkpoint's card."""


def recipe_named(name: str) -> WorldRecipe:
    """A row of RECIPES, or the recipe in a JSON file.

    Raises:
        SettingsError: neither.
    """
    if name in RECIPES:
        return RECIPES[name]
    path = Path(name)
    if path.suffix != ".json" or not path.is_file():
        raise SettingsError(f"There is no recipe {shown(name)}. {nearest(name, RECIPES)} Or give a recipe.json.")
    return WorldRecipe.from_json(json.loads(path.read_text()))


def fit(
    recipe: WorldRecipe,
    out: Path,
    *,
    shards: Sequence[Path] = (),
    workers: int = 0,
    first: int = 0,
    ground: Path | None = None,
    start: Fitted | None = None,
    device: str = "cpu",
    ground_only: bool = False,
    tell: Tell = lambda row: None,
    keep: Callable[[Fitted], None] = lambda fitted: None,
) -> Fitted | None:
    """Carry out a recipe, or go on with the run that lies in `out`.

    Args:
        shards: files of episodes; without workers, all are taken in before the first step.
        workers: processes that simulate episodes from index `first` on while training; 0 for none.
        ground: a folder of `ground.make_ground`; made in `out` from the first episodes when None.
        start: a trained model whose weights, tokenizer and codecs the run begins with, in place of a ground.
        device: "cpu" or "cuda". Where torchrun started several processes, they share the work.
        ground_only: stop after tokenizer and codecs, and return None.
        keep: given what there is, every SAVE_S seconds while training.

    Returns:
        What the run leaves behind; None in processes beside the one that leads.

    Raises:
        SettingsError: neither shards nor workers, or workers with several processes; a ground beside a start, a start
            of another shape, or another one than the run in `out` began with.
        DatasetError: too few episodes.
    """
    if not shards and not workers:
        raise SettingsError("There is nothing to learn from. Give --shards, or --workers that simulate episodes.")
    if start is not None:
        if ground is not None:
            raise SettingsError("A run stands on a ground or on the model that it starts from. Give one of the two.")
        if (start.model.mot.config, start.model.eyes.config) != (recipe.run.model, recipe.eyes):
            raise SettingsError("The recipe is for a model of another shape than the one to start from. Change one.")
    with ExitStack() as stack:
        team, place = stack.enter_context(team_of(device))
        if workers and team.size > 1:
            raise SettingsError(
                "Several processes must learn from the same episodes, and --workers gives each its own. Record them "
                "first with `orrery episodes --out DIR`, and give --shards DIR/*.npz."
            )
        if not team.leads:
            tell = _say_nothing
        out.mkdir(parents=True, exist_ok=True)
        live = stack.enter_context(stream(first, workers, split="train")) if workers else None
        feed = Feed(() if live is None else chain(_stored(shards), live))
        stack.callback(feed.close)
        early: list[Record] = []
        folder = ground or out / "ground"
        if start is not None and not folder.exists() and team.leads:
            save_ground(folder, start.text, start.vision, start.sound, looker_of(start.model).state_dict(), start.facts)
        if ground is None and not folder.exists() and team.leads:
            early += islice(_stored(shards), recipe.codec_episodes) if live is None else ()
            while live is not None and len(early) < recipe.codec_episodes:
                arrived = feed.take(wait_s=0.5)
                early += arrived
                if feed.ended and not arrived:
                    break
            make_ground(
                recipe, early, folder, device=place, tell=lambda what, step, f: tell({"stage": what, "step": step, **f})
            )
        team.any(False)  # the others wait until it is made
        text, vision, sound, figures = open_ground(folder, place)
        if start is not None and figures != start.facts:
            raise SettingsError(
                f"{folder} is not of the model to start from. Start from that one, or give another out."
            )
        tell({"stage": "ground", **figures})
        if ground_only:
            return None
        check_fits(recipe.run.model, vision, sound)
        if team.leads:
            write_atomic(out / "recipe.json", (json.dumps(recipe.to_json(), indent=1) + "\n").encode())

        def bank(room: int) -> Bank:
            return Bank(
                room, vision=vision, sound=sound, text=text, eyes=PICO_EYES, contract=factory_contract(), device=place
            )

        validation = None
        if recipe.validation:
            validation = bank(200 * recipe.validation)
            validation.add(validation_records(recipe.validation, workers))
        model = WorldModel(recipe.run.model, recipe.eyes, recipe.run.seed).to(place)
        open_eyes(folder, model)
        if start is not None:
            model.mot.load_state_dict(start.model.mot.state_dict())
        state = load_state(out / STATE, model, recipe.run) if (out / STATE).exists() else None
        if team.size > 1:
            state = shard_world(model, recipe, state, team)
        if place.type == "cuda":
            compile_blocks(model)
        main = bank(recipe.room)
        # In groups of one size, for the bits of an encoded picture may depend on what is encoded with it.
        known = iter(early) if live is not None else _stored(shards)
        while not main.full and (some := list(islice(known, TOGETHER))):
            main.add(some)
        tell({"stage": "episodes", "episodes": main.counts.episodes, "frames": main.used})

        def fitted(state: TrainingState) -> Fitted | None:
            weights = team.gather(model.state_dict())
            if weights is None:
                return None
            copy = WorldModel(recipe.run.model, recipe.eyes, recipe.run.seed)
            copy.load_state_dict(weights)
            facts = {
                "recipe": recipe.to_json(),
                "steps": state.step,
                "seconds": round(state.seconds, 1),
                "episodes": main.counts.episodes,
                "frames": main.used,
                "left_out": dict(main.counts.left_out),
                "codecs": figures,
                "device": torch.cuda.get_device_name() if place.type == "cuda" else "cpu",
                "processes": team.size,
                "torch": torch.__version__,
            }
            codecs = open_ground(folder, torch.device("cpu"))
            return Fitted(model=copy, text=text, vision=codecs[1], sound=codecs[2], facts=facts)

        def saved(state: TrainingState) -> None:
            so_far = fitted(state)
            if so_far is not None:
                keep(so_far)

        state = train_world(
            recipe,
            model,
            main,
            feed,
            out=out,
            validation=validation,
            state=state,
            tell=tell,
            save_every_s=SAVE_S,
            saved=saved,
            clock=team.clock,
            team=team,
        )
        found = fitted(state)
        if found is None:
            return None
        if validation is not None and recipe.run.progress(state.step, state.seconds) >= 1:
            # What storing it in 8 bits costs, beside the last line of the log.
            found.facts["validation_in_8_bits"] = validate_in_eight_bits(found.model.to(place), validation, recipe.run)
            found.model.cpu()
        write_atomic(out / "facts.json", (json.dumps(found.facts, indent=1) + "\n").encode())
        return found


def validation_records(count: int, workers: int) -> list[Record]:
    """The first records of the validation split, the same whoever makes them."""
    with stream(0, workers or max(1, (os.cpu_count() or 2) // 2), split="validation") as live:
        found: dict[int, Record] = {}
        while any(index not in found for index in range(count)):
            record = next(live)
            found[record.index] = record
        return [found[index] for index in range(count)]


def _say_nothing(_row: dict[str, Any]) -> None:
    """What the process that leads says is said once."""


def _stored(shards: Sequence[Path]) -> Iterator[Record]:
    for path in shards:
        yield from read_shard(path)
