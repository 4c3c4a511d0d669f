"""Times of several ways to do the same, taken in turn in one process, so that a slow minute falls on all of them."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from orrery.errors import SettingsError
from orrery.runtime.bench import Timing

FAILURES = (ImportError, RuntimeError, SettingsError)
"""What a way to do it may fail with, while the others go on: a package or a device that it needs is missing, and all
that PyTorch says of memory (`torch.cuda.OutOfMemoryError`) and of kernels that it lacks."""

Call = Callable[[Any], Any]
"""Done once, with what `before` made for it."""

# Seconds of the first call, its outcome, the peak of memory and the way's own part of it.
_Seen = tuple[float, Any, int | None, int | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """What was seen of one way."""

    timing: Timing
    """The first of its calls includes making it ready: what is compiled and recorded is in it."""
    outcome: Any
    """Of the first call."""
    peak_bytes: int | None
    """Of the device's memory, with all that lay there before; None on a CPU."""
    own_bytes: int | None
    """The same without what lay there before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """All ways, and the reasons of those that failed."""

    taken: dict[str, Taken] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def interleaved(
    ways: Mapping[str, Callable[[], Call]],
    device: torch.device,
    *,
    repeats: int,
    warm_up: int,
    enough_s: float,
    least_repeats: int = 1,
    before: Callable[[str, int], Any] | None = None,
) -> Round:
    """Make each way ready and warm, then time all of them once, again and again.

    Args:
        ways: makes ready, and gives what is timed.
        repeats: timed calls of each.
        warm_up: calls of each before, at least one; none after the first that takes a second.
        enough_s: no further repeats are begun after so many seconds of them.
        least_repeats: but so many there are.
        before: makes what a call is given, from the name of the way and the number of the call; takes no part in the
            time. None gives the number.
    """
    found = Round()
    made = before if before is not None else lambda _, index: index
    calls: dict[str, Call] = {}
    seen: dict[str, _Seen] = {}
    for name, ready in ways.items():
        try:
            calls[name], seen[name] = _warmed(ready, partial(made, name), device, warm_up)
        except FAILURES as error:
            found.failed[name] = reason(error)
        if name in found.failed:
            clear(device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for repeat in range(repeats):
        if repeat >= least_repeats and time.perf_counter() - began > enough_s:
            break
        for name in list(calls):
            try:
                times[name].append(seconds_of(calls[name], made(name, warm_up + repeat), device))
            except FAILURES as error:
                found.failed[name] = reason(error)
                del calls[name], seen[name]
                clear(device)
    for name, (first, outcome, peak, own) in seen.items():
        taken = times[name]
        timing = Timing(
            first=first, median=statistics.median(taken), least=min(taken), most=max(taken), count=len(taken)
        )
        found.taken[name] = Taken(timing=timing, outcome=outcome, peak_bytes=peak, own_bytes=own)
    return found


def _warmed(
    ready: Callable[[], Call], made: Callable[[int], Any], device: torch.device, warm_up: int
) -> tuple[Call, _Seen]:
    """What is timed, and what was seen of it so far. A function of its own: what failed is then held by nobody."""
    lay_there = _reset_peak(device)
    began = time.perf_counter()
    call = ready()
    outcome = call(made(0))
    wait(device)
    first = last = time.perf_counter() - began
    for index in range(1, warm_up):
        if index > 1 and last > 1:
            break
        last = seconds_of(call, made(index), device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return call, (first, outcome, peak, None if peak is None else peak - lay_there)


def seconds_of(call: Call, given: Any, device: torch.device) -> float:
    """Of one call: between two events of the GPU, or by the clock on a CPU."""
    wait(device)
    if device.type != "cuda":
        began = time.perf_counter()
        call(given)
        return time.perf_counter() - began
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call(given)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clear(device: torch.device) -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reason(error: BaseException) -> str:
    """An error in a line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _reset_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
