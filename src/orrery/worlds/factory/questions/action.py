"""Questions about actions and words for them. Left, right, forward and back are as the front camera sees them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from orrery.worlds.factory.questions.drafts import Draft, Rng, any_of, shuffled, span
from orrery.worlds.factory.questions.sights import Witness

MOTION_STEPS = 8
LEAST_M = 0.02
"""A chunk that moves further than this along an axis moves along it; less than a third of it is no motion."""
DIRECTIONS = {
    " and ".join(word for word in (x, y, z) if word): (i, j, k)
    for x, i in (("left", -1), ("", 0), ("right", 1))
    for y, j in (("forward", 1), ("", 0), ("back", -1))
    for z, k in (("up", 1), ("", 0), ("down", -1))
    if x or y or z
}
"""Words -> signs of dx, dy, dz; forward is away from the front camera."""


def action_to_words(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """What a chunk of executed actions does; the actions are given, not the pictures.

    Four chunks of the attempt that do different things are drawn, and then which of them is asked about: motions that
    are common are right no more often than rare ones.
    """
    moments = witness.attempt.moments
    if len(moments) <= MOTION_STEPS:
        return
    starts: dict[str, int] = {}
    for start in rng.permutation(len(moments) - MOTION_STEPS):
        words = motion_words(np.array([moment.action for moment in moments[start : start + MOTION_STEPS]]))
        if words:
            starts.setdefault(words, int(start))
    for _ in range(2):
        if len(starts) >= 4:
            choices = shuffled(rng, tuple(starts))[:4]
            answer = any_of(rng, choices)
            start = starts[answer]
            yield span("action_to_words", answer, tuple(choices), start, start + MOTION_STEPS, action=True)


def words_to_action(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """Which of four steps does what the words say. Made of nothing but words."""
    for _ in range(2):
        motions = shuffled(rng, tuple(DIRECTIONS))[:4]
        steps = int(rng.integers(4, 9))
        numbers = [
            "("
            + ", ".join(
                str(int(sign * rng.integers(8, 26) + (0 if sign else rng.integers(-2, 3)))) for sign in DIRECTIONS[name]
            )
            + ")"
            for name in motions
        ]
        yield span(
            "words_to_action",
            numbers[0],
            tuple(shuffled(rng, numbers)),
            0,
            1,
            blanks={"motion": motions[0], "steps": str(steps)},
            action=True,
        )


def motion_words(chunk: Float[np.ndarray, "T 5"]) -> str:
    """What the sum of a chunk does; "" where a component is too small to be sure of and too large to be none."""
    total = chunk[:, :3].sum(axis=0)
    sure = (np.abs(total) > LEAST_M) | (np.abs(total) < LEAST_M / 3)
    turned = chunk[-1, 4] - chunk[0, 4]
    if not sure.all() or 0.05 < abs(turned) < 0.4:
        return ""
    x, y, z = (int(np.sign(value)) if abs(value) > LEAST_M else 0 for value in total)
    names = {sign: name for name, sign in DIRECTIONS.items()}
    move = names.get((x, y, z), "no motion")
    grip = "" if abs(turned) < 0.4 else "opening" if turned > 0 else "closing"
    return ", ".join(word for word in (move, grip) if word)
