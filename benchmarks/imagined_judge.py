"""Does a judge that has seen imagined pictures rank policies better? Train the shipped picture probe further on what a
checkpoint imagines of training episodes, with the truth of the simulator beside it, and say how well it reads then.

python benchmarks/imagined_judge.py --out out/judge
orrery verify pico --rungs policy_evaluation --probes out/judge --out out/judge/verify
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import UInt8

from orrery.evaluation.factory.probe import load_probes
from orrery.evaluation.factory.scenes import CAMERAS, CHUNK, Case, gather, play, shoot
from orrery.evaluation.verification.imaginers import ModelImaginer
from orrery.evaluation.verification.interfaces import Film, chain
from orrery.runtime.load import load
from orrery.training.probe import (
    BEHAVIOURS_SEEN,
    DrawBatch,
    Targets,
    picture_figures,
    save_probes,
    targets_of,
    train_picture_probe,
)
from orrery.worlds.factory.cell import EMBODIMENT
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.tasks import TASKS

FIRST_SEED, FIRST_VALIDATION_SEED = 44_000_000, 45_000_000
"""Of the episodes that are imagined: no others use them."""
CHUNKS = 5
"""Of an episode, as in the trials of verification."""
BATCH = 32
LEARNING_RATE = 3e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Acted:
    """An episode, and what is true at the end of each chunk."""

    given: Film
    actions: np.ndarray
    ends: UInt8[np.ndarray, "chunks 128 128 3"]
    targets: dict[str, np.ndarray]


def acted(seed: int) -> Acted:
    """One of them."""
    names = tuple(TASKS)
    case = Case(
        seed=seed,
        task=names[seed % len(names)],
        behaviour=BEHAVIOURS_SEEN[seed % len(BEHAVIOURS_SEEN)],
        steps=CHUNKS * CHUNK + 1,
    )
    played = play(case)
    states = [moment.state for moment in played.attempt.moments]
    actions = np.stack([moment.action for moment in played.attempt.moments])[: CHUNKS * CHUNK]
    renderer, ends = Renderer(played.cell.model), states[CHUNK::CHUNK]
    given = {camera: shoot(played.cell, states[:1], camera, renderer)[0] for camera in CAMERAS}
    pictures = shoot(played.cell, ends, "front", renderer)
    return Acted(given=given, actions=actions, ends=pictures, targets=targets_of(played.cell, ends))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Imagined and true pictures, and what is true of both."""

    imagined: torch.Tensor
    true: torch.Tensor
    targets: Targets

    def some(self, rows: torch.Tensor, *, imagined: bool) -> tuple[torch.Tensor, Targets]:
        """Some of them."""
        return (self.imagined if imagined else self.true)[rows], {k: v[rows] for k, v in self.targets.items()}

    def batches(self, *, imagined: bool) -> list[tuple[torch.Tensor, Targets]]:
        """All of them."""
        return [self.some(rows, imagined=imagined) for rows in torch.arange(len(self.true)).split(BATCH)]


def pictures_of(imaginer: ModelImaginer, seeds: Sequence[int], workers: int) -> Pictures:
    """What is imagined of episodes, the end of each chunk."""
    rows = gather(acted, seeds, workers)
    films = chain(imaginer, [row.given for row in rows], [row.actions for row in rows], chunk=CHUNK, seed=seeds[0])
    ends = np.stack([film["front"][-1] for made in films for film in made])
    targets = {name: np.concatenate([row.targets[name] for row in rows]) for name in rows[0].targets}
    return Pictures(
        imagined=torch.from_numpy(ends),
        true=torch.from_numpy(np.concatenate([row.ends for row in rows])),
        targets={name: torch.from_numpy(values) for name, values in targets.items()},
    )


def mixed(pictures: Pictures, seed: int) -> DrawBatch:
    """Batches of which half are imagined."""

    def draw(step: int) -> tuple[torch.Tensor, Targets]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        halves = [
            pictures.some(torch.randint(len(pictures.true), (BATCH // 2,), generator=rng), imagined=imagined)
            for imagined in (True, False)
        ]
        targets = {name: torch.cat([half[1][name] for half in halves]) for name in halves[0][1]}
        return torch.cat([half[0] for half in halves]), targets

    return draw


@dataclass(frozen=True, kw_only=True)
class ImaginedJudge:
    """Imagine episodes, train the probe on them, print how well it reads imagined and true pictures, and save it."""

    out: Path
    """Folder of the probes."""
    checkpoint: str = "pico"
    """Who imagines."""
    episodes: int = 120
    """To train on; a sixth as many to validate."""
    seconds: float = 300.0
    """Of training."""
    steps: int = 2
    """Of sampling."""
    workers: int = 2
    """Processes that simulate."""
    seed: int = 0
    """Of the batches."""

    def __call__(self) -> None:
        began = time.monotonic()
        imaginer = ModelImaginer(model=load(self.checkpoint), embodiment=EMBODIMENT, steps=self.steps)
        pictures = pictures_of(imaginer, range(FIRST_SEED, FIRST_SEED + self.episodes), self.workers)
        held_out = max(8, self.episodes // 6)
        other = pictures_of(imaginer, range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + held_out), self.workers)
        print(f"{len(pictures.true)} pictures in {time.monotonic() - began:.0f} s", flush=True)
        reader = load_probes()
        rows = {}
        for name, imagined in (("imagined", True), ("true", False)):
            rows[f"{name}, before"] = picture_figures(reader.picture, other.batches(imagined=imagined))
        probe, figures = train_picture_probe(
            mixed(pictures, self.seed),
            self.seconds,
            torch.device("cpu"),
            self.seed,
            start=reader.picture,
            learning_rate=LEARNING_RATE,
            validation=other.batches(imagined=True),
            tell=lambda line: print(line, flush=True),
        )
        rows |= {"imagined, after": figures, "true, after": picture_figures(probe, other.batches(imagined=False))}
        for name, found in rows.items():
            print(name + ": " + ", ".join(f"{key} {value:.3g}" for key, value in found.items()))
        save_probes(self.out, probe, reader.sound, figures)


if __name__ == "__main__":
    tyro.cli(ImaginedJudge)()
