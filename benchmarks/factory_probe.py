"""Train the frozen probes of the factory suite, from the simulator alone, and say how well they read.

python benchmarks/factory_probe.py --out checkpoints/factory-probe --device cuda --workers 16
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from orrery.training.probe import (
    FIRST_SEED,
    FIRST_VALIDATION_SEED,
    blows,
    frames_from,
    probe_episodes,
    save_probes,
    train_picture_probe,
    train_sound_probe,
)


@dataclass(frozen=True, kw_only=True)
class FactoryProbe:
    """Make episodes, train both probes by the clock, print their figures on other seeds, and save them."""

    out: Path
    """Folder of the probes."""
    seconds: float = 120.0
    """Of training the picture probe; the sound probe takes an eighth."""
    episodes: int = 3000
    """To train on; a twentieth as many to validate."""
    blows: int = 2000
    """Likewise, of the sound probe."""
    batch: int = 256
    """Pictures a step."""
    device: str = "cuda"
    """Where to train. Pictures are drawn there, but on a CPU they are rendered where they are simulated."""
    workers: int = 2
    """Processes that simulate."""
    seed: int = 0
    """Of the weights and batches."""

    def __call__(self) -> None:
        device, rendered = torch.device(self.device), self.device == "cpu"
        began = time.monotonic()
        held_out = max(20, self.episodes // 20)
        made = probe_episodes(self.episodes, first_seed=FIRST_SEED, workers=self.workers, rendered=rendered)
        other = probe_episodes(held_out, first_seed=FIRST_VALIDATION_SEED, workers=self.workers, rendered=rendered)
        heard = blows(self.blows, first_seed=FIRST_SEED, workers=self.workers)
        heard_other = blows(max(20, self.blows // 20), first_seed=FIRST_VALIDATION_SEED, workers=self.workers)
        frames = sum(len(one.targets["lamp"]) for one in made)
        print(f"{frames} frames and {len(heard.material)} blows in {time.monotonic() - began:.0f} s", flush=True)
        sample = frames_from(other, 64, device, self.seed, in_turn=True)
        total = sum(len(one.targets["lamp"]) for one in other)
        picture, figures = train_picture_probe(
            frames_from(made, self.batch, device, self.seed),
            self.seconds,
            device,
            self.seed,
            validation=[sample(step) for step in range(min(40, total // 64))],
            tell=lambda line: print(line, flush=True),
        )
        sound, heard_figures = train_sound_probe(heard, heard_other, self.seconds / 8, device, self.seed)
        figures |= heard_figures
        save_probes(self.out, picture, sound, figures)
        for name, value in figures.items():
            print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    tyro.cli(FactoryProbe)()
