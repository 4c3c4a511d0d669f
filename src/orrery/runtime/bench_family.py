"""How fast a released shape is on this device, beside independent implementations that hold the same numbers.

Weights are random, and only the network is measured: no codec, no file. Each row is one kind of work, done in several
ways in turn; a way that fails is left out with its reason. What the ways are is `VARIANTS` and `runtime.peers`, what
the device could do at best is `runtime.ceilings`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from orrery.errors import SettingsError
from orrery.flow.samplers import Latents
from orrery.model.attention_kernels import Kernel, exact
from orrery.model.config import EDGE, NANO, SUPER, TINY
from orrery.model.denoiser import Denoiser
from orrery.model.matrix import Linears
from orrery.model.mot import LaysOut, MoT
from orrery.model.operations import Operations, generation_matrices, of_forward
from orrery.packing.pack import pack_samples
from orrery.runtime.bench import Timing, machine
from orrery.runtime.ceilings import Ceilings, ceilings, kernel_named
from orrery.runtime.peers import diffusers_peer
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.runtime.stopwatch import FAILURES, Call, Round, clear, interleaved, reason
from orrery.runtime.workloads import WORKLOADS, random_mot, sample_of
from orrery.tasks.checks import nearest

Family = Literal["tiny", "edge", "nano", "super"]
Variant = Literal["plain", "exact", "fp8", "8bit"]
Peer = Literal["diffusers", "transformers"]

FAMILIES = {config.family: config for config in (TINY, EDGE, NANO, SUPER)}
SIGMA = 0.7
"""Noise level of a forward pass that stands for all."""


def _fast(linears: Linears, kernel: Callable[[], Kernel], mot: MoT) -> LaysOut:
    on_gpu = mot.embed.weight.is_cuda
    return Denoiser(mot, linears=linears, kernel=kernel(), compiled=on_gpu, recorded=on_gpu)


VARIANTS: dict[str, Callable[[MoT], LaysOut]] = {
    "plain": lambda mot: mot,
    "exact": partial(_fast, "exact", lambda: exact),
    "fp8": partial(_fast, "fp8", lambda: exact),
    "8bit": partial(_fast, "fp8", lambda: kernel_named("eight_bit")),
}
"""Our ways to sample."""
EIGHT_BIT_LINEARS = {"fp8", "8bit"}
EIGHT_BIT_ATTENTION = {"8bit"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how often."""

    family: Family
    device: str
    dtype: str
    """float32 or bfloat16."""
    variants: tuple[Variant, ...] = ("plain", "exact")
    against: tuple[Peer, ...] = ()
    rows: tuple[str, ...] = ()
    """Names or groups of rows; none are all."""
    repeats: int = 5
    warm_up: int = 3
    enough_s: float = 30.0
    """No further repeats of a row are begun after so many seconds."""
    whole: bool = False
    """Sample 480p and 720p to their end; otherwise the time of it is worked out from one pass."""
    text_tokens: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16"):
            raise SettingsError(f"dtype must be float32 or bfloat16, got {self.dtype!r}. bfloat16 is for GPUs.")
        for name, value in (("repeats", self.repeats), ("warm_up", self.warm_up), ("text_tokens", self.text_tokens)):
            if not 1 <= value <= 100_000:
                raise SettingsError(f"{name} must be from 1 to 100000, got {value}. 5 repeats give a median.")
        for row in self.rows:
            if row not in {*ROWS, *(name.split("/")[0] for name in ROWS)}:
                raise SettingsError(f"There is no row {row!r}. {nearest(row, ROWS)}")

    @property
    def selected(self) -> list[str]:
        """Names of the rows that are measured."""
        return [name for name in ROWS if not self.rows or {name, name.split("/")[0]} & set(self.rows)]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way to do the work of a row."""

    seconds: Timing
    tflops: float | None
    """Operations of the row's shape a second, in 10^12."""
    of_floor: float | None
    """Times the floor that this way could reach at best."""
    faster: float | None
    """Times as fast as the peer of the row."""
    peak_bytes: int | None
    """Of the device's memory, all that is loaded included."""
    own_bytes: int | None
    """Without what lay there before the row."""
    differences: Mapping[str, float]
    """Relative error of the velocities to those of other ways: ||a - b|| / ||b||."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kind of work."""

    name: str
    tokens: int = 0
    """That are made."""
    text_tokens: int = 0
    operations: Operations | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Way -> why it was not measured."""

    def to_text(self) -> str:
        """A table for people."""
        size = f"{self.tokens:,} tokens, {self.text_tokens:,} of text"
        if self.operations is not None:
            size += f", {self.operations.total / 1e12:,.3g} x 10^12 operations"
        columns = ["median ms", "min", "max", "n", "first s", "TFLOP/s", "x floor", "faster", "GiB", "own GiB"]
        lines = [f"{self.name}: {size}", f"  {'':14}" + "".join(f"{column:>11}" for column in columns)]
        for name, found in self.measured.items():
            t = found.seconds
            cells = [f"{1000 * t.median:.2f}", f"{1000 * t.least:.2f}", f"{1000 * t.most:.2f}", f"{t.count}"]
            cells += [f"{t.first:.1f}", _cell(found.tflops, ".1f"), _cell(found.of_floor, ".2f")]
            cells += [_cell(found.faster, ".2f"), _gib(found.peak_bytes), _gib(found.own_bytes)]
            off = ", ".join(f"{value:.1e} off {other}" for other, value in found.differences.items())
            lines.append(f"  {name:14}" + "".join(f"{cell:>11}" for cell in cells) + f"  {off}".rstrip())
        lines += [f"  {name:14} not measured: {why}" for name, why in self.left_out.items()]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class FamilyBench:
    """What was measured so far, and on what."""

    settings: Settings
    parameters: int
    machine: Mapping[str, Any]
    ceilings: Ceilings
    memory_bytes: Mapping[str, int]
    """What each way takes of the device's memory before any work, in the order of building."""
    rows: tuple[Row, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        head = {"format": "orrery.bench_family", "version": 1}
        return {**head, "weights_trained": False, "weights": RANDOM_WEIGHTS, **asdict(self)}

    def newest(self) -> str:
        """For people: the last row, or before the first one on what it is measured."""
        if self.rows:
            return self.rows[-1].to_text()
        facts, settings = self.machine, self.settings
        return "\n".join(
            [
                f"{settings.family}: {self.parameters:,} parameters, {settings.dtype}, on {facts['device']}",
                f"{facts['system']}, Python {facts['python']}, torch {facts['torch']}",
                RANDOM_WEIGHTS,
                self.ceilings.to_text(),
            ]
        )

    def to_text(self) -> str:
        """A table for people."""
        return "\n\n".join([replace(self, rows=()).newest(), *(row.to_text() for row in self.rows)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Stand:
    """What all rows are measured on."""

    settings: Settings
    mot: MoT
    ways: Mapping[str, LaysOut]
    failed: Mapping[str, str]
    """Ways that could not be built."""
    ceilings: Ceilings

    @property
    def device(self) -> torch.device:
        """Where it all lies."""
        return self.mot.embed.weight.device

    def timed(self, ways: Mapping[str, Callable[[], Call]], least_repeats: int = 3) -> Round:
        """All ways in turn, as often as the settings say."""
        s = self.settings
        return interleaved(
            ways,
            self.device,
            repeats=s.repeats,
            warm_up=s.warm_up,
            enough_s=s.enough_s,
            least_repeats=min(least_repeats, s.repeats),
        )


@torch.no_grad()
def bench_family(settings: Settings, report: Callable[[FamilyBench], None]) -> FamilyBench:
    """Measure the rows one after the other.

    Args:
        report: told what is known before the first row and after each.

    Raises:
        SettingsError: a peer is asked for that is not installed.
    """
    device = torch.device(settings.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    config = FAMILIES[settings.family]
    dtype = getattr(torch, settings.dtype)
    rates = ceilings(device, dtype)
    mot = random_mot(config, device, dtype, settings.seed)
    memory = {"weights": _allocated(device)}
    ways: dict[str, LaysOut] = {}
    failed: dict[str, str] = {}
    for name in settings.variants:
        try:
            ways[name] = VARIANTS[name](mot)
        except FAILURES as error:
            failed[name] = reason(error)
        clear(device)
        memory[name] = _allocated(device) - sum(memory.values())
    if "diffusers" in settings.against:
        # After ours, whose matrices become parts of joined ones: the peer then holds parts of the same. It is first in
        # every row, since the others are set against it.
        ways = {"diffusers": diffusers_peer(mot), **ways}
        memory["diffusers"] = _allocated(device) - sum(memory.values())
    stand = Stand(settings=settings, mot=mot, ways=ways, failed=failed, ceilings=rates)
    found = FamilyBench(
        settings=settings,
        parameters=sum(parameter.numel() for parameter in mot.parameters()),
        machine=machine(device),
        ceilings=rates,
        memory_bytes=memory,
    )
    report(found)
    for chosen in settings.selected:
        try:
            row = ROWS[chosen](stand, chosen)
        except FAILURES as error:
            row = Row(name=chosen, left_out={"all": reason(error)})
        clear(device)
        found = replace(found, rows=(*found.rows, row))
        report(found)
    return found


def forward(stand: Stand, name: str) -> Row:
    """One pass over one request whose text has been read; the peer reads it again."""
    config, settings = stand.mot.config, stand.settings
    workload = WORKLOADS[name.split("/")[1]]
    sample = sample_of(workload, config, stand.device, text_tokens=settings.text_tokens, seed=settings.seed)
    pack = pack_samples([sample], config.clock)
    memory = stand.mot.read(pack.text)
    sigmas = torch.full((len(pack.segments),), SIGMA, device=stand.device)

    def ready(way: LaysOut) -> Call:
        velocity = way.lay_out(pack, memory)
        return lambda _: velocity(pack.latents, sigmas)

    seen = stand.timed({name: partial(ready, way) for name, way in stand.ways.items()})
    operations = of_forward(stand.mot, pack)
    floors = {way: floor_of_forward(stand, way, operations) for way in seen.taken}
    return Row(
        name=name,
        tokens=sum(pack.lengths),
        text_tokens=settings.text_tokens,
        operations=operations,
        measured=measured(seen, operations, floors, "diffusers", relative_error),
        left_out={**stand.failed, **seen.failed},
    )


ROWS: dict[str, Callable[[Stand, str], Row]] = {
    **{
        f"forward/{name}": forward
        for name in ("policy-17", "policy-33", "image-1024", "video-256p", "video-480p", "video-720p")
    },
}
"""All that can be measured."""


def floor_of_forward(stand: Stand, way: str, operations: Operations) -> float | None:
    """Seconds of one pass at the device's best, in the arithmetic of that way."""
    eight_bit = way in EIGHT_BIT_LINEARS
    matrices = generation_matrices(stand.mot)
    held = sum(matrix.numel() * (1 if eight_bit else matrix.itemsize) for matrix in matrices)
    return stand.ceilings.floor(operations, held, eight_bit=eight_bit, eight_bit_attention=way in EIGHT_BIT_ATTENTION)


def measured(
    seen: Round,
    operations: Operations | None,
    floors: Mapping[str, float | None],
    peer: str,
    difference: Callable[[Any, Any], float],
) -> dict[str, Measured]:
    """What the times say.

    Args:
        floors: of each way, in seconds.
        peer: the way that the others are set against, where it was measured.
        difference: between the outcomes of two ways.
    """
    found = {}
    for name, taken in seen.taken.items():
        median, floor = taken.timing.median, floors.get(name)
        others = [other for other in (peer, "exact") if other != name and other in seen.taken and name != peer]
        found[name] = Measured(
            seconds=taken.timing,
            tflops=None if operations is None else operations.total / median / 1e12,
            of_floor=None if floor is None else median / floor,
            faster=seen.taken[peer].timing.median / median if peer in seen.taken else None,
            peak_bytes=taken.peak_bytes,
            own_bytes=taken.own_bytes,
            differences={other: difference(taken.outcome, seen.taken[other].outcome) for other in others},
        )
    return found


def relative_error(found: Latents, expected: Latents) -> float:
    """||found - expected|| / ||expected||, the largest of any segment."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**30:.2f}"
