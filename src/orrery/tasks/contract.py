"""What the actions and cameras of a checkpoint mean, stored inside it and compared with what a request assumes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, no_type_check

import numpy as np
import numpy.typing as npt

from orrery.errors import ContractError
from orrery.tasks.checks import Number, nearest, shown
from orrery.tasks.normaliser import Normaliser

VERSION = 2
DOMAINS = 32
SHOWN = 80
"""Characters of a value in an error line."""

Frame = Literal["base", "gripper", "camera", "joints", "world", "pixels"]
"""What coordinates are measured in. "gripper" and "camera": in the current pose of that body."""
Mode = Literal["absolute", "relative"]
Rotation = Literal["none", "rot6d", "euler_xyz", "quat_xyzw", "axis_angle"]
Flip = Literal["none", "horizontal", "vertical", "both"]


# Wrong types are answered by its own checks; a run-time type checker in front of them would hide their errors.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class Camera:
    """One view as the model sees it. `layout` is its place in the composed picture, such as "full" or "bottom_left"."""

    name: str
    height: int
    width: int
    layout: str = "full"
    flip: Flip = "none"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not isinstance(self.layout, str):
            raise ContractError(f"A camera needs a name and a layout, got {shown(self.name)}, {shown(self.layout)}.")
        if any(sign in self.name for sign in "/\\") or not self.name.isprintable() or len(self.name) > SHOWN:
            raise ContractError(
                f"Camera {shown(self.name)} cannot be part of a file name. Give at most {SHOWN} characters, no slashes."
            )
        for side in (self.height, self.width):
            if isinstance(side, bool) or not isinstance(side, int) or side < 1:
                raise ContractError(f"Camera {shown(self.name)} has a side of {shown(side)}. Give pixels, at least 1.")
        _one_of(f"flip of camera {shown(self.name)}", self.flip, get_args(Flip))


# Wrong types are answered by its own checks; a run-time type checker in front of them would hide their errors.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class ActionContract:
    """Everything two sides must agree on before numbers are sent to a robot.

    `gripper_index` is the column of the gripper (the first, for two arms); `gripper_open` says which end of
    `gripper_range` is open. `chunk` is the number of actions of one call; there is one frame more than actions.
    `state_names` and `state_normaliser` say what the current state is, which a policy may be given as row 0 of its
    actions; left out, it is an action row in every respect.
    """

    embodiment: str
    domain_id: int
    action_names: tuple[str, ...]
    units: tuple[str, ...]
    frame: Frame
    mode: Mode
    rotation: Rotation = "none"
    gripper_index: int | None = None
    gripper_range: tuple[Number, Number] | None = None
    gripper_open: Literal["hi", "lo"] | None = None
    control_rate_hz: Number
    chunk: int
    cameras: tuple[Camera, ...] = ()
    normaliser: Normaliser
    state_names: tuple[str, ...] = ()
    state_normaliser: Normaliser | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("frame", get_args(Frame)), ("mode", get_args(Mode)), ("rotation", get_args(Rotation))):
            _one_of(name, getattr(self, name), allowed)
        for name in ("action_names", "units"):
            words = getattr(self, name)
            if not isinstance(words, tuple) or not words or not all(isinstance(word, str) for word in words):
                raise ContractError(f"{name} must be one word for each action column, got {shown(words)}. Name them.")
        if not isinstance(self.embodiment, str) or not self.embodiment:
            raise ContractError(f"A contract needs the name of an embodiment, got {shown(self.embodiment)}. Name it.")
        if len(self.units) != self.width or len(set(self.action_names)) != self.width:
            raise ContractError(
                f"A contract of {self.width} columns has {len(self.units)} units and {len(set(self.action_names))} "
                "different names. Give one unit and one name for each column."
            )
        _whole("domain_id", self.domain_id, 0, DOMAINS - 1)
        _whole("chunk", self.chunk, 1, 18_000)
        rate = self.control_rate_hz
        if isinstance(rate, bool) or not isinstance(rate, Number) or not math.isfinite(rate) or rate <= 0:
            raise ContractError(f"control_rate_hz must be above 0, got {shown(rate)}. Give actions per second.")
        gripper = (self.gripper_index, self.gripper_range, self.gripper_open)
        if any(part is None for part in gripper) != all(part is None for part in gripper):
            raise ContractError(f"A gripper needs index, range and open end, got {shown(gripper)}. Give all or none.")
        if self.gripper_index is not None and self.gripper_range is not None:
            _whole("gripper_index", self.gripper_index, 0, self.width - 1)
            _one_of("gripper_open", self.gripper_open, ("hi", "lo"))
            low, high = self.gripper_range
            if not (isinstance(low, Number) and isinstance(high, Number) and -math.inf < low < high < math.inf):
                raise ContractError(f"gripper_range must rise, got {shown(self.gripper_range)}. Give (low, high).")
        if self.normaliser.width not in (None, self.width):
            raise ContractError(
                f"The normaliser has {self.normaliser.width} columns and the actions have {self.width}. "
                "Give statistics of the same action layout."
            )
        if not isinstance(self.state_names, tuple) or not all(isinstance(name, str) for name in self.state_names):
            raise ContractError(f"state_names must be one word for each column, got {shown(self.state_names)}.")
        if self.state_names and len(set(self.state_names)) != self.width:
            raise ContractError(
                f"The state has {len(set(self.state_names))} different names and the actions {self.width} columns. "
                "The state takes the place of an action row: name as many columns, or none."
            )
        if self.state_normaliser is not None and self.state_normaliser.width not in (None, self.width):
            raise ContractError(
                f"The normaliser of the state has {self.state_normaliser.width} columns and the actions have "
                f"{self.width}. The state takes the place of an action row: give as many columns."
            )
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ContractError(f"Cameras must have different names, got {shown(names)}. Rename one.")

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the cameras whose pictures the model takes one by one; empty where it takes a single picture.

        Several cameras with a place in one composed picture, such as "top", are a single picture.
        """
        apart = len(self.cameras) > 1 and all(camera.layout == "full" for camera in self.cameras)
        return tuple(camera.name for camera in self.cameras) if apart else ()

    @property
    def width(self) -> int:
        """Raw action columns, A."""
        return len(self.action_names)

    def encode(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Raw actions (T, A) as the model sees them; ContractError for another width."""
        return self.normaliser.encode(self._checked(actions))

    def decode(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Actions of the model (T, A) in raw units; ContractError for another width."""
        return self.normaliser.decode(self._checked(actions))

    def check_request(
        self,
        *,
        embodiment: str | None = None,
        assumed: Mapping[str, object] | None = None,
        action_width: int | None = None,
        actions: int | None = None,
        state_width: int | None = None,
        fps: Number | None = None,
    ) -> None:
        """Compare what a request says with this contract; what it leaves None is not compared.

        Args:
            embodiment: name of the robot.
            assumed: part of the `to_json` form of a contract; a normaliser may be given by its sha256 alone.
            action_width, state_width: columns of the actions and of the current state.
            actions: number of action rows.
            fps: frames, and so actions, per second.

        Raises:
            ContractError: with both values.
        """
        pairs: tuple[tuple[str, object, object], ...] = (
            ("embodiment", embodiment, self.embodiment),
            ("action width", action_width, self.width),
            ("state width", state_width, self.width),
            ("number of actions", actions, self.chunk),
            ("fps", fps, self.control_rate_hz),
        )
        for what, theirs, ours in pairs:
            if theirs is not None and theirs != ours:
                raise _differs(what, theirs, ours)
        document = self.to_json()
        for key, theirs in ({} if assumed is None else assumed).items():
            if key not in document:
                raise ContractError(f"A contract has no entry {shown(key)}. {nearest(str(key), document)}")
            ours = document[key]
            if isinstance(theirs, Mapping) and isinstance(ours, Mapping) and "sha256" in theirs:
                theirs, ours = theirs["sha256"], ours["sha256"]
            if _plain(theirs) != ours:
                raise _differs(*_to_the_point(key, _plain(theirs), ours))

    def to_json(self) -> dict[str, object]:
        """The versioned document that is stored in a checkpoint."""
        document = {item.name: _plain(getattr(self, item.name)) for item in fields(self)}
        return {
            "version": VERSION,
            **document,
            "cameras": [asdict(camera) for camera in self.cameras],
            "normaliser": self.normaliser.to_json(),
            "state_normaliser": None if self.state_normaliser is None else self.state_normaliser.to_json(),
        }

    @classmethod
    def from_json(cls, document: object) -> "ActionContract":
        """Read `to_json` back.

        Raises:
            ContractError: missing or unknown keys, wrong values, another version, or a normaliser that was changed.
        """
        if not isinstance(document, Mapping):
            raise ContractError(f"A contract must be an object, got {shown(document)}. Write it with to_json.")
        values = dict(document)
        if (version := values.pop("version", None)) != VERSION:
            raise ContractError(f"This reads contract version {VERSION}, got {shown(version)}. Use a newer release.")
        known = {item.name for item in fields(cls)}
        if set(values) != known:
            odd = sorted(map(str, set(values) ^ known))
            raise ContractError(f"A contract has exactly its own keys; missing or unknown: {shown(odd)}. Mend them.")
        for name in ("action_names", "units", "cameras", "gripper_range", "state_names"):
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
        if not isinstance(values["cameras"], tuple):
            raise ContractError(f"cameras must be a list, got {shown(values['cameras'])}. Write it again.")
        values["cameras"] = tuple(_camera(camera) for camera in values["cameras"])
        values["normaliser"] = Normaliser.from_json(values["normaliser"])
        if values["state_normaliser"] is not None:
            values["state_normaliser"] = Normaliser.from_json(values["state_normaliser"])
        return cls(**values)

    def _checked(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if actions.ndim != 2 or actions.shape[1] != self.width:
            raise _differs("action shape", tuple(actions.shape), ("T", self.width))
        return actions


CONTRACT_KEYS = frozenset(item.name for item in fields(ActionContract)) | {"version"}


def _camera(document: object) -> Camera:
    known = {item.name for item in fields(Camera)}
    if not isinstance(document, Mapping) or set(document) != known:
        raise ContractError(f"A camera has the keys {sorted(known)}, got {shown(document)}. Write it again.")
    return Camera(**document)


def _to_the_point(what: str, theirs: object, ours: object) -> tuple[str, object, object]:
    """Values too long for an error line, as the first entry in which they differ, where they have one shape."""
    pairs: list[tuple[str, object, object]] = []
    if max(len(ascii(theirs)), len(ascii(ours))) > SHOWN:
        if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
            pairs = [(f"{what}[{i}]", a, b) for i, (a, b) in enumerate(zip(theirs, ours, strict=True))]
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping) and theirs.keys() == ours.keys():
            pairs = [(f"{what}.{key}", theirs[key], ours[key]) for key in theirs]
    return next((_to_the_point(*pair) for pair in pairs if pair[1] != pair[2]), (what, theirs, ours))


def _differs(what: str, theirs: object, ours: object) -> ContractError:
    return ContractError(
        f"{what} of the request is {shown(theirs, SHOWN)}, of the checkpoint {shown(ours, SHOWN)}. "
        "Change the request, or load a checkpoint made for it."
    )


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ContractError(f"{name} cannot be {shown(value)}. Known: {', '.join(allowed)}.")


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ContractError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}. Mend it.")


def _plain(value: object) -> object:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
