"""A world on a table of a square metre: a gripper pushes about and grasps a cube. Pictures show both as spots, so that
a judge can read them off; its models are right, or wrong in a known way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from orrery.evaluation.verification.interfaces import (
    GRIPPER,
    Actions,
    Actor,
    Blows,
    Clip,
    Film,
    Reading,
    Trial,
    trial_seed,
)

SIDE, SPOT_M, NEAR_M = 32, 0.05, 0.12
CHUNK = 4
ORDER = "Go to the corner."
TARGET_M = np.array([0.8, 0.8])
GRID = (np.arange(SIDE) + 0.5) / SIDE


@dataclass(frozen=True, kw_only=True)
class State:
    gripper: tuple[float, float]
    cube: tuple[float, float]
    opening: float = 1.0
    light: float = 1.0


def stepped(state: State, action: np.ndarray) -> State:
    at = np.clip(np.array(state.gripper) + action[:2], 0.1, 0.9)
    cube = np.array(state.cube)
    if action[2] < 0.5 and np.linalg.norm(cube - state.gripper) < NEAR_M:
        cube = np.clip(cube + at - state.gripper, 0.1, 0.9)
    return State(gripper=tuple(at), cube=tuple(cube), opening=float(action[2]), light=state.light)


def arrived(state: State) -> bool:
    return bool(np.linalg.norm(np.subtract(state.gripper, TARGET_M)) < 0.1)


def drawn(state: State) -> np.ndarray:
    """Red: the gripper, wider when it is open. Green: the cube. Blue: the light."""

    def spot(place: Sequence[float], width: float) -> np.ndarray:
        away = (GRID[:, None] - place[1]) ** 2 + (GRID[None] - place[0]) ** 2
        return np.exp(-away / (2 * width**2))

    red = spot(state.gripper, SPOT_M * (0.7 + 0.6 * state.opening))
    green = spot(state.cube, SPOT_M)
    picture = np.stack([red, green, np.full_like(red, 0.4 * state.light)], axis=-1)
    return np.rint(255 * picture).astype(np.uint8)


def seen(picture: np.ndarray) -> State:
    """The state that a picture shows."""
    red, green = picture[..., 0].astype(float), picture[..., 1].astype(float)

    def middle(values: np.ndarray) -> tuple[float, float]:
        kept = np.where(values > 40, values, 0.0)
        total = max(1e-6, kept.sum())
        return float((kept.sum(axis=0) @ GRID) / total), float((kept.sum(axis=1) @ GRID) / total)

    width = (red > 127).sum() ** 0.5 / SIDE
    return State(
        gripper=middle(red), cube=middle(green), opening=1.0 if width > 0.12 else 0.0,
        light=float(picture[..., 2].mean()) / 255 / 0.4,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyWorld:
    name: str = "toy"
    chunk: int = CHUNK
    rate_hz: float = 10.0
    limits: tuple[float, ...] = (0.1, 0.1)
    gripper: int = 2
    changes: Mapping[str, str] = field(default_factory=lambda: {"slow drives": GRIPPER, "dark": "top"})
    policies: tuple[str, ...] = tuple(f"noise {i}" for i in range(8))
    note: str = "Spots are read off."
    sound_rate_hz: int = 10

    def clips(self, count: int, *, chunks: int, seed: int, offset: int, change: str = "") -> list[Clip]:
        found = []
        for index in range(count):
            rng = np.random.default_rng([seed, offset, index])
            begin = State(
                gripper=tuple(rng.uniform(0.3, 0.7, 2)), cube=tuple(rng.uniform(0.3, 0.7, 2)),
                light=0.5 if change == "dark" else 1.0,
            )  # fmt: skip
            drift = rng.uniform(-0.07, 0.07, 2)
            motion = np.clip(drift + rng.normal(0, 0.02, (chunks * CHUNK, 2)), -0.1, 0.1)
            actions = np.concatenate([motion, np.full((chunks * CHUNK, 1), float(index % 2))], axis=1)
            found.append(self._acted(begin, actions, 0.3 if change == "slow drives" else 1.0))
        return found

    def _acted(self, begin: State, actions: Actions, gain: float = 1.0) -> Clip:
        states = [begin]
        for action in actions:
            states.append(stepped(states[-1], action * np.array([gain, gain, 1.0])))

        def places(name: str) -> np.ndarray:
            return np.array([[*getattr(state, name), 0.0] for state in states])

        return Clip(
            source="drift",
            film={"top": np.stack([drawn(state) for state in states])},
            actions=actions,
            points_m={GRIPPER: places("gripper"), "cube": places("cube")},
            seen={GRIPPER: np.ones(len(states), dtype=bool), "cube": np.ones(len(states), dtype=bool)},
            prompt="Bring the cube to the corner.",
            start=begin,
        )

    def execute(self, clip: Clip, actions: Actions) -> Clip:
        assert isinstance(clip.start, State)
        return self._acted(clip.start, actions)

    def read(self, pictures: np.ndarray) -> list[Reading]:
        states = [seen(picture) for picture in pictures]
        return [
            Reading(
                points_m={GRIPPER: np.array([*state.gripper, 0.0]), "cube": np.array([*state.cube, 0.0])},
                present=frozenset({"cube"} if pictures[i][..., 1].max() > 100 else ()),
                held=state.opening < 0.5 and bool(np.linalg.norm(np.subtract(state.cube, state.gripper)) < NEAR_M),
            )
            for i, state in enumerate(states)
        ]

    def trials(self, policy: str, count: int, *, chunks: int, seed: int) -> list[Trial]:
        noise = 0.012 * int(policy.split()[1])
        found = []
        for index in range(count):
            rng = np.random.default_rng([seed, index])
            begin = now = State(gripper=tuple(rng.uniform(0.3, 0.6, 2)), cube=(0.2, 0.2))
            actions = []
            for _ in range(chunks * CHUNK):
                aim = TARGET_M - now.gripper + rng.normal(0, noise, 2) * 3
                actions.append(np.array([*np.clip(aim, -0.1, 0.1), 1.0]))
                now = stepped(now, actions[-1])
            found.append(
                Trial(
                    policy=policy, start=index, given={"top": drawn(begin)}, actions=np.stack(actions),
                    success=arrived(now), end=drawn(now),
                    question="Is it in the corner?", goal=None,
                )
            )  # fmt: skip
        return found

    def attempts(self, actor: Actor, count: int, *, chunks: int, seed: int) -> list[Trial]:
        found = []
        for trial in self.trials("noise 0", count, chunks=chunks, seed=seed):
            begin = now = seen(trial.given["top"])
            actions: list[np.ndarray] = []
            for number in range(chunks):
                picture = {"top": drawn(now)}
                felt = np.array(now.gripper, dtype=np.float32)
                told = actor.act([picture], [felt], [ORDER], [trial_seed(seed, number, trial.start)])[0]
                for command in self.limited(felt, told):
                    actions.append(command)
                    now = stepped(now, command)
                if arrived(now):
                    break
            found.append(
                replace(
                    trial, policy=actor.name, actions=np.stack(actions), end=drawn(now), actor=actor, order=ORDER,
                    state=np.array(begin.gripper, dtype=np.float32),
                    success=arrived(now),
                )
            )  # fmt: skip
        return found

    def limited(self, state: np.ndarray, commands: Actions) -> Actions:
        return np.concatenate([np.clip(commands[:, :2], -0.1, 0.1), commands[:, 2:]], axis=1)

    def felt(self, state: np.ndarray, actions: Actions, reading: Reading) -> np.ndarray:
        return np.clip(state + actions[:, :2].sum(axis=0), 0.1, 0.9).astype(np.float32)

    def blows(self, count: int, *, seed: int) -> list[Blows]:
        rng = np.random.default_rng(seed)
        found = []
        for clip in self.clips(count, chunks=1, seed=seed, offset=50):
            at = int(rng.integers(CHUNK))
            sound = np.zeros(CHUNK + 1)
            sound[at] = 1.0
            marked = np.clip(clip.actions, -0.08, 1.0)
            marked[:, 0] = np.minimum(marked[:, 0], 0.08)
            marked[at, 0] = 0.1  # so large a step strikes
            found.append(Blows(given=clip.given, actions=marked, sound=sound, own=at))
        return found

    def heard(self, sounds: Sequence[np.ndarray], blows: Sequence[Blows]) -> list[tuple[int, int, int]]:
        return [
            (int(sound[row.own] > 0.5), int((sound > 0.5).sum()), 1) for sound, row in zip(sounds, blows, strict=True)
        ]

    def done(self, trial: Trial, reading: Reading) -> bool:
        return bool(np.linalg.norm(reading.points_m[GRIPPER][:2] - TARGET_M) < 0.1)

    def distance_m(self, clip: Clip, reading: Reading) -> float:
        return float(np.linalg.norm(reading.points_m[GRIPPER] - clip.points_m["cube"][0]))

    def true_distance_m(self, clip: Clip) -> float:
        return float(np.linalg.norm(clip.points_m[GRIPPER][-1] - clip.points_m["cube"][0]))

    def proposals(self, clip: Clip, count: int, seed: int) -> list[Actions]:
        rng = np.random.default_rng(seed)
        return [
            np.concatenate([np.tile(rng.uniform(-0.1, 0.1, 2), (CHUNK, 1)), np.ones((CHUNK, 1))], axis=1)
            for _ in range(count)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyModel:
    """Reads the given frame, acts as the world does, with some noise, and draws."""

    noise_m: float = 0.004
    bias: float = 0.0
    """Added to every motion."""
    name: str = "toy model"
    tells: bool = True
    sounds: bool = True

    def imagine(self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int]) -> list[Film]:
        films: list[Film] = []
        for frames, rows, seed in zip(given, actions, seeds, strict=True):
            rng = np.random.default_rng(seed)
            # Larger motions are foreseen less well, so that the spread of samples tells the error.
            scale = self.noise_m * float(rng.normal()) * float(np.abs(rows[:, :2]).mean() / 0.05) ** 2
            states = [seen(frames["top"])]
            for row in rows:
                moved = row + np.array([self.bias + scale / CHUNK, self.bias + scale / CHUNK, 0.0])
                states.append(stepped(states[-1], moved))
            pictures = np.stack([drawn(state) for state in states])
            films.append({"top": np.clip(pictures, 0, 255)})
        return films

    def listen(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], rate_hz: int
    ) -> list[np.ndarray]:
        return [np.append(np.abs(rows[:, 0]) > 0.095, False).astype(float) for rows in actions]

    def tell(self, films: Sequence[np.ndarray], questions: Sequence[str], fps: float) -> list[str]:
        near = [np.linalg.norm(np.subtract(seen(film[-1]).gripper, TARGET_M)) < 0.1 for film in films]
        return ["yes" if one else "no" for one in near]


@dataclass(frozen=True, kw_only=True)
class ToyActor:
    """Goes where it sees that it should, by what it feels or by what it sees."""

    name: str = "looker"
    aim: tuple[float, float] = (0.8, 0.8)

    def act(
        self, given: Sequence[Film], states: Sequence[np.ndarray], orders: Sequence[str], seeds: Sequence[int]
    ) -> list[Actions]:
        found = []
        for frames, order in zip(given, orders, strict=True):
            assert order == ORDER
            at, rows = np.array(seen(frames["top"]).gripper), []
            for _ in range(CHUNK):
                step = np.clip(np.array(self.aim) - at, -0.1, 0.1)
                at = at + step
                rows.append([*step, 1.0])
            found.append(np.array(rows))
        return found
