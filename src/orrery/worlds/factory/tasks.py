"""The seven tasks as rows, and how one instance of each is drawn: what stands where, what is wanted, how it is said.

An instance depends on the generator it is drawn from and on nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from orrery.errors import TaskError
from orrery.tasks.checks import nearest, shown
from orrery.worlds.factory.goals import Goal, Insert, Lift, Press, Put, Stack
from orrery.worlds.factory.layout import (
    BELT_TOP_M,
    BELT_Y_M,
    EVALUATION_PALETTE,
    Bin,
    CellParameters,
    Fixture,
    Kit,
    Layout,
    Palette,
    Panel,
    Placed,
)
from orrery.worlds.factory.parts import FINISHES, HELD_OUT, KINDS, Finish, Kind, Part, Rgb

Pairs = Literal["train", "held_out", "all"]
"""Which colour x kind pairs may occur: without HELD_OUT; all, and what is wanted is from HELD_OUT; or all."""
Rng = np.random.Generator
Pair = tuple[Finish, Kind]

TRAYS: tuple[Rgb, ...] = ((0.30, 0.42, 0.50), (0.55, 0.40, 0.26), (0.45, 0.46, 0.36), (0.34, 0.35, 0.38))
NUMBERS = ("no", "one", "two", "three")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One instance of a task."""

    task: str
    layout: Layout
    parameters: CellParameters
    goals: tuple[Goal, ...]
    slots: dict[str, str]
    """What fills the blanks of the task's phrasings."""

    def instruction(self, phrasing: int) -> str:
        """The order in words; phrasing counts over `FactoryTask.phrasings` and then `held_out_phrasings`."""
        row = TASKS[self.task]
        return (*row.phrasings, *row.held_out_phrasings)[phrasing].format(**self.slots)


@dataclass(frozen=True, kw_only=True)
class FactoryTask:
    """One row."""

    name: str
    env_id: str
    horizon: int
    """Control steps."""
    draw: Callable[[Rng, "Stock", CellParameters], tuple[Layout, tuple[Goal, ...], dict[str, str]]]
    phrasings: tuple[str, ...]
    held_out_phrasings: tuple[str, ...]
    """For the test split alone."""


class Stock:
    """Deals parts of the allowed pairs; a value with a generator, used while one instance is drawn."""

    def __init__(self, rng: Rng, pairs: Pairs) -> None:
        every: list[Pair] = [(finish, kind) for finish in FINISHES for kind in KINDS]
        self.rng = rng
        self.others = [pair for pair in every if pairs != "train" or pair not in HELD_OUT]
        self.wanted = [pair for pair in every if pair in HELD_OUT] if pairs == "held_out" else self.others

    def deal(self, count: int, kinds: Sequence[Kind] = tuple(KINDS), *, wanted: int = 0) -> list[Part]:
        """Parts of different pairs, the first `wanted` of them from the pairs that are wanted.

        A kind that the wanted pairs do not have is dealt from the others.
        """
        dealt: list[Pair] = []
        for index in range(count):
            pool = [
                pair
                for pair in (self.wanted if index < wanted else self.others)
                if pair[1] in kinds and pair not in dealt
            ]
            pool = pool or [pair for pair in self.others if pair[1] in kinds and pair not in dealt]
            dealt.append(pool[self.rng.integers(len(pool))])
        return [Part(finish=finish, kind=kind, scale=self.scale(kind)) for finish, kind in dealt]

    def scale(self, kind: Kind) -> float:
        """Pegs fit their hole and are never scaled."""
        return 1.0 if kind == "peg" else float(self.rng.uniform(0.92, 1.08))


def draw_job(
    task: str,
    rng: Rng,
    *,
    pairs: Pairs = "all",
    parameters: CellParameters | None = None,
    clearance_m: float | None = None,
    random_look: bool = True,
) -> Job:
    """One instance of a task.

    Args:
        parameters: the knobs of the twin; drawn when None.
        clearance_m: the fit of the peg; 1 mm when None. Not together with `parameters`, which have it.
        random_look: colours, light and cameras are drawn too; otherwise those of the evaluation.

    Raises:
        TaskError: no such task.
    """
    if task not in TASKS:
        raise TaskError(f"There is no factory task {shown(task)}. {nearest(task, TASKS)}")
    if parameters is None:
        parameters = draw_parameters(rng, random_look=random_look)
        if clearance_m is not None:
            parameters = replace(parameters, clearance_m=clearance_m)
    layout, goals, slots = TASKS[task].draw(rng, Stock(rng, pairs), parameters)
    return Job(task=task, layout=layout, parameters=parameters, goals=goals, slots=slots)


def draw_parameters(rng: Rng, *, random_look: bool = True) -> CellParameters:
    """Knobs of a cell somewhere around the nominal one."""
    palette = draw_palette(rng)
    shift, light_m, light = (
        rng.uniform(-0.02, 0.02, 3),
        rng.uniform((-0.6, -0.7, 1.1), (0.6, -0.3, 1.5)),
        rng.uniform(0.85, 1.15),
    )
    made = CellParameters(
        friction=float(rng.uniform(0.85, 1.2)),
        mass=float(rng.uniform(0.8, 1.25)),
        belt_speed_m_s=float(rng.uniform(0.05, 0.09) * rng.choice([-1, 1])),
    )
    if not random_look:
        return made
    x, y, z = (float(value) for value in shift)
    return replace(
        made,
        palette=palette,
        camera_shift_m=(x, y, z),
        light=float(light),
        light_m=(float(light_m[0]), float(light_m[1]), float(light_m[2])),
    )


def draw_palette(rng: Rng) -> Palette:
    """Colours near those of the evaluation, but never its own."""

    def near(rgb: Rgb) -> Rgb:
        r, g, b = np.clip(np.array(rgb) * rng.uniform(0.85, 1.15) + rng.uniform(-0.03, 0.03, 3), 0.05, 0.95)
        return float(r), float(g), float(b)

    base = EVALUATION_PALETTE
    return Palette(
        bench=near(base.bench),
        floor=near(base.floor),
        belt=near(base.belt),
        belt_stripe=near(base.belt_stripe),
        machine=near(base.machine),
        finger=near(base.finger),
        fixture=near(base.fixture),
    )


def _panel(rng: Rng) -> Panel:
    side = int(rng.choice([-1, 1]))
    return Panel(
        x_m=side * float(rng.uniform(0.285, 0.295)),
        y_m=float(rng.uniform(0.0, 0.03)),
        start_left=bool(rng.random() < 0.5),
    )


def _spread(
    rng: Rng, parts: Sequence[Part], x_m: tuple[float, float] = (-0.16, 0.16), y_m: tuple[float, float] = (-0.045, 0.06)
) -> list[Placed]:
    """Parts somewhere on the open bench, far enough apart for the fingers, in any direction."""
    for _ in range(20000):
        spots = rng.uniform((x_m[0], y_m[0]), (x_m[1], y_m[1]), (len(parts), 2))
        gaps = [
            np.hypot(*(spots[i] - spots[j])) - parts[i].radius_m - parts[j].radius_m
            for i in range(len(parts))
            for j in range(i)
        ]
        if min(gaps, default=1.0) > 0.045:
            yaws = rng.uniform(-np.pi, np.pi, len(parts))
            return [
                Placed(part=part, position_m=(float(x), float(y), part.half_height_m), yaw_rad=float(yaw))
                for part, (x, y), yaw in zip(parts, spots, yaws, strict=True)
            ]
    raise TaskError(f"{len(parts)} parts do not fit on the bench beside each other. Draw the job with another seed.")


def _on_belt(rng: Rng, parts: Sequence[Part], parameters: CellParameters, first_m: float, gap_m: float) -> list[Placed]:
    """Parts in a row on the belt, the first `first_m` before the middle, the others behind it."""
    heading = 1 if parameters.belt_speed_m_s >= 0 else -1
    return [
        Placed(
            part=part,
            yaw_rad=float(rng.uniform(-np.pi, np.pi)),
            position_m=(
                -heading * (first_m + index * gap_m + float(rng.uniform(-0.01, 0.01))),
                BELT_Y_M + float(rng.uniform(-0.008, 0.008)),
                BELT_TOP_M + part.half_height_m,
            ),
        )
        for index, part in enumerate(parts)
    ]


def _shuffled(rng: Rng, placed: Sequence[Placed]) -> tuple[tuple[Placed, ...], list[int]]:
    """The same in any order, and the new number of each; numbers then tell nothing."""
    order = [int(index) for index in rng.permutation(len(placed))]
    return tuple(placed[index] for index in order), [order.index(index) for index in range(len(placed))]


def _two_bins(rng: Rng) -> tuple[Bin, Bin]:
    colours = rng.permutation(len(TRAYS))
    left, right = (
        Bin(
            name=name,
            x_m=x + float(rng.uniform(-0.012, 0.012)),
            y_m=-0.165 + float(rng.uniform(-0.008, 0.008)),
            rgb=TRAYS[colour],
        )
        for name, x, colour in (("bin_left", -0.2, colours[0]), ("bin_right", 0.2, colours[1]))
    )
    return left, right


def _belt_pick(rng: Rng, stock: Stock, parameters: CellParameters) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    belted, others = stock.deal(2, wanted=1), stock.deal(int(rng.integers(1, 3)))
    first = bool(rng.random() < 0.5)
    row = _on_belt(rng, belted if first else belted[::-1], parameters, float(rng.uniform(0.08, 0.16)), 0.13)
    placed, numbers = _shuffled(rng, [*(row if first else row[::-1]), *_spread(rng, others)])
    layout = Layout(parts=placed, panel=_panel(rng), running=True)
    return layout, (Lift(part=numbers[0]),), {"part": belted[0].words}


def _belt_sort(rng: Rng, stock: Stock, parameters: CellParameters) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    parts = stock.deal(2, ("cube", "disc", "cross"), wanted=2)
    while parts[0].finish == parts[1].finish:
        parts = stock.deal(2, ("cube", "disc", "cross"), wanted=2)
    # Either both colours are there, one part each, or the second part is of the first one's colour.
    if rng.random() < 0.35:
        pool = [
            kind for finish, kind in stock.others if finish == parts[0].finish and kind in ("cube", "disc", "cross")
        ]
        other = parts[1].finish
        parts[1] = Part(finish=parts[0].finish, kind=pool[rng.integers(len(pool))], scale=stock.scale("cube"))
    else:
        other = parts[1].finish
    into = ["bin_left", "bin_right"] if rng.random() < 0.5 else ["bin_right", "bin_left"]
    places = {parts[0].finish: into[0], other: into[1]}
    placed, numbers = _shuffled(rng, _on_belt(rng, parts, parameters, float(rng.uniform(0.06, 0.12)), 0.17))
    goals = tuple(Put(part=numbers[i], into=places[part.finish]) for i, part in enumerate(parts))
    sides = {name: finish for finish, name in places.items()}
    layout = Layout(parts=placed, panel=_panel(rng), bins=_two_bins(rng), running=True)
    return layout, goals, {"left": sides["bin_left"], "right": sides["bin_right"]}


def _kit_fill(rng: Rng, stock: Stock, parameters: CellParameters) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    one, two, other = stock.deal(3, ("cube", "disc", "cross"), wanted=1)
    counts = [(1, 1), (2, 0), (2, 1), (1, 2)][rng.integers(4)]
    wanted = [one] * counts[0] + [two] * counts[1]
    spare = [other] if counts[1] else [two, other]
    placed, numbers = _shuffled(rng, _spread(rng, [*wanted, *spare]))
    kit = Kit(x_m=float(rng.uniform(-0.06, 0.06)), y_m=-0.17, rgb=TRAYS[rng.integers(len(TRAYS))])
    listed = [
        f"{NUMBERS[count]} {part.finish} {KINDS[part.kind].plural if count > 1 else part.kind}"
        for part, count in zip((one, two), counts, strict=True)
        if count
    ]
    goals = tuple(Put(part=numbers[i], into="kit") for i in range(len(wanted)))
    layout = Layout(parts=placed, panel=_panel(rng), kit=kit, running=bool(rng.random() < 0.3))
    return layout, goals, {"list": " and ".join(listed)}


def _peg_insert(rng: Rng, stock: Stock, parameters: CellParameters) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    pegs, others = stock.deal(2, ("peg",), wanted=1), stock.deal(1, ("cube", "disc", "cross"))
    placed, numbers = _shuffled(rng, _spread(rng, [*pegs, *others]))
    fixture = Fixture(
        x_m=float(rng.uniform(-0.16, 0.16)),
        y_m=float(rng.uniform(-0.165, -0.145)),
        yaw_rad=float(rng.uniform(-0.4, 0.4)),
    )
    layout = Layout(parts=placed, panel=_panel(rng), fixture=fixture, running=bool(rng.random() < 0.3))
    return layout, (Insert(part=numbers[0]),), {"part": pegs[0].words}


def _stack(rng: Rng, stock: Stock, parameters: CellParameters) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    top, base, other = stock.deal(3, ("cube", "disc", "cross"), wanted=1)
    placed, numbers = _shuffled(rng, _spread(rng, [top, base, other]))
    layout = Layout(parts=placed, panel=_panel(rng), running=bool(rng.random() < 0.3))
    return layout, (Stack(part=numbers[0], base=numbers[1]),), {"part": top.words, "base": base.words}


def _inspect_reject(
    rng: Rng, stock: Stock, parameters: CellParameters
) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    (model,) = stock.deal(1, ("cube", "disc", "bar"), wanted=1)
    parts = [replace(model, cracked=True), *[model] * int(rng.integers(1, 3))]
    placed, numbers = _shuffled(rng, _spread(rng, parts))
    side = int(rng.choice([-1, 1]))
    reject = Bin(
        name="bin_reject", x_m=side * float(rng.uniform(0.17, 0.2)), y_m=-0.165, rgb=TRAYS[rng.integers(len(TRAYS))]
    )
    layout = Layout(parts=placed, panel=_panel(rng), bins=(reject,), running=bool(rng.random() < 0.3))
    return layout, (Put(part=numbers[0], into="bin_reject"),), {"kind": model.kind}


def _press_start(rng: Rng, stock: Stock, parameters: CellParameters) -> tuple[Layout, tuple[Goal, ...], dict[str, str]]:
    placed, _ = _shuffled(rng, _spread(rng, stock.deal(int(rng.integers(1, 4)), wanted=1)))
    return Layout(parts=placed, panel=_panel(rng)), (Press(button="start"),), {}


TASKS = {
    row.name: row
    for row in (
        FactoryTask(
            name="belt_pick",
            env_id="BeltPick",
            horizon=100,
            draw=_belt_pick,
            phrasings=(
                "Pick the {part} off the belt.",
                "Take the {part} from the conveyor.",
                "Lift the {part} off the moving belt.",
                "Grab the {part} as it passes on the belt.",
            ),
            held_out_phrasings=(
                "Catch the {part} and hold it above the conveyor.",
                "The {part} is needed: pick it up from the belt.",
            ),
        ),
        FactoryTask(
            name="belt_sort",
            env_id="BeltSort",
            horizon=160,
            draw=_belt_sort,
            phrasings=(
                "Put {left} parts in the left bin and {right} parts in the right bin.",
                "Sort the belt: {left} goes left, {right} goes right.",
                "Sort what comes along: {right} parts into the right bin, {left} parts into the left bin.",
            ),
            held_out_phrasings=(
                "Left bin for {left}, right bin for {right}: sort the parts on the conveyor.",
                "Everything {right} belongs in the right bin, everything {left} in the left one.",
            ),
        ),
        FactoryTask(
            name="kit_fill",
            env_id="KitFill",
            horizon=160,
            draw=_kit_fill,
            phrasings=(
                "Fill the kit: {list}.",
                "Put {list} into the kit tray.",
                "The kit needs {list}. Fill it.",
            ),
            held_out_phrasings=("Pack the tray with {list}.", "Complete the kit with {list}, nothing else."),
        ),
        FactoryTask(
            name="peg_insert",
            env_id="PegInsert",
            horizon=120,
            draw=_peg_insert,
            phrasings=(
                "Insert the {part} into the fixture.",
                "Put the {part} into the hole of the fixture.",
                "Push the {part} all the way into the hole.",
            ),
            held_out_phrasings=("Fit the {part} into the square hole.", "Seat the {part} in the fixture."),
        ),
        FactoryTask(
            name="stack",
            env_id="Stack",
            horizon=100,
            draw=_stack,
            phrasings=(
                "Stack the {part} on the {base}.",
                "Put the {part} on top of the {base}.",
                "Place the {part} onto the {base}.",
            ),
            held_out_phrasings=(
                "Build a stack: the {base} below, the {part} above.",
                "Set the {part} down on the {base}.",
            ),
        ),
        FactoryTask(
            name="inspect_reject",
            env_id="InspectReject",
            horizon=100,
            draw=_inspect_reject,
            phrasings=(
                "Remove the cracked {kind}.",
                "Put the cracked {kind} into the reject bin.",
                "One {kind} is cracked. Throw it into the bin.",
            ),
            held_out_phrasings=("Reject the {kind} with the crack.", "Find the damaged {kind} and put it in the bin."),
        ),
        FactoryTask(
            name="press_start",
            env_id="PressStart",
            horizon=70,
            draw=_press_start,
            phrasings=(
                "Press start.",
                "Press the green button to start the cell.",
                "Start the belt.",
                "Press start and wait for the lamp.",
            ),
            held_out_phrasings=("Switch the cell on.", "Get the conveyor moving with the start button."),
        ),
    )
}
