"""`orrery train`: train a world model by a recipe, on the fly from simulators or from stored episodes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from orrery.runtime.model import Model
    from orrery.training.fit import Fitted


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a world model of the factory cell and write a checkpoint.

    OUT gets ground/ (tokenizer, codecs and eyes), state/ (to go on from), log.jsonl, curves.png, recipe.json and
    checkpoint/, of which what there is so far is written every five minutes.

    Several GPUs of a host share the work of one recipe, on shards:
    torchrun --nproc-per-node 8 -m orrery.cli.main train RECIPE --out OUT --device cuda --shards ...
    """

    recipe: tyro.conf.Positional[str]
    """The name of a row of training/recipes.py, or a recipe.json."""
    out: Path
    """Where the run is written; a run that lies there goes on."""
    shards: tuple[Path, ...] = ()
    """Files of recorded episodes, as `orrery episodes` writes them."""
    workers: int = 0
    """Processes that simulate further episodes while training."""
    first: int = 0
    """Index of the first episode that is simulated."""
    ground: Path | None = None
    """Tokenizer and codecs of an earlier run; made anew if left out."""
    start: str | None = None
    """A checkpoint to begin with, such as pico: its weights, tokenizer and codecs, in place of a ground."""
    seconds: float | None = None
    """Wall-clock limit of the run in place of the recipe's."""
    device: str = "cpu"
    """cpu or cuda."""
    ground_only: bool = False
    """Stop after tokenizer and codecs."""

    def __call__(self) -> None:
        from dataclasses import replace

        from orrery.runtime.save import save
        from orrery.training.fit import fit, recipe_named

        recipe = recipe_named(self.recipe)
        if self.seconds is not None:
            recipe = replace(recipe, run=replace(recipe.run, seconds=self.seconds))
        tasks = tuple(dict.fromkeys(share.task for share in recipe.run.mixture))

        def write(fitted: "Fitted") -> None:
            save(
                model_of(fitted, tasks),
                self.out / "checkpoint",
                trained=True,
                licence="OpenMDW-1.1",
                notes=fitted.facts,
                storage="int8",
            )
            print(f"Wrote {self.out / 'checkpoint'}.", flush=True)

        fitted = fit(
            recipe,
            self.out,
            shards=self.shards,
            workers=self.workers,
            first=self.first,
            ground=self.ground,
            start=None if self.start is None else start_of(self.start),
            device=self.device,
            ground_only=self.ground_only,
            tell=print_row,
            keep=write,
        )
        if fitted is not None:
            write(fitted)


def print_row(row: dict[str, Any]) -> None:
    """One line of the log for who watches."""
    losses = row.get("losses", {})
    shown = " ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in losses.items())
    head = " ".join(
        f"{name} {row[name]:.4g}" for name in ("step", "seconds", "episodes", "tokens_per_s", "mfu") if row.get(name)
    )
    print(head, shown, flush=True)
    if "validation" in row:
        print("  validation", {k: round(v, 4) for k, v in row["validation"].items()}, flush=True)


def start_of(source: str) -> "Fitted":
    """A checkpoint as what a run begins with.

    Raises:
        CheckpointError: it is damaged, or has no tokenizer, eyes or codecs of our own kind.
    """
    from orrery.errors import CheckpointError
    from orrery.runtime.load import load
    from orrery.tokenizers.autoencoder import AutoencoderCodec
    from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec
    from orrery.training.fit import Fitted
    from orrery.training.world_model import WorldModel

    model = load(source)
    vision, sound = model.vision, model.sound
    if (
        model.text is None
        or model.eyes is None
        or not isinstance(vision, AutoencoderCodec)
        or not isinstance(sound, AutoencoderSoundCodec)
    ):
        raise CheckpointError(f"{source} lacks a tokenizer, eyes or small codecs to train with. Start from another.")
    world = WorldModel(model.mot.config, model.eyes.config, seed=0)
    world.mot.load_state_dict(model.mot.state_dict())
    world.eyes.load_state_dict(model.eyes.state_dict())
    facts = {"start": {"weights": dict(model.origin.weights)}}
    return Fitted(model=world, text=model.text, vision=vision, sound=sound, facts=facts)


def model_of(fitted: "Fitted", tasks: tuple[str, ...]) -> "Model":
    """A trained world model as what `orrery.load` returns."""
    from orrery.runtime.model import Model, Origin
    from orrery.training.ground import factory_contract

    contract = factory_contract()
    return Model(
        mot=fitted.model.mot.eval(),
        text=fitted.text,
        vision=fitted.vision,
        sound=fitted.sound,
        eyes=fitted.model.eyes.eval(),
        contracts={contract.embodiment: contract},
        family="pico",
        origin=Origin(path=Path(), layout="orrery", weights={}, trained=True, licence="OpenMDW-1.1"),
        tasks=tasks,
    )
