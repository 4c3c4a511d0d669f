"""How long a policy keeps its robot waiting: a resident model, a new picture at every call, the same instruction.

    python benchmarks/policy_latency.py
    python benchmarks/policy_latency.py --family nano --device cuda

A call goes from the pictures, as PNG files or as arrays, to actions in the robot's units, through `orrery.run`. Prints
median and worst of each of its stages and of the whole, in milliseconds, and the warm start: seconds from the start of
a process to its first answer, measured from outside. With a family instead of a checkpoint, network and codec have
random weights of the released shape, and the robot is DROID; the codec needs the extra `cosmos`. Actions of noise mean
nothing, so they are held to no envelope: the guard asks only whether they are finite. Times include the waits between
stages.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from orrery.data.write_media import write_png
from orrery.errors import SettingsError
from orrery.model.config import EDGE, NANO, TINY
from orrery.runtime.bench import INSTRUCTION, machine
from orrery.runtime.family.workloads import random_mot, random_video_codec
from orrery.runtime.load import device_named, dtype_named, load
from orrery.runtime.model import Model, Origin
from orrery.runtime.price import made_fast
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.runtime.run import run
from orrery.runtime.speed import Name, default_speed, speed_named
from orrery.runtime.stages import Stages
from orrery.tasks.embodiment import embodiment as embodiment_named
from orrery.tasks.request import Request
from orrery.tokenizers.text import train_tokenizer
from orrery.tokenizers.wan import WanCodec, channels_last
from orrery.weights.atomic import write_atomic
from orrery.weights.documents import dump_json

FAMILIES = {"tiny": (TINY, "policy-droid"), "nano": (NANO, "policy-droid"), "edge": (EDGE, "edge-policy-droid")}
"""Shape, and whose defaults apply."""
PICTURE = (540, 640)
"""Height and width of DROID's three views in one picture."""
ROBOT = "droid_lerobot"
VOCABULARY = 400
FIRST = "first answer"


@dataclass(frozen=True, kw_only=True)
class PolicyLatency:
    """What to serve, and how often."""

    checkpoint: str = "pico"
    """One with a contract that names cameras; left aside where a family is given."""
    family: Literal["tiny", "edge", "nano"] | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """bfloat16 on a GPU and float32 on a CPU if left out."""
    speed: Name | None = None
    task: Literal["policy", "policy_no_video"] = "policy"
    """Whether the future is imagined beside the actions."""
    steps: int = 4
    guidance: float | None = None
    """As the family has it if left out: two passes a step for DROID."""
    calls: int = 20
    warm_up: int = 3
    """Calls before those that count."""
    pictures: Literal["files", "arrays"] = "files"
    frames: bool = True
    """Decode the future that is imagined; actions do not need it."""
    warm_start: bool = True
    """Measure it first, in a process of its own."""
    threads: int | None = None
    out: Path | None = None
    """JSON file to write the figures to."""


def random_model(job: PolicyLatency, device: torch.device, dtype: torch.dtype) -> Model:
    """A released shape with random weights, in memory."""
    assert job.family is not None
    config, family = FAMILIES[job.family]
    vae = random_video_codec(config.vision_channels, device, dtype, small=job.family == "tiny")
    if device.type == "cuda":
        channels_last(vae)
    return Model(
        mot=random_mot(config, device, dtype),
        text=train_tokenizer([INSTRUCTION], VOCABULARY),
        vision=WanCodec(vae, "vae"),
        sound=None,
        eyes=None,
        contracts={},
        family=family,
        origin=Origin(path=Path(f"random-{job.family}"), layout="memory", weights={}, trained=False),
    )


def model_for(job: PolicyLatency) -> Model:
    """The one that is to be served."""
    device = device_named(job.device)
    name = job.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    if job.family is None:
        return load(job.checkpoint, device=job.device, dtype=name, speed=job.speed)
    speed = default_speed(device.type, name) if job.speed is None else speed_named(job.speed)
    return made_fast(random_model(job, device, dtype_named(name)), speed)


def requests_for(job: PolicyLatency, model: Model, folder: Path, count: int) -> list[Request]:
    """One request a call, each with pictures of its own."""
    rng = np.random.default_rng(0)
    contract = next(iter(model.contracts.values()), None)
    if contract is None:
        cameras, embodiment = {"view": PICTURE}, ROBOT
        state = [0.0] * (embodiment_named(ROBOT).width or 0)
    else:
        cameras = {camera.name: (camera.height, camera.width) for camera in contract.cameras}
        embodiment, state = contract.embodiment, None
        if contract.state_normaliser is not None:
            state = contract.state_normaliser.decode(np.zeros((1, contract.width), np.float32))[0].tolist()
        if not cameras:
            raise SettingsError(f"The contract of {job.checkpoint} names no cameras. Give another checkpoint.")
    every = []
    for index in range(count):
        shown: dict[str, Any] = {}
        for name, (height, width) in cameras.items():
            shown[name] = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            if job.pictures == "files":
                path = folder / f"{index:04}-{name}.png"
                write_png(path, shown[name])
                shown[name] = path
        several = contract is not None and bool(contract.views)
        every.append(
            Request(
                task=job.task,
                prompt=INSTRUCTION,
                vision=shown if several else next(iter(shown.values())),
                embodiment=embodiment,
                state=state,
                steps=job.steps,
                guidance=job.guidance,
                seed=index,
            )
        )
    return every


def served(model: Model, requests: Sequence[Request], *, frames: bool = True) -> list[dict[str, float]]:
    """Seconds of the stages of every call, "total" with them."""
    found = []
    for request in requests:
        stages = Stages(device=model.device)
        began = time.perf_counter()
        result = run(model, request, envelope=None, stages=stages, frames=frames)
        total = time.perf_counter() - began
        assert result.actions is not None, "a policy gives actions"
        found.append({**stages.seconds, "total": total})
    return found


def warm_start(job: PolicyLatency) -> float:
    """Seconds from the start of a process to its first answer."""
    words = [_word(name.replace("_", "-"), value) for name, value in asdict(job).items() if _differs(name, value)]
    command = [sys.executable, __file__, *words, "--calls=0", "--warm-up=0", "--no-warm-start"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seconds = None
        for line in child.stdout:
            if line.startswith(FIRST):
                seconds = time.perf_counter() - began
    if seconds is None or child.returncode:
        raise SettingsError(f"The process of the warm start ended with code {child.returncode} without an answer.")
    return seconds


def _word(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={value}"


def _differs(name: str, value: object) -> bool:
    return name not in ("out", "calls", "warm_up", "warm_start") and value != getattr(PolicyLatency(), name)


def main(job: PolicyLatency) -> None:
    """Serve and print."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    start = warm_start(job) if job.warm_start else None
    model = model_for(job)
    with tempfile.TemporaryDirectory() as folder:
        requests = requests_for(job, model, Path(folder), 1 + job.warm_up + job.calls)
        (first,) = served(model, requests[:1], frames=job.frames)
        print(f"{FIRST}: {first['total']:.3f} s", flush=True)
        times = served(model, requests[1:], frames=job.frames)[job.warm_up :]
    if not times:
        return
    facts = machine(model.device)
    what = job.checkpoint if job.family is None else f"{job.family}, random weights of its shape"
    print(f"{what}; {facts['device']}, {facts['processor']}, {facts['threads']} threads, torch {facts['torch']}")
    print(f"speed: {model.speed.to_text()}; {job.task}, {job.steps} steps, pictures as {job.pictures}")
    if model.price is not None:
        print(f"velocities are off by {model.price.to_text()} of their size")
    if model.origin.trained is False:
        print(RANDOM_WEIGHTS)
    print(f"{'stage':14}{'median ms':>11}{'worst ms':>11}   ({len(times)} calls)")
    names = list(dict.fromkeys(name for row in times for name in row))
    table = {name: [1000 * row.get(name, 0.0) for row in times] for name in names}
    for name, values in table.items():
        print(f"{name:14}{statistics.median(values):11.2f}{max(values):11.2f}")
    if start is not None:
        weights = "" if job.family is None else "; weights were made at random, not read"
        print(f"warm start: {start:.1f} s from the start of a process to its first answer{weights}")
    if job.out is not None:
        document = {
            "format": "orrery.policy_latency",
            "version": 1,
            "settings": {**asdict(replace(job, out=None))},
            "machine": facts,
            "speed": model.speed.to_json(),
            "weights_trained": model.origin.trained,
            "milliseconds": {
                name: {"median": statistics.median(values), "worst": max(values)} for name, values in table.items()
            },
            "warm_start_s": start,
        }
        write_atomic(job.out, dump_json(document))


if __name__ == "__main__":
    main(tyro.cli(PolicyLatency))
