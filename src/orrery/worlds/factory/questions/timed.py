"""Questions about stretches of time: how the belt moves, what comes next, when, with what outcome and why."""

from collections.abc import Iterator

import numpy as np

from orrery.worlds.factory.cell import CONTROL_HZ
from orrery.worlds.factory.experts import PHASES
from orrery.worlds.factory.goals import FAILURES
from orrery.worlds.factory.layout import BELT_Y_M
from orrery.worlds.factory.questions.drafts import Draft, Rng, any_of, contrast, shuffled, span
from orrery.worlds.factory.questions.sights import Witness, alone
from orrery.worlds.factory.render import project
from orrery.worlds.factory.rollout import Attempt
from orrery.worlds.factory.tasks import TASKS

BELT = ("to the left", "to the right", "it stands still")
BELT_STEPS = 20
BELT_ACROSS = 0.03
"""Shares of the picture's width that the belt must move within BELT_STEPS to be asked about."""
PHASE_WORDS = {
    "approach": "move over to a part or button",
    "descend": "go down to a part",
    "grasp": "close the fingers on a part",
    "lift": "lift a part",
    "carry": "carry a part sideways",
    "align": "line a peg up with the hole",
    "insert": "push a peg into the hole",
    "lower": "lower a part",
    "release": "let a part go",
    "press": "press a button",
    "retreat": "move up and away",
    "wait": "wait",
}
assert set(PHASE_WORDS) == set(PHASES)
NEXT_BEFORE, NEXT_AFTER = 10, 2
"""Steps that are shown before the question, and for which the answer must hold after it."""
WHEN_STEPS = 24
QUARTER = WHEN_STEPS // 4
QUARTERS = tuple(f"{k * QUARTER / CONTROL_HZ:.1f} to {(k + 1) * QUARTER / CONTROL_HZ:.1f} s" for k in range(4))
EDGE_STEPS = 1
"""An event this near to the edge of a quarter is not asked about."""
WHEN_S = 0.1
OUTCOME_STEPS = 60
REASONS = {
    "fell_off": "the part fell off the bench",
    "reached_end": "the part reached the end of the belt",
    "wrong_part": "it took a part that was not meant",
    "wrong_button": "it pressed the other button",
    "knocked_over": "the part fell over",
    "jammed": "the peg is stuck in the rim of the hole",
    "wrong_place": "the part was left in the wrong place",
    "dropped": "it dropped the part",
    "missed": "the gripper closed beside the part",
    "not_finished": "time was up before it was done",
}
"""A word of FAILURES -> what is answered."""
assert set(REASONS) == set(FAILURES)
WHY: dict[str, tuple[str, ...]] = {
    "belt_pick": ("wrong_part", "missed", "reached_end"),
    "belt_sort": ("not_finished", "reached_end", "wrong_place"),
    "kit_fill": ("not_finished", "wrong_part", "missed"),
    "peg_insert": ("knocked_over", "jammed", "wrong_part"),
    "stack": ("not_finished", "wrong_part", "missed"),
    "inspect_reject": ("not_finished", "wrong_part", "missed"),
    "press_start": ("not_finished", "wrong_button", "wrong_part"),
}
"""The failures of each task that are common enough to be asked for."""


def belt(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """Which way the belt runs across the picture."""
    moments, cell = witness.attempt.moments, witness.cell
    if len(moments) <= BELT_STEPS:
        return
    for wanted in shuffled(rng, ("moving", "still")):
        for start in rng.integers(0, len(moments) - BELT_STEPS, 6):
            window = moments[start : start + BELT_STEPS + 1]
            speeds = {moment.state.memory.belt_m_s for moment in window}
            if len(speeds) != 1 or (speeds == {0.0}) != (wanted == "still"):
                continue
            (speed,) = speeds
            camera = any_of(rng, [name for name in witness.cameras if name != "wrist"])
            witness.at(int(start))
            ends = np.array([[0.0, BELT_Y_M, 0.02], [speed * BELT_STEPS / CONTROL_HZ, BELT_Y_M, 0.02]])
            seen = project(cell.model, cell.data, camera, ends, 1, 1)
            across = float(seen[1, 0] - seen[0, 0])
            if speed and abs(across) < BELT_ACROSS:
                continue
            answer = BELT[2] if not speed else BELT[0] if across < 0 else BELT[1]
            yield span("belt", answer, tuple(shuffled(rng, BELT)), int(start), int(start) + BELT_STEPS, camera=camera)
            break


def next_action(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """What an expert goes over to at this moment, where the one who acts does as an expert does.

    What else the attempt has are the other choices, and which of them is asked for is drawn: none is likelier.
    """
    moments = witness.attempt.moments
    able = np.array([np.abs(moment.action - moment.expert).max() < 0.02 for moment in moments])
    phases = [moment.phase for moment in moments]
    found = [
        (PHASE_WORDS[phases[f]], f)
        for f in range(NEXT_BEFORE, len(moments) - NEXT_AFTER)
        if phases[f] != phases[f - 1]
        and len({*phases[f : f + NEXT_AFTER]}) == 1
        and able[f - NEXT_BEFORE : f + NEXT_AFTER].all()
    ]
    for _ in range(4):
        drawn = contrast(rng, found)
        if drawn is not None:
            answer, frame, choices = drawn
            yield span("next_action", answer, choices, frame - NEXT_BEFORE + 1, frame + 1)


def when(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """The time of an event in a window around it: in seconds, or as one of four stretches."""
    attempt = witness.attempt
    steps = len(attempt.moments)
    if steps < WHEN_STEPS:
        return
    told = [
        (kind, words, round(time_s * CONTROL_HZ))
        for kind, subject, time_s in attempt_events(attempt)
        if (words := event_words(attempt, kind, subject))
    ]
    for quarter in (int(q) for q in rng.permutation(4)):
        fits = []
        for kind, words, at in told:
            # Twice the margin at the ends of the span, where what leads to the event or follows it has to be seen.
            first = quarter * QUARTER + EDGE_STEPS * (1 if quarter else 2)
            inside_quarter = range(first, (quarter + 1) * QUARTER - EDGE_STEPS * (1 if quarter < 3 else 2) + 1)
            starts = [at - offset for offset in inside_quarter if 0 <= at - offset <= steps - WHEN_STEPS]
            for start in starts[:: max(1, len(starts) // 3)]:
                again = [w for _, w, other in told if w == words and start <= other <= start + WHEN_STEPS]
                if len(again) == 1:
                    fits.append((kind, words, at, start))
        if fits:
            kind, words, at, start = any_of(rng, fits)
            blanks = {"event": words}
            yield span(
                "when_quarter", QUARTERS[quarter], QUARTERS, start, start + WHEN_STEPS, blanks=blanks, asked=kind
            )
            yield span(
                "when",
                f"{(at - start) / CONTROL_HZ:.2f}",
                (),
                start,
                start + WHEN_STEPS,
                blanks=blanks,
                asked=kind,
                kind="time",
                tolerance=WHEN_S,
            )


def attempt_events(attempt: Attempt) -> list[tuple[str, str, float]]:
    """Kind, body and seconds since the first moment of everything that is grasped, released and pressed."""
    if not attempt.reports:
        return []
    zero_s = attempt.reports[0].motion.start_s
    return [
        (event.kind, event.subject, event.time_s - zero_s)
        for event in attempt.events
        if event.kind in ("grasped", "released", "pressed")
    ]


def event_words(attempt: Attempt, kind: str, subject: str) -> str:
    """ "the red cube is grasped"; "" where the words would fit several parts."""
    if subject.startswith("button_"):
        return f"the {subject.removeprefix('button_')} button is {kind}"
    parts = [placed.part for placed in attempt.job.layout.parts]
    index = int(subject.removeprefix("part_"))
    return f"the {parts[index].words} is {kind}" if alone(parts, index, "words") else ""


def outcome(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """Whether the order was carried out."""
    attempt = witness.attempt
    answer = "yes" if attempt.success else "no"
    yield _ending(rng, attempt, "outcome", answer, tuple(shuffled(rng, ("yes", "no"))))


def why(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """Why it was not, among the failures that are common in the task."""
    attempt = witness.attempt
    pool = WHY[attempt.job.task]
    if not attempt.success and attempt.failure in pool:
        choices = tuple(REASONS[word] for word in shuffled(rng, pool))
        yield _ending(rng, attempt, "why", REASONS[attempt.failure], choices)


def _ending(rng: Rng, attempt: Attempt, family: str, answer: str, choices: tuple[str, ...]) -> Draft:
    row, stop = TASKS[attempt.job.task], len(attempt.moments)
    order = attempt.job.instruction(int(rng.integers(len(row.phrasings))))
    return span(
        family, answer, choices, max(0, stop - OUTCOME_STEPS), stop, blanks={"order": order}, asked=attempt.job.task
    )
