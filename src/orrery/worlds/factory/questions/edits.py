"""Clips to judge: two seconds of an attempt, half of them with one thing changed that physics would not do.

Every clip is a state for each picture and a history of sounds, edited or not, so that it is filmed and written the same
way whatever was done to it. The window is chosen before it is decided whether to edit: what it shows tells nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from jaxtyping import UInt8

from orrery.worlds.factory.cell import ALL, CONTROL_HZ, STEP_S, Cell, CellState
from orrery.worlds.factory.hearing import history
from orrery.worlds.factory.layout import BELT_HALF_LENGTH_M, BELT_Y_M
from orrery.worlds.factory.questions.drafts import Rng, any_of, shuffled
from orrery.worlds.factory.questions.sights import SEEN_PX, Witness
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import Attempt, film
from orrery.worlds.factory.sound import RATE_HZ, Motor, Scrape, Sounding, Strike, shifted, synthesise, with_material

CLIP_STEPS, LEAST_STEPS = 40, 20
EDITS = ("teleport", "reversed_gravity", "frozen", "sound_shifted", "wrong_material")
LEAST_JUMP_M, LEAST_FROZEN_M = 0.08, 0.04
SHIFT_S = (0.2, 0.4)
LOUD = 1.5
"""A strike is heard if `loudness` is above this."""
LISTEN_S = 0.06
TRIES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A window of an attempt as it is shown and heard. Frames count over the attempt."""

    start_frame: int
    stop_frame: int
    edit: str
    """One of EDITS, or "none"."""
    edit_start: int
    edit_stop: int
    """Frames in which it differs from the attempt; both 0 for "none"."""
    subject: str
    """The part that an edit of pictures is about, or that strikes in an edit of sounds; "" for none."""
    states: tuple[CellState, ...]
    """What is shown, one state a frame."""
    able: tuple[str, ...]
    """The edits of which one was drawn: those that this attempt allows."""
    history: tuple[Sounding, ...]
    """What is heard, on the clock of the cell."""
    start_s: float
    """The cell's clock at the first frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """A window in which an edit can be made, and how it is made."""

    start: int
    subject: int
    edit_start: int
    apply: Callable[[], tuple[tuple[CellState, ...], list[Sounding]]]


def make_clip(cell: Cell, attempt: Attempt, rng: Rng, *, renderer: Renderer | None = None) -> Clip | None:
    """A window in which a randomly drawn edit could be made; made with probability 1/2. None where none fits.

    Args:
        cell: of the attempt's layout and parameters, at any moment; it is left at another.
    """
    steps = min(CLIP_STEPS, len(attempt.moments))
    if steps < LEAST_STEPS:
        return None
    witness = Witness(cell, attempt, 128, 128, renderer)
    witness.at(0)
    heard = history(cell, attempt.reports)
    plans = {edit: next(_PLANS[edit](rng, witness, heard, steps), None) for edit in EDITS}
    able = {edit: plan for edit, plan in plans.items() if plan is not None}
    if not able:
        return None
    edit = any_of(rng, tuple(able))
    plan = able[edit]
    stop = plan.start + steps
    states: tuple[CellState, ...] = tuple(moment.state for moment in attempt.moments[plan.start : stop])
    made = bool(rng.random() < 0.5)
    if made:
        states, heard = plan.apply()
    return Clip(
        start_frame=plan.start,
        stop_frame=stop,
        edit=edit if made else "none",
        edit_start=plan.edit_start if made else 0,
        edit_stop=stop if made else 0,
        subject=f"part_{plan.subject}" if made else "",
        states=states,
        able=tuple(able),
        history=tuple(heard),
        start_s=attempt.reports[plan.start].motion.start_s,
    )


def film_clip(
    cell: Cell, clip: Clip, camera: str, height: int, width: int, renderer: Renderer | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Its pictures. `cell` is left in the last state."""
    return film(cell, clip.states, camera, height, width, renderer)


def clip_sound(clip: Clip) -> np.ndarray:
    """Its sound, (N, 2) at 48 kHz."""
    return synthesise(clip.history, clip.start_s, clip.start_s + (clip.stop_frame - clip.start_frame) / CONTROL_HZ)


def moved(cell: Cell, state: CellState, index: int, pose: np.ndarray) -> CellState:
    """The state with one part somewhere else: the seven numbers of a free joint. Nothing else differs."""
    cell.restore(state)
    address = int(cell.model.joint(f"part_{index}").qposadr[0])
    cell.data.qpos[address : address + 7] = pose
    physics = np.empty_like(state.physics)
    mujoco.mj_getState(cell.model, cell.data, physics, ALL)
    return replace(state, physics=physics)


def _windows(rng: Rng, witness: Witness, steps: int) -> list[int]:
    last = len(witness.attempt.moments) - steps
    return [int(start) for start in rng.integers(0, last + 1, TRIES)]


def _cut(rng: Rng, steps: int) -> int:
    """Where in a window an edit begins: neither at once nor at the end."""
    return int(rng.integers(steps // 4, 3 * steps // 4))


def _poses(witness: Witness, start: int, stop: int, index: int) -> np.ndarray:
    return np.array([moment.parts[index] for moment in witness.attempt.moments[start:stop]])  # (T, 7)


def _teleport(rng: Rng, witness: Witness, heard: list[Sounding], steps: int) -> Iterator[_Plan]:
    """A part that nobody touches in the window is suddenly somewhere else, on the same ground."""
    moments = witness.attempt.moments
    for start in _windows(rng, witness, steps):
        cut, stop = start + _cut(rng, steps), start + steps
        sight = witness.look(cut, "front")
        for index in shuffled(rng, range(len(sight.parts))):
            poses = _poses(witness, start, stop, index)
            free = all(
                moment.state.memory.held != index and not _in_fingers(moment.state.memory.touching, index)
                for moment in moments[start:stop]
            )
            shift = _free_shift(rng, witness, index, cut, stop, sight.support[index])
            if not free or index not in sight.seen or shift is None or np.ptp(poses[:, 2]) > 0.005:
                continue
            apply = _shifter(witness, heard, index, start, cut, stop, poses, shift)
            there = witness.look(cut, "front")
            witness.cell.restore(apply()[0][cut - start])
            numbers, _ = witness.renderer.segment(witness.cell.data, "front", witness.height, witness.width)
            if witness.cell.part_mask(numbers, index).sum() >= SEEN_PX and there.pixels[index] >= SEEN_PX:
                yield _Plan(start=start, subject=index, edit_start=cut, apply=apply)


def _shifter(
    witness: Witness,
    heard: list[Sounding],
    index: int,
    start: int,
    cut: int,
    stop: int,
    poses: np.ndarray,
    shift: np.ndarray,
) -> Callable[[], tuple[tuple[CellState, ...], list[Sounding]]]:
    def apply() -> tuple[tuple[CellState, ...], list[Sounding]]:
        states = []
        for frame in range(start, stop):
            state = witness.attempt.moments[frame].state
            if frame >= cut:
                pose = poses[frame - start].copy()
                pose[:2] += shift
                state = moved(witness.cell, state, index, pose)
            states.append(state)
        return tuple(states), heard

    return apply


def _in_fingers(touching: frozenset[tuple[str, str]], index: int) -> bool:
    return any(f"part_{index}" in names and {"finger_left", "finger_right", "palm"} & {*names} for names in touching)


def _free_shift(rng: Rng, witness: Witness, index: int, cut: int, stop: int, lies_on: str) -> np.ndarray | None:
    """How far a part can jump on what it lies on without meeting another thing until the end of the window."""
    moments, layout = witness.attempt.moments, witness.cell.layout
    if lies_on not in ("bench", "belt"):
        return None
    here = moments[cut].parts[index, :2]
    for _ in range(12):
        if lies_on == "belt":
            shift = np.array([rng.choice([-1, 1]) * rng.uniform(LEAST_JUMP_M + 0.02, 0.2), 0.0])
        else:
            shift = np.array([rng.uniform(-0.18, 0.18), rng.uniform(-0.06, 0.07)]) - here
        if np.hypot(*shift) < LEAST_JUMP_M:
            continue
        clear = True
        for moment in moments[cut:stop]:
            spot = moment.parts[index, :2] + shift
            others = [moment.parts[i, :2] for i in range(len(layout.parts)) if i != index]
            gripper = moment.proprioception[:3]
            near_gripper = gripper[2] < 0.12 and np.hypot(*(spot - gripper[:2])) < 0.12
            off_belt = lies_on == "belt" and abs(spot[0]) > BELT_HALF_LENGTH_M - 0.05
            on_bench = lies_on == "bench" and abs(spot[1] - BELT_Y_M) < 0.1
            if near_gripper or off_belt or on_bench or any(np.hypot(*(spot - other)) < 0.085 for other in others):
                clear = False
                break
        if clear:
            return shift
    return None


def _reversed_gravity(rng: Rng, witness: Witness, heard: list[Sounding], steps: int) -> Iterator[_Plan]:
    """From a moment on things fall upward; what the robot does goes on."""
    attempt, cell = witness.attempt, witness.cell
    for start in _windows(rng, witness, steps):
        cut, stop = start + int(rng.integers(steps // 4, steps // 2 + 1)), start + steps
        sight = witness.look(cut, "front")
        loose = [i for i in sight.seen if sight.support[i] in ("bench", "belt", "container")]
        if not loose:
            continue
        index = any_of(rng, loose)

        def apply(start: int = start, cut: int = cut, stop: int = stop) -> tuple[tuple[CellState, ...], list[Sounding]]:
            states = [moment.state for moment in attempt.moments[start:cut]]
            cell.restore(attempt.moments[cut].state)
            down = float(cell.model.opt.gravity[2])
            reports = []
            cell.model.opt.gravity[2] = -down
            try:
                for frame in range(cut, stop):
                    states.append(cell.snapshot())
                    reports.append(cell.step(attempt.moments[frame].action.astype(np.float64)))
            finally:
                cell.model.opt.gravity[2] = down
            witness.at(0)
            return tuple(states), history(cell, [*attempt.reports[:cut], *reports])

        yield _Plan(start=start, subject=index, edit_start=cut, apply=apply)


def _frozen(rng: Rng, witness: Witness, heard: list[Sounding], steps: int) -> Iterator[_Plan]:
    """A part that is carried, or rides on the belt, stops where it is while everything else goes on."""
    attempt = witness.attempt
    for start in _windows(rng, witness, steps):
        cut, stop = start + int(rng.integers(steps // 4, steps // 2 + 1)), start + steps
        sight = witness.look(cut, "front")
        for index in shuffled(rng, sight.seen):
            poses = _poses(witness, start, stop, index)
            if np.hypot(*(poses[-1, :2] - poses[cut - start, :2])) < LEAST_FROZEN_M:
                continue
            if sight.support[index] not in ("held", "belt"):
                continue

            def apply(
                start: int = start, cut: int = cut, stop: int = stop, index: int = index, poses: np.ndarray = poses
            ) -> tuple[tuple[CellState, ...], list[Sounding]]:
                still = poses[cut - start]
                states = [moment.state for moment in attempt.moments[start:cut]]
                states += [moved(witness.cell, moment.state, index, still) for moment in attempt.moments[cut:stop]]
                return tuple(states), heard

            yield _Plan(start=start, subject=index, edit_start=cut, apply=apply)


def _sound_shifted(rng: Rng, witness: Witness, heard: list[Sounding], steps: int) -> Iterator[_Plan]:
    """Everything is heard earlier or later than it is seen; a loud strike in the window shows it."""
    for start, _, _, strike in _loud(rng, witness, heard, steps):
        seconds = float(rng.choice([-1, 1]) * rng.uniform(*SHIFT_S))
        begins = witness.attempt.reports[start].motion.start_s
        if not 0.1 < strike.time_s + seconds - begins < steps * STEP_S - 0.15:
            seconds = -seconds
        if not 0.1 < strike.time_s + seconds - begins < steps * STEP_S - 0.15:
            continue
        states = tuple(moment.state for moment in witness.attempt.moments[start : start + steps])

        def apply(
            states: tuple[CellState, ...] = states, seconds: float = seconds
        ) -> tuple[tuple[CellState, ...], list[Sounding]]:
            return states, shifted(heard, seconds)

        yield _Plan(start=start, subject=striker(strike), edit_start=start, apply=apply)


def _wrong_material(rng: Rng, witness: Witness, heard: list[Sounding], steps: int) -> Iterator[_Plan]:
    """A part strikes as if it were of another material: plastic rings as metal, metal knocks as plastic."""
    for start, frame, index, strike in _loud(rng, witness, heard, steps):
        part = striker(strike)
        material = witness.cell.layout.parts[part].part.material
        other = any_of(rng, ("steel", "brass")) if material == "plastic" else "plastic"
        states = tuple(moment.state for moment in witness.attempt.moments[start : start + steps])
        edited = with_material(heard, index, f"part_{part}", other)

        def apply(
            states: tuple[CellState, ...] = states, edited: list[Sounding] = edited
        ) -> tuple[tuple[CellState, ...], list[Sounding]]:
            return states, edited

        yield _Plan(start=start, subject=part, edit_start=frame, apply=apply)


def _loud(rng: Rng, witness: Witness, heard: list[Sounding], steps: int) -> Iterator[tuple[int, int, int, Strike]]:
    """Windows with a loud strike of one part: their start, the strike's frame, its number in the history, itself."""
    zero_s = witness.attempt.reports[0].motion.start_s
    last = len(witness.attempt.moments) - steps
    for index, strike in shuffled(rng, loud_strikes(heard))[:TRIES]:
        frame = int((strike.time_s - zero_s) * CONTROL_HZ)
        start = frame - int(rng.integers(steps // 4, 3 * steps // 4))
        if 0 <= start <= last:
            yield start, frame, index, strike


def striker(strike: Strike) -> int:
    """The part that strikes; of two the first."""
    return next(int(body.name.removeprefix("part_")) for body in strike.bodies if body.name.startswith("part_"))


def loud_strikes(heard: Sequence[Sounding], most: int = 8) -> list[tuple[int, Strike]]:
    """Strikes of a part against something else that stand out of all other sounds, with their numbers; the hardest."""
    strikes = [
        (i, entry)
        for i, entry in enumerate(heard)
        if isinstance(entry, Strike)
        and sum(body.name.startswith("part_") for body in entry.bodies) == 1
        and entry.impulse_Ns > 0.01
    ]
    strikes = sorted(strikes, key=lambda row: -row[1].impulse_Ns)[:most]
    return [(i, strike) for i, strike in strikes if loudness(heard, i, strike) > LOUD]


def loudness(heard: Sequence[Sounding], index: int, strike: Strike) -> float:
    """How far a strike stands out of all else, noise too: the ratio of RMS in the octave where it is largest.

    A motor's hum does not hide a click that is much higher: what is near in frequency does.
    """
    start_s, stop_s = strike.time_s, strike.time_s + LISTEN_S
    near = [
        entry
        for i, entry in enumerate(heard)
        if i != index
        and start_s - 0.5 < (entry.start_s if isinstance(entry, Scrape | Motor) else entry.time_s) < stop_s
    ]
    silence = synthesise([], start_s, stop_s)
    alone = _octaves(synthesise([strike], start_s, stop_s) - silence)
    rest = _octaves(synthesise(near, start_s, stop_s))
    return float(np.sqrt((alone / rest).max()))


def _octaves(samples: np.ndarray) -> np.ndarray:
    """Energy in octaves from 125 Hz to 16 kHz, both sides together."""
    fading = samples * np.hanning(2 * len(samples))[len(samples) :, None]
    power = np.square(np.abs(np.fft.rfft(fading, axis=0))).sum(axis=1)
    edges = np.searchsorted(np.fft.rfftfreq(len(samples), 1 / RATE_HZ), 125.0 * 2.0 ** np.arange(8))
    return np.add.reduceat(power, edges)[:-1]


_PLANS: dict[str, Callable[[Rng, Witness, list[Sounding], int], Iterator[_Plan]]] = {
    "teleport": _teleport,
    "reversed_gravity": _reversed_gravity,
    "frozen": _frozen,
    "sound_shifted": _sound_shifted,
    "wrong_material": _wrong_material,
}
