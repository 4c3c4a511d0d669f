"""Questions about single pictures: counting, colours, kinds, places, the gripper, the lamp, points and boxes.

Where a kind of part tells where it is likely to be (bars are rarely on the belt), a part is called by its colour, which
tells nothing; where a kind goes with certain colours, by its place in the picture.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from orrery.worlds.factory.parts import FINISHES, KINDS
from orrery.worlds.factory.questions.drafts import AnswerKind, Draft, Rng, any_of, choices_with, contrast, shuffled
from orrery.worlds.factory.questions.phrasings import ANCHOR_WORDS
from orrery.worlds.factory.questions.sights import ANCHORS, MARGIN_M, PLACES, SEEN_PX, Sight, alone

COUNTS = ("0", "1", "2")
SUPPORTS = {
    "belt": "the belt",
    "bench": "the bench",
    "part": "another part",
    "container": "the bottom of a bin or tray",
    "held": "nothing, the gripper holds it",
}
GRIPPER = ("open", "closed on a part", "closed with nothing in it")
OPEN, CLOSED = 0.8, 0.12
"""Apertures above and below which the gripper counts as open and as closed."""
PLURALS = {str(name): row.plural for name, row in KINDS.items()}
WHOLE_PX = 40
"""A part of fewer pixels is not asked to be recognised by its shape."""
CRACK_PX = 6
TOLERANCE_POINT, TOLERANCE_BOX = 30.0, 0.5
"""A point in thousandths; a box by its intersection over union."""


def count(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """How many parts of a colour, kind or material are in view; all parts clearly are or are not."""
    sights = [sight for sight in sights if sight.clear]
    groups: list[tuple[str, str]] = [
        *(("finish", name) for name in FINISHES),
        *(("kind", name) for name in KINDS),
        *(("material", name) for name in ("plastic", "steel", "brass")),
    ]
    for answer in shuffled(rng, COUNTS):
        for sight in shuffled(rng, sights):
            able = [
                (what, name)
                for what, name in groups
                if sum(trait_of(sight, i, what) == name for i in sight.seen) == int(answer)
            ]
            if able:
                _, name = any_of(rng, able)
                things = PLURALS.get(name, f"{name} parts")
                yield _still(sight, "count", answer, COUNTS, blanks={"things": things}, asked=things, kind="number")
                break


def trait_of(sight: Sight, index: int, what: str) -> str:
    """A part's finish, kind or material. Steel and brass are both a finish and a material."""
    part = sight.parts[index]
    return {"finish": part.finish, "kind": part.kind, "material": part.material}[what]


def colour(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """The colour of a part that is called by its place."""
    return _trait(rng, sights, "colour", "finish", tuple(FINISHES), SEEN_PX)


def kind(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """The kind of a part that is called by its place."""
    return _trait(rng, sights, "kind", "kind", tuple(KINDS), WHOLE_PX)


def _trait(
    rng: Rng, sights: list[Sight], family: str, what: str, pool: Sequence[str], least_px: int
) -> Iterator[Draft]:
    for sight, anchor, index in _anchored(rng, sights, least_px):
        answer = trait_of(sight, index, what)
        choices = choices_with(rng, answer, pool)
        yield _still(sight, family, answer, choices, blanks={"part": ANCHOR_WORDS[anchor]}, asked=anchor)


def left_right(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """Which of two parts is further left, in the picture and across the view."""
    for sight in sights:
        pairs = [
            (i, j)
            for i, j in _pairs(sight)
            if sight.middle(j)[0] - sight.middle(i)[0] > 0.04 and sight.across_m[j] - sight.across_m[i] > MARGIN_M
        ]
        if pairs:
            yield _between(rng, sight, "left_right", any_of(rng, pairs), ("left", "right"))


def front_behind(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """Which of two parts is nearer to the camera."""
    for sight in sights:
        lying = [i for i in sight.seen if sight.support[i] in ("belt", "bench", "container")]
        pairs = [
            (i, j)
            for i, j in _pairs(sight)
            if i in lying and j in lying and sight.view_m[j, 2] - sight.view_m[i, 2] > MARGIN_M
        ]
        if pairs and sight.camera != "wrist":
            yield _between(rng, sight, "front_behind", any_of(rng, pairs), ("in front", "behind"))


def on(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """What a part lies on, where another part of the same picture lies on something else."""
    for sight in sights:
        found = [(SUPPORTS[sight.support[i]], i) for i in _coloured(sight) if sight.support[i]]
        drawn = contrast(rng, found)
        if drawn is not None:
            answer, index, choices = drawn
            name = sight.parts[index].finish
            yield _still(sight, "on", answer, choices, blanks={"colour": name}, asked=name)


def inside(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """Which bin or slot a part is in, where another part of the picture is in another one, or in none.

    The reject bin is for parts that all look alike: no colour picks one of them out.
    """
    for sight in sights:
        found = [
            (PLACES[sight.place[i]], i)
            for i in _coloured(sight)
            if sight.support[i] and (sight.support[i] == "container") == bool(sight.place[i])
        ]
        drawn = contrast(rng, found)
        if drawn is not None:
            answer, index, choices = drawn
            name = sight.parts[index].finish
            yield _still(sight, "inside", answer, choices, blanks={"colour": name}, asked=name)


def held(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """The colour of what is held, or nothing."""
    pool = ("nothing", *(f"a {name} part" for name in FINISHES))
    empty = [s for s in sights if s.held is None and s.aperture > OPEN and s.things_px["fingers"] >= SEEN_PX]
    full = [s for s in sights if s.held in s.seen and s.held is not None and s.support[s.held] == "held"]
    for sight in [*full[:2], *empty[:1]]:
        answer = "nothing" if sight.held is None else f"a {sight.parts[sight.held].finish} part"
        yield _still(sight, "held", answer, choices_with(rng, answer, pool))


def gripper(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """Open, closed on a part, or closed empty."""
    for answer in shuffled(rng, GRIPPER):
        for sight in sights:
            full = sight.held is not None and sight.held in sight.seen
            empty = sight.held is None
            true = {
                "open": empty and sight.aperture > OPEN,
                "closed on a part": full,
                "closed with nothing in it": empty and sight.aperture < CLOSED,
            }[answer]
            if true and sight.things_px["fingers"] >= SEEN_PX:
                yield _still(sight, "gripper", answer, tuple(shuffled(rng, GRIPPER)))
                break


def lamp(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """Whether the lamp is lit."""
    for answer in shuffled(rng, ("yes", "no")):
        for sight in sights:
            if sight.lamp == (answer == "yes") and sight.things_px["lamp"] >= 10:
                yield _still(sight, "lamp", answer, tuple(shuffled(rng, ("yes", "no"))))
                break


def cracked(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """Which of the parts in view, from the left, is cracked; the crack is to be seen."""
    for sight in sights:
        broken = [i for i in sight.seen if sight.parts[i].cracked]
        if not broken or not sight.clear or sight.things_px["crack"] < CRACK_PX or not 2 <= len(sight.seen) <= 3:
            continue
        row = sorted(sight.seen, key=lambda i: float(sight.middle(i)[0]))
        if min(sight.middle(b)[0] - sight.middle(a)[0] for a, b in pairwise(row)) < 0.04:
            continue
        pool = ("left", "right") if len(row) == 2 else ("left", "middle", "right")
        number = "Two" if len(row) == 2 else "Three"
        answer = pool[row.index(broken[0])]
        yield _still(
            sight, "cracked", answer, tuple(shuffled(rng, pool)), blanks={"number": number.lower()}, asked=number
        )


def point(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """A pixel of a part, the one nearest to the middle of its mask."""
    for sight, words, index in _named(rng, sights):
        x, y = inner_point(sight, index)
        yield _still(
            sight,
            "point",
            f"{x}, {y}",
            (),
            blanks={"part": words},
            asked=words,
            kind="point",
            tolerance=TOLERANCE_POINT,
        )


def box(rng: Rng, sights: list[Sight]) -> Iterator[Draft]:
    """The box around what is seen of a part."""
    for sight, words, index in _named(rng, sights):
        answer = ", ".join(str(value) for value in bounds(sight, index))
        yield _still(sight, "box", answer, (), blanks={"part": words}, asked=words, kind="box", tolerance=TOLERANCE_BOX)


def inner_point(sight: Sight, index: int) -> tuple[int, int]:
    """Thousandths of width and height of the pixel of a part that is nearest to the middle of its mask."""
    rows, columns = np.nonzero(sight.masks[index])
    height, width = sight.segmentation.shape
    away = np.hypot(rows - rows.mean(), columns - columns.mean())
    nearest = int(away.argmin())
    return int(1000 * (columns[nearest] + 0.5) / width), int(1000 * (rows[nearest] + 0.5) / height)


def bounds(sight: Sight, index: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a part's pixels in thousandths."""
    rows, columns = np.nonzero(sight.masks[index])
    height, width = sight.segmentation.shape
    left, right = 1000 * columns.min() / width, 1000 * (columns.max() + 1) / width
    top, bottom = 1000 * rows.min() / height, 1000 * (rows.max() + 1) / height
    return round(left), round(top), round(right), round(bottom)


def _still(
    sight: Sight,
    family: str,
    answer: str,
    choices: tuple[str, ...],
    *,
    blanks: dict[str, str] | None = None,
    asked: str = "",
    kind: AnswerKind = "choice",
    tolerance: float = 0.0,
) -> Draft:
    return Draft(
        family=family,
        answer=answer,
        choices=choices,
        kind=kind,
        blanks=blanks or {},
        asked=asked,
        camera=sight.camera,
        start_frame=sight.frame,
        stop_frame=sight.frame + 1,
        tolerance=tolerance,
    )


def _anchored(rng: Rng, sights: list[Sight], least_px: int) -> Iterator[tuple[Sight, str, int]]:
    """Parts that a place picks out; a different place for each sight."""
    anchors = shuffled(rng, ANCHORS)
    for sight in sights:
        for anchor in anchors:
            index = sight.anchored(anchor)
            if index is not None and sight.pixels[index] >= least_px:
                anchors.remove(anchor)
                yield sight, anchor, index
                break


def _named(rng: Rng, sights: list[Sight]) -> Iterator[tuple[Sight, str, int]]:
    """Parts that their own words pick out in the whole cell."""
    for sight in sights:
        able = [i for i in sight.seen if alone(sight.parts, i, "words") and sight.pixels[i] >= SEEN_PX]
        if able:
            index = any_of(rng, able)
            yield sight, f"the {sight.parts[index].words}", index


def _coloured(sight: Sight) -> list[int]:
    """Parts in view that no other part of the cell shares its colour with."""
    return [i for i in sight.seen if alone(sight.parts, i, "finish")]


def _pairs(sight: Sight) -> list[tuple[int, int]]:
    able = [i for i in sight.seen if alone(sight.parts, i, "words")]
    return [(i, j) for i in able for j in able if i != j]


def _between(rng: Rng, sight: Sight, family: str, pair: tuple[int, int], answers: tuple[str, str]) -> Draft:
    """The pair is in the order of `answers`; which of the two is asked about decides the answer."""
    first = bool(rng.random() < 0.5)
    one, other = (sight.parts[i] for i in (pair if first else pair[::-1]))
    return _still(
        sight,
        family,
        answers[0 if first else 1],
        tuple(shuffled(rng, answers)),
        blanks={"one": one.words, "other": other.words},
        asked=f"{one.kind} {other.kind}",
    )
