"""What happened in an attempt, in words: a label, a sentence, or an account with times. True by construction.

Everything said is read from the attempt: the outcome from `success` and `failure`, the account from its events. Nothing
is said about intentions but the order itself.
"""

from itertools import groupby
from typing import Literal

import numpy as np

from orrery.worlds.factory.cell import CONTROL_HZ
from orrery.worlds.factory.parts import KINDS
from orrery.worlds.factory.questions.drafts import Rng
from orrery.worlds.factory.questions.phrasings import Phrasings
from orrery.worlds.factory.questions.timed import REASONS
from orrery.worlds.factory.rollout import Attempt
from orrery.worlds.factory.tasks import TASKS

Level = Literal["label", "sentence", "dense"]
LEVELS: tuple[Level, ...] = ("label", "sentence", "dense")

WORK = {
    "belt_pick": "picking a part off a belt",
    "belt_sort": "sorting parts into two bins",
    "kit_fill": "filling a kit tray",
    "peg_insert": "inserting a peg",
    "stack": "stacking parts",
    "inspect_reject": "rejecting a cracked part",
    "press_start": "starting the cell",
}
"""Task -> what is to be done, as a label has it."""
LABELS = Phrasings(
    train=("{work}: {outcome}", "factory cell, {work}, {outcome}", "{outcome}: {work}"),
    test=("a robot {work} ({outcome})", "{work} in a factory cell, {outcome}"),
)
SENTENCES = Phrasings(
    train=(
        "A gripper in a factory cell with {things} is told: {order} {ending}",
        "{Things} are in a factory cell. The order is: {order} {ending}",
        "In a cell with {things} a robot gets this order: {order} {ending}",
    ),
    test=(
        'Told "{order}", a robot works among {things}. {ending}',
        "The scene holds {things}; what is wanted: {order} {ending}",
    ),
)
ENDINGS = Phrasings(
    train=("It succeeds.", "The order is carried out.", "In the end that is done."),
    test=("It does so.", "The work gets done."),
)
FAILED = Phrasings(
    train=("It fails: {why}.", "The order is not carried out: {why}.", "In the end that is not done, since {why}."),
    test=("It does not: {why}.", "The work does not get done; {why}."),
)
TIMES = Phrasings(
    train=("At {time} s {event}.", "{Event} at {time} s.", "After {time} s {event}."),
    test=("{Event}, {time} s after the beginning.", "Second {time}: {event}."),
)
HAPPENED = {
    "grasped": "it grasps {thing}",
    "released": "it lets {thing} go",
    "pressed": "it presses {thing}",
    "lamp_on": "the lamp goes on",
    "lamp_off": "the lamp goes off",
    "belt_started": "the belt starts",
    "belt_stopped": "the belt stops",
}
"""Kind of an event -> what happens."""
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def caption(attempt: Attempt, rng: Rng, *, level: Level, split: Literal["train", "test"]) -> str:
    """One caption. The same for the same attempt and generator; phrasings of "test" never occur in "train"."""
    held_out = split == "test"
    if level == "label":
        outcome = "done" if attempt.success else "failed"
        return _drawn(LABELS, rng, held_out).format(work=WORK[attempt.job.task], outcome=outcome)
    if level == "sentence":
        return _sentence(attempt, rng, held_out)
    lines = [_sentence(attempt, rng, held_out)]
    pattern = _drawn(TIMES, rng, held_out)
    for time_s, event in happenings(attempt):
        lines.append(pattern.format(time=f"{time_s:.1f}", event=event, Event=event[0].upper() + event[1:]))
    return " ".join(lines)


def happenings(attempt: Attempt) -> list[tuple[float, str]]:
    """Seconds since the first moment, and what happened. A grip that slips and closes again at once is one grip."""
    if not attempt.reports:
        return []
    zero_s = attempt.reports[0].motion.start_s
    told: list[tuple[float, str, str]] = []
    for event in attempt.events:
        if event.kind not in HAPPENED:
            continue
        at_s = event.time_s - zero_s
        last = next((row for row in reversed(told) if row[2] == event.subject), None)
        if event.kind == "grasped" and last and last[1] == "released" and at_s - last[0] < 4.5 / CONTROL_HZ:
            told.remove(last)
            continue
        told.append((at_s, event.kind, event.subject))
    return [(at_s, HAPPENED[kind].format(thing=thing_words(attempt, subject))) for at_s, kind, subject in told]


def thing_words(attempt: Attempt, subject: str) -> str:
    """How a body is called; "one of" where several parts look the same."""
    if not subject.startswith("part_"):
        return f"the {subject.removeprefix('button_')} button" if subject.startswith("button_") else f"the {subject}"
    parts = [placed.part for placed in attempt.job.layout.parts]
    part = parts[int(subject.removeprefix("part_"))]
    if part.cracked:
        return f"the cracked {part.words}"
    same = sum(other.words == part.words and not other.cracked for other in parts)
    return f"the {part.words}" if same == 1 else f"one of the {part.finish} {KINDS[part.kind].plural}"


def things(attempt: Attempt) -> str:
    """The parts of the cell, counted: "two red cubes and one steel peg"."""
    rows = sorted((placed.part.cracked, placed.part.finish, placed.part.kind) for placed in attempt.job.layout.parts)
    counted = []
    for (cracked, finish, kind), same in groupby(rows):
        count = len(list(same))
        name = KINDS[kind].plural if count > 1 else kind
        counted.append(f"{NUMBERS[count]} {'cracked ' if cracked else ''}{finish} {name}")
    return counted[0] if len(counted) == 1 else f"{', '.join(counted[:-1])} and {counted[-1]}"


def _sentence(attempt: Attempt, rng: Rng, held_out: bool) -> str:
    if attempt.success:
        ending = _drawn(ENDINGS, rng, held_out)
    else:
        ending = _drawn(FAILED, rng, held_out).format(why=REASONS[attempt.failure])
    row = TASKS[attempt.job.task]
    known = len(row.phrasings)
    order = attempt.job.instruction(
        known + int(rng.integers(len(row.held_out_phrasings))) if held_out else int(rng.integers(known))
    )
    present = things(attempt)
    pattern = _drawn(SENTENCES, rng, held_out)
    return pattern.format(things=present, Things=present[0].upper() + present[1:], order=order, ending=ending)


def _drawn(rows: Phrasings, rng: np.random.Generator, held_out: bool) -> str:
    pool = rows.test if held_out else rows.train
    return pool[int(rng.integers(len(pool)))]
