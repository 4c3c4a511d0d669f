"""Folders of training records in files of a settled number each, that a killed recording goes on with."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orrery.errors import DatasetError, SettingsError
from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.mixture import StreamSplit, spec_of
from orrery.worlds.factory.shards import read_shard, write_shard
from orrery.worlds.factory.stream import stream

TOGETHER = 100
"""Records of a file at most."""
SETTINGS = "episodes.json"
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ShardFolder:
    """Records `first` up to `first + count` of a split, in SPLIT-FIRST-END.npz beside episodes.json.

    More can be added later, from another first on.
    """

    out: Path
    split: StreamSplit
    first: int
    count: int
    sound: bool
    questions: bool

    def record(self, workers: int, tell: Tell) -> None:
        """Make the files that are missing, the same bytes with any number of processes; `tell` hears how far it is.

        Raises:
            SettingsError: numbers out of range, or a folder that was begun otherwise.
            DatasetError: a worker ended.
        """
        if self.count < 1 or workers < 1:
            raise SettingsError(f"count and workers must be 1 or more, got {self.count} and {workers}.")
        for index in (self.first, self.first + self.count - 1):
            spec_of(index, self.split)
        self._settle()
        missing = [part for part in self._parts() if not self._whole(part, tell)]
        done = self.count - sum(len(part) for part in missing)
        for run in neighbours(missing):
            begin, waiting = run[0].start, {}
            with stream(begin, workers, split=self.split, sound=self.sound, questions=self.questions) as live:
                for part in run:
                    while any(index not in waiting for index in part):
                        record = next(live)
                        waiting[record.index] = record
                    write_shard(self._file(part), [waiting.pop(index) for index in part])
                    done += len(part)
                    tell(f"{done} of {self.count} episodes")

    def _parts(self) -> list[range]:
        """The records of each file."""
        end = self.first + self.count
        return [range(begin, min(begin + TOGETHER, end)) for begin in range(self.first, end, TOGETHER)]

    def _file(self, part: range) -> Path:
        return self.out / f"{self.split}-{part.start:08}-{part.stop:08}.npz"

    def _whole(self, part: range, tell: Tell) -> bool:
        """Whether a file is there and holds what it should; a damaged one is made again."""
        if not self._file(part).exists():
            return False
        try:
            return [record.index for record in read_shard(self._file(part))] == list(part)
        except DatasetError as error:
            tell(f"warning: {error}")
            return False

    def _settle(self) -> None:
        """Raise unless the folder is new or was begun with the same settings, and its files go with those to come."""
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
