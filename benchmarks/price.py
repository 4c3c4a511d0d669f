"""What approximate sampling costs and saves: the same requests exactly and with each priced mode, in turns.

    python benchmarks/price.py
    python benchmarks/price.py --device cuda --dtype bfloat16 --modes fp8 8bit

Requests are of the factory world: imagined chunks, policies that imagine and videos from a picture, of several test
episodes and seeds. Modes are the other exact path (what rounding alone does), products and attention in 8 bits, turns
that are extrapolated up to several thresholds (`flow.reuse`), and guidance inside an interval only, against guidance
everywhere. For each mode and task: seconds of a call and calls of the network, exact and priced, and by how many
decibels what came out is like what the exact run made (peak signal to noise; what was given is left out). A mode is
refused where frames or actions are below their bound. Needs the extra `worlds`.
"""

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from orrery.errors import SettingsError
from orrery.runtime.bench import machine
from orrery.runtime.load import load
from orrery.runtime.model import Model
from orrery.runtime.price import made_fast
from orrery.runtime.result import RANDOM_WEIGHTS, Result
from orrery.runtime.run import run
from orrery.runtime.speed import SPEEDS, Speed
from orrery.tasks.checks import nearest, shown
from orrery.tasks.request import Request
from orrery.weights.atomic import write_atomic
from orrery.weights.documents import dump_json

FRAMES_DB = 30.0
"""Least likeness of frames: an error of 8 in 255, as lossy video of fair quality has it."""
ACTIONS_DB = 30.0
"""Least likeness of actions: an error of a thirtieth of their range."""
ACTION_RANGE = 2.0
"""Of actions as the model sees them, from -1 to 1."""
REUSE = (0.05, 0.1, 0.2, 0.4)
INTERVALS = ((200.0, 1000.0), (400.0, 1000.0), (200.0, 800.0))


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to sample, and the exact one that it is compared with."""

    name: str
    speed: Speed
    changes: tuple[tuple[str, Any], ...] = ()
    """Settings of the request, of this mode alone."""
    shared: tuple[tuple[str, Any], ...] = ()
    """Settings of the request that the exact run has as well."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found of one mode at one task. Decibels: None where nothing is compared, inf where all is equal."""

    mode: str
    task: str
    requests: int
    exact_s: float
    """Median seconds of a call."""
    seconds: float
    exact_calls: int
    """Of the network, all requests together."""
    calls: int
    latents_db: float | None
    frames_db: float | None
    actions_db: float | None
    probe: dict[str, float] | None
    """What the probe of `runtime.price` says of the speed."""

    @property
    def refused(self) -> bool:
        """Whether what comes out is too far from what the exact run makes."""
        bounds = ((self.frames_db, FRAMES_DB), (self.actions_db, ACTIONS_DB))
        return any(value is not None and not value >= bound for value, bound in bounds)


def modes_for(exact: Speed, guidance: float) -> list[Mode]:
    """All of them, the fast path's own rounding first."""
    other = "plain" if exact.denoiser == "fast" else "fast"
    guided = (("guidance", guidance),)
    return [
        Mode(name=other, speed=SPEEDS[other]),
        *(Mode(name=name, speed=SPEEDS[name]) for name in ("fp8", "8bit")),
        *(Mode(name=f"reuse {threshold:g}", speed=replace(exact, reuse=threshold)) for threshold in REUSE),
        *(
            Mode(
                name=f"guidance {low:g}-{high:g}",
                speed=exact,
                changes=(("guidance_interval", (low, high)),),
                shared=guided,
            )
            for low, high in INTERVALS
        ),
    ]


def compare(exact: Model, priced: Model, mode: Mode, requests: Sequence[Request], repeats: int) -> Row:
    """Both ways, in turns: a run of each that is not timed, then `repeats` of each that are."""
    times: tuple[list[float], list[float]] = ([], [])
    calls = [0, 0]
    squares = {"latents": [0.0, 0.0], "frames": [0.0, 0.0], "actions": [0.0, 0.0]}
    for request in requests:
        base = replace(request, **dict(mode.shared))
        ways = ((exact, base), (priced, replace(base, **dict(mode.changes))))
        made = [run(model, asked, envelope=None) for model, asked in ways]
        for index, result in enumerate(made):
            calls[index] += result.manifest["network"]["calls"]
        for what, (error, count) in differences(exact, *made).items():
            squares[what][0] += error
            squares[what][1] += count
        for _ in range(repeats):
            for index, (model, asked) in enumerate(ways):
                _wait(model.device)
                began = time.perf_counter()
                run(model, asked, envelope=None)
                _wait(model.device)
                times[index].append(time.perf_counter() - began)
    db = {what: decibels(error, count) for what, (error, count) in squares.items()}
    return Row(
        mode=mode.name,
        task=requests[0].task,
        requests=len(requests),
        exact_s=statistics.median(times[0]),
        seconds=statistics.median(times[1]),
        exact_calls=calls[0],
        calls=calls[1],
        latents_db=db["latents"],
        frames_db=db["frames"],
        actions_db=db["actions"],
        probe=None if priced.price is None else dict(priced.price.errors),
    )


def differences(model: Model, exact: Result, priced: Result) -> dict[str, tuple[float, int]]:
    """Squared differences as shares of the squared peak, summed, and how many; of what was made, not of what was given.

    The peak is 255 of frames, the range of the exact run's of latents, and `ACTION_RANGE` of actions.
    """
    assert model.vision is not None
    settings = exact.manifest["settings"]
    given = settings["given_frames"] or 0
    latents_given = 0 if given == 0 else (given - 1) // model.vision.temporal + 1
    found = {}
    if exact.videos:
        pairs = [(exact.videos[name][given:], priced.videos[name][given:]) for name in exact.videos]
        found["frames"] = _summed([(a.astype(np.float64), b.astype(np.float64)) for a, b in pairs], 255.0)
        kept = [name for name in exact.latents if name.startswith("vision")]
        latents = [
            tuple(result.latents[name][:, latents_given:].double().numpy() for result in (exact, priced))
            for name in kept
        ]
        peak = max(float(np.ptp(a)) for a, _ in latents)
        found["latents"] = _summed([(a, b) for a, b in latents], peak)
    if exact.actions is not None:
        rows = int(settings["state"] or False)
        a, b = (result.latents["action"][rows:].double().numpy() for result in (exact, priced))
        found["actions"] = _summed([(a, b)], ACTION_RANGE)
    return found


def decibels(error: float, count: float) -> float | None:
    """10 log10(count / error) of squared differences as shares of the squared peak; None of none, inf of equals."""
    if count == 0:
        return None
    return math.inf if error == 0 else 10 * math.log10(count / error)


def _summed(pairs: Sequence[tuple[np.ndarray, np.ndarray]], peak: float) -> tuple[float, int]:
    return sum(float((((a - b) / peak) ** 2).sum()) for a, b in pairs), sum(a.size for a, _ in pairs)


def requests_for(cases: int, seed: int, steps: int) -> dict[str, list[Request]]:
    """Task -> requests of different test episodes, each with a seed of its own."""
    from orrery.evaluation.factory.ask import act, forward
    from orrery.evaluation.factory.scenes import cut, cuts

    windows = [cut(job) for job in cuts(cases, seed=seed, offset=0)][:cases]
    named = {
        "forward_dynamics": [forward(w.given, w.action, seed + i) for i, w in enumerate(windows)],
        "policy": [act("policy", w.given, w.state[0], w.instruction, seed + i) for i, w in enumerate(windows)],
        "image_to_video": [
            Request(task="image_to_video", prompt=w.instruction, vision=w.front[0], seed=seed + i)
            for i, w in enumerate(windows)
        ],
    }
    return {task: [replace(request, steps=steps) for request in requests] for task, requests in named.items()}


@dataclass(frozen=True, kw_only=True)
class Price:
    """What to compare."""

    checkpoint: str = "pico"
    """One with the contract of the factory gantry."""
    device: str = "cpu"
    dtype: str = "float32"
    modes: tuple[str, ...] = ()
    """By name; all if left out."""
    tasks: tuple[str, ...] = ()
    """Of forward_dynamics, policy and image_to_video; all if left out."""
    cases: int = 3
    """Requests of each task."""
    steps: int = 16
    """Of sampling. Extrapolating needs more than 4: the first two and the last two are always computed."""
    guidance: float = 2.0
    """Scale of the modes that guide."""
    repeats: int = 3
    """Timed runs of each request and way."""
    threads: int | None = None
    seed: int = 0
    out: Path | None = None
    """JSON file to write the figures to."""


def main(job: Price) -> None:
    """Compare and print."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    model = load(job.checkpoint, device=job.device, dtype=job.dtype)
    modes = modes_for(model.speed, job.guidance)
    for name in job.modes:
        if name not in [mode.name for mode in modes]:
            raise SettingsError(f"There is no mode {shown(name)}. {nearest(name, [mode.name for mode in modes])}")
    asked = requests_for(job.cases, job.seed, job.steps)
    facts = machine(model.device)
    print(f"{job.checkpoint}, {job.dtype}, {facts['device']}, {facts['threads']} threads, torch {facts['torch']}")
    print(f"exact: {model.speed.to_text()}; {job.steps} steps, {job.cases} requests a task, medians of {job.repeats}")
    if model.origin.trained is False:
        print(RANDOM_WEIGHTS)
    head = f"{'mode':20}{'task':18}{'exact s':>9}{'s':>9}{'calls':>12}"
    print(f"{head}{'latents dB':>12}{'frames dB':>11}{'actions dB':>12}")
    rows: list[Row] = []
    for mode in modes:
        if job.modes and mode.name not in job.modes:
            continue
        try:
            priced = made_fast(model, mode.speed, bound=math.inf)
        except SettingsError as error:
            print(f"{mode.name:20}not measured: {error}")
            continue
        for task, requests in asked.items():
            if job.tasks and task not in job.tasks:
                continue
            rows.append(compare(model, priced, mode, requests, job.repeats))
            print(_line(rows[-1]), flush=True)
        if priced.price is not None:
            print(f"{'':20}the probe says: velocities off by {priced.price.to_text()}")
    if job.out is not None:
        document = {
            "format": "orrery.price",
            "version": 1,
            "machine": facts,
            "settings": json.loads(_plain(asdict(job))),
        }
        write_atomic(job.out, dump_json({**document, "rows": json.loads(_plain([_finite(row) for row in rows]))}))


def _line(row: Row) -> str:
    db = "".join(
        f"{'-' if value is None else 'equal' if value == math.inf else f'{value:.1f}':>{width}}"
        for value, width in ((row.latents_db, 12), (row.frames_db, 11), (row.actions_db, 12))
    )
    calls = f"{row.exact_calls} > {row.calls}"
    verdict = "  refused" if row.refused else ""
    return f"{row.mode:20}{row.task:18}{row.exact_s:9.3f}{row.seconds:9.3f}{calls:>12}{db}{verdict}"


def _finite(row: Row) -> dict[str, Any]:
    """JSON has no infinity: equal is written as a word."""
    values = {**asdict(row), "refused": row.refused}
    return {name: "equal" if value == math.inf else value for name, value in values.items()}


def _plain(value: object) -> str:
    return json.dumps(value, default=str)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(tyro.cli(Price))
