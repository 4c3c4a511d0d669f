"""Frames a second of the factory cell drawn in torch: `.venv/bin/python benchmarks/pictures.py [cpu|cuda]`.

Also what the drawing of an episode costs and weighs. The first call of each size is left out: on a GPU it compiles.
"""

import os
import sys
import time

# Read when numpy is loaded: the cost of a drawing is for one core.
os.environ["OMP_NUM_THREADS"] = "1"

import pickle

import numpy as np
import torch

from orrery.training.pictures import draw_scenes, scenes_of
from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.drawing import drawing_of
from orrery.worlds.factory.rollout import roll
from orrery.worlds.factory.tasks import TASKS, draw_job

STEPS = 70
SECONDS = 3.0


def main() -> int:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu")
    drawings = []
    print(f"{'':20}{'drawing ms/frame':>18}{'kB/episode':>12}{'frames':>8}")
    for seed, task in enumerate(TASKS):
        rng = np.random.default_rng(seed)
        job = draw_job(task, rng)
        cell = Cell(job.layout, job.parameters)
        attempt = roll(cell, job, policy(BEHAVIOURS["play"], job, rng), steps=STEPS, to_the_end=True)
        states = [moment.state for moment in attempt.moments]
        begin = time.perf_counter()
        drawings.append(drawing_of(cell, states))
        taken = time.perf_counter() - begin
        size = len(pickle.dumps(drawings[-1]))
        print(f"{task:20}{1e3 * taken / len(states):>18.3f}{size / 1e3:>12.1f}{len(states):>8}")
    scenes = scenes_of(drawings, device)
    frames = torch.randint(len(scenes), (2048 if device.type == "cuda" else 8,), device=device)
    print(f"{'':20}{'pixels':>8}{'first s':>9}{'frames/s':>10}{'GB':>7}")
    for camera, pixels in (("front", 128), ("wrist", 64), ("wrist", 128)):
        begin = time.perf_counter()
        draw_scenes(scenes, frames, camera, pixels, pixels).sum().item()
        first = time.perf_counter() - begin
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < SECONDS:
            draw_scenes(scenes, frames, camera, pixels, pixels).sum().item()
            done += len(frames)
        rate = done / (time.perf_counter() - begin)
        memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
        print(f"{camera:20}{pixels:>8}{first:>9.1f}{rate:>10.0f}{memory:>7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
