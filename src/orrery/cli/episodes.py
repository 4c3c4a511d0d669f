"""`orrery episodes`: record episodes of the factory cell in the form that `orrery train --shards` reads."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orrery.errors import SettingsError


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
        try:
            from orrery.worlds.factory.shard_folder import ShardFolder
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"{error.name} is not installed. Install the extra: pip install 'orrery[worlds]'."
            ) from None
        folder = ShardFolder(
            out=self.out,
            split=self.split,
            first=self.first,
            count=self.count,
            sound=self.sound,
            questions=self.questions,
        )
        folder.record(self.workers, lambda line: print(line, file=sys.stderr, flush=True))
        print(f"{self.out} holds the episodes {self.first} to {self.first + self.count - 1} of {self.split}.")
