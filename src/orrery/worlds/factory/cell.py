"""One cell in motion: gantry, belt, buttons and parts, 20 control steps a second, exact to save and to fork.

What a task wants of it is in `goals`, how it looks in `render`, how it sounds in `sound`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from orrery.errors import TaskError
from orrery.worlds.factory.contacts import ContactTracker, Impact, Rubbing, TrackerState
from orrery.worlds.factory.layout import CellParameters, Layout
from orrery.worlds.factory.scene import AXES, FINGER_STROKE_M, HOME, LAMP_ON, WORKSPACE, build

EMBODIMENT = "factory_gantry"
"""Row of `tasks.embodiment` that says what actions mean."""
CONTROL_HZ = 20
STEP_S = 1 / CONTROL_HZ
ACTION_COLUMNS = ("dx_m", "dy_m", "dz_m", "dyaw_rad", "gripper")
STATE_COLUMNS = ("x_m", "y_m", "z_m", "yaw_rad", "aperture")
ACTION_LIMITS = (0.03, 0.03, 0.03, 0.15)
"""Largest motion of one step: 0.6 m/s and 3 rad/s."""
LEASH = (0.05, 0.05, 0.05, 0.3)
"""The setpoint stays this near to the gantry, so that pushing against something does not wind up."""
GRIP_LEASH = 0.3
"""As LEASH, for the commanded aperture below the measured one."""
GRIPPER_S = 0.2
"""The command of the gripper reaches from closed to open in this time."""
PRESSED_M = 0.004
"""A button counts as pressed from this depth on."""
BELT_START_S, BELT_ACCELERATION_M_S2 = 0.3, 0.4
ALL = mujoco.mjtState.mjSTATE_INTEGRATION

Action = Float[np.ndarray, "5"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened: grasped, released, pressed, lamp_on, lamp_off, belt_started or belt_stopped."""

    time_s: float
    kind: str
    subject: str
    """The body it happened to."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What moved under its own power in one control step, for its noise; speeds are means of magnitudes."""

    start_s: float
    stop_s: float
    gantry_m_s: tuple[float, float, float]
    yaw_rad_s: float
    gripper_m_s: float
    belt_m_s: float
    lamp: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one step did. `executed` is the action after every limit; `limited`: it differs from the command."""

    executed: Float32[np.ndarray, "5"]
    limited: bool
    impacts: tuple[Impact, ...]
    rubbings: tuple[Rubbing, ...]
    motion: Motion
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the cell knows besides physics. Immutable, so that a snapshot shares it."""

    setpoint: tuple[float, ...] = HOME
    gripper: float = 1.0
    """Commanded aperture after its ramp."""
    queue: tuple[tuple[float, ...], ...] = ()
    """Drive targets still under way, one for each physics step of the actuators' delay."""
    running: bool = False
    changed_s: float = -10.0
    """When running last changed."""
    belt_m_s: float = 0.0
    belt_travel_m: float = 0.0
    touching: frozenset[tuple[str, str]] = frozenset()
    """Pairs of bodies in contact, each pair in alphabetical order."""
    held: int | None = None
    was_held: frozenset[int] = frozenset()
    was_touched: frozenset[int] = frozenset()
    pressed: frozenset[str] = frozenset()
    """Buttons that were pressed at any time."""
    down: frozenset[str] = frozenset()
    """Buttons that are down now."""
    closed_empty: bool = False
    """The gripper once closed fully around nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellState:
    """Everything that decides the future of a cell; may be pickled and restored in another process."""

    physics: Float64[np.ndarray, " n"]
    memory: Memory
    tracker: TrackerState


class Cell:
    """A cell built from a layout. Not a Gymnasium env; `env` wraps it.

    Args:
        layout: what stands where.
        parameters: the twin's knobs.
        listens: contacts are followed for their impacts and rubbings. Without, reports have none and steps cost a sixth
            less; the motion is the same.

    Raises:
        TaskError: parts that overlap, or stand in something, at the beginning.
    """

    def __init__(self, layout: Layout, parameters: CellParameters, *, listens: bool = True) -> None:
        self.layout, self.parameters, self.listens = layout, parameters, listens
        self.model = build(layout, parameters)
        self.data = mujoco.MjData(self.model)
        self.substeps = round(STEP_S / parameters.timestep_s)
        self._body_names = [self.model.body(i).name for i in range(self.model.nbody)]
        self._geom_bodies = self.model.geom_bodyid
        self._axes = [int(self.model.joint(name).qposadr[0]) for name in AXES]
        self._axis_speeds = [int(self.model.joint(name).dofadr[0]) for name in AXES]
        self._fingers = [int(self.model.joint(name).qposadr[0]) for name in ("finger_left", "finger_right")]
        self._finger_speeds = [int(self.model.joint(name).dofadr[0]) for name in ("finger_left", "finger_right")]
        self._belt = int(self.model.joint("belt").qposadr[0])
        self._belt_speed = int(self.model.joint("belt").dofadr[0])
        self._buttons = {name: int(self.model.joint(f"button_{name}").qposadr[0]) for name in ("start", "stop")}
        self._parts = [self.model.body(f"part_{i}").id for i in range(len(layout.parts))]
        self.belt_geom = int(self.model.body("belt").geomadr[0])
        self._lamp_geom = int(self.model.geom("lamp").id)
        self.tracker = ContactTracker(self.model)
        self.memory = Memory()
        self._begin()

    def _begin(self) -> None:
        for index, value in zip(self._axes, HOME, strict=True):
            self.data.qpos[index] = value
        self.data.qpos[self._fingers] = FINGER_STROKE_M
        self.data.ctrl[:4], self.data.ctrl[4:] = HOME, FINGER_STROKE_M
        delay = round(self.parameters.actuator_delay_s / self.parameters.timestep_s)
        speed = self.parameters.belt_speed_m_s if self.layout.running else 0.0
        self.memory = Memory(queue=((*HOME, FINGER_STROKE_M),) * delay, running=self.layout.running, belt_m_s=speed)
        mujoco.mj_forward(self.model, self.data)
        contacts = self.data.contact
        if len(contacts.dist) and contacts.dist.min() < -0.002:
            deepest = contacts.geom[int(contacts.dist.argmin())]
            one, other = (self._body_names[self._geom_bodies[geom]] for geom in deepest)
            raise TaskError(f"{one} and {other} overlap by {-1000 * contacts.dist.min():.1f} mm. Place them apart.")
        self.memory = replace(self.memory, touching=self._touching())

    @property
    def time_s(self) -> float:
        """Seconds since the beginning."""
        return float(self.data.time)

    def step(self, action: np.ndarray | Sequence[float]) -> Report:
        """One control step, 1 / CONTROL_HZ seconds.

        Args:
            action: (dx, dy, dz, dyaw, gripper): how far the setpoint of the gantry moves, metres and radians, within
                ACTION_LIMITS; and the gripper, 1 open to 0 closed. What exceeds a limit is limited and reported.

        Raises:
            TaskError: not five finite numbers.
        """
        asked = np.asarray(action, dtype=np.float64)
        if asked.shape != (5,) or not np.isfinite(asked).all():
            raise TaskError(
                f"An action is 5 finite numbers {ACTION_COLUMNS}, got {np.asarray(action).tolist()!r:.200}."
            )
        before, goal, gripper = self.memory, *self._limited(asked)
        executed = np.array([*np.subtract(goal, before.setpoint), gripper], dtype=np.float32)
        path = np.linspace(before.setpoint, goal, self.substeps + 1)[1:]
        queue = [*before.queue]
        opening = max(before.gripper, self.aperture - GRIP_LEASH)
        belt_m_s, travel = before.belt_m_s, 0.0
        wanted = self.parameters.belt_speed_m_s if before.running else 0.0
        if self.time_s - before.changed_s < BELT_START_S and before.running:
            wanted = 0.0
        most = self.parameters.timestep_s / GRIPPER_S
        ramp = self.parameters.timestep_s * BELT_ACCELERATION_M_S2
        start_s, data, model = self.time_s, self.data, self.model
        speeds = np.zeros(model.nv)
        # Views that are looked up once: this loop runs a thousand times a second of simulation.
        ctrl, qpos, qvel = data.ctrl, data.qpos, data.qvel
        for k in range(self.substeps):
            opening += min(max(gripper - opening, -most), most)
            belt_m_s += min(max(wanted - belt_m_s, -ramp), ramp)
            queue.append((*path[k], opening * FINGER_STROKE_M))
            target = queue.pop(0)
            ctrl[:4], ctrl[4:] = target[:4], target[4]
            # The belt is endless: its speed is imposed and its place in the world never changes.
            qpos[self._belt], qvel[self._belt] = 0.0, belt_m_s
            mujoco.mj_step(model, data)
            if self.listens:
                self.tracker.sample(data)
            travel += belt_m_s * self.parameters.timestep_s
            speeds += np.abs(qvel)
        qpos[self._belt], qvel[self._belt] = 0.0, belt_m_s
        mujoco.mj_forward(model, data)
        impacts, rubbings = self.tracker.collect(data) if self.listens else ([], [])
        self.memory = replace(
            before,
            setpoint=tuple(goal),
            gripper=opening,
            queue=tuple(queue),
            belt_m_s=belt_m_s,
            belt_travel_m=before.belt_travel_m + travel,
        )
        events = self._notice(gripper)
        if (before.belt_m_s == 0) != (belt_m_s == 0):
            kind = "belt_started" if belt_m_s else "belt_stopped"
            events.append(Event(time_s=self.time_s, kind=kind, subject="belt"))
        speeds /= self.substeps
        axes = speeds[self._axis_speeds]
        motion = Motion(
            start_s=start_s,
            stop_s=self.time_s,
            gantry_m_s=(float(axes[0]), float(axes[1]), float(axes[2])),
            yaw_rad_s=float(axes[3]),
            gripper_m_s=float(speeds[self._finger_speeds].mean()),
            belt_m_s=abs(belt_m_s),
            lamp=self.memory.running,
        )
        return Report(
            executed=executed,
            limited=bool(np.abs(executed - asked).max() > 1e-6),
            impacts=tuple(impacts),
            rubbings=tuple(rubbings),
            motion=motion,
            events=tuple(events),
        )

    def _limited(self, asked: Float64[np.ndarray, "5"]) -> tuple[list[float], float]:
        """The new setpoint and gripper command: within a step, the leash and the workspace."""
        goal = []
        for i, axis in enumerate(AXES):
            moved = min(max(asked[i], -ACTION_LIMITS[i]), ACTION_LIMITS[i])
            here, (low, high) = float(self.data.qpos[self._axes[i]]), WORKSPACE[axis]
            value = self.memory.setpoint[i] + moved
            leash = LEASH[i] + ACTION_LIMITS[i] * self.parameters.actuator_delay_s / STEP_S
            value = min(max(value, here - leash), here + leash)
            goal.append(float(min(max(value, low), high)))
        return goal, float(min(max(asked[4], 0.0), 1.0))

    def _notice(self, gripper: float) -> list[Event]:
        """Bring the memory up to date with the physics, and say what changed."""
        old, now, events = self.memory, self.time_s, []
        touching = self._touching()
        both = [i for i in range(len(self._parts)) if self._fingers_on(i, touching)]
        held = both[0] if both else None
        if held != old.held:
            if old.held is not None:
                events.append(Event(time_s=now, kind="released", subject=f"part_{old.held}"))
            if held is not None:
                events.append(Event(time_s=now, kind="grasped", subject=f"part_{held}"))
        down = frozenset(name for name, index in self._buttons.items() if -self.data.qpos[index] > PRESSED_M)
        running, changed_s = old.running, old.changed_s
        for name in sorted(down - old.down):
            events.append(Event(time_s=now, kind="pressed", subject=f"button_{name}"))
            if running != (name == "start"):
                running, changed_s = name == "start", now
                events.append(Event(time_s=now, kind="lamp_on" if running else "lamp_off", subject="lamp"))
        touched = {
            i
            for i in range(len(self._parts))
            for finger in ("finger_left", "finger_right", "palm")
            if pair(finger, f"part_{i}") in touching
        }
        self.memory = replace(
            old,
            touching=touching,
            held=held,
            was_held=old.was_held | ({held} if held is not None else set()),
            was_touched=old.was_touched | touched,
            running=running,
            changed_s=changed_s,
            down=down,
            pressed=old.pressed | down,
            closed_empty=old.closed_empty or (gripper < 0.5 and self.aperture < 0.03),
        )
        return events

    def _touching(self) -> frozenset[tuple[str, str]]:
        contacts = self.data.contact
        bodies = self._geom_bodies[contacts.geom[contacts.dist < 0.0005]]
        names = self._body_names
        return frozenset(pair(names[a], names[b]) for a, b in {*map(tuple, bodies.tolist())})

    def _fingers_on(self, index: int, touching: Iterable[tuple[str, str]]) -> bool:
        name = f"part_{index}"
        return pair("finger_left", name) in touching and pair("finger_right", name) in touching

    @property
    def gripper_m(self) -> Float64[np.ndarray, "3"]:
        """Where the middle between the fingertips is."""
        return np.array(self.data.qpos[self._axes[:3]])

    @property
    def yaw_rad(self) -> float:
        return float(self.data.qpos[self._axes[3]])

    @property
    def aperture(self) -> float:
        """1 fully open, 0 closed, as measured."""
        return float(self.data.qpos[self._fingers].mean() / FINGER_STROKE_M)

    def proprioception(self) -> Float32[np.ndarray, "5"]:
        """As STATE_COLUMNS has it."""
        return np.array([*self.gripper_m, self.yaw_rad, self.aperture], dtype=np.float32)

    def part_m(self, index: int) -> Float64[np.ndarray, "3"]:
        """The middle of a part."""
        return np.array(self.data.xpos[self._parts[index]])

    def part_rotation(self, index: int) -> Float64[np.ndarray, "3 3"]:
        return np.array(self.data.xmat[self._parts[index]]).reshape(3, 3)

    def part_quaternion(self, index: int) -> Float64[np.ndarray, "4"]:
        """Its direction, (w, x, y, z)."""
        return np.array(self.data.xquat[self._parts[index]])

    def part_yaw_rad(self, index: int) -> float:
        """The direction of its x axis seen from above."""
        turned = self.part_rotation(index)
        return float(np.arctan2(turned[1, 0], turned[0, 0]))

    def part_tilt_rad(self, index: int) -> float:
        """How far its upright axis leans; 0 standing or standing on its head."""
        return float(np.arccos(np.clip(abs(self.part_rotation(index)[2, 2]), 0, 1)))

    def part_speed_m_s(self, index: int) -> float:
        """Of its middle, belt and all."""
        address = int(self.model.joint(f"part_{index}").dofadr[0])
        return float(np.linalg.norm(self.data.qvel[address : address + 3]))

    def touches(self, one: str, other: str) -> bool:
        return pair(one, other) in self.memory.touching

    def colours(self) -> Float[np.ndarray, "G 4"]:
        """Colours of all geoms: those of the model, and the lamp as it is now."""
        rgba = np.array(self.model.geom_rgba)
        if self.memory.running:
            rgba[self._lamp_geom, :3] = LAMP_ON
        return rgba

    def part_mask(self, segmentation: np.ndarray, index: int) -> Bool[np.ndarray, "H W"]:
        """Where a part is seen in an image of geom numbers, -1 where there is none."""
        body = np.append(self._geom_bodies, 0)[segmentation]
        return np.asarray(body == self._parts[index])

    def snapshot(self) -> CellState:
        """A copy of everything that decides the future."""
        physics = np.empty(mujoco.mj_stateSize(self.model, ALL))
        mujoco.mj_getState(self.model, self.data, physics, ALL)
        return CellState(physics=physics, memory=self.memory, tracker=self.tracker.snapshot())

    def restore(self, state: CellState) -> None:
        """Go back, or on, to a snapshot of a cell of the same layout and parameters.

        Raises:
            TaskError: a snapshot of another cell, as far as its size shows.
        """
        size = mujoco.mj_stateSize(self.model, ALL)
        if state.physics.shape != (size,):
            raise TaskError(f"A snapshot of {state.physics.size} numbers does not fit this cell of {size}.")
        mujoco.mj_setState(self.model, self.data, state.physics, ALL)
        mujoco.mj_forward(self.model, self.data)
        # mj_forward may change what the solver starts from; the snapshot has what it was.
        mujoco.mj_setState(self.model, self.data, state.physics, ALL)
        self.memory = state.memory
        self.tracker.restore(state.tracker)


def pair(one: str, other: str) -> tuple[str, str]:
    """Two names in alphabetical order."""
    return (one, other) if one <= other else (other, one)
