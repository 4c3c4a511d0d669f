"""`orrery inspect`: say what a checkpoint is and what it can do. The facts are gathered in `runtime.describe`."""

import json as json_format
from dataclasses import dataclass
from typing import Literal

import tyro

from orrery.cli.progress import progress


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Print a checkpoint's sizes, tasks, contracts and licence, after reading and testing all of it."""

    checkpoint: tyro.conf.Positional[str]
    """A local folder or a hub id."""
    json: bool = False
    """Print JSON, for programs."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, ..."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the network."""

    def __call__(self) -> None:
        from orrery.runtime.describe import as_text, describe
        from orrery.runtime.load import load

        with progress("Loading") as report:
            model = load(self.checkpoint, device=self.device, dtype=self.dtype, report=report)
        facts = describe(model)
        print(json_format.dumps(facts, indent=2) if self.json else as_text(facts))
