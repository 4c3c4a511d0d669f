"""How long a checkpoint takes on this machine: opening it, an answer, a policy's call, an imagined chunk.

Media are noise of the sizes that the contract names: they cost the same as real ones. Times are of whole calls as a
user makes them, from a request to the decoded result.
"""

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orrery.errors import SettingsError
from orrery.runtime.load import load
from orrery.runtime.model import Model, Price
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.runtime.run import run
from orrery.runtime.speed import Speed
from orrery.tasks.contract import ActionContract
from orrery.tasks.fit import abilities
from orrery.tasks.request import Request

QUESTION = "How many parts are on the belt?"
INSTRUCTION = "Put the red cube into the tray."
STILL = (128, 128)
"""Height and width of the picture that is asked about."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one kind of call."""

    first: float
    """The first call, which also pays for what later ones find ready."""
    median: float
    least: float
    most: float
    count: int
    """Calls after the first."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured, and on what."""

    checkpoint: str
    weights_trained: bool | None
    """False: random weights, whose answers run to their longest and whose pictures are noise."""
    weights: Mapping[str, str]
    """Weight file -> sha256."""
    parameters: int
    machine: Mapping[str, Any]
    speed: Speed
    price: Price | None
    """None where the speed is exact to rounding."""
    seconds: Mapping[str, Timing]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What was not measured, and why."""
    peak_memory_bytes: int
    """Of the whole process at its largest, Python and PyTorch included."""

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return {"format": "orrery.bench", "version": 1, **asdict(self)}

    def to_text(self) -> str:
        """A table for people."""
        width = max(map(len, ["peak memory", *self.seconds, *self.left_out])) + 2
        lines = [f"{self.checkpoint}: {self.parameters:,} parameters", *_machine_lines(self.machine)]
        lines.append(f"speed: {self.speed.to_text()}")
        if self.price is not None:
            lines.append(f"velocities are off by {self.price.to_text()} of their size")
        if self.weights_trained is False:
            lines.append(RANDOM_WEIGHTS)
        lines.append(f"{'seconds':{width}}{'median':>9}{'least':>9}{'most':>9}{'first':>9}  calls")
        for name, t in self.seconds.items():
            figures = "".join(f"{value:9.3f}" for value in (t.median, t.least, t.most, t.first))
            lines.append(f"{name:{width}}{figures}  {t.count}")
        lines += [f"{name:{width}}not measured: {why}" for name, why in self.left_out.items()]
        return "\n".join([*lines, f"{'peak memory':{width}}{self.peak_memory_bytes / 2**20:9.0f} MiB"])


def bench(
    checkpoint: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    speed: Speed | str | None = None,
    repeats: int = 5,
    only: str | None = None,
) -> Bench:
    """Measure a checkpoint with as many threads as torch has been given.

    Args:
        checkpoint, speed: as `runtime.load`.
        repeats: calls of each kind after the first.
        only: the one row that is measured; all when None.

    Raises:
        SettingsError: `repeats` out of range.
        CheckpointError: as `runtime.load`.
    """
    if not 1 <= repeats <= 1000:
        raise SettingsError(f"repeats must be from 1 to 1000, got {repeats}. 5 give a median.")
    seconds = {}
    if only in (None, "load"):
        seconds["load"] = timed(lambda: load(checkpoint, device=device, dtype=dtype, speed=speed), repeats)
    model = load(checkpoint, device=device, dtype=dtype, speed=speed)
    left_out: dict[str, str] = {}
    for name, request in calls(model).items():
        if only not in (None, name):
            continue
        if isinstance(request, str):
            left_out[name] = request
        else:
            seconds[name] = timed(lambda request=request: run(model, request, envelope=None), repeats)  # type: ignore[misc]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Bench(
        checkpoint=str(checkpoint),
        weights_trained=model.origin.trained,
        weights=dict(model.origin.weights),
        parameters=sum(parameter.numel() for parameter in model.mot.parameters()),
        machine=machine(model.device),
        speed=model.speed,
        price=model.price,
        seconds=seconds,
        left_out=left_out,
        # Linux counts in KiB, macOS in bytes.
        peak_memory_bytes=peak if sys.platform == "darwin" else peak * 1024,
    )


def timed(call: Callable[[], object], repeats: int) -> Timing:
    """Wall-clock seconds of `call`, made once and then `repeats` times."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    first, *rest = seconds
    return Timing(first=first, median=statistics.median(rest), least=min(rest), most=max(rest), count=repeats)


def calls(model: Model) -> dict[str, Request | str]:
    """What is measured besides loading; in place of a request, why there is none."""
    rng = np.random.default_rng(0)

    def noise(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    able = abilities(model.capabilities, model.family, model.tasks)
    named: dict[str, Request | str] = {}
    sees = "see" in model.capabilities
    question = Request(task="reason", prompt=QUESTION, vision=noise(*STILL) if sees else None)
    named["short answer"] = able["reason"] or question
    contract = next(iter(model.contracts.values()), None)
    for name, task, steps in (
        ("policy, 1 step", "policy_no_video", 1),
        ("imagined chunk, 4 steps", "forward_dynamics", 4),
        ("imagined chunk, 8 steps", "forward_dynamics", 8),
    ):
        why = able[task] or (None if contract is not None and contract.cameras else "no contract names cameras")
        if why is not None or contract is None:
            named[name] = why or "no contract"
            continue
        pictures = {camera.name: noise(camera.height, camera.width) for camera in contract.cameras}
        named[name] = Request(
            task=task,
            prompt=INSTRUCTION,
            vision=pictures if contract.views else next(iter(pictures.values())),
            embodiment=contract.embodiment,
            steps=steps,
            **_robot(task, contract),
        )
    return named


def _robot(task: str, contract: ActionContract) -> dict[str, Any]:
    """A robot that stands still at the middle of its ranges."""
    still = np.zeros((1, contract.width), np.float32)
    if task == "forward_dynamics":
        return {"actions": np.repeat(contract.decode(still), contract.chunk, axis=0)}
    if contract.state_normaliser is None:
        return {}
    return {"state": contract.state_normaliser.decode(still)[0]}


def machine(device: torch.device) -> dict[str, Any]:
    """What a reader has to know to compare times."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": available,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _machine_lines(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"{facts['processor']}, {facts['cores']} cores, {facts['threads']} threads, device {facts['device']}",
        f"{facts['system']}, Python {facts['python']}, torch {facts['torch']}",
    ]
