"""What makes a checkpoint's calls on a CPU faster, part by part: a policy's call and an imagined chunk.

    python benchmarks/cpu_calls.py
    python benchmarks/cpu_calls.py --experiments

The calls are those of `orrery bench`. In every round each variant makes one call, all in one process and in an order
that is drawn anew: "before" with none of the parts, one with each part alone, and "now" with all of them. Prints
medians, the median of the ratio to the "before" of the same round, and the largest difference of the latents. With
`--experiments` also what is not the default, for numbers change by more than rounding or something is compiled first.
"""

import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
import torch.nn.functional as F
import tyro

from orrery.model import mot
from orrery.model.denoiser import Denoiser
from orrery.runtime.bench import calls
from orrery.runtime.load import load
from orrery.runtime.model import Model
from orrery.runtime.result import Result
from orrery.runtime.run import run
from orrery.tasks.request import Request
from orrery.tokenizers import autoencoder

PARTS = ("last block", "in place")
ROWS = ("policy, 1 step", "imagined chunk, 4 steps")


@dataclass(frozen=True, kw_only=True)
class CpuCalls:
    """Print the times of both calls by variant."""

    checkpoint: str = "pico"
    repeats: int = 15
    """Rounds that count; two go before them."""
    threads: int | None = None
    """As many as torch takes, when None."""
    rows: tuple[str, ...] = ROWS
    """Which of the calls."""
    experiments: bool = False
    """Also bfloat16, 8-bit weights, and the compiled denoiser."""

    def __call__(self) -> None:
        """Time and print."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        model = load(self.checkpoint)
        variants = variants_of(model)
        if self.experiments:
            variants |= experiments_of(model, self.checkpoint)
        print(f"{torch.get_num_threads()} threads, median of {self.repeats}")
        for name in self.rows:
            request = calls(model)[name]
            assert isinstance(request, Request)
            self._row(name, request, variants)

    def _row(self, name: str, request: Request, variants: dict[str, Callable[[Request], Result]]) -> None:
        walls: dict[str, list[float]] = {variant: [] for variant in variants}
        work: dict[str, list[float]] = {variant: [] for variant in variants}
        results: dict[str, Result] = {}
        order, rng = list(variants), random.Random(0)
        for turn in range(self.repeats + 2):
            # What comes before a call counts: what it left in the caches and on the heap.
            rng.shuffle(order)
            for variant in order:
                wall, cpu = time.perf_counter(), time.process_time()
                results[variant] = variants[variant](request)
                if turn >= 2:
                    walls[variant].append(time.perf_counter() - wall)
                    work[variant].append(time.process_time() - cpu)
        print(f"{name:26}{'ms':>8}{'least':>8}{'ratio':>8}{'CPU ms':>8}{'ratio':>8}{'differs':>10}")
        for variant in variants:
            figures = []
            for times in (walls, work):
                ratios = [a / b for a, b in zip(times[variant], times["before"], strict=True)]
                figures.append((1000 * statistics.median(times[variant]), statistics.median(ratios)))
            (wall, ratio), (cpu, cpu_ratio) = figures
            least = 1000 * min(walls[variant])
            differs = difference(results[variant], results["before"])
            print(f"  {variant:24}{wall:8.1f}{least:8.1f}{ratio:8.2f}{cpu:8.1f}{cpu_ratio:8.2f}{differs:10.1e}")


def variants_of(model: Model) -> dict[str, Callable[[Request], Result]]:
    """Calls with none, one and all of the parts."""

    def with_parts(*parts: str) -> Callable[[Request], Result]:
        def call(request: Request) -> Result:
            with without([part for part in PARTS if part not in parts]):
                return run(model, request, envelope=None)

        return call

    return {"before": with_parts(), **{part: with_parts(part) for part in PARTS}, "now": with_parts(*PARTS)}


@contextmanager
def without(parts: list[str]) -> Iterator[None]:
    """Undo some of the parts."""
    with ExitStack() as stack:
        if "last block" in parts:
            stack.enter_context(patch.object(mot.Block, "generate", generate_all))
        if "in place" in parts:
            for module in (mot, autoencoder):
                stack.enter_context(patch.object(module, "F", _Copying))
        yield


class _Copying:
    """`torch.nn.functional`, as far as it is used on the way, with a relu that never works in place."""

    linear, silu = F.linear, F.silu

    @staticmethod
    def relu(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        return F.relu(x)


_GENERATE = mot.Block.generate


def generate_all(
    self: mot.Block, x: torch.Tensor, *args: object, only: mot.Asked | None = None, **kwargs: object
) -> torch.Tensor:
    """A block that works for every token, also where only some are needed."""
    out = _GENERATE(self, x, *args, **kwargs)  # type: ignore[arg-type]
    return out if only is None else out[only.tokens]


def experiments_of(model: Model, checkpoint: str) -> dict[str, Callable[[Request], Result]]:
    """Calls that are not what `run` makes by itself."""
    half = load(checkpoint, dtype="bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = deepcopy(model.mot)
        # The blocks alone: others read the weights of their layers.
        plain.blocks = torch.ao.quantization.quantize_dynamic(plain.blocks, {torch.nn.Linear}, torch.qint8)
        eight = replace(model, mot=plain)
    copied = deepcopy(model.mot)
    compiled = replace(model, mot=copied, denoiser=Denoiser(copied, compiled=True))
    for name in ROWS:
        request = calls(model)[name]
        assert isinstance(request, Request)
        began = time.perf_counter()
        run(compiled, request, envelope=None)
        print(f"first call of the compiled denoiser, {name}: {time.perf_counter() - began:.1f} s")
    return {
        "denoiser, compiled": lambda request: run(compiled, request, envelope=None),
        "bfloat16": lambda request: run(half, request, envelope=None),
        "8-bit weights": lambda request: run(eight, request, envelope=None),
    }


def difference(a: Result, b: Result) -> float:
    """Of all latents, the largest."""
    return max(float((a.latents[kind].float() - b.latents[kind].float()).abs().max()) for kind in b.latents)


if __name__ == "__main__":
    tyro.cli(CpuCalls)()
