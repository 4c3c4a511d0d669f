"""How often experts succeed, and how success falls along the ladder of degraded ones.

python benchmarks/experts.py                     # 200 seeds a task, peg_insert at three clearances
python benchmarks/experts.py --ladder --seeds 50  # every rung of the ladder, and the other behaviours

Seeds go from --first-seed on; those of the shipped plan are others (examples/factory/plan.toml).
"""

import itertools
import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import tyro

from orrery.evaluation.metrics import wilson_interval
from orrery.worlds.factory.behaviours import BEHAVIOURS, LADDER, behaviour, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.rollout import roll
from orrery.worlds.factory.tasks import TASKS, draw_job

CLEARANCES_M = (0.003, 0.001, 0.0003)
LEAST, LEAST_MEAN, MOST_BIASED = 0.97, 0.99, 0.05

Case = tuple[str, str, float, int]
"""Behaviour, task, clearance in metres, seed."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Print success with 95 % Wilson intervals, and the reasons of failures."""

    seeds: int = 200
    """Attempts for each row."""
    first_seed: int = 9_000_000
    """Where seeds begin."""
    ladder: bool = False
    """All behaviours instead of the expert and the biased insertion."""
    workers: int = 2
    """Processes."""

    def __call__(self) -> None:
        begun = time.monotonic()
        names = (*LADDER, *(name for name in BEHAVIOURS if name not in LADDER)) if self.ladder else ("expert", "biased")
        rows = [
            (name, task, clearance_m)
            for name in names
            for task in TASKS
            for clearance_m in (CLEARANCES_M if task == "peg_insert" else (CLEARANCES_M[1],))
            if task == "peg_insert" or not behaviour(name).slip_m
        ]
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        cases = [(*row, seed) for row in rows for seed in seeds]
        with multiprocessing.get_context("spawn").Pool(self.workers) as pool:
            outcomes = pool.map(outcome, cases, chunksize=10)
        found = {row: outcomes[i * self.seeds : (i + 1) * self.seeds] for i, row in enumerate(rows)}
        print(f"{'behaviour':13} {'task':15} {'clearance':>9}  success  95 % interval    failures")
        for (name, task, clearance_m), why in found.items():
            fit = f"{1000 * clearance_m:.1f} mm" if task == "peg_insert" else ""
            print(f"{name:13} {task:15} {fit:>9}  {shown(why)}  {reasons(why)}")
        print()
        for name in names:
            why = list(itertools.chain.from_iterable(found[row] for row in rows if row[0] == name))
            print(f"{name:13} {'all':25}  {shown(why)}")
        experts = [share(why) for row, why in found.items() if row[0] == "expert"]
        biased = share(found["biased", "peg_insert", CLEARANCES_M[-1]])
        print(
            f"expert: lowest row {min(experts):.3f} (at least {LEAST}), mean of rows {np.mean(experts):.4f} (at least "
            f"{LEAST_MEAN}); biased at {1000 * CLEARANCES_M[-1]:.1f} mm {biased:.3f} (at most {MOST_BIASED})"
        )
        if self.ladder:
            rungs = [share([w for row in rows if row[0] == name for w in found[row]]) for name in LADDER]
            falling = all(a >= b for a, b in itertools.pairwise(rungs))
            shares = " ".join(f"{rung:.3f}" for rung in rungs)
            print(f"ladder {shares}: {'falls' if falling else 'does NOT fall'} throughout")
        print(f"{len(cases)} attempts in {time.monotonic() - begun:.0f} s on {self.workers} processes")


def outcome(case: Case) -> str:
    """Why one attempt failed, "" for a success."""
    name, task, clearance_m, seed = case
    job = draw_job(task, np.random.default_rng([seed, 0]), clearance_m=clearance_m)
    cell = Cell(job.layout, job.parameters)
    return roll(cell, job, policy(behaviour(name), job, np.random.default_rng([seed, 1]))).failure


def share(why: list[str]) -> float:
    return why.count("") / len(why)


def shown(why: list[str]) -> str:
    low, high = wilson_interval(why.count(""), len(why))
    return f"{share(why):7.3f}  {low:.3f} to {high:.3f}"


def reasons(why: list[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in Counter(why).most_common() if word)


if __name__ == "__main__":
    tyro.cli(Experts)()
