"""`orrery episodes`: record episodes of the factory cell in the form that `orrery train --shards` reads."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orrery.errors import DatasetError, SettingsError

TOGETHER = 100
"""Records of a file at most."""
SETTINGS = "episodes.json"


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Simulate episodes to train on, in files of at most 100; a killed call goes on, and any number of workers writes
    the same bytes.

    OUT gets SPLIT-FIRST-END.npz for the records from FIRST up to END, and episodes.json. More can be added later, from
    another first on.
    """

    out: Path
    """New folder, or one of an earlier call with the same split, sound and questions."""
    split: Literal["train", "validation", "test"] = "train"
    """Which records there are to make; docs/factory.md describes the splits."""
    first: int = 0
    """Index of the first record."""
    count: int = 400
    """How many."""
    workers: int = 1
    """Processes that simulate."""
    sound: bool = True
    """With sound, which costs a third more time and most of the bytes."""
    questions: bool = True
    """With questions, of which about half of the records have some."""

    def __call__(self) -> None:
        if self.count < 1 or self.workers < 1:
            raise SettingsError(f"count and workers must be 1 or more, got {self.count} and {self.workers}.")
        try:
            from orrery.worlds.factory.mixture import spec_of
            from orrery.worlds.factory.shards import write_shard
            from orrery.worlds.factory.stream import stream
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{error.name} is not installed. Install the extra: pip install 'orrery[worlds]'."
            ) from None
        for index in (self.first, self.first + self.count - 1):
            spec_of(index, self.split)
        self._settle()
        missing = [part for part in self._parts() if not self._whole(part)]
        done = self.count - sum(len(part) for part in missing)
        for run in neighbours(missing):
            begin, waiting = run[0].start, {}
            with stream(begin, self.workers, split=self.split, sound=self.sound, questions=self.questions) as live:
                for part in run:
                    while any(index not in waiting for index in part):
                        record = next(live)
                        waiting[record.index] = record
                    write_shard(self._file(part), [waiting.pop(index) for index in part])
                    done += len(part)
                    print(f"{done} of {self.count} episodes", file=sys.stderr, flush=True)
        print(f"{self.out} holds the episodes {self.first} to {self.first + self.count - 1} of {self.split}.")

    def _parts(self) -> list[range]:
        """The records of each file."""
        end = self.first + self.count
        return [range(begin, min(begin + TOGETHER, end)) for begin in range(self.first, end, TOGETHER)]

    def _file(self, part: range) -> Path:
        return self.out / f"{self.split}-{part.start:08}-{part.stop:08}.npz"

    def _whole(self, part: range) -> bool:
        """Whether a file is there and holds what it should; a damaged one is made again."""
        from orrery.worlds.factory.shards import read_shard

        if not self._file(part).exists():
            return False
        try:
            return [record.index for record in read_shard(self._file(part))] == list(part)
        except DatasetError as error:
            print(f"orrery: warning: {error}", file=sys.stderr)
            return False

    def _settle(self) -> None:
        """Raise unless the folder is new or was begun with the same settings, and its files go with those to come."""
        from orrery.weights.atomic import write_atomic

        document = {"version": 1, "split": self.split, "sound": self.sound, "questions": self.questions}
        settings = self.out / SETTINGS
        if settings.is_file():
            found = json.loads(settings.read_text())
            if found != document:
                raise SettingsError(
                    f"{self.out} holds episodes made with {found}, asked for is {document}. Give another."
                )
        elif self.out.exists() and any(self.out.iterdir()):
            raise SettingsError(f"{self.out} holds something else than episodes. Give a new folder.")
        own = {self._file(part).name for part in self._parts()}
        asked = range(self.first, self.first + self.count)
        for file in sorted(self.out.glob(f"{self.split}-*.npz")):
            named = re.fullmatch(rf"{self.split}-(\d+)-(\d+)\.npz", file.name)
            if file.name not in own and named and int(named[1]) < asked.stop and asked.start < int(named[2]):
                raise SettingsError(
                    f"{file} holds some of the episodes {asked.start} to {asked.stop - 1} already. "
                    f"Go on from --first {int(named[2])}, or give another folder."
                )
        write_atomic(settings, (json.dumps(document) + "\n").encode())


def neighbours(parts: list[range]) -> Iterator[list[range]]:
    """Runs of parts of which each begins where the one before it ends."""
    run: list[range] = []
    for part in parts:
        if run and run[-1].stop != part.start:
            yield run
            run = []
        run.append(part)
    if run:
        yield run
