"""`orrery inspect`: say what a checkpoint is and what it can do. The facts are gathered in `runtime.report`."""

import json as json_format
from dataclasses import dataclass

import tyro

from orrery.cli.progress import progress


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Print a checkpoint's sizes, tasks, contracts, hashes and licence, and what of it was checked."""

    checkpoint: tyro.conf.Positional[str]
    """A local folder, the name of one that comes with the package, or a hub id."""
    json: bool = False
    """Print JSON, for programs."""
    device: str = "cpu"
    """Where the numeric self-test runs: cpu, cuda, cuda:1, ..."""
    dtype: str = "float32"
    """Number format of the self-test: float32, bfloat16 or float16."""
    verify: bool = True
    """Read every weight file for its hash."""

    def __call__(self) -> None:
        from orrery.runtime.report import report

        with progress("Hashing") as tell:
            found = report(self.checkpoint, device=self.device, dtype=self.dtype, verify=self.verify, progress=tell)
        print(json_format.dumps(found.to_json(), indent=2) if self.json else found.to_text())
