"""The factory tasks as Gymnasium environments that can be saved, restored and forked."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32, UInt8

from orrery.errors import SettingsError, TaskError
from orrery.tasks.checks import nearest, shown
from orrery.worlds.factory.cell import ACTION_LIMITS, CONTROL_HZ, STATE_COLUMNS, STEP_S, Action, Cell, CellState
from orrery.worlds.factory.goals import FINAL, failure
from orrery.worlds.factory.hearing import SOUND_LAG_S, Ear, ear
from orrery.worlds.factory.layout import CellParameters
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import see
from orrery.worlds.factory.scene import CAMERAS, WORKSPACE
from orrery.worlds.factory.sound import RATE_HZ, Sounding, still_sounding, synthesise
from orrery.worlds.factory.tasks import TASKS, Job, Pairs, draw_job

Observation = dict[str, Any]
SAMPLES = RATE_HZ // CONTROL_HZ


@dataclass(frozen=True, kw_only=True, eq=False)
class EnvState:
    """A saved environment. May be pickled and restored into another env of the same class, in another process."""

    job: Job
    cell: CellState
    steps: int
    phrasing: int
    ear: Ear
    history: tuple[Sounding, ...]
    generator: Mapping[str, Any]


class FactoryEnv(gymnasium.Env[Observation, Action]):
    """One task of the factory cell; `reset` draws an instance of it.

    Observations: "pixels" with a uint8 picture (height, width, 3) for each camera; "agent_pos" float32 (5,), as
    `cell.STATE_COLUMNS`; "task", the instruction; and "sound" float32 (2400, 2), the 48 kHz stereo sound of one control
    step that ended SOUND_LAG_S ago. Actions are those of `Cell.step`. The reward is 1 where the task is done, else 0.
    An episode ends (terminated) when it is done or can no longer be done, and is cut off (truncated) at the horizon.

    `info` has "is_success", "failure" (a word of `goals.FAILURES`, "" on success), "executed_action" and "limited".

    Args:
        task: a row of `tasks.TASKS`.
        cameras: of "front", "side" and "wrist"; none makes steps several times faster.
        height, width: of the pictures.
        sound: False leaves the sound out.
        pairs: which colour x kind pairs may occur: "train", "held_out" or "all".
        random_look: draw colours, light and camera places; otherwise those of the evaluation.
        parameters: the same twin for every episode instead of one drawn for each.
        clearance_m: of the peg in its hole, where `parameters` are drawn.

    Raises:
        TaskError: no such task.
        SettingsError: no such camera, or a size that is not positive.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        task: str,
        *,
        render_mode: Literal["rgb_array"] | None = None,
        cameras: tuple[str, ...] = ("front", "wrist"),
        height: int = 128,
        width: int = 128,
        sound: bool = True,
        pairs: Pairs = "all",
        random_look: bool = True,
        parameters: CellParameters | None = None,
        clearance_m: float | None = None,
    ) -> None:
        if task not in TASKS:
            raise TaskError(f"There is no factory task {shown(task)}. {nearest(task, TASKS)}")
        unknown = [name for name in cameras if name not in CAMERAS]
        if unknown or height < 1 or width < 1:
            raise SettingsError(
                f"Cameras are {', '.join(CAMERAS)} of a size above 0, got {cameras}, {height} x {width}."
            )
        self.row, self.render_mode, self.cameras, self.size = TASKS[task], render_mode, tuple(cameras), (height, width)
        self.sound, self.pairs, self.random_look = sound, pairs, random_look
        self.parameters, self.clearance_m = parameters, clearance_m
        high = np.array([*ACTION_LIMITS, 1.0], dtype=np.float32)
        low = np.array([*np.negative(ACTION_LIMITS), 0.0], dtype=np.float32)
        self.action_space = spaces.Box(low, high, dtype=np.float32)
        # Room for what pushing can do beyond the commanded workspace.
        reach = np.array([*(WORKSPACE[axis] for axis in ("x", "y", "z", "yaw")), (0.0, 1.0)], dtype=np.float32)
        seen: dict[str, spaces.Space[Any]] = {
            "agent_pos": spaces.Box(reach[:, 0] - 0.2, reach[:, 1] + 0.2, dtype=np.float32),
            "task": spaces.Text(max_length=200, charset=string.printable),
        }
        if cameras:
            picture = spaces.Box(0, 255, (height, width, 3), dtype=np.uint8)
            seen["pixels"] = spaces.Dict(dict.fromkeys(cameras, picture))
        if sound:
            seen["sound"] = spaces.Box(-1, 1, (SAMPLES, 2), dtype=np.float32)
        self.observation_space = spaces.Dict(seen)
        assert len(STATE_COLUMNS) == 5
        self.steps = 0
        self.history: tuple[Sounding, ...] = ()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw an instance of the task. `options` may hold "job", a `tasks.Job` to begin instead of a drawn one.

        Raises:
            SettingsError: another option.
        """
        super().reset(seed=seed)
        extra = set(options or ()) - {"job"}
        if extra:
            raise SettingsError(f'reset takes the option "job" alone, got {sorted(extra)}.')
        job = (options or {}).get("job") or draw_job(
            self.row.name,
            self.np_random,
            pairs=self.pairs,
            parameters=self.parameters,
            clearance_m=self.clearance_m,
            random_look=self.random_look,
        )
        spoken = len(self.row.phrasings) if self.pairs != "held_out" else -len(self.row.held_out_phrasings)
        phrasing = int(self.np_random.integers(spoken)) if spoken > 0 else int(self.np_random.integers(spoken, 0))
        self._set_up(job)
        self.phrasing, self.steps, self.ear, self.history = phrasing, 0, ear(self.cell), ()
        return self.observe(), self._info()

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step; see the class."""
        report = self.cell.step(action)
        self.steps += 1
        self.ear, new = self.ear.hear(report)
        kept = still_sounding([*self.history, *new], self.cell.time_s - STEP_S - SOUND_LAG_S)
        self.history = tuple(kept)
        info = self._info() | {"executed_action": report.executed, "limited": report.limited}
        done = info["is_success"] or info["failure"] in FINAL
        return self.observe(), float(info["is_success"]), done, self.steps >= self.row.horizon, info

    def render(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The front camera's picture, where `render_mode` is "rgb_array"."""
        return see(self.cell, self.renderer, "front", *self.size).colour if self.render_mode == "rgb_array" else None

    def snapshot(self) -> EnvState:
        """Everything that decides the future, generator included."""
        return EnvState(
            job=self.job,
            cell=self.cell.snapshot(),
            steps=self.steps,
            phrasing=self.phrasing,
            ear=self.ear,
            history=self.history,
            generator=self.np_random.bit_generator.state,
        )

    def restore(self, state: EnvState) -> None:
        """Go to a snapshot; what follows is the same, bit for bit. `observe` says what is seen there.

        Raises:
            TaskError: a snapshot of another task.
        """
        if state.job.task != self.row.name:
            raise TaskError(f"A snapshot of {state.job.task} cannot be restored in an env of {self.row.name}.")
        if getattr(self, "job", None) != state.job:
            self._set_up(state.job)
        self.cell.restore(state.cell)
        self.steps, self.phrasing, self.ear, self.history = state.steps, state.phrasing, state.ear, state.history
        self.np_random.bit_generator.state = state.generator

    def observe(self) -> Observation:
        """What is observed now."""
        seen: Observation = {"agent_pos": self.cell.proprioception(), "task": self.job.instruction(self.phrasing)}
        if self.cameras:
            seen["pixels"] = {name: see(self.cell, self.renderer, name, *self.size).colour for name in self.cameras}
        if self.sound:
            seen["sound"] = self._listen()
        return seen

    def _set_up(self, job: Job) -> None:
        self.job, self.cell = job, Cell(job.layout, job.parameters)
        self.renderer = Renderer(self.cell.model)

    def _info(self) -> dict[str, Any]:
        why = failure(self.cell, self.job.goals)
        return {"is_success": not why, "failure": why}

    def _listen(self) -> Float32[np.ndarray, "N 2"]:
        until = self.cell.time_s - SOUND_LAG_S
        if until < STEP_S:  # the first observations: silence before the beginning
            heard = synthesise(self.history, 0.0, max(until, 0.0))
            return np.concatenate([np.zeros((SAMPLES - len(heard), 2), np.float32), heard])
        return synthesise(self.history, until - STEP_S, until)
