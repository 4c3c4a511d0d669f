"""A still of the front camera in words: each part that is clearly seen and where it is. True by construction.

Where a part is, is read from the state (`questions.sights`), what is seen of it from the segmentation. What is not
clear is not said: a part that the gripper just touches has no place.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from orrery.worlds.factory.captions import NUMBERS
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.goals import belt_span, hole_error_m
from orrery.worlds.factory.layout import BELT_TOP_M, FIXTURE_HEIGHT_M
from orrery.worlds.factory.parts import KINDS
from orrery.worlds.factory.questions.drafts import Rng, any_of, shuffled
from orrery.worlds.factory.questions.phrasings import Phrasings
from orrery.worlds.factory.questions.seen import CLOSED, CRACK_PX, OPEN
from orrery.worlds.factory.questions.sights import PLACES, SEEN_PX, Sight, place, support

SCENES = Phrasings(
    train=(
        "{Parts}{more}.",
        "A factory cell with {parts}{more}.",
        "The picture shows {parts}{more}.",
        "A still of a factory cell: {parts}{more}.",
        "Seen from the front: {parts}{more}.",
    ),
    test=("A view of the cell, with {parts}{more}.", "In sight: {parts}{more}.", "The camera sees {parts}{more}."),
)
LAMP = {
    True: Phrasings(train=("the lamp is lit", "the lamp is on"), test=("the lamp shines",)),
    False: Phrasings(train=("the lamp is dark", "the lamp is off"), test=("the lamp gives no light",)),
}
FINGERS = {
    "open": Phrasings(train=("the gripper is open", "the open gripper is empty"), test=("the fingers are apart",)),
    "closed": Phrasings(train=("the gripper is closed", "the closed gripper is empty"), test=("the fingers are shut",)),
}
SETTINGS = {
    "bins": Phrasings(train=("two bins stand in front", "there are two bins"), test=("in front are two bins",)),
    "reject": Phrasings(
        train=("a bin stands on the {side}", "there is a bin on the {side}"), test=("to the {side} is a bin",)
    ),
    "kit": Phrasings(train=("a kit tray lies in front", "there is a kit tray"), test=("in front is a kit tray",)),
    "fixture": Phrasings(
        train=("a fixture with a hole stands in front", "there is a fixture with a hole"),
        test=("in front is a fixture with a hole",),
    ),
}
"""What stands in a cell besides its parts."""
THEN = Phrasings(
    train=("{scene} Then {event}.", "{scene} {Event}.", "{scene} After that {event}."),
    test=("{scene} Next, {event}.", "{scene} Soon {event}."),
)
NOTHING = Phrasings(train=("nothing else happens", "nothing is grasped or let go"), test=("no more than that happens",))
LAMP_PX = 10
MORE = {"lamp": 0.6, "fingers": 0.4, "setting": 0.5}
"""How often each thing is mentioned that is not a part."""
IN_HOLE_M = 0.01
UPRIGHT_RAD = 0.3
FALL_M = 0.002


def scene_caption(cell: Cell, sight: Sight, rng: Rng, split: Literal["train", "test"]) -> str:
    """One caption of at most 45 words; phrasings of "test" never occur in "train".

    Args:
        cell: at the moment of the sight.
        sight: from the front camera.
    """
    counted = Counter(part_words(cell, sight, index) for index in sight.seen)
    named = [
        f"{NUMBERS[count]} {plural}{where}" if count > 1 else f"a {single}{where}"
        for (single, plural, where), count in sorted(counted.items())
    ]
    named = shuffled(rng, named) or ["no part"]
    parts = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    more = shuffled(rng, _more(cell, sight, rng, split))
    text = _drawn(SCENES, rng, split)
    joined = "".join(f"; {words}" for words in more)
    return text.format(parts=parts, Parts=parts[0].upper() + parts[1:], more=joined)


def clip_caption(scene: str, events: Sequence[str], rng: Rng, split: Literal["train", "test"]) -> str:
    """What a short clip shows: its first frame, then what happens in it, in the words of `captions.happenings`."""
    told = " and ".join(events) if events else _drawn(NOTHING, rng, split)
    return _drawn(THEN, rng, split).format(scene=scene, event=told, Event=told[0].upper() + told[1:])


def part_words(cell: Cell, sight: Sight, index: int) -> tuple[str, str, str]:
    """What a part is called, alone and several of them, and where it is: ("red cube", "red cubes", " on the belt")."""
    part = sight.parts[index]
    cracked = "cracked " if part.cracked and sight.things_px["crack"] >= CRACK_PX else ""
    where = place_words(cell, sight, index)
    plural = f"{cracked}{part.finish} {KINDS[part.kind].plural}"
    return f"{cracked}{part.words}", plural, f" {where}" if where else ""


def place_words(cell: Cell, sight: Sight, index: int) -> str:
    """Where a part is: "on the belt"; "" where that is not clear."""
    if cell.memory.held == index:
        return "in the gripper"
    inside, under = place(cell, index), support(cell, index)
    if inside:
        return f"in {PLACES[inside]}"
    if in_hole(cell, index):
        return "in the hole of the fixture"
    if under in ("belt", "bench"):
        return f"on the {under}"
    if under == "part":
        base = below(cell, index)
        return f"on a {sight.parts[base].words}" if base is not None and base in sight.seen else "on another part"
    return settling(cell, index)


def settling(cell: Cell, index: int) -> str:
    """The place of a part that touches nothing, less than FALL_M above where it will lie, as parts are set at first."""
    name, (_, y, middle) = f"part_{index}", cell.part_m(index)
    if cell.part_tilt_rad(index) > UPRIGHT_RAD or any(name in both for both in cell.memory.touching):
        return ""
    bottom = float(middle) - cell.layout.parts[index].part.half_height_m
    if belt_span(float(y)):
        return "on the belt" if abs(bottom - BELT_TOP_M) < FALL_M else ""
    return "on the bench" if abs(bottom) < FALL_M else ""


def in_hole(cell: Cell, index: int) -> bool:
    """Whether a part stands upright in the hole of the fixture, not merely on its rim."""
    if cell.layout.fixture is None or cell.part_tilt_rad(index) > UPRIGHT_RAD:
        return False
    bottom = float(cell.part_m(index)[2]) - cell.layout.parts[index].part.half_height_m
    return hole_error_m(cell, index) < IN_HOLE_M and bottom < FIXTURE_HEIGHT_M - 0.003


def below(cell: Cell, index: int) -> int | None:
    """The one part that is lower and touches it."""
    others = [i for i in range(len(cell.layout.parts)) if i != index and cell.touches(f"part_{i}", f"part_{index}")]
    lower = [i for i in others if cell.part_m(i)[2] < cell.part_m(index)[2]]
    return lower[0] if len(lower) == 1 else None


def _more(cell: Cell, sight: Sight, rng: np.random.Generator, split: Literal["train", "test"]) -> list[str]:
    """Things that are not parts; some of them, at random."""
    told = []
    if sight.things_px["lamp"] >= LAMP_PX and rng.random() < MORE["lamp"]:
        told.append(_drawn(LAMP[sight.lamp], rng, split))
    empty = sight.held is None and sight.things_px["fingers"] >= SEEN_PX
    state = "open" if sight.aperture > OPEN else "closed" if sight.aperture < CLOSED else ""
    if empty and state and rng.random() < MORE["fingers"]:
        told.append(_drawn(FINGERS[state], rng, split))
    layout = cell.layout
    if rng.random() < MORE["setting"]:
        if len(layout.bins) == 2:
            told.append(_drawn(SETTINGS["bins"], rng, split))
        elif layout.bins:
            side = "left" if layout.bins[0].x_m < 0 else "right"
            told.append(_drawn(SETTINGS["reject"], rng, split).format(side=side))
        elif layout.kit is not None:
            told.append(_drawn(SETTINGS["kit"], rng, split))
        elif layout.fixture is not None:
            told.append(_drawn(SETTINGS["fixture"], rng, split))
    return told


def _drawn(rows: Phrasings, rng: Rng, split: Literal["train", "test"]) -> str:
    return any_of(rng, rows.train if split == "train" else rows.test)
