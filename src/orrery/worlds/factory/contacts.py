"""Turn the contacts of a MuJoCo simulation into what can be heard: impacts with their impulse, and rubbing.

A soft contact exchanges the right momentum with the wrong force over time (some ms instead of 0.1 ms), so an impact is
told by its impulse and `sound` gives it a shape. `ContactTracker.sample` copies the contacts after each step, which
costs a few microseconds; `collect` looks through them once per control step. Needs the elliptic friction cone, where
the first row of a contact is its normal and the next two are its tangents.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float, Int

from orrery.errors import SettingsError

WINDOW_S = 0.012
"""An impulse is gathered over at most this; with solref ".004 1" the bodies are at rest or apart again by then."""
ABSENCE_S = 0.005
"""How long a pair must have been apart for a new touch to count as an impact."""
MIN_IMPULSE_NS = 5e-4
"""Weaker impacts are not reported: 10 g at 5 cm/s."""
CREEP_M_S = 0.005
"""Slower touches and slower sliding are not reported: soft contacts creep."""
REIMPACT_SPEED_M_S = 0.08
"""A pair in contact hits again when one of its points closes faster than this after 12 ms in which none did, ..."""
REIMPACT_SPIKE = 3.0
"""... and the force rises above this multiple of its mean in those 12 ms. A box that tips over does both."""
MAX_RESTITUTION = 0.5
"""An impulse is at most (1 + this) x closing speed x reduced mass: a squeeze pushes on, but it does not hit harder."""
HOP_M_S = 0.15
"""A touch that closes more slowly than this and more slowly than it slides is part of the sliding: a stiff contact that
slides lifts off and comes back every few ms (measured: 0.1 m/s up at 0.5 m/s and friction 0.5)."""
MIN_RUBBING_J = 1e-4
"""Less normal force x way than this within a control step is not reported: 0.2 N over half a millimetre."""
SHORTEST_RUBBING_S = 0.01
"""Hops may put all the force of a step into one sample; it is spread over at least this."""

Point = tuple[float, float, float]
Bodies = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Impact:
    """Two bodies hit each other."""

    time_s: float
    """Time of the first step that found them touching."""
    bodies: Bodies
    """In alphabetical order."""
    impulse_Ns: float  # noqa: N815 - newton seconds
    """Momentum exchanged along the normal, without what carries the weight."""
    speed_m_s: float
    """Fastest closing speed of a contact point in the window."""
    point_m: Point
    """Mean of the first contact points, by force."""


@dataclass(frozen=True, kw_only=True)
class Rubbing:
    """Two bodies slid on each other during a control step."""

    start_s: float
    stop_s: float
    bodies: Bodies
    force_N: float  # noqa: N815 - newtons
    """Mean normal force from start to stop, hops included, so that a sliding body presses with its weight."""
    speed_m_s: float
    """Mean sliding speed, weighted by force over the contact points."""
    point_m: Point


class Sample(NamedTuple):
    """The contacts of one step, raw: bytes cannot change, and many of them are joined in no time."""

    time_s: float
    geoms: bytes
    """Two int32 a contact."""
    addresses: bytes
    """int32: the first row of a contact in `forces` and `velocities`; negative where it is not a constraint."""
    forces: bytes
    velocities: bytes
    """float64, a number a row."""
    first_row: int
    """Rows before this one belong to joints."""
    points: Float[np.ndarray, "N 3"]
    normals: Float[np.ndarray, "N 3"]
    """Where the contacts lay when the same geoms began to touch, or at the beginning of the control step if later."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackerState:
    """All that a tracker remembers: the steps whose impacts are still open and 12 ms before them."""

    samples: tuple[Sample, ...] = ()
    fresh: int = 0
    """How many of the last samples came after the last `collect`."""


class ContactTracker:
    """Listens to one simulation. `restore(TrackerState())` starts afresh, as after a reset."""

    def __init__(self, model: mujoco.MjModel, *, ignored_pairs: Collection[frozenset[str]] = ()) -> None:
        """
        Args:
            ignored_pairs: names of two bodies that are not reported, such as a belt and the bench it runs on.

        Raises:
            SettingsError: the friction cone is not elliptic, a geom has no friction, or a pair names no two bodies.
        """
        if model.opt.cone != mujoco.mjtCone.mjCONE_ELLIPTIC:
            raise SettingsError('The friction cone is pyramidal. Write <option cone="elliptic"/> to read its forces.')
        if model.ngeom and model.geom_condim.min() < 3:
            raise SettingsError("A geom has condim 1, so its contacts have no sliding to read. Give it 3, 4 or 6.")
        self._names = [model.body(body).name for body in range(model.nbody)]
        for pair in ignored_pairs:
            if len(pair) != 2 or not pair <= set(self._names):
                raise SettingsError(f"{sorted(pair)} are not two bodies of the model. It has {self._names}.")
        # The number of a contact's pair of bodies by its two geoms; -1 for pairs to ignore.
        self._body_of = model.geom_bodyid.astype(np.int64)
        low = np.minimum.outer(self._body_of, self._body_of)
        high = np.maximum.outer(self._body_of, self._body_of)
        self._pair_table = low * model.nbody + high
        for pair in ignored_pairs:
            first, second = sorted(self._names.index(name) for name in pair)
            self._pair_table[self._pair_table == first * model.nbody + second] = -1
        self._dt_s = float(model.opt.timestep)
        self._window = max(1, round(WINDOW_S / self._dt_s))
        self._absence = max(1, round(ABSENCE_S / self._dt_s))
        # A body on a joint that is not free is carried by its actuators, not by what it touches.
        free = np.zeros(model.nbody, dtype=bool)
        free[model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]] = True
        self._weights_N = np.where(free, model.body_subtreemass * -model.opt.gravity[2], 0.0)
        self._inverse_masses = model.body_invweight0[:, 0].copy()
        self._movable = model.body_weldid[: model.nbody] != 0
        self._masses_kg = np.where(self._movable, model.body_subtreemass, np.inf)
        self._samples: list[Sample] = []
        self._fresh = 0

    def sample(self, data: mujoco.MjData) -> None:
        """Call after every mj_step: the contacts are those found at its beginning, the forces what it applied."""
        contact = data.contact
        geoms = contact.geom.tobytes()
        if self._fresh and geoms == self._samples[-1].geoms:
            points, normals = self._samples[-1][-2:]
        else:
            points, normals = contact.pos.copy(), contact.frame[:, :3].copy()
        self._samples.append(
            Sample(
                data.time - self._dt_s,
                geoms,
                contact.efc_address.tobytes(),
                data.efc_force.tobytes(),
                data.efc_vel.tobytes(),
                data.ne + data.nf + data.nl,
                points,
                normals,
            )
        )
        self._fresh += 1

    def snapshot(self) -> TrackerState:
        return TrackerState(samples=tuple(self._samples), fresh=self._fresh)

    def restore(self, state: TrackerState) -> None:
        self._samples = list(state.samples)
        self._fresh = state.fresh

    def collect(self, data: mujoco.MjData) -> tuple[list[Impact], list[Rubbing]]:
        """Call once per control step: the impacts whose 12 ms are over by now, and the rubbing since the last call.

        Raises:
            SettingsError: the last step of `data` was not sampled.
        """
        if not self._samples:
            return [], []
        seen_s = self._samples[-1].time_s + self._dt_s
        if abs(data.time - seen_s) > self._dt_s / 2:
            raise SettingsError(
                f"The last step sampled ended at {seen_s:.4f} s, but it is {data.time:.4f} s. Call sample after every "
                "mj_step, and restore(TrackerState()) after a reset."
            )
        # Most steps are still, and this is what makes listening cheap.
        found = None if _is_still(self._samples) else _lay_out(self._samples, self._pair_table, len(self._names))
        steps, first_fresh = len(self._samples), len(self._samples) - self._fresh
        impacts: list[Impact] = []
        rubbing: list[Rubbing] = []
        if found is not None:
            decided = slice(max(0, first_fresh - self._window), max(0, steps - self._window))
            onsets, before_N = self._onsets(found)
            for pair, step in zip(*np.nonzero(onsets[:, decided]), strict=True):
                impact = self._impact(found, int(pair), decided.start + int(step), onsets, before_N)
                if impact is not None:
                    impacts.append(impact)
            rubbing = self._rubbing(found, first_fresh)
        # The next call decides the steps of the last window, and looks back one window from the first of them.
        self._samples = self._samples[-2 * self._window :]
        self._fresh = 0
        return sorted(impacts, key=lambda impact: (impact.time_s, impact.bodies)), rubbing

    def _onsets(self, found: "_Contacts") -> tuple[np.ndarray, np.ndarray]:
        """Where each pair hits (pairs, steps) as booleans, and the mean force of the window before, 0 after absence."""
        touching = found.force_N > 0
        # What touches in the very first sample has lain there before.
        touched = _any_before(touching, self._absence, touching[:, 0])
        fast = np.zeros_like(touching)
        closes = found.closing_m_s > REIMPACT_SPEED_M_S
        fast[found.pair_of[closes], found.step_of[closes]] = True
        onsets = touching & ~touched
        mean_N = np.zeros_like(found.force_N)
        if not closes.any():
            return onsets, mean_N
        candidates = touching & touched & fast & ~_any_before(fast | onsets, self._window, fast[:, 0])
        for pair, step in zip(*np.nonzero(candidates), strict=True):
            before = found.force_N[pair, max(0, step - self._window) : step]
            level = float(before.mean()) if before.size else 0.0
            if found.force_N[pair, step : step + self._window].max() > REIMPACT_SPIKE * level:
                onsets[pair, step], mean_N[pair, step] = True, level
        return onsets, mean_N

    def _impact(
        self, found: "_Contacts", pair: int, step: int, onsets: np.ndarray, before_N: np.ndarray
    ) -> Impact | None:
        low, high = found.bodies[pair]
        mine = np.flatnonzero(found.pair_of == pair)
        point, normal = found.place(mine[found.step_of[mine] == step], self._body_of)
        lighter, upward = (high, normal[2]) if self._masses_kg[high] < self._masses_kg[low] else (low, -normal[2])
        # While they touch, part of the force carries the weight. It is taken off from the first step on, as gravity
        # acts from the first step on, and so the sum follows m (v - v_before); its peak is where they part, or rest.
        resting_N = max(before_N[pair, step], self._weights_N[lighter] * max(0.0, upward))
        again = np.flatnonzero(onsets[pair, step + 1 : step + self._window])
        stop = step + 1 + int(again[0]) if again.size else step + self._window
        exchanged_Ns = np.cumsum(found.force_N[pair, step:stop] - resting_N) * self._dt_s
        in_window = mine[(found.step_of[mine] >= step) & (found.step_of[mine] < stop)]
        speed = float(found.closing_m_s[in_window].max())
        sideways = float(found.sliding_m_s[in_window].max())
        if speed <= CREEP_M_S or speed < min(sideways, HOP_M_S):
            return None
        reduced_kg = 1 / max(self._inverse_masses[low] + self._inverse_masses[high], 1e-9)
        impulse = min(float(exchanged_Ns.max()), float((1 + MAX_RESTITUTION) * reduced_kg) * speed)
        if impulse < MIN_IMPULSE_NS:
            return None
        return Impact(
            time_s=float(found.samples[step].time_s),
            bodies=self._sorted_names(pair, found),
            impulse_Ns=impulse,
            speed_m_s=speed,
            point_m=_tuple(point),
        )

    def _rubbing(self, found: "_Contacts", first: int) -> list[Rubbing]:
        pairs, steps = found.force_N.shape
        fresh = np.flatnonzero(found.step_of >= first)
        cells = found.pair_of[fresh] * steps + found.step_of[fresh]
        share = found.contact_force_N[fresh] / found.force_N.reshape(-1)[cells]
        slip = np.bincount(cells, share * found.sliding_m_s[fresh], pairs * steps).reshape(pairs, steps)[:, first:]
        slides = slip > CREEP_M_S
        pressing_Ns = np.where(slides, found.force_N[:, first:], 0.0) * self._dt_s
        begin_s = found.samples[first].time_s
        reported = []
        for pair in np.flatnonzero((pressing_Ns * slip).sum(axis=1) >= MIN_RUBBING_J):
            when = np.flatnonzero(slides[pair])
            start_s = begin_s + float(when[0]) * self._dt_s
            stop_s = max(begin_s + float(when[-1] + 1) * self._dt_s, start_s + SHORTEST_RUBBING_S)
            sliding = (found.pair_of[fresh] == pair) & slides[pair, found.step_of[fresh] - first]
            point, _ = found.place(fresh[sliding], self._body_of)
            pressed_Ns = float(pressing_Ns[pair].sum())
            reported.append(
                Rubbing(
                    start_s=start_s,
                    stop_s=stop_s,
                    bodies=self._sorted_names(int(pair), found),
                    force_N=pressed_Ns / (stop_s - start_s),
                    speed_m_s=float(pressing_Ns[pair] @ slip[pair]) / pressed_Ns,
                    point_m=_tuple(point),
                )
            )
        return sorted(reported, key=lambda rubbing: (rubbing.start_s, rubbing.bodies))

    def _sorted_names(self, pair: int, found: "_Contacts") -> Bodies:
        low, high = found.bodies[pair]
        first, second = sorted((self._names[low], self._names[high]))
        return first, second


class _Contacts(NamedTuple):
    """Contacts of many steps that push: one after another (N), and summed by pair of bodies."""

    samples: Sequence[Sample]
    bodies: list[tuple[int, int]]
    """Of each pair, the lower number first."""
    force_N: Float[np.ndarray, "pairs steps"]  # noqa: N815
    pair_of: Int[np.ndarray, " N"]
    step_of: Int[np.ndarray, " N"]
    index_of: Int[np.ndarray, " N"]
    """Among the contacts of its step."""
    contact_force_N: Float[np.ndarray, " N"]  # noqa: N815
    closing_m_s: Float[np.ndarray, " N"]
    sliding_m_s: Float[np.ndarray, " N"]
    geoms: Int[np.ndarray, "all 2"]
    """Of all contacts, also those that do not push."""
    kept: Int[np.ndarray, " N"]
    """Where in `geoms` each one stands."""

    def place(
        self, chosen: Int[np.ndarray, " chosen"], body_of: Int[np.ndarray, " geoms"]
    ) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Mean point by force, and mean normal from the body with the lower number to the other."""
        share = self.contact_force_N[chosen] / self.contact_force_N[chosen].sum()
        at = list(zip(self.step_of[chosen], self.index_of[chosen], strict=True))
        points = np.array([self.samples[step].points[index] for step, index in at])
        normals = np.array([self.samples[step].normals[index] for step, index in at])
        # MuJoCo's normal points from the first geom to the second.
        one, other = body_of[self.geoms[self.kept[chosen]]].T
        return share @ points, np.where(one > other, -share, share) @ normals


def _is_still(samples: Sequence[Sample]) -> bool:
    velocities = np.frombuffer(b"".join([sample.velocities[8 * sample.first_row :] for sample in samples]))
    return not velocities.size or float(max(velocities.max(), -velocities.min())) <= CREEP_M_S


def _lay_out(samples: Sequence[Sample], pair_table: Int[np.ndarray, "geoms geoms"], bodies: int) -> _Contacts | None:
    """None where nothing touches."""
    counts = np.array([len(sample.addresses) for sample in samples]) // 4
    rows = np.array([len(sample.forces) for sample in samples]) // 8
    addresses = np.frombuffer(b"".join([sample.addresses for sample in samples]), dtype=np.int32)
    geoms = np.frombuffer(b"".join([sample.geoms for sample in samples]), dtype=np.int32).reshape(-1, 2)
    forces = np.frombuffer(b"".join([sample.forces for sample in samples]))
    velocities = np.frombuffer(b"".join([sample.velocities for sample in samples]))
    first_row, first_contact = np.repeat([np.cumsum(rows) - rows, np.cumsum(counts) - counts], counts, axis=1)
    at = np.where(addresses >= 0, addresses + first_row, 0)
    number = pair_table[geoms[:, 0], geoms[:, 1]]
    kept = np.flatnonzero((addresses >= 0) & (number >= 0) & (forces[at] > 0)) if len(forces) else np.empty(0, int)
    if not kept.size:
        return None
    at, number = at[kept], number[kept]
    step_of = np.repeat(np.arange(len(samples)), counts)[kept]
    numbers = np.flatnonzero(np.bincount(number))
    compact = np.empty(numbers[-1] + 1, dtype=np.int64)
    compact[numbers] = np.arange(len(numbers))
    pair_of = compact[number]
    shape = (len(numbers), len(samples))
    return _Contacts(
        samples=samples,
        bodies=[(int(n) // bodies, int(n) % bodies) for n in numbers],
        force_N=np.bincount(pair_of * shape[1] + step_of, forces[at], shape[0] * shape[1]).reshape(shape),
        pair_of=pair_of,
        step_of=step_of,
        index_of=kept - first_contact[kept],
        contact_force_N=forces[at],
        closing_m_s=-velocities[at],
        sliding_m_s=np.sqrt(velocities[at + 1] ** 2 + velocities[at + 2] ** 2),
        geoms=geoms,
        kept=kept,
    )


def _any_before(happens: np.ndarray, steps: int, at_first: np.ndarray) -> np.ndarray:
    """Whether it happened in the `steps` before each one (pairs, steps); before the first one stands `at_first`."""
    padded = np.concatenate([np.repeat(at_first[:, None], steps, axis=1), happens], axis=1)
    counted = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    return counted[:, steps:-1] > counted[:, : -steps - 1]


def _tuple(place: Float[np.ndarray, "3"]) -> Point:
    return float(place[0]), float(place[1]), float(place[2])
