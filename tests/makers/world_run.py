"""A tiny world model, its recipe, and what it is trained on: four short records of the factory cell."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from orrery.model.config import PICO
from orrery.model.vision_config import PICO_VISION
from orrery.tokenizers.autoencoder import AutoencoderCodec, AutoencoderConfig, FrameAutoencoder
from orrery.tokenizers.eyes import PICO_EYES
from orrery.tokenizers.sound_autoencoder import AutoencoderSoundCodec, SoundAutoencoder, SoundAutoencoderConfig
from orrery.tokenizers.text import TextTokenizer, train_tokenizer
from orrery.training import bank as bank_module
from orrery.training import curves, ground, world
from orrery.training import fit as fit_module
from orrery.training.bank import Bank
from orrery.training.eyes import Looker
from orrery.training.fit import fit
from orrery.training.ground import PAD_TO, factory_contract, texts_of
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.parallel import team_of
from orrery.training.recipe import LossWeights, Recipe, Share
from orrery.training.world import WorldRecipe
from orrery.weights.folder import save_folder
from orrery.worlds.factory.drawing import Drawing
from orrery.worlds.factory.mixture import spec_of
from orrery.worlds.factory.stream import Record, record_of

CPU = torch.device("cpu")
INDICES = (9, 11, 17, 18)
"""Short records of the training split: three with questions, all with disturbed stretches."""
VISION = AutoencoderConfig(channels=8, fine=8, coarse=16, encoder_blocks=(0, 0), decoder_blocks=(1, 0))
SOUND = SoundAutoencoderConfig(channels=8, frame_width=8, width=16, encoder_blocks=0, decoder_blocks=0)
MODEL = replace(
    PICO,
    width=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_width=24,
    ffn_width=96,
    rope_axes=(4, 4, 4),
    vocab=512,
    vision_channels=32,
    sound_width=8,
)
EYES = replace(PICO_VISION, width=24, depth=1, heads=2, mlp_width=40, out_width=64, merged_width=48, position_grid=4)
MIXTURE = (
    Share(task="forward_dynamics", weight=2.0, caption_dropout=0.6),
    Share(task="policy_no_video", weight=2.0, caption_dropout=0.0),
    Share(task="text_to_image", weight=1.0),
    Share(task="text_to_video", weight=1.0, sound="none"),
    Share(task="reason", weight=3.0, caption_dropout=0.0),
)
RUN = Recipe(
    model=MODEL,
    mixture=MIXTURE,
    steps=4,
    batch=9,
    seed=5,
    loss_weights=LossWeights(sight=0.2),
    optimiser=OptimiserSettings(rule="muon", learning_rate=2e-3),
    schedule=LearningRate(warmup=2),
    ema_width=None,
)
RECIPE = WorldRecipe(
    run=RUN,
    eyes=EYES,
    vision_codec=VISION,
    sound_codec=SOUND,
    codec_seconds=(0.2, 0.2),
    eyes_seconds=0.2,
    codec_episodes=len(INDICES),
    room=400,
    first=100,
    validation=0,
)


@cache
def records() -> tuple[Record, ...]:
    """The four."""
    return tuple(record_of(spec_of(index, "train")) for index in INDICES)


@cache
def parts() -> tuple[AutoencoderCodec, AutoencoderSoundCodec, TextTokenizer]:
    """Random codecs, and a tokenizer of the words of the records."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = AutoencoderCodec(FrameAutoencoder(VISION).eval(), VISION)
        sound = AutoencoderSoundCodec(SoundAutoencoder(SOUND).eval())
    return vision, sound, train_tokenizer(texts_of(records()), MODEL.vocab, digits=True, pad_to=PAD_TO)


def write_ground(folder: Path) -> None:
    """Save tokenizer, codecs and eyes as `training.ground` does."""
    vision, sound, text = parts()
    save_folder(
        folder,
        tensors={
            ground.EYES: Looker(EYES).state_dict(),
            **{f"{codec.folder}/model.safetensors": codec.tensors() for codec in (vision, sound)},
        },
        documents={
            "codecs.json": {"vision_codec": vision.codec_config(), "sound_codec": sound.codec_config()},
            ground.FIGURES: {},
            **{f"tokenizer/{name}": content for name, content in text.files.items()},
        },
        metadata={},
    )


def new_bank(room: int = 400, some: Sequence[Record] | None = None) -> Bank:
    """A bank of some records, or of all four."""
    vision, sound, text = parts()
    bank = Bank(room, vision=vision, sound=sound, text=text, eyes=PICO_EYES, contract=factory_contract(), device=CPU)
    with sketched():
        bank.add(records() if some is None else some)
    return bank


@cache
def full_bank() -> Bank:
    """All four records; for reading only."""
    return new_bank()


class Sketches:
    """Stands in for `training.pictures`, which takes a tenth of a second for a picture on a processor."""

    def __init__(self, drawings: Sequence[Drawing]) -> None:
        self.frames = [(drawing, frame) for drawing in drawings for frame in range(len(drawing))]

    def __len__(self) -> int:
        return len(self.frames)

    @staticmethod
    def scenes_of(drawings: Sequence[Drawing], _device: torch.device) -> "Sketches":
        return Sketches(drawings)

    @staticmethod
    def draw_scenes(scenes: "Sketches", some: torch.Tensor, camera: str, height: int, width: int) -> torch.Tensor:
        return torch.stack([sketch(*scenes.frames[int(index)], camera, height, width) for index in some])

    @staticmethod
    def draw(
        drawings: Sequence[Drawing],
        frames: Sequence[Sequence[int]],
        camera: str,
        height: int,
        width: int,
        _device: torch.device,
    ) -> torch.Tensor:
        wanted = zip(drawings, frames, strict=True)
        return torch.stack([sketch(each, frame, camera, height, width) for each, some in wanted for frame in some])


def sketch(drawing: Drawing, frame: int, camera: str, height: int, width: int) -> torch.Tensor:
    """A square for every body, where it is seen from above."""
    picture = torch.full((height, width, 3), 40 if camera == "front" else 90, dtype=torch.uint8)
    for number, place in enumerate(drawing.place_m[frame]):
        row, col = (int((0.5 + float(place[axis])) * side) for axis, side in ((1, height), (0, width)))
        part = picture[max(0, row - 6) : max(0, row + 6), max(0, col - 6) : max(0, col + 6)]
        part[:] = torch.tensor([(37 * number) % 256, (91 * number) % 256, (151 * number) % 256], dtype=torch.uint8)
    return picture


@contextmanager
def sketched(*, draws: bool = False) -> Iterator[None]:
    """Pictures are sketches inside the block, and torch has one thread: two fight where two tests run at once.

    Args:
        draws: curves are drawn, which takes seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        patch.object(bank_module, "draw", Sketches.draw),
        patch.object(ground, "scenes_of", Sketches.scenes_of),
        patch.object(ground, "draw_scenes", Sketches.draw_scenes),
        patch.object(curves, "can_draw", lambda: draws),
    ):
        yield
    torch.set_num_threads(threads)


def fit_noting(
    recipe: WorldRecipe, out: Path, shard: Path, ground_folder: Path, *, stop_after: int | None = None
) -> None:
    """`fit` on one shard; what each step cost, unrounded, is added to `out/costs.jsonl`.

    Args:
        stop_after: in which step the last process is told to stop; None tells none.
    """
    take_step = world.take_step

    def noting(*arguments: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        parts, norm = take_step(*arguments)
        team, step = arguments[5], arguments[3].step
        costs = team.total(parts)
        if team.leads:
            with (out / "costs.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "norm": float(norm), **costs}) + "\n")
        if step == stop_after and team.rank == team.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return parts, norm

    with sketched(), patch.object(world, "take_step", noting):
        fit(recipe, out, shards=[shard], ground=ground_folder)


if __name__ == "__main__":
    # One of several processes: stopped in its second step, and gone on with. Only torchrun can bring processes together
    # twice, so they stay together.
    with team_of("cpu") as pair, patch.object(fit_module, "team_of", lambda _device: nullcontext(pair)):
        for stop_after in (1, None):
            fit_noting(RECIPE, *map(Path, sys.argv[1:]), stop_after=stop_after)
