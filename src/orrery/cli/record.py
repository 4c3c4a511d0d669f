"""`orrery record`: make the datasets of a plan. The work is in `worlds.factory.record`."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orrery.errors import SettingsError

EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """Simulate, film and describe the episodes of a plan, one LeRobot v3.0 dataset a split; a killed call goes on."""

    plan: Path
    """TOML file that says which episodes there are."""
    out: Path
    """New folder, or one of an earlier call with the same plan."""
    world: Literal["factory"] = "factory"
    """The world that is recorded."""
    workers: int = 1
    """Processes. Any number writes the same bytes."""
    ray: str | None = None
    """Work on a Ray cluster at this address, which sees `out` under the same path; "local" starts one of this machine
    alone."""

    def __call__(self) -> None:
        if not 1 <= self.workers <= 4096:
            raise SettingsError(f"workers must be from 1 to 4096, got {self.workers}.")
        try:
            from orrery.worlds.factory.plan import read_plan
            from orrery.worlds.factory.record import record
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{error.name} is not installed. Install the extra: pip install 'orrery[worlds]'."
            ) from None
        summary = record(read_plan(self.plan), self.out, workers=self.workers, ray=self.ray, tell=_Pace())
        for name, split in summary["splits"].items():
            print(
                f"{name}: {split['episodes']} episodes, {split['frames']} frames, {split['successes']} successes, "
                f"sha256 {split['sha256']}"
            )


class _Pace:
    """Tells on stderr how far it is, how many episodes an hour are made, and how long it will take."""

    def __init__(self) -> None:
        self.begun_s = self.told_s = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if (now - self.told_s < EVERY_S and done < total) or done == self.first:
            return
        self.told_s = now
        hourly = (done - self.first) / (now - self.begun_s) * 3600
        left = time.strftime("%H:%M:%S", time.gmtime((total - done) / hourly * 3600))
        print(f"{done} of {total} episodes, {hourly:.0f} an hour, {left} left", file=sys.stderr, flush=True)
