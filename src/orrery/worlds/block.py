"""A coloured block on a table and a gripper seen from above: the smallest world in which actions have consequences.

An open gripper passes over the block. Closed around it, it carries the block; closed elsewhere, it is a fist that
pushes. Pure numpy, exact and repeatable by seed: `begin`, `step`, `draw`, `sounds`, a `play` that acts, and
`record_episode`.

Metres on the table, x to the right and y up in the picture, (0, 0) in its middle. One step is 1 / RATE_HZ seconds. An
action is (dx_m, dy_m, gripper): displacement within the step, and 1 to open, 0 to close.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8

from orrery.data.lerobot_writer import Writer
from orrery.data.media import Sound
from orrery.data.write_media import write_wav
from orrery.errors import SettingsError
from orrery.tasks.contract import ActionContract, Camera
from orrery.tasks.normaliser import Normaliser

RATE_HZ = 15
HALF_TABLE_M = 0.32
MAX_STEP_M = 0.03
BLOCK_M = 0.055
"""Half the side of the block, and how near its middle the gripper must close to hold it."""
FIST_M = 0.025
APERTURE_STEP = 0.5
"""The gripper opens or closes fully in two steps."""
SOUND_RATE_HZ = 48_000
CLICK_S = 0.04

ACTION_NAMES = ("dx", "dy", "gripper")
ACTION_UNITS = ("m", "m", "1")
ACTION_COLUMNS = ("dx_m", "dy_m", "gripper")
STATE_NAMES = ("cursor_x_m", "cursor_y_m", "block_x_m", "block_y_m", "aperture", "holding", "touching")
CAMERA = "observation.image.top"
EMBODIMENT, DOMAIN = "moving_block", 31

Point = tuple[float, float]
Action = Float[np.ndarray, "3"]
Colour = Literal["red", "green", "blue", "yellow"]
COLOURS: dict[Colour, tuple[int, int, int]] = {
    "red": (214, 60, 52),
    "green": (54, 158, 84),
    "blue": (52, 104, 210),
    "yellow": (236, 186, 40),
}


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything there is to know about the world at one step."""

    cursor_m: Point
    block_m: Point
    aperture: float
    """1 open, 0 closed; follows the commanded gripper by at most APERTURE_STEP a step."""
    holding: bool
    touching: bool
    """The block is held, or was pushed in the step that led here."""
    colour: Colour

    def values(self) -> Float32[np.ndarray, "7"]:
        """As STATE_NAMES has it."""
        numbers = (*self.cursor_m, *self.block_m, self.aperture, self.holding, self.touching)
        return np.array(numbers, dtype=np.float32)


def begin(seed: int) -> State:
    """An open gripper somewhere, and a block of some colour somewhere else."""
    rng = np.random.default_rng([seed, 0])
    cursor, block = rng.uniform(-0.2, 0.2, size=(2, 2))
    colour = list(COLOURS)[rng.integers(len(COLOURS))]
    return State(
        cursor_m=_point(cursor), block_m=_point(block), aperture=1.0, holding=False, touching=False, colour=colour
    )


def step(state: State, action: Action) -> State:
    """One step on. The edge of the table stops the gripper and the block; nothing else is cut off in silence.

    Raises:
        SettingsError: a displacement beyond MAX_STEP_M, a gripper outside [0, 1], or values that are not finite.
    """
    dx, dy, command = (float(value) for value in action)
    # Recorded actions went through float32.
    if not (abs(dx) <= MAX_STEP_M * 1.0001 and abs(dy) <= MAX_STEP_M * 1.0001 and 0 <= command <= 1):
        raise SettingsError(
            f"An action is two displacements within +-{MAX_STEP_M} m and a gripper in 0 to 1, got {[dx, dy, command]}."
        )
    before = np.array(state.cursor_m)
    cursor = _on_table(before + np.array([dx, dy]), 0.0)
    aperture = state.aperture + float(np.clip(command - state.aperture, -APERTURE_STEP, APERTURE_STEP))
    block = np.array(state.block_m)
    closes = aperture == 0 < state.aperture
    holding = aperture < 0.5 and (state.holding or (closes and bool(np.abs(cursor - block).max() <= BLOCK_M)))
    pushes = False
    if holding and state.holding:
        block = _on_table(block + cursor - before, BLOCK_M)
    elif not holding and aperture == 0:
        away = block - cursor
        distance = float(np.hypot(*away))
        pushes = distance < BLOCK_M + FIST_M
        if pushes:
            # From exactly above there is no direction; any fixed one will do.
            direction = away / distance if distance else np.array([1.0, 0.0])
            block = _on_table(cursor + direction * (BLOCK_M + FIST_M), BLOCK_M)
    return State(
        cursor_m=_point(cursor),
        block_m=_point(block),
        aperture=aperture,
        holding=holding,
        touching=holding or pushes,
        colour=state.colour,
    )


def draw(state: State, size: int = 64) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """The table from above, size x size pixels, edges smoothed over one pixel."""
    pixel_m = 2 * HALF_TABLE_M / size
    along = (np.arange(size) + 0.5) * pixel_m - HALF_TABLE_M
    x, y = np.meshgrid(along, -along)
    grain = 6 * np.sin(90 * y + 3 * np.sin(17 * x)) + 40 * x
    canvas = np.stack([198 + grain, 178 + grain, 150 + grain], axis=-1)
    canvas = _paint(canvas, _box(x, y, (0.0, 0.0), HALF_TABLE_M - 0.012) * -1, (120, 96, 72), pixel_m)
    shadow = (state.block_m[0] + 0.012, state.block_m[1] - 0.012)
    canvas = _paint(canvas, _box(x, y, shadow, BLOCK_M), (122, 104, 84), pixel_m)
    colour = COLOURS[state.colour]
    canvas = _paint(canvas, _box(x, y, state.block_m, BLOCK_M), tuple(int(0.6 * c) for c in colour), pixel_m)
    canvas = _paint(canvas, _box(x, y, state.block_m, BLOCK_M - 0.01), colour, pixel_m)
    gap = FIST_M * 0.6 + state.aperture * (BLOCK_M + FIST_M * 0.4)
    for side in (-1, 1):
        finger = (state.cursor_m[0] + side * gap, state.cursor_m[1])
        canvas = _paint(canvas, _box(x, y, finger, FIST_M * 0.6, 0.05), (42, 46, 54), pixel_m)
    bar = _box(x, y, state.cursor_m, gap + FIST_M * 0.6, 0.012)
    canvas = _paint(canvas, bar, (92, 98, 110), pixel_m)
    return np.rint(canvas.clip(0, 255)).astype(np.uint8)


def sounds(states: Sequence[State], seed: int) -> Sound:
    """Silence with a short click whenever gripper and block begin to touch, from the side where that is.

    Stereo at 48 kHz, one step's worth of samples for each state.
    """
    rng = np.random.default_rng([seed, 2])
    each = SOUND_RATE_HZ // RATE_HZ
    samples = np.zeros((len(states) * each, 2))
    time = np.arange(int(CLICK_S * SOUND_RATE_HZ)) / SOUND_RATE_HZ
    touched = False
    for index, state in enumerate(states):
        if state.touching and not touched:
            tone = 0.5 * np.sin(2 * np.pi * 1800 * time) + 0.2 * rng.uniform(-1, 1, len(time))
            click = tone * np.exp(-time / 0.008)
            right = 0.5 + 0.5 * state.block_m[0] / HALF_TABLE_M
            end = min(len(samples), index * each + len(time))
            samples[index * each : end] += (click[:, None] * np.sqrt([1 - right, right]))[: end - index * each]
        touched = state.touching
    return Sound(samples=samples.astype(np.float32), rate=SOUND_RATE_HZ)


def play(state: State, rng: np.random.Generator) -> Generator[Action, State, None]:
    """Act for ever: carry the block somewhere, push it, or wander, with an unsteady hand. Is sent the states."""
    while True:
        goal, block = rng.uniform(-0.22, 0.22, size=2), np.array(state.block_m)
        kind = rng.choice(["carry", "push", "wander"], p=[0.6, 0.25, 0.15])
        if kind == "wander":
            state = yield from _reach(state, goal, 1.0, rng)
            continue
        away = block - goal
        behind = block + away / max(float(np.hypot(*away)), 1e-6) * (BLOCK_M + 2 * FIST_M)
        state = yield from _reach(state, block if kind == "carry" else behind, 1.0, rng)
        state = yield from _stay(state, 0.0, rng)
        state = yield from _reach(state, goal, 0.0, rng)
        state = yield from _stay(state, 1.0, rng)


def roll(seed: int, steps: int) -> tuple[list[State], Float32[np.ndarray, "{steps} 3"]]:
    """`play` for some steps from `begin`: steps + 1 states, and the action that leads from each into the next."""
    states = [begin(seed)]
    player = play(states[0], np.random.default_rng([seed, 1]))
    action = next(player)
    actions = []
    for _ in range(steps):
        # What is recorded is what was done, to the last bit.
        actions.append(action.astype(np.float32))
        states.append(step(states[-1], actions[-1]))
        action = player.send(states[-1])
    return states, np.stack(actions) if actions else np.zeros((0, 3), np.float32)


def contract(size: int, chunk: int) -> ActionContract:
    """What the actions of this world mean, for a checkpoint that learns from it."""
    return ActionContract(
        embodiment=EMBODIMENT,
        domain_id=DOMAIN,
        action_names=ACTION_NAMES,
        units=ACTION_UNITS,
        frame="world",
        mode="relative",
        gripper_index=2,
        gripper_range=(0.0, 1.0),
        gripper_open="hi",
        control_rate_hz=RATE_HZ,
        chunk=chunk,
        cameras=(Camera(name=CAMERA, height=size, width=size),),
        normaliser=Normaliser(kind="minmax", lo=(-MAX_STEP_M, -MAX_STEP_M, 0.0), hi=(MAX_STEP_M, MAX_STEP_M, 1.0)),
    )


def record_episode(folder: Path, seed: int, *, frames: int = 240, size: int = 64, sound: bool = False) -> None:
    """Play and write one LeRobot v3.0 episode into a folder that is new or empty.

    Row i of `action` leads from frame i into frame i + 1, as LeRobot has it; the action of the last row is one that was
    still to be done. With `sound` its clicks are written to sound.wav beside it, where LeRobot has no place for them.

    Raises:
        DatasetError: something is in the folder.
        SettingsError: fewer than 2 frames, or an odd size, which video cannot hold.
    """
    if frames < 2 or size < 16 or size % 2:
        raise SettingsError(f"An episode needs 2 frames and an even size of 16 or more, got {frames} and {size}.")
    states, actions = roll(seed, frames)
    seen = states[:-1]
    columns = {"observation.state": STATE_NAMES, "action": ACTION_COLUMNS}
    with Writer(folder, fps=RATE_HZ, robot_type=EMBODIMENT, columns=columns, cameras={CAMERA: (size, size)}) as writer:
        writer.add(
            task=f"Carry and push the {states[0].colour} block around the table.",
            columns={"observation.state": np.stack([state.values() for state in seen]), "action": actions},
            frames={CAMERA: np.stack([draw(state, size) for state in seen])},
        )
    if sound:
        heard = sounds(seen, seed)
        write_wav(folder / "sound.wav", heard)


def _reach(
    state: State, target: Float[np.ndarray, "2"], gripper: float, rng: np.random.Generator
) -> Generator[Action, State, State]:
    """Move until within 8 mm, or for 40 steps where something is in the way."""
    for _ in range(40):
        way = target - np.array(state.cursor_m)
        if np.abs(way).max() < 0.008:
            break
        wanted = way * min(1.0, 0.8 * MAX_STEP_M / float(np.abs(way).max()))
        state = yield _unsteady(wanted, gripper, rng)
    return state


def _stay(state: State, gripper: float, rng: np.random.Generator) -> Generator[Action, State, State]:
    """Open or close and give it the time."""
    for _ in range(3):
        state = yield _unsteady(np.zeros(2), gripper, rng)
    return state


def _unsteady(wanted: Float[np.ndarray, "2"], gripper: float, rng: np.random.Generator) -> Action:
    shaken = (wanted + rng.normal(0, 0.0015, size=2)).clip(-MAX_STEP_M, MAX_STEP_M)
    return np.array([*shaken, gripper])


def _on_table(place: Float[np.ndarray, "2"], margin_m: float) -> Float[np.ndarray, "2"]:
    """`place`, held back by the edge."""
    return place.clip(margin_m - HALF_TABLE_M, HALF_TABLE_M - margin_m)


def _point(place: Float[np.ndarray, "2"]) -> Point:
    return float(place[0]), float(place[1])


def _box(
    x: Float[np.ndarray, "H W"], y: Float[np.ndarray, "H W"], middle: Point, half_x: float, half_y: float | None = None
) -> Float[np.ndarray, "H W"]:
    """Metres to the edge of a box, negative inside."""
    high = half_x if half_y is None else half_y
    return np.maximum(np.abs(x - middle[0]) - half_x, np.abs(y - middle[1]) - high)


def _paint(
    canvas: Float[np.ndarray, "H W 3"], edge_m: Float[np.ndarray, "H W"], colour: Sequence[int], pixel_m: float
) -> Float[np.ndarray, "H W 3"]:
    """Colour where `edge_m` is negative; a pixel on the edge is covered in part."""
    cover = (0.5 - edge_m / pixel_m).clip(0, 1)[..., None]
    return canvas * (1 - cover) + np.array(colour) * cover
