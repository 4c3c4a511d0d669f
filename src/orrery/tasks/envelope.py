"""What a policy's actions may be when they leave the process, and how old its answer may be. Nothing is clipped.

An envelope is a check of numbers, not a safety device: the robot's own limits stay in force behind it.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, no_type_check

import numpy as np
import numpy.typing as npt

from orrery.errors import ContractError
from orrery.tasks.checks import Number, file_path, read_json, shown
from orrery.tasks.contract import ActionContract, Frame, Mode

VERSION = 1
MAX_BYTES = 2**20
Range = tuple[Number, Number]
"""Smallest and largest value allowed, in the unit of the column."""

MARGINS = {"minmax": 0.15, "quantile": 0.55, "meanstd": 0.55}
"""Default `margin` of `Envelope.of`, in widths of the range the normaliser holds.

"minmax": twice of what Pico goes beyond its range in closed loop, at most 0.058 widths in 563 chunks of policy_no_video
and 0.078 in 94 of policy; without a margin half of all chunks would be refused. The others are an estimate: from the
1 % to the 99 % point is 4.65 deviations of a normal column, and 0.55 of that on both sides reaches 4.9 deviations,
beyond which lies one value in a million.
"""
DEVIATIONS = 2.326
"""The 1 % and the 99 % point of a normal column lie so many standard deviations from its mean."""
SOURCES = {
    "minmax": "smallest and largest value of the normaliser",
    "quantile": "quantiles of the normaliser",
    "meanstd": f"mean and {DEVIATIONS} standard deviations of the normaliser",
}
KEPT = ("embodiment", "action_names", "units", "frame", "mode", "gripper_index", "gripper_open", "state_names")
"""What an envelope takes over from a contract, and compares with one."""


# Wrong types are answered by its own checks; a run-time type checker in front of them would hide their errors.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Limits of actions (T, A) in raw units. None for a column: it is not limited; an empty tuple: no column is.

    `limits` hold each value, `change` the size of the step from one action to the next, `workspace` the positions that
    the actions lead to: their sum from the current state on if they are relative, themselves if they are absolute.
    `source` says in words where `limits` come from. Values that are not finite are refused whatever the limits.
    """

    embodiment: str
    action_names: tuple[str, ...]
    units: tuple[str, ...]
    frame: Frame
    mode: Mode
    gripper_index: int | None = None
    gripper_open: Literal["hi", "lo"] | None = None
    state_names: tuple[str, ...] = ()
    limits: tuple[Range | None, ...]
    change: tuple[Number | None, ...] = ()
    workspace: tuple[Range | None, ...] = ()
    source: str = "as given"

    def __post_init__(self) -> None:
        for name in ("action_names", "units", "state_names"):
            words = getattr(self, name)
            if not isinstance(words, tuple) or not all(isinstance(word, str) for word in words):
                raise ContractError(f"{name} of an envelope must be words, got {shown(words)}. Take it from of().")
        ends = ("hi", "lo", None)
        for name, allowed in (("frame", get_args(Frame)), ("mode", get_args(Mode)), ("gripper_open", ends)):
            if getattr(self, name) not in allowed:
                raise ContractError(f"{name} of an envelope is {shown(getattr(self, name))}. Known: {shown(allowed)}.")
        for name in ("embodiment", "source"):
            if not isinstance(getattr(self, name), str):
                raise ContractError(f"{name} of an envelope is {shown(getattr(self, name))}. Give words.")
        column = self.gripper_index
        known = column is None or (type(column) is int and 0 <= column < self.width)
        if (column is None) != (self.gripper_open is None):
            raise ContractError(
                f"The gripper is column {shown(column)}, its open end {shown(self.gripper_open)}. Give both or none."
            )
        if not self.width or len(self.units) != self.width or not known:
            raise ContractError(
                f"An envelope of {self.width} columns has {len(self.units)} units and its gripper in column "
                f"{shown(self.gripper_index)}. Take the layout from a contract with of()."
            )
        for name in ("limits", "workspace", "change"):
            columns = getattr(self, name)
            if not isinstance(columns, tuple) or len(columns) not in (0, self.width):
                raise ContractError(
                    f"{name} must hold one entry for each of {self.width} columns, got {shown(columns)}. "
                    "Give None for a column without."
                )
            for word, value in zip(self.action_names, columns, strict=False):
                if value is not None and not (_positive(value) if name == "change" else _rising(value)):
                    form = "one number, 0 or more" if name == "change" else "two finite numbers (low, high)"
                    raise ContractError(f"{name} of {word!r} cannot be {shown(value)}. Give {form}.")
        if (
            any(self.workspace)
            and self.mode == "relative"
            and (not self.state_names or self.frame not in ("base", "world", "joints", "pixels"))
        ):
            raise ContractError(
                f"Relative actions in the frame {self.frame!r} of a state {shown(self.state_names)} do not add up to "
                "positions. A workspace needs a fixed frame and a contract that names the columns of the state."
            )

    @property
    def width(self) -> int:
        """Action columns, A."""
        return len(self.action_names)

    @property
    def needs_state(self) -> bool:
        """Whether `check` has to be given the current state."""
        return any(self.workspace) and self.mode == "relative"

    @classmethod
    def of(cls, contract: ActionContract, *, margin: Number | None = None) -> "Envelope":
        """Limits from the range that the contract's normaliser holds, widened by `margin` of its width on both sides.

        "minmax" and "quantile" hold a range, of "meanstd" it is the mean and 2.326 deviations, which are the 1 % and
        the 99 % point of a normal column; "none" and "scale" hold none, and columns stay without limits. The gripper
        has `gripper_range` instead. A column that never moved in training may not move.

        Args:
            margin: in widths; None takes that of `MARGINS`, of "minmax" where the kind has none.

        Raises:
            ContractError: a margin below 0, or not finite.
        """
        normaliser = contract.normaliser
        share = MARGINS.get(normaliser.kind, MARGINS["minmax"]) if margin is None else margin
        if not _positive(share):
            raise ContractError(f"margin must be 0 or more widths of the range, got {shown(share)}. Give such as 0.1.")
        ranges: list[Range | None] = [None] * contract.width
        if normaliser.kind == "meanstd":
            pairs = zip(normaliser.mean, normaliser.std, strict=True)
            ranges = [(mean - DEVIATIONS * std, mean + DEVIATIONS * std) for mean, std in pairs]
        elif normaliser.lo:
            ranges = list(zip(normaliser.lo, normaliser.hi, strict=True))
        if contract.gripper_index is not None:
            ranges[contract.gripper_index] = contract.gripper_range
        source = SOURCES.get(normaliser.kind, f"no range, as the normaliser is {normaliser.kind!r}")
        return cls(
            **{name: getattr(contract, name) for name in KEPT},
            limits=tuple(None if pair is None else _widened(pair, share) for pair in ranges),
            source=f"{source}{'' if contract.gripper_index is None else '; the range of the gripper'}; "
            f"widened by {share:g} of the width on both sides",
        )

    def check(
        self,
        actions: npt.NDArray[Any],
        *,
        state: Sequence[Number] | npt.NDArray[Any] | None = None,
        previous: Sequence[Number] | npt.NDArray[Any] | None = None,
    ) -> npt.NDArray[Any]:
        """Give `actions` (T, A) back as they are, or refuse all of them.

        Limits are compared in the floating type of the actions, float32 at least: an action of exactly the limit
        passes. Relative actions are summed from `state`, as it was measured; where a controller adds them to a setpoint
        that runs ahead of the robot, positions are off by as much.

        Args:
            state: (A,) the current state in raw units, needed by a workspace of relative actions.
            previous: (A,) the last action executed before these, for the change to the first of them.

        Raises:
            ContractError: the first step and column that lies outside, its value, limit and unit; another width; or no
                state where one is needed.
        """
        rows = _rows(self.action_names, actions)
        faults: list[tuple[int, int, str]] = []
        if (found := _outside(rows, self.limits)) is not None:
            step, column, value, low, high = found
            end = self._end(column, bool(value > high))
            faults.append((step, column, f"{value!s} lies outside {low!s} to {high!s}{end} (limits: {self.source})"))
        if any(size is not None for size in self.change):
            before = rows[:1] if previous is None else _row("previous", self.action_names, previous)
            with np.errstate(over="ignore"):
                changes = np.diff(np.concatenate([before.astype(rows.dtype), rows]), axis=0)
            sizes = tuple(None if size is None else (-size, size) for size in self.change)
            if (found := _outside(changes, sizes)) is not None:
                step, column, value, _, high = found
                faults.append((step, column, f"a change of {value!s} from the action before is above {high!s}"))
        if any(self.workspace) and (found := _outside(self._positions(rows, state), self.workspace)) is not None:
            step, column, value, low, high = found
            faults.append((step, column, f"leads to {value!s}, outside the workspace {low!s} to {high!s}"))
        if faults:
            step, column, what = min(faults, key=lambda fault: fault[:2])
            raise ContractError(
                f"Step {step} of {len(rows)} actions, column {self.action_names[column]!r} in {self.units[column]!r}: "
                f"{what}. Do not execute them: look again and ask anew, or give an envelope of your own if the robot "
                "may do this."
            )
        return actions

    def check_contract(self, contract: ActionContract) -> None:
        """Refuse a contract whose actions mean something else, such as a gripper of the other polarity.

        Raises:
            ContractError: with both values.
        """
        for name in KEPT:
            ours, theirs = getattr(self, name), getattr(contract, name)
            if ours != theirs:
                raise ContractError(
                    f"{name} of the envelope is {shown(ours, 80)}, of the checkpoint {shown(theirs, 80)}. "
                    "Make an envelope for its actions, from Envelope.of its contract."
                )

    def to_json(self) -> dict[str, object]:
        """The versioned document that `from_json` reads back."""
        return {"version": VERSION, **{item.name: _plain(getattr(self, item.name)) for item in fields(self)}}

    @classmethod
    def from_json(cls, document: object) -> "Envelope":
        """Read `to_json` back.

        Raises:
            ContractError: missing or unknown keys, wrong values, or another version.
        """
        if not isinstance(document, Mapping):
            raise ContractError(f"An envelope must be an object, got {shown(document)}. Write it with to_json.")
        values = dict(document)
        if (version := values.pop("version", None)) != VERSION:
            raise ContractError(f"This reads envelope version {VERSION}, got {shown(version)}. Use a newer release.")
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            odd = sorted(map(str, set(values) ^ known))
            raise ContractError(f"An envelope has exactly its own keys; missing or unknown: {shown(odd)}. Mend them.")
        frozen: dict[str, Any] = {name: _frozen(value) for name, value in values.items()}
        return cls(**frozen)

    def _end(self, column: int, above: bool) -> str:
        """Which end of the gripper a value of its column is past."""
        if column != self.gripper_index:
            return ""
        return f", past its {'open' if above == (self.gripper_open == 'hi') else 'closed'} end"

    def _positions(self, rows: npt.NDArray[Any], state: Sequence[Number] | npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        if self.mode == "absolute":
            return rows
        if state is None:
            raise ContractError("A workspace of relative actions needs the current state, got none. Give state.")
        start = _row("state", self.state_names, state)
        with np.errstate(over="ignore"):
            return (start + np.cumsum(rows, axis=0, dtype=np.float64)).astype(rows.dtype)


# As above.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class Watchdog:
    """How old a policy's answer may be when the first of its actions is executed; all times are seconds of `clock`.

    An answer is as old as the observation it was made from. It is too old after `max_age_s`, by default the time that
    the `executed` actions of a chunk take: then the world has moved on by more than the answer was to move it.
    """

    control_rate_hz: Number
    chunk: int
    executed: int | None = None
    """Actions executed of each chunk before the policy is asked again; None: all."""
    max_age_s: Number | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not _positive(self.control_rate_hz) or self.control_rate_hz == 0:
            raise ContractError(f"control_rate_hz must be above 0, got {shown(self.control_rate_hz)}. Mend it.")
        for name, value, most in (("chunk", self.chunk, 18_000), ("executed", self.executed, self.chunk)):
            if value is None and name == "executed":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ContractError(f"{name} must be a whole number from 1 to {most}, got {shown(value)}. Mend it.")
        longest = self.chunk / self.control_rate_hz
        if self.max_age_s is not None and not (_positive(self.max_age_s) and self.max_age_s <= longest):
            raise ContractError(
                f"max_age_s must be from 0 to the {longest:g} s of a chunk, got {shown(self.max_age_s)}. Mend it."
            )

    @property
    def allowed_s(self) -> float:
        """The greatest age that passes."""
        executed = self.chunk if self.executed is None else self.executed
        return float(executed / self.control_rate_hz if self.max_age_s is None else self.max_age_s)

    def check(self, *, observed_s: float, answered_s: float) -> float:
        """The age in seconds of an answer made at `answered_s` from an observation of `observed_s`.

        Raises:
            ContractError: too old, or times that cannot be of this clock.
        """
        now = self.clock()
        if not observed_s <= answered_s <= now < math.inf:
            raise ContractError(
                f"An observation at {observed_s:g} s, answered at {answered_s:g} s, cannot be of the clock that shows "
                f"{now:g} s. Take all times from the clock of the watchdog."
            )
        age = now - observed_s
        if age > self.allowed_s:
            raise ContractError(
                f"The answer is {age:.3f} s old, {answered_s - observed_s:.3f} s of them in the making; at most "
                f"{self.allowed_s:.3f} s are allowed. Do not execute it: hold the robot, look again and ask anew."
            )
        return age


def read_envelope(path: Path) -> Envelope:
    """Read the JSON file of an envelope.

    Raises:
        RequestError: no such file, or not JSON.
        ContractError: as `Envelope.from_json`.
    """
    return Envelope.from_json(read_json(file_path("envelope", path), max_bytes=MAX_BYTES))


def check_finite(names: Sequence[str], actions: npt.NDArray[Any]) -> None:
    """Refuse actions (T, A) that are not finite numbers, naming the first; ContractError."""
    if not len(actions) or np.isfinite(actions).all():
        return
    step, column = (int(i) for i in np.argwhere(~np.isfinite(actions))[0])
    raise ContractError(
        f"Step {step} of {len(actions)}, column {names[column]!r}: {actions[step, column]} is not a finite number. "
        "Do not execute it: look again and ask anew, or load another checkpoint."
    )


def _rows(names: tuple[str, ...], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Floating numbers (T, A), all finite."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ContractError(f"An envelope checks arrays of numbers, got {shown(values)}. Give (T, A).")
    if values.ndim != 2 or not len(values) or values.shape[1] != len(names):
        raise ContractError(
            f"Actions of shape {values.shape} do not fit the {len(names)} columns {shown(names)}. Give (T, A)."
        )
    check_finite(names, values)
    return values.astype(np.result_type(values.dtype, np.float32))


def _row(what: str, names: tuple[str, ...], values: Sequence[Number] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """One row (1, A), all finite."""
    row = np.asarray(values)
    if row.dtype.kind not in "fiu" or row.shape != (len(names),) or not np.isfinite(row).all():
        raise ContractError(f"{what} must be {len(names)} finite numbers {shown(names)}, got {shown(values)}. Mend it.")
    return row[None].astype(np.float64)


def _outside(
    values: npt.NDArray[Any], ranges: tuple[Range | None, ...]
) -> tuple[int, int, np.floating[Any], np.floating[Any], np.floating[Any]] | None:
    """Step, column, value, low and high of the first that lies outside."""
    if not any(pair is not None for pair in ranges):
        return None
    with np.errstate(over="ignore"):
        ends = np.array([(-np.inf, np.inf) if pair is None else pair for pair in ranges]).astype(values.dtype)
    low, high = ends[:, 0], ends[:, 1]
    outside = ~((low <= values) & (values <= high))
    if not outside.any():
        return None
    step, column = (int(i) for i in np.argwhere(outside)[0])
    return step, column, values[step, column], low[column], high[column]


def _widened(pair: Range, margin: Number) -> Range:
    extra = margin * (pair[1] - pair[0])
    return pair[0] - extra, pair[1] + extra


def _positive(value: object) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool) and 0 <= value < math.inf


def _rising(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    numbers = all(isinstance(x, Number) and not isinstance(x, bool) and math.isfinite(x) for x in value)
    return numbers and value[0] <= value[1]


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
