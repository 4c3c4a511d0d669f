"""`orrery bench`: how long a checkpoint takes on this machine. What is measured is in `runtime.bench`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from orrery.errors import SettingsError
from orrery.runtime.speed import Name


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure loading, an answer, a policy's call, an imagined chunk and memory."""

    checkpoint: tyro.conf.Positional[str] = "pico"
    """A local folder, the name of one that comes with the package, or a hub id."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """Number format of the network: float32, bfloat16 or float16."""
    speed: Name | None = None
    """How to sample: plain; fast, which is exact to rounding; fp8 or 8bit, which are approximate. Left out, it is fast
    on a GPU in bfloat16 and plain elsewhere."""
    threads: int | None = None
    """CPU threads; as many as there are cores if left out."""
    repeats: int = 5
    """Calls of each kind after the first one."""
    out: Path | None = None
    """JSON file to write the figures to; nothing is overwritten."""

    def __call__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise SettingsError(f"threads must be from 1 to 1024, got {self.threads}. Leave it out for all cores.")
        if self.out is not None and self.out.exists():
            raise SettingsError(f"{self.out} exists, and nothing is overwritten. Give a new name.")
        import torch

        from orrery.runtime.bench import bench
        from orrery.weights.atomic import write_atomic
        from orrery.weights.documents import dump_json

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        found = bench(self.checkpoint, device=self.device, dtype=self.dtype, speed=self.speed, repeats=self.repeats)
        print(found.to_text())
        if self.out is not None:
            write_atomic(self.out, dump_json(found.to_json()))
