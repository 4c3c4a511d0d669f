"""Between raw robot units and what the model sees: one value per action column, hashed so that it cannot drift."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, no_type_check

import numpy as np
import numpy.typing as npt

from orrery.errors import ContractError
from orrery.tasks.checks import Number, shown

Kind = Literal["none", "quantile", "minmax", "meanstd", "scale"]
NEEDED: dict[str, tuple[str, ...]] = {
    "none": (),
    "quantile": ("lo", "hi"),
    "minmax": ("lo", "hi"),
    "meanstd": ("mean", "std"),
    "scale": ("scale",),
}
LEAST_RANGE = 1e-8


# Wrong types are answered by its own checks; a run-time type checker in front of them would hide their errors.
@no_type_check
@dataclass(frozen=True, kw_only=True)
class Normaliser:
    """How each of A columns is mapped, rotations and gripper included.

    "quantile" and "minmax" map lo..hi to -1..1 and differ only in where lo and hi come from; "meanstd" subtracts and
    divides; "scale" multiplies; "none" leaves values alone. `clamp` cuts encoded values to [-1, 1], which decoding
    cannot undo. A range or deviation below 1e-8 is taken as 1e-8 when encoding, so that decoding returns the constant.
    """

    kind: Kind = "none"
    lo: tuple[Number, ...] = ()
    hi: tuple[Number, ...] = ()
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()
    scale: tuple[Number, ...] = ()
    clamp: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ContractError(f"There is no normaliser {shown(self.kind)}. Known: {', '.join(get_args(Kind))}.")
        needed = NEEDED[self.kind]
        for name in ("lo", "hi", "mean", "std", "scale"):
            column = getattr(self, name)
            if bool(column) != (name in needed):
                raise ContractError(
                    f"Normaliser {self.kind!r} needs {' and '.join(needed) or 'no numbers'}, "
                    f"got {name}={shown(column)}. Give exactly those."
                )
            if not all(isinstance(x, Number) and not isinstance(x, bool) and math.isfinite(x) for x in column):
                raise ContractError(f"Normaliser {name} must be finite numbers, got {shown(column)}. Mend them.")
            object.__setattr__(self, name, tuple(float(x) for x in column))
        lengths = [len(getattr(self, name)) for name in needed]
        if len(set(lengths)) > 1:
            raise ContractError(f"Normaliser {self.kind!r} has columns of lengths {lengths}. Give one number for each.")
        if any(low > high for low, high in zip(self.lo, self.hi, strict=True)):
            raise ContractError(f"Normaliser lo lies above hi: {shown(self.lo)}, {shown(self.hi)}. Swap them.")
        if any(x < 0 for x in self.std) or any(x == 0 for x in self.scale):
            raise ContractError(f"Normaliser std or scale cannot be undone: {shown(self.std or self.scale)}. Mend it.")

    @property
    def width(self) -> int | None:
        """Number of action columns; None when every width will do."""
        return len(getattr(self, NEEDED[self.kind][0])) if self.kind != "none" else None

    @property
    def sha256(self) -> str:
        """Hash of the kind and all numbers, in a form that does not depend on who wrote them."""
        content = {name: getattr(self, name) for name in ("kind", "lo", "hi", "mean", "std", "scale", "clamp")}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def encode(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Raw actions (T, A) to what the model sees, float32 (T, A).

        Raises:
            ContractError: A is not the width of the normaliser.
        """
        x = self._columns(actions)
        if self.kind == "none":
            y = x
        elif self.kind == "scale":
            y = x * np.array(self.scale)
        elif self.kind == "meanstd":
            y = (x - np.array(self.mean)) / np.maximum(np.array(self.std), LEAST_RANGE)
        else:
            lo, hi = np.array(self.lo), np.array(self.hi)
            y = 2 * (x - lo) / np.maximum(hi - lo, LEAST_RANGE) - 1
        return (np.clip(y, -1, 1) if self.clamp else y).astype(np.float32)

    def decode(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The inverse of `encode`, float32 (T, A) in raw units."""
        y = self._columns(actions)
        if self.kind == "none":
            x = y
        elif self.kind == "scale":
            x = y / np.array(self.scale)
        elif self.kind == "meanstd":
            x = y * np.array(self.std) + np.array(self.mean)
        else:
            lo, hi = np.array(self.lo), np.array(self.hi)
            x = (y + 1) / 2 * (hi - lo) + lo
        return x.astype(np.float32)

    def to_json(self) -> dict[str, object]:
        """The kind, its numbers and the hash of both."""
        numbers: dict[str, object] = {name: list(getattr(self, name)) for name in NEEDED[self.kind]}
        return {"kind": self.kind, **numbers, "clamp": self.clamp, "sha256": self.sha256}

    @classmethod
    def from_json(cls, document: object) -> "Normaliser":
        """Read `to_json` back.

        Raises:
            ContractError: wrong keys or numbers, or numbers that do not have the hash they were stored with.
        """
        if not isinstance(document, Mapping) or not isinstance(document.get("kind"), str):
            raise ContractError(f"A normaliser must be an object with a kind, got {shown(document)}. Write it again.")
        values = dict(document)
        stored = values.pop("sha256", None)
        allowed = {"kind", "clamp", *NEEDED.get(values["kind"], ())}
        if set(values) - allowed or not isinstance(values.get("clamp", False), bool):
            raise ContractError(f"A normaliser {shown(values['kind'])} has the keys {shown(list(values))}. Mend it.")
        for name in allowed - {"kind", "clamp"}:
            if not isinstance(values.get(name), list):
                raise ContractError(f"Normaliser {name} must be a list, got {shown(values.get(name))}. Write it again.")
            values[name] = tuple(values[name])
        read = cls(**values)
        if stored != read.sha256:
            raise ContractError(
                f"The normaliser has hash {read.sha256}, stored was {shown(stored, 80)}. Its numbers were changed: "
                "restore the checkpoint."
            )
        return read

    def _columns(self, actions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        if actions.ndim != 2 or (self.width is not None and actions.shape[1] != self.width):
            raise ContractError(f"The normaliser takes (T, {self.width or 'A'}), got {actions.shape}. Mend that.")
        return actions.astype(np.float64)
