"""`orrery data`: look at recorded datasets. The checks are in `data.check`."""

import json as json_format
from dataclasses import dataclass
from typing import Annotated, Union

import tyro

from orrery.cli.progress import progress


@dataclass(frozen=True, kw_only=True)
class Check:
    """Look for faults in a LeRobot v3.0 folder; the exit code is 1 if one of them is an error."""

    dataset: tyro.conf.Positional[str]
    """The folder that holds meta/."""
    against: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another dataset, which must share no episode with this one. Can be given several times."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> None:
        from orrery.data.check import check_dataset

        with progress("Checking") as tell:
            report = check_dataset(self.dataset, against=self.against, tell=tell)
        print(json_format.dumps(report.to_json(), indent=2) if self.json else report.to_text())
        if report.count("error"):
            raise SystemExit(1)


# A choice of one is none to tyro, which would then leave the word `check` out; the second, hidden one keeps it.
Command = Union[Annotated[Check, tyro.conf.subcommand("check")], Annotated[None, tyro.conf.Suppress]]  # noqa: UP007


def data(command: tyro.conf.OmitSubcommandPrefixes[Command]) -> Check:
    """Look at recorded datasets."""
    assert command is not None
    return command
