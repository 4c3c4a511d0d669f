"""A model that verification must fail: a checkpoint trained further on episodes with the actions of other moments.

python benchmarks/shuffled_actions.py --out out/shuffled
orrery verify out/shuffled/checkpoint --rungs action_following policy_evaluation --out out/shuffled/verify
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import tyro

from orrery.cli.train import model_of, print_row, start_of
from orrery.evaluation.factory.scenes import CHUNK
from orrery.runtime.save import save
from orrery.training.fit import fit, recipe_named
from orrery.training.optim import LearningRate
from orrery.training.recipe import Share
from orrery.worlds.factory.shards import write_shard
from orrery.worlds.factory.stream import Record, stream

FIRST = 400_000
"""Index of the first record of the training split that is used."""


def with_shuffled_actions(records: Sequence[Record], seed: int) -> list[Record]:
    """The same records, whose actions are cut into chunks, shuffled among all of them and dealt out again."""
    actions = np.concatenate([record.action for record in records])
    stretches = np.split(actions, range(CHUNK, len(actions), CHUNK))
    order = np.random.default_rng(seed).permutation(len(stretches))
    dealt = np.concatenate([stretches[i] for i in order])
    ends = np.cumsum([0, *(len(record.action) for record in records)])
    return [replace(record, action=dealt[a:b]) for record, (a, b) in zip(records, pairwise(ends), strict=True)]


@dataclass(frozen=True, kw_only=True)
class ShuffledActions:
    """Record episodes of the training split, shuffle their actions, and train forward dynamics on them."""

    out: Path
    """Folder of the run; its checkpoint/ is the model."""
    start: str = "pico"
    """The checkpoint that is spoilt."""
    episodes: int = 32
    """To train on."""
    batch: int = 8
    """Windows of a step."""
    seconds: float = 600.0
    """Of training."""
    learning_rate: float = 5e-4
    """Of AdamW, after 10 steps of warming up: on a CPU, a step of Muon takes longer than the gradients."""
    workers: int = 2
    """Processes that simulate."""
    device: str = "cpu"
    """cpu or cuda."""
    true: bool = False
    """Leave the actions as they are: what training further does by itself."""
    seed: int = 0
    """Of the shuffling and the run."""

    def __call__(self) -> None:
        torch.manual_seed(self.seed)
        with stream(FIRST, self.workers, split="train", sound=False, questions=False) as live:
            found: dict[int, Record] = {}
            while len(found) < self.episodes:  # they arrive in any order
                record = next(live)
                if record.index < FIRST + self.episodes:
                    found[record.index] = record
        records = [found[index] for index in sorted(found)]
        if not self.true:
            records = with_shuffled_actions(records, self.seed)
        self.out.mkdir(parents=True, exist_ok=True)
        write_shard(self.out / "episodes.npz", records)
        base = recipe_named("pico_further")
        run = replace(
            base.run,
            mixture=(Share(task="forward_dynamics", caption_dropout=0.6),),
            batch=self.batch,
            seconds=self.seconds,
            seed=self.seed,
            schedule=LearningRate(warmup=10),
            optimiser=replace(base.run.optimiser, rule="adamw", learning_rate=self.learning_rate),
            loss_weights=replace(base.run.loss_weights, sight=0.0),
            precision="bfloat16" if self.device == "cuda" else "float32",
        )
        frames = sum(len(record.state) for record in records)
        recipe = replace(base, run=run, room=frames, first=1, validation=0)
        fitted = fit(
            recipe,
            self.out,
            shards=(self.out / "episodes.npz",),
            start=start_of(self.start),
            device=self.device,
            tell=print_row,
        )
        assert fitted is not None
        tasks = ("forward_dynamics",)
        notes = {**fitted.facts, "actions": "true" if self.true else "shuffled: a model to be failed by verification"}
        save(
            model_of(fitted, tasks), self.out / "checkpoint", trained=True, licence="OpenMDW-1.1", notes=notes,
            storage="int8",
        )  # fmt: skip
        print(f"Wrote {self.out / 'checkpoint'}.")


if __name__ == "__main__":
    tyro.cli(ShuffledActions)()
