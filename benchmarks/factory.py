"""Where the time goes when factory episodes are recorded, and what snapshots cost: `python benchmarks/factory.py`.

One process; OMP_NUM_THREADS=1 for figures of one core. Episodes of all tasks, expert and noisy, with two cameras of
128 x 128 and sound, as the shipped plan has them (examples/factory/plan.toml), with seeds of its own.
"""

import pickle
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from orrery.data.lerobot_writer import KEYFRAME_EVERY
from orrery.data.media import Sound
from orrery.data.write_media import write_flac, write_video
from orrery.worlds.factory.cell import CONTROL_HZ, STEP_S, Cell
from orrery.worlds.factory.plan import EpisodeSpec, Plan, Split
from orrery.worlds.factory.record import play, stage
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import film
from orrery.worlds.factory.sound import RATE_HZ, synthesise
from orrery.worlds.factory.tasks import TASKS, draw_job

FIRST_SEED = 9_500_000
PLAN = Plan(
    name="benchmark", cameras=("front", "wrist"), height=128, width=128, clearances_m=(0.001,), splits=(), sha256=""
)
SPLIT = Split(
    name="benchmark", first_seed=FIRST_SEED, last_seed=FIRST_SEED + 9999, unseen=False, random_look=True, episodes={},
    groups=0,
)  # fmt: skip
SIZE = (PLAN.height, PLAN.width)


@dataclass(frozen=True, kw_only=True)
class Factory:
    """Print seconds of each part of an episode, episodes an hour and core, and the cost of snapshots."""

    rounds: int = 3
    """Episodes of each task and behaviour."""

    def __call__(self) -> None:
        spent: dict[str, float] = defaultdict(float)

        @contextmanager
        def timed(part: str) -> Iterator[None]:
            begun = time.perf_counter()
            yield
            spent[part] += time.perf_counter() - begun

        rows = [(task, name) for _ in range(self.rounds) for task in TASKS for name in ("expert", "noise_0.5")]
        frames = 0
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for index, (task, name) in enumerate(rows):
                spec = EpisodeSpec(seed=FIRST_SEED + index, task=task, behaviour=name)
                with timed("simulate, expert, contacts"):
                    take = play(spec, PLAN, SPLIT)
                states = [moment.state for moment in take.attempt.moments]
                frames += len(states)
                renderer = Renderer(take.cell.model)
                for camera in PLAN.cameras:
                    with timed(f"film {camera}"):
                        made = list(film(take.cell, states, camera, *SIZE, renderer))
                    with timed("encode video"):
                        write_video(folder / "a.mp4", np.stack(made), CONTROL_HZ, keyframe_every=KEYFRAME_EVERY)
                with timed("synthesise sound"):
                    heard = synthesise(take.heard, 0.0, len(states) * STEP_S)
                with timed("encode sound"):
                    write_flac(folder / "a.flac", Sound(samples=heard, rate=RATE_HZ))
                # The whole again, as the recorder does it, so that what is not listed above shows.
                with timed("whole"):
                    stage(spec, PLAN, SPLIT, folder / "staged")
        whole = spent.pop("whole")
        spent["questions, tables, files"] = whole - sum(spent.values())
        print(f"{len(rows)} episodes, {frames} frames, {frames / len(rows) / CONTROL_HZ:.1f} s each on average")
        for part, seconds in spent.items():
            print(f"{part:28} {1000 * seconds / len(rows):7.1f} ms an episode  {100 * seconds / whole:5.1f} %")
        hourly = 3600 * len(rows) / whole
        print(f"{'whole':28} {1000 * whole / len(rows):7.1f} ms an episode, {hourly:.0f} episodes an hour")
        snapshots()


def snapshots() -> None:
    """Milliseconds of a snapshot, of restoring it and of a control step, medians of 200."""
    job = draw_job("kit_fill", np.random.default_rng(FIRST_SEED))
    cell = Cell(job.layout, job.parameters)
    rows: dict[str, list[float]] = defaultdict(list)
    for _ in range(200):
        begun = time.perf_counter()
        state = cell.snapshot()
        took = time.perf_counter()
        cell.restore(state)
        rows["snapshot"].append(took - begun)
        rows["restore"].append(time.perf_counter() - took)
        begun = time.perf_counter()
        cell.step(np.array([0.003, 0.0, 0.0, 0.0, 1.0]))
        rows["control step"].append(time.perf_counter() - begun)
    print(", ".join(f"{name} {1000 * statistics.median(row):.2f} ms" for name, row in rows.items()), end="")
    print(f"; a pickled snapshot has {len(pickle.dumps(state)) / 1000:.1f} kB")


if __name__ == "__main__":
    tyro.cli(Factory)()
