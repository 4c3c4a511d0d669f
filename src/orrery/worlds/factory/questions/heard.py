"""Questions about sound: which material, what was struck, when, on which side; and whether a clip has been edited.

Only strikes that stand out of all other sounds are asked about. Pictures of the span may be shown too.
"""

from collections.abc import Iterator, Sequence

from orrery.worlds.factory.cell import CONTROL_HZ
from orrery.worlds.factory.hearing import OF_WHAT, history
from orrery.worlds.factory.questions.drafts import MOST_CHOICES, Draft, Rng, shuffled, span
from orrery.worlds.factory.questions.edits import EDITS, Clip, loud_strikes, striker
from orrery.worlds.factory.questions.sights import Witness
from orrery.worlds.factory.questions.timed import QUARTER, QUARTERS, WHEN_STEPS
from orrery.worlds.factory.sound import Sounding, Strike

BLOW_BEFORE, BLOW_STEPS = 4, 12
"""The span around a strike whose material is asked for."""
MATERIALS = ("plastic", "steel", "brass")
STRUCK = {
    "wood": "the wooden bench",
    "sheet_steel": "a sheet metal tray or rail",
}
"""Material -> what is struck. A blow on rubber is too soft to be heard."""
SIDE_M = 0.08
"""A strike nearer to the middle is on no side."""
RIVAL = 0.6
"""A loudest strike has no other in its span of this share of its impulse."""
EDIT_WORDS = {
    "teleport": "a part jumps to another place",
    "reversed_gravity": "gravity pulls upward",
    "frozen": "a moving part stands still",
    "sound_shifted": "the sound is early or late",
    "wrong_material": "a part sounds like another material",
}
assert set(EDIT_WORDS) == set(EDITS)


def heard(rng: Rng, witness: Witness) -> Iterator[Draft]:
    """All families of strikes: what they are made of, what they hit, when, and on which side."""
    witness.at(0)
    sounds = history(witness.cell, witness.attempt.reports)
    zero_s = witness.attempt.reports[0].motion.start_s
    steps = len(witness.attempt.moments)
    loud = [(strike, (strike.time_s - zero_s) * CONTROL_HZ) for _, strike in loud_strikes(sounds)]
    for strike, at in shuffled(rng, loud):
        start = int(at) - int(rng.integers(2, BLOW_BEFORE + 1))
        if start < 0 or start + BLOW_STEPS > steps or _rivals(sounds, strike, zero_s, start, BLOW_STEPS):
            continue
        part = striker(strike)
        material = witness.cell.layout.parts[part].part.material
        yield span("heard_material", material, tuple(shuffled(rng, MATERIALS)), start, start + BLOW_STEPS, sound=True)
        struck = STRUCK.get(OF_WHAT.get(_other(strike), "steel"))
        if struck is not None:
            yield span(
                "heard_what",
                struck,
                tuple(shuffled(rng, tuple(STRUCK.values()))),
                start,
                start + BLOW_STEPS,
                sound=True,
            )
        if abs(strike.point_m[0]) > SIDE_M:
            side = "left" if strike.point_m[0] < 0 else "right"
            yield span(
                "heard_side", side, tuple(shuffled(rng, ("left", "right"))), start, start + BLOW_STEPS, sound=True
            )
    for quarter in (int(q) for q in rng.permutation(4)):
        for strike, at in shuffled(rng, loud):
            start = int(at) - quarter * QUARTER - int(rng.integers(1, QUARTER))
            if 0 <= start <= steps - WHEN_STEPS and not _rivals(sounds, strike, zero_s, start, WHEN_STEPS):
                offset = at - start - quarter * QUARTER
                if 1 <= offset <= QUARTER - 0.5:
                    yield span("heard_when", QUARTERS[quarter], QUARTERS, start, start + WHEN_STEPS, sound=True)
                    break


def edited(rng: Rng, clip: Clip) -> Iterator[Draft]:
    """Whether a clip could have happened, and if not, what was done to it."""
    answer = "yes" if clip.edit == "none" else "no"
    yield _clip(clip, "plausible", answer, tuple(shuffled(rng, ("yes", "no"))))
    if clip.edit != "none" and len(clip.able) > 1:
        # Which of the possible edits was made was drawn: each is as likely.
        others = [EDIT_WORDS[edit] for edit in clip.able if edit != clip.edit]
        choices = shuffled(rng, [EDIT_WORDS[clip.edit], *shuffled(rng, others)[: MOST_CHOICES - 1]])
        yield _clip(clip, "edit_kind", EDIT_WORDS[clip.edit], tuple(choices))


def _other(strike: Strike) -> str:
    return next(body.name for body in strike.bodies if not body.name.startswith("part_"))


def _rivals(sounds: Sequence[Sounding], strike: Strike, zero_s: float, start: int, steps: int) -> bool:
    """Whether something else in a span strikes nearly as hard."""
    begins, ends = zero_s + start / CONTROL_HZ, zero_s + (start + steps) / CONTROL_HZ
    return any(
        isinstance(entry, Strike)
        and entry is not strike
        and begins <= entry.time_s < ends
        and entry.impulse_Ns > RIVAL * strike.impulse_Ns
        and abs(entry.time_s - strike.time_s) > 0.03
        for entry in sounds
    )


def _clip(clip: Clip, family: str, answer: str, choices: tuple[str, ...]) -> Draft:
    return Draft(
        family=family,
        answer=answer,
        choices=choices,
        media="clip",
        start_frame=clip.start_frame,
        stop_frame=clip.stop_frame,
        sound=True,
    )
