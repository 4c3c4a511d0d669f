"""Train a small world model on one recorded episode, ask it everything, and write a page with what came out.

python examples/one_episode/demo.py                      # records an episode of the factory cell first
python examples/one_episode/demo.py LEROBOT_FOLDER --out OUT --minutes 8
"""

import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

# Before torch is loaded: its threads would spin while they wait, and beside another busy process that takes five times
# as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro
from comparisons import forward_dynamics, groups_of, inverse_dynamics, policy, reconstruction
from episode import Recording, read_recording
from learner import learn

import orrery
from orrery.errors import OrreryError
from orrery.evaluation.page import Page, Section, Strip, write_page
from orrery.runtime.model import Model
from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.record import record_episode

CELL_FRAMES, CELL_PIXELS = 360, 64
SHOWN_S = 6.0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train on one episode, evaluate, and write page.html and results.json."""

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """LeRobot v3 folder; without one, an episode of the factory cell is recorded."""
    out: Path = Path("out/one_episode")
    """Where everything is written."""
    minutes: float | None = None
    """Training time: 8, or 2.5 on the episode of the cell."""
    episode: int = 0
    """Which episode of the folder."""
    checkpoint: Path | None = None
    """Evaluate this checkpoint instead of training one."""
    seed: int = 0
    threads: int = 2
    """CPU cores to compute on."""

    def __call__(self) -> None:
        began = time.monotonic()
        torch.set_num_threads(self.threads)
        folder = self.folder or cell_episode(self.out / f"episode-{self.seed}", self.seed)
        minutes = self.minutes or (2.5 if self.folder is None else 8.0)
        print(f"Reading {folder}", flush=True)
        recording = read_recording(folder, self.episode)
        for remark in recording.remarks:
            print(f"  {remark}")
        checkpoint, facts = self.checkpoint, {}
        if checkpoint is None:
            print(f"Training for {minutes:g} minutes on frames 0 to {recording.cut - 1} of {len(recording.frames)}")
            facts = learn(recording, self.out, seconds=60 * minutes, seed=self.seed)
            checkpoint = self.out / "checkpoint"
        print(f"Loading {checkpoint} and running it", flush=True)
        model = orrery.load(checkpoint)
        command = (
            f"python examples/one_episode/demo.py {folder} --episode {self.episode} --checkpoint {checkpoint} "
            f"--out {self.out} --seed {self.seed} --threads {self.threads}"
        )
        comparisons = {
            name: compare(model, recording, self.seed, command)
            for name, compare in (
                ("forward_dynamics", forward_dynamics),
                ("inverse_dynamics", inverse_dynamics),
                ("policy", policy),
                ("reconstruction", reconstruction),
            )
        }
        machine = f"{platform.machine()}, {self.threads} CPU threads, torch {torch.__version__}"
        facts |= {"Machine": machine, "Seed": str(self.seed), "Weights": weights_of(model)}
        facts |= {"Whole run": f"{time.monotonic() - began:.0f} s"}
        page = page_of(folder, recording, comparisons, facts)
        write_page(self.out / "page.html", page)
        write_atomic(self.out / "results.json", results_of(page, comparisons))
        print_summary(comparisons)
        print(f"Open {self.out / 'page.html'}; numbers are in {self.out / 'results.json'}.")


def cell_episode(folder: Path, seed: int) -> Path:
    """Record the factory cell, unless this seed's is there already."""
    if not (folder / "meta" / "stats.json").is_file():
        print(f"Recording an episode of the factory cell into {folder}", flush=True)
        record_episode(folder, seed, frames=CELL_FRAMES, size=CELL_PIXELS)
    return folder


def page_of(folder: Path, recording: Recording, comparisons: dict[str, Section], facts: dict[str, str]) -> Page:
    """Everything that a reader must know, then the episode, then the comparisons."""
    count = int(min(len(recording.frames), SHOWN_S * recording.fps))
    strip = Strip(
        caption=f"The first {count / recording.fps:g} s as the model sees them."
        + (
            " Turn on the sound to hear drives, belt and contacts; the model does not hear it."
            if recording.sound
            else ""
        ),
        clips=(("recorded", recording.frames[:count]),),
        fps=recording.fps,
        sound=recording.sound_of(count),
    )
    height, width = recording.frames.shape[1:3]
    episode = Section(
        title="The episode",
        text=f"{len(recording.frames)} frames at {recording.fps:g} a second, shown to the model at {height} x {width}. "
        f"Task: {recording.prompt or '(no text)'}",
        strips=(strip,),
    )
    trained, held_out = groups_of(recording)
    return Page(
        title=f"One episode: {folder.name}",
        summary="A small world model was trained for some minutes on one recorded episode, saved, loaded again, and "
        "asked to predict video, actions and both. Every number stands next to what a trivial prediction reaches.",
        warnings=(
            "This memorises one episode. It shows that the parts work together, and nothing about other scenes.",
            f"Windows marked 'trained on' were seen in training ({len(trained.starts)} of them are judged). The last "
            f"{len(recording.frames) - recording.cut} frames were not; windows there are marked 'held out' "
            f"({len(held_out.starts)}). Those are the honest numbers.",
            "The weights were trained on this episode alone. Windows overlap, so the intervals are too narrow.",
            "Videos of the model are synthetic. Nothing here is evidence of safety.",
        ),
        facts=(*facts.items(), *((f"Remark {i}", text) for i, text in enumerate(recording.remarks, 1))),
        sections=(episode, *comparisons.values()),
    )


def results_of(page: Page, comparisons: dict[str, Section]) -> bytes:
    """The page's numbers as JSON."""
    document = {
        "format": "orrery.one_episode",
        "version": 1,
        "warnings": list(page.warnings),
        "facts": dict(page.facts),
        "comparisons": {
            name: {"command": section.command, "measures": [measure.to_json() for measure in section.measures]}
            for name, section in comparisons.items()
        },
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def weights_of(model: Model) -> str:
    """The hash of the tensors that were loaded."""
    return ", ".join(
        f"{name} sha256 {digest}" for name, digest in model.origin.weights.items() if "safetensors" in name
    )


def print_summary(comparisons: dict[str, Section]) -> None:
    """The first numbers of each comparison, for those who look at the terminal only."""
    for section in comparisons.values():
        for measure in section.measures:
            if "(" in measure.name and not measure.name.startswith(("PSNR", "Mean", "Training")):
                continue
            value, baseline = (
                "none" if number is None else f"{number:.3f}" for number in (measure.value, measure.baseline)
            )
            print(f"  {measure.name}: {value} {measure.unit} | {measure.baseline_name}: {baseline}")


def main() -> None:
    """Exit code 2 and one line for what the caller can mend."""
    try:
        tyro.cli(Demo)()
    except OrreryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
