"""`orrery data`: look at recorded datasets. The checks are in `data.check`, the page in `evaluation.episode_page`."""

import json as json_format
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True, kw_only=True)
class Show:
    """Make one HTML page about one episode: videos, a timeline, and what was recorded beside them."""

    dataset: tyro.conf.Positional[Path]
    """The folder that holds meta/."""
    episode: int
    """Which one, counted from 0."""
    out: Path | None = None
    """HTML file to write; episode-K.html in this folder if left out."""

    def __call__(self) -> None:
        from orrery.data.lerobot import open_dataset
        from orrery.evaluation.episode_page import write_episode_page

        out = self.out or Path(f"episode-{self.episode}.html")
        dataset = open_dataset(self.dataset, cameras="available")
        with progress("Encoding") as tell:
            write_episode_page(out, dataset, self.episode, tell=tell)
        print(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB).")


Command = Union[  # noqa: UP007 - tyro reads it
    Annotated[Check, tyro.conf.subcommand("check")], Annotated[Show, tyro.conf.subcommand("show")]
]


def data(command: tyro.conf.OmitSubcommandPrefixes[Command]) -> Check | Show:
    """Look at recorded datasets."""
    return command
