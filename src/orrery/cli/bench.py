"""`orrery bench`: how long a checkpoint takes on this machine, or a released shape without one.

What is measured is in `runtime.bench` and in `runtime.family.bench`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from orrery.errors import SettingsError
from orrery.runtime.speed import Name


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure loading, an answer, a policy's call, an imagined chunk and memory of a checkpoint.

    With --family: the network of a released shape with random weights, its forward passes, whole sampling, reading and
    writing, beside independent implementations if asked for.
    """

    checkpoint: tyro.conf.Positional[str | None] = None
    """A local folder, the name of one that comes with the package, or a hub id; pico if left out."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: str | None = None
    """Number format of the network: float32, bfloat16 or float16. Left out: float32, and bfloat16 for a family on a
    GPU."""
    speed: Name | None = None
    """How to sample: plain; fast, which is exact to rounding; fp8 or 8bit, which are approximate. Left out, it is fast
    on a GPU in bfloat16 and plain elsewhere."""
    threads: int | None = None
    """CPU threads; as many as there are cores if left out."""
    repeats: int = 5
    """Calls of each kind after the first one."""
    out: Path | None = None
    """JSON file to write the figures to; nothing is overwritten."""
    family: Literal["tiny", "edge", "nano", "super"] | None = None
    """A released shape to measure instead of a checkpoint; the settings below are for it."""
    against: tuple[Literal["diffusers", "transformers"], ...] = ()
    """Independent implementations to measure in turn with ours, with the same weights."""
    variants: tuple[Literal["plain", "exact", "fp8", "8bit"], ...] = ("plain", "exact")
    """Ours: as the model is, made fast, with products in 8 bits (half as much memory again), with attention too."""
    rows: tuple[str, ...] = ()
    """What is measured, by name or its beginning: forward, sampling/policy-17, forward/video-720p; everything if left
    out."""
    warm_up: int = 3
    """Calls of each kind before any is timed."""
    whole: bool = False
    """Sample videos of 480p and 720p to their end; left out, the time of it is worked out from one pass."""
    seed: int = 0
    """Of weights, noise and text."""

    def __call__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise SettingsError(f"threads must be from 1 to 1024, got {self.threads}. Leave it out for all cores.")
        if self.out is not None and self.out.exists():
            raise SettingsError(f"{self.out} exists, and nothing is overwritten. Give a new name.")
        if self.family is not None and self.checkpoint is not None:
            raise SettingsError(
                f"A checkpoint and a family exclude each other, got {self.checkpoint!r} and {self.family!r}. "
                "Leave one out."
            )
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.family is None:
            self._measure_checkpoint()
        else:
            self._measure_family(self.family)

    def _measure_checkpoint(self) -> None:
        from orrery.runtime.bench import bench

        if self.against or self.rows or self.whole:
            raise SettingsError("against, rows and whole belong to a family, and none was given. Add --family nano.")
        found = bench(
            self.checkpoint or "pico",
            device=self.device,
            dtype=self.dtype or "float32",
            speed=self.speed,
            repeats=self.repeats,
        )
        print(found.to_text())
        self._write(found.to_json())

    def _measure_family(self, family: Literal["tiny", "edge", "nano", "super"]) -> None:
        if self.speed is not None:
            raise SettingsError(f"speed belongs to a checkpoint, got {self.speed!r}. A family takes --variants.")
        from orrery.runtime.family.bench import bench_family
        from orrery.runtime.family.report import FamilyBench, Settings

        settings = Settings(
            family=family,
            device=self.device,
            dtype=self.dtype or ("bfloat16" if self.device.startswith("cuda") else "float32"),
            variants=self.variants,
            against=self.against,
            rows=self.rows,
            repeats=self.repeats,
            warm_up=self.warm_up,
            whole=self.whole,
            seed=self.seed,
        )

        def report(found: FamilyBench) -> None:
            print(found.newest(), end="\n\n", flush=True)
            # After every row: what is cut off keeps what it has.
            self._write(found.to_json())

        bench_family(settings, report)

    def _write(self, document: dict[str, Any]) -> None:
        from orrery.weights.atomic import write_atomic
        from orrery.weights.documents import dump_json

        if self.out is not None:
            write_atomic(self.out, dump_json(document))
