"""Policies that act on what they see, so also in imagination: those of a checkpoint, whole and hindered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orrery.evaluation.verification.interfaces import Actions, Actor, Film
from orrery.runtime.model import Model
from orrery.runtime.run import run
from orrery.tasks.request import Request


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelPolicy:
    """The policy of a checkpoint of ours."""

    model: Model
    embodiment: str
    name: str
    steps: int | None = None
    """Of sampling; the checkpoint's own where None."""
    batch: int = 8
    """Requests in one pack."""

    def act(
        self,
        given: Sequence[Film],
        states: Sequence[npt.NDArray[np.float32]],
        orders: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Actions]:
        requests = [
            Request(
                task="policy_no_video",
                prompt=order,
                vision=dict(frames),
                state=state,
                seed=seed % 2**31,
                embodiment=self.embodiment,
                steps=self.steps,
            )
            for frames, state, order, seed in zip(given, states, orders, seeds, strict=True)
        ]
        made: list[Actions] = []
        for start in range(0, len(requests), self.batch):
            # What it says is tried in a simulator, which limits it, and in imagination.
            rows = run(self.model, requests[start : start + self.batch], envelope=None)
            made += [np.asarray(row.actions, dtype=np.float64) for row in rows]
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Hindered:
    """A policy that is worse than another in a known way."""

    of: Actor
    name: str
    limits: tuple[float, ...]
    """Largest motion of each column but the gripper's, in raw units."""
    reach: float = 1.0
    """Factor on every motion."""
    shake: float = 0.0
    """Deviation of what is added to every motion, in limits."""
    blind: bool = False
    """Shown black pictures."""

    def act(
        self,
        given: Sequence[Film],
        states: Sequence[npt.NDArray[np.float32]],
        orders: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Actions]:
        if self.blind:
            given = [{camera: np.zeros_like(frame) for camera, frame in frames.items()} for frames in given]
        limits, made = np.array(self.limits), []
        for rows, seed in zip(self.of.act(given, states, orders, seeds), seeds, strict=True):
            moved, count = np.array(rows), len(limits)
            moved[:, :count] *= self.reach
            moved[:, :count] += self.shake * limits * np.random.default_rng(seed).standard_normal((len(rows), count))
            made.append(moved)
        return made


def actors_of(policy: Actor, limits: tuple[float, ...]) -> list[Actor]:
    """A policy and what must do worse than it, the most different first."""
    return [
        policy,
        Hindered(of=policy, name=f"{policy.name}, blind", limits=limits, blind=True),
        Hindered(of=policy, name=f"{policy.name}, half as far", limits=limits, reach=0.5),
        Hindered(of=policy, name=f"{policy.name}, shaken", limits=limits, shake=0.5),
    ]
