"""A tiny training run on random windows; as a script, one that goes on until it is told to stop."""

import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from makers.samples import normal, tokens

from orrery.model.config import TINY
from orrery.model.mot import MoT
from orrery.tasks.task import Task
from orrery.training.batch import Window
from orrery.training.loop import Report, StepReport, train
from orrery.training.optim import LearningRate, OptimiserSettings
from orrery.training.recipe import Recipe, Share
from orrery.training.start import start_weights
from orrery.training.state import TrainingState

SMALL = replace(
    TINY, layers=1, width=24, heads=2, kv_heads=1, head_width=12, rope_axes=(2, 2, 2), ffn_width=32, vocab=32
)
MIXTURE = (
    Share(task="reason", caption_dropout=0.0),
    Share(task="text_to_image"),
    Share(task="image_to_video", sound="none"),
    Share(task="policy", weight=2.0),
    Share(task="forward_dynamics", caption_dropout=0.6),
    Share(task="inverse_dynamics", caption_dropout=1.0),
)
RECIPE = Recipe(
    model=SMALL,
    mixture=MIXTURE,
    steps=6,
    batch=4,
    seed=16,
    optimiser=OptimiserSettings(rule="muon", learning_rate=1e-2),
    schedule=LearningRate(warmup=2),
    cooldown=0.5,
    cooldown_floor=0.1,
)


class RandomWindows:
    """Windows of random values that hold every modality."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def window(self, index: int, task: Task, rng: torch.Generator) -> Window:
        """Window `index`; its actions are jittered by `rng`, as augmentation would."""
        return Window(
            prompt=tokens(5, SMALL.vocab, seed=index + len(task.name)),
            empty_prompt=tokens(2, SMALL.vocab, seed=99),
            answer=tokens(3, SMALL.vocab, seed=index),
            vision=normal(SMALL.vision_channels, 3, 4, 3, seed=index),
            vision_fps=24.0,
            sound=normal(5, 12, seed=index),
            sound_fps=25.0,
            actions=normal(8, 5, seed=index) + 0.1 * torch.randn(8, 5, generator=rng),
            action_fps=24.0,
            domain=3,
        )


def start(recipe: Recipe) -> MoT:
    """A model at the start of the recipe."""
    mot = MoT(recipe.model)
    start_weights(mot, recipe.seed)
    return mot


def run(
    mot: MoT, out: Path, recipe: Recipe, state: TrainingState | None = None, report: Report | None = None
) -> TrainingState:
    """Train by a clock that says one second a step, saving after each."""
    seconds = map(float, count())
    return train(
        mot, RandomWindows(7), recipe, out=out, state=state, report=report, save_every=1, clock=lambda: next(seconds)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    endless = replace(RECIPE, steps=1000, schedule=LearningRate(), cooldown=0.0)

    def tell(_: StepReport) -> None:
        # Whoever waits for a line gets time to act on it before many more steps are done.
        print(flush=True)
        time.sleep(0.2)

    print(train(start(endless), RandomWindows(7), endless, out=Path(sys.argv[1]), report=tell).step)
