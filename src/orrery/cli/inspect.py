"""`orrery inspect`: say what a checkpoint is and what it can do. The report is made in `runtime.report`."""

import json as json_format
from dataclasses import dataclass

import tyro


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Print a checkpoint's sizes, tasks, contracts and licence."""

    checkpoint: tyro.conf.Positional[str]
    """A local folder or a hub id."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> None:
        from orrery.runtime.report import report

        found = report(self.checkpoint)
        print(json_format.dumps(found.to_json(), indent=2) if self.json else found.to_text())
