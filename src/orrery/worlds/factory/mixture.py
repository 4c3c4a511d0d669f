"""Which records there are to train on: record k of a split is a pure function of k, whoever makes it.

Seeds, apart from those of the datasets and benchmarks in docs/factory.md (1 to 4 and 9 million on):

| Split | Seeds | Pairs | Phrasings | Look |
| --- | --- | --- | --- | --- |
| train | 10,000,000 to 19,999,999 | train | train | a tenth of them drawn, the others that of the evaluation |
| validation | 20,000,000 to 29,999,999 | train | train | that of the evaluation |
| test | 30,000,000 to 39,999,999 | train or held out, 100 records in turn | test | that of the evaluation |

A hundred records hold the shares of MIX exactly, in any order; over 700 each share has every task equally often.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from orrery.errors import SettingsError
from orrery.worlds.factory.behaviours import BRANCHES, behaviour
from orrery.worlds.factory.plan import EpisodeSpec
from orrery.worlds.factory.tasks import TASKS, Pairs

StreamSplit = Literal["train", "validation", "test"]
FIRST_SEED: dict[StreamSplit, int] = {"train": 10_000_000, "validation": 20_000_000, "test": 30_000_000}
SEEDS = 10_000_000
"""Of each split."""
CLEARANCES_M = (0.003, 0.001, 0.0003)
BLOCK = 100
LOOKS = 0.1
"""Share of the training records whose colours, light and camera places are drawn."""
QUESTIONED = 0.5
"""Share of the records that have questions, ..."""
FORESEEN = 0.25
"""... and of those the share that also has questions about what would be, which are played out and so cost most."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One row of MIX."""

    records: int
    """Of a BLOCK."""
    behaviours: tuple[str, ...]
    """One of these, each as likely; those about pegs only where the task has one."""
    branches: tuple[str, ...] = ()
    """Records come in groups that go on from one state in each of these ways."""


MIX = (
    Share(records=35, behaviours=("bursts",)),
    Share(records=12, behaviours=("expert",)),
    Share(records=12, behaviours=("noise_0.1", "noise_0.25", "noise_0.5", "noise_1")),
    Share(records=6, behaviours=("late_gripper", "wrong_part", "biased")),
    Share(records=15, behaviours=("play",)),
    Share(records=8, behaviours=("goals",)),
    Share(records=12, behaviours=("expert",), branches=BRANCHES),
)
assert sum(row.records for row in MIX) == BLOCK
assert all(row.records % max(1, len(row.branches)) == 0 for row in MIX)


@dataclass(frozen=True, kw_only=True)
class RecordSpec:
    """One record to be made. Everything in it follows from these values."""

    index: int
    split: StreamSplit
    episode: EpisodeSpec
    group: int
    """Index of the first record that begins in the same state; its own where it is alone."""
    pairs: Pairs
    words: Literal["train", "test"]
    """Whose phrasings are used."""
    random_look: bool
    questions: bool
    foresight: bool
    """Questions about what would be are among them."""


def spec_of(index: int, split: StreamSplit) -> RecordSpec:
    """Record `index` of a split.

    Raises:
        SettingsError: an index without a seed.
    """
    if not 0 <= index < SEEDS:
        raise SettingsError(f"Records of {split} are numbered from 0 to {SEEDS - 1}, got {index}.")
    block, place = divmod(index, BLOCK)
    first = FIRST_SEED[split]
    # Slots of a block: the rows of MIX one after the other. Where each is in the block is drawn.
    places = np.random.default_rng([first, block]).permutation(BLOCK)
    slot = int(np.flatnonzero(places == place)[0])
    begin = 0
    for row in MIX:
        if slot < begin + row.records:
            break
        begin += row.records
    each = max(1, len(row.branches))
    member = (slot - begin) % each
    mates = places[slot - member : slot - member + each]
    group = block * BLOCK + int(mates.min())
    task = list(TASKS)[((slot - begin) // each + block) % len(TASKS)]
    seed = first + group
    rng = np.random.default_rng([seed, 30])
    able = [name for name in row.behaviours if task == "peg_insert" or not behaviour(name).slip_m]
    who = able[int(rng.integers(len(able)))]
    random_look = bool(rng.random() < LOOKS) and split == "train"
    own = np.random.default_rng([first + index, 31])
    questions = bool(own.random() < QUESTIONED)
    return RecordSpec(
        index=index,
        split=split,
        episode=EpisodeSpec(seed=seed, task=task, behaviour=who, branch=row.branches[member] if row.branches else None),
        group=group,
        pairs="held_out" if split == "test" and block % 2 else "train",
        words="test" if split == "test" else "train",
        random_look=random_look,
        questions=questions,
        foresight=questions and bool(own.random() < FORESEEN),
    )
