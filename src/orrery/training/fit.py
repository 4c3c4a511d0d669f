"""From a recipe to a trained world model: episodes, tokenizer and codecs, the run, the checkpoint's parts."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from orrery.training.ground import check_fits, factory_contract, make_ground, open_ground
from orrery.training.loop import STATE
from orrery.training.recipes import RECIPES
from orrery.training.state import load_state
from orrery.training.world import Feed, WorldModel, WorldRecipe, compile_blocks, train_world
from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.mixture import spec_of
from orrery.worlds.factory.shards import read_shard
from orrery.worlds.factory.stream import Record, record_of, stream

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """What a run leaves behind."""

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
    device: str = "cpu",
    ground_only: bool = False,
    tell: Tell = lambda row: None,
) -> Fitted | None:
    """Carry out a recipe, or go on with the run that lies in `out`.

    Args:
        shards: files of episodes, read first.
        workers: processes that simulate episodes from index `first` on while training; 0 for none.
        ground: a folder of `ground.make_ground`; made in `out` from the first episodes when None.
        ground_only: stop after tokenizer and codecs, and return None.

    Raises:
        SettingsError: neither shards nor workers.
        DatasetError: too few episodes.
    """
    if not shards and not workers:
        raise SettingsError("There is nothing to learn from. Give --shards, or --workers that simulate episodes.")
    place = torch.device(device)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        live = stack.enter_context(stream(first, workers, split="train")) if workers else None
        feed = Feed(_records(shards, live))
        stack.callback(feed.close)
        early: list[Record] = []
        folder = ground or out / "ground"
        if ground is None and not folder.exists():
            while len(early) < recipe.codec_episodes:
                arrived = feed.take(wait_s=0.5)
                early += arrived
                if feed.ended and not arrived:
                    break
            make_ground(
                recipe, early, folder, device=place, tell=lambda what, step, f: tell({"stage": what, "step": step, **f})
            )
        text, vision, sound, figures = open_ground(folder, place)
        tell({"stage": "ground", **figures})
        if ground_only:
            return None
        check_fits(recipe.run.model, vision, sound)
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
        state = load_state(out / STATE, model, recipe.run) if (out / STATE).exists() else None
        if place.type == "cuda":
            compile_blocks(model)
        main = bank(recipe.room)
        for begin in range(0, len(early), 32):
            main.add(early[begin : begin + 32])
        state = train_world(
            recipe, model, main, feed, out=out, validation=validation, state=state, tell=tell, save_every_s=300.0
        )
        facts = {
            "recipe": recipe.to_json(),
            "steps": state.step,
            "seconds": round(state.seconds, 1),
            "episodes": main.counts.episodes,
            "frames": main.used,
            "left_out": dict(main.counts.left_out),
            "codecs": figures,
            "device": torch.cuda.get_device_name() if place.type == "cuda" else "cpu",
            "torch": torch.__version__,
        }
        write_atomic(out / "facts.json", (json.dumps(facts, indent=1) + "\n").encode())
        return Fitted(model=model, text=text, vision=vision, sound=sound, facts=facts)


def validation_records(count: int, workers: int) -> list[Record]:
    """The first records of the validation split, the same whoever makes them."""
    if not workers:
        return [record_of(spec_of(index, "validation")) for index in range(count)]
    with stream(0, workers, split="validation") as live:
        found: dict[int, Record] = {}
        while any(index not in found for index in range(count)):
            record = next(live)
            found[record.index] = record
        return [found[index] for index in range(count)]


def _records(shards: Sequence[Path], live: Iterator[Record] | None) -> Iterator[Record]:
    for path in shards:
        yield from read_shard(path)
    if live is not None:
        yield from live
