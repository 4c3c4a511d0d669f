"""What the ladder asks of a simulator and of a world model. Whatever offers these can be verified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

Film = Mapping[str, npt.NDArray[np.uint8]]
"""Camera -> (T, H, W, 3), or (H, W, 3) for one moment."""
Actions = Float[np.ndarray, "steps A"]
GRIPPER = "gripper"
"""Every world's name for the point that the actions move."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A stretch of an episode with the truth about it. Frame t is followed by action t, so there is one action less."""

    source: str
    """Who acted."""
    film: Film
    actions: Actions
    points_m: Mapping[str, Float[np.ndarray, "T 3"]]
    """Places of the gripper and of every part that has its name alone."""
    seen: Mapping[str, Bool[np.ndarray, " T"]]
    """Whether the first camera can see them."""
    prompt: str
    start: object
    """The world's own: where `execute` begins."""

    @property
    def given(self) -> Film:
        """The first frame of each camera."""
        return {camera: frames[0] for camera, frames in self.film.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a judge who was never told reads from one picture of the first camera."""

    points_m: Mapping[str, Float[np.ndarray, "3"]]
    """Where each thing would be, also those that it believes absent."""
    present: frozenset[str]
    held: bool
    own: object = field(default=None, repr=False)
    """The world's own, for `done`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One attempt of one policy from one start, as the simulator had it."""

    policy: str
    start: int
    """Trials of different policies with the same number began in the same state."""
    given: Film
    actions: Actions
    """As executed, whole chunks of them."""
    success: bool
    """At the end, by the simulator's own rule."""
    end: npt.NDArray[np.uint8]
    """The last picture of the first camera."""
    question: str
    """Asks whether it was done."""
    goal: object = field(repr=False)
    """The world's own, for `done`."""
    actor: "Actor | None" = None
    """Who looked and acted; it can act in imagination as well. None is a policy that the world knows."""
    order: str = ""
    """What the actor was told to do."""
    state: npt.NDArray[np.float32] | None = None
    """What the machine felt at first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blows:
    """A clip of one chunk in which things strike each other."""

    given: Film
    actions: Actions
    sound: Float[np.ndarray, " N"]
    """The true one: one channel at `World.sound_rate_hz`."""
    own: object = field(repr=False)
    """The world's own, for `heard`."""


@runtime_checkable
class Actor(Protocol):
    """A policy that acts on what it sees, feels and is told."""

    @property
    def name(self) -> str: ...

    def act(
        self,
        given: Sequence[Film],
        states: Sequence[npt.NDArray[np.float32]],
        orders: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Actions]:
        """A chunk of actions for each."""


@runtime_checkable
class World(Protocol):
    """A simulator with a judge of pictures."""

    @property
    def name(self) -> str: ...

    @property
    def chunk(self) -> int:
        """Actions that a model imagines at a time."""

    @property
    def rate_hz(self) -> float: ...

    @property
    def limits(self) -> tuple[float, ...]:
        """Largest motion of each action column but the gripper's, either way, in raw units."""

    @property
    def gripper(self) -> int:
        """The column of the gripper, 1 open to 0 closed."""

    @property
    def changes(self) -> Mapping[str, str]:
        """Known differences that the "real" cell can have from its twin -> the thing in which each must show."""

    @property
    def policies(self) -> tuple[str, ...]: ...

    @property
    def note(self) -> str:
        """How good the judge is."""

    def clips(self, count: int, *, chunks: int, seed: int, offset: int, change: str = "") -> list[Clip]:
        """Clips of so many chunks from test episodes, the same for the same arguments. With `change`, of the cell that
        differs so; with `change` and ": none" behind it, the same episodes in the twin."""

    def execute(self, clip: Clip, actions: Actions) -> Clip:
        """The truth under other actions from the same start."""

    def read(self, pictures: npt.NDArray[np.uint8]) -> list[Reading]:
        """(B, H, W, 3) of the first camera."""

    def trials(self, policy: str, count: int, *, chunks: int, seed: int) -> list[Trial]:
        """Attempts of a policy of at most so many chunks, from starts that all policies share."""

    def attempts(self, actor: Actor, count: int, *, chunks: int, seed: int) -> list[Trial]:
        """Attempts of a policy that looks, from the starts of `trials`; over with the chunk in which they are done."""

    def limited(self, state: npt.NDArray[np.float32], commands: Actions) -> Actions:
        """Commands as the machine would execute them from where it feels itself to be."""

    def felt(self, state: npt.NDArray[np.float32], actions: Actions, reading: Reading) -> npt.NDArray[np.float32]:
        """What the machine would feel after actions if nothing is in its way; `reading` is of the picture then."""

    def done(self, trial: Trial, reading: Reading) -> bool:
        """Whether the goal is reached in a picture."""

    @property
    def sound_rate_hz(self) -> int: ...

    def blows(self, count: int, *, seed: int) -> list[Blows]:
        """So many clips in which something strikes; none where the world is silent."""

    def heard(self, sounds: Sequence[Float[np.ndarray, " N"]], blows: Sequence[Blows]) -> list[tuple[int, int, int]]:
        """Blows that are heard at their time, blows that are heard, and true blows, of each sound."""

    def distance_m(self, clip: Clip, reading: Reading) -> float:
        """From the gripper to what the clip's task wants first; shorter is better."""

    def true_distance_m(self, clip: Clip) -> float:
        """The same at the end of a clip, from the truth."""

    def proposals(self, clip: Clip, count: int, seed: int) -> list[Actions]:
        """Chunks of actions that a planner would try from the start of a clip."""


@runtime_checkable
class Imaginer(Protocol):
    """A world model."""

    @property
    def name(self) -> str: ...

    @property
    def tells(self) -> bool:
        """Whether `tell` is there: it answers questions about films."""

    @property
    def sounds(self) -> bool:
        """Whether `listen` is there: it imagines sound."""

    def imagine(self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int]) -> list[Film]:
        """One chunk for each: films of one frame more than there are actions, from the frame that is given."""

    def tell(self, films: Sequence[npt.NDArray[np.uint8]], questions: Sequence[str], fps: float) -> list[str]:
        """Answers to questions about films (T, H, W, 3) of the first camera."""

    def listen(
        self, given: Sequence[Film], actions: Sequence[Actions], seeds: Sequence[int], rate_hz: int
    ) -> list[Float[np.ndarray, " N"]]:
        """The sound of one chunk for each, one channel."""


def trial_seed(seed: int, chunk: int, row: int) -> int:
    """What is drawn by in one chunk of one row of a run."""
    return seed * 1_000_003 + chunk * 10_007 + row


def chain(
    imaginer: Imaginer, given: Sequence[Film], actions: Sequence[np.ndarray], *, chunk: int, seed: int
) -> list[list[Film]]:
    """Films of one chunk after the other for each row, from the last frames of the one before; rows may differ in
    length, and each has as many films as whole chunks of actions."""
    now, made = list(given), [[] for _ in given]  # type: list[Film], list[list[Film]]
    for number in range(max((len(rows) for rows in actions), default=0) // chunk):
        left = [i for i, rows in enumerate(actions) if len(rows) >= (number + 1) * chunk]
        films = imaginer.imagine(
            [now[i] for i in left],
            [actions[i][number * chunk : (number + 1) * chunk] for i in left],
            [trial_seed(seed, number, i) for i in left],
        )
        for i, film in zip(left, films, strict=True):
            made[i].append(film)
            now[i] = {camera: frames[-1] for camera, frames in film.items()}
    return made
