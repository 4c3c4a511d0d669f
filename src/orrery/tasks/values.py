"""Checks of structured values that came from outside: pairs, sizes, tables of numbers, pictures and sound samples."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.errors import RequestError
from orrery.tasks.checks import file_path, shown, whole

Array = npt.NDArray[Any]

MAX_SIDE = 8192
MAX_PIXELS = 32_000_000
MAX_ACTION_WIDTH = 64
MAX_ACTIONS = 18_000
MAX_ACTION_VALUE = 1e6


def pair(name: str, value: object, form: str) -> tuple[Any, Any]:
    """A tuple of two values; `form` names them for the error."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise RequestError(f"{name} must be ({form}), got {shown(value)}. Give two numbers.")
    return value[0], value[1]


def size(name: str, value: object) -> None:
    """(height, width) in pixels: even, as H.264 stores colour for 2x2 blocks, and within the limits."""
    sides = pair(name, value, "height, width")
    for word, side in zip(("height", "width"), sides, strict=True):
        whole(f"{name} {word}", side, 2, MAX_SIDE)
        if side % 2:
            raise RequestError(f"{name} {word} must be even, got {side}. Give {side - 1} or {side + 1}.")
    if sides[0] * sides[1] > MAX_PIXELS:
        raise RequestError(f"{name} {sides[0]}x{sides[1]} has more than {MAX_PIXELS} pixels. Give a smaller one.")


def picture(name: str, value: object) -> None:
    """A path, or uint8 RGB (H, W, 3) or (T, H, W, 3)."""
    if isinstance(value, str | Path):
        file_path(name, value)
        return
    if not isinstance(value, np.ndarray):
        raise RequestError(f"{name} must be a path or a uint8 array, got {shown(value)}. Give the path of a file.")
    if value.dtype != np.uint8 or value.ndim not in (3, 4) or value.shape[-1] != 3 or not value.size:
        raise RequestError(
            f"{name} must be uint8 RGB (H, W, 3) or (T, H, W, 3), got {value.dtype} {value.shape}. Convert it."
        )
    height, width = value.shape[-3:-1]
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise RequestError(f"{name} of shape {value.shape} is too large. Give at most {MAX_SIDE} px a side.")


def samples(name: str, value: Array) -> None:
    """Sound samples: float (N, channels) in [-1, 1]."""
    if value.ndim != 2 or value.dtype.kind != "f" or not 1 <= value.shape[1] <= 8:
        raise RequestError(f"{name} must be float (N, 1 to 8 channels), got {value.dtype} {value.shape}. Convert it.")
    if not value.size or not np.abs(value).max() <= 1:
        raise RequestError(f"{name} of shape {value.shape} is empty or not within [-1, 1]. Scale the samples.")


def table(name: str, rows: object) -> Array:
    """Rows of finite numbers as float32 (T, A).

    Raises:
        RequestError: empty, ragged, too wide, not numbers, not finite, or beyond a million.
    """
    if isinstance(rows, np.ndarray):
        if rows.ndim != 2 or rows.dtype.kind not in "fiu":
            raise RequestError(f"{name} must be numbers (T, A), got {rows.dtype} of shape {rows.shape}. Reshape it.")
        values = rows.astype(np.float64)
    else:
        if not isinstance(rows, list) or not rows:
            raise RequestError(f"{name} must be a list of rows, got {shown(rows)}. Give a list of lists of numbers.")
        for index, row in enumerate(rows):
            items = row.tolist() if isinstance(row, np.ndarray) else row
            if not isinstance(items, list) or not all(_is_number(x) for x in items):
                raise RequestError(f"{name} row {index} must be numbers, got {shown(items)}. Give a list of numbers.")
            if len(items) != len(rows[0]):
                raise RequestError(
                    f"{name} row {index} has {len(items)} values and row 0 has {len(rows[0])}. Give rows of one width."
                )
        values = np.array([list(map(float, row)) for row in rows], dtype=np.float64).reshape(len(rows), -1)
    if not 1 <= values.shape[0] <= MAX_ACTIONS or not 1 <= values.shape[1] <= MAX_ACTION_WIDTH:
        raise RequestError(
            f"{name} has shape {values.shape}. Give 1 to {MAX_ACTIONS} rows of 1 to {MAX_ACTION_WIDTH} values."
        )
    wrong = np.argwhere(~(np.abs(values) <= MAX_ACTION_VALUE))
    if wrong.size:
        row, column = map(int, wrong[0])
        bound = f"{MAX_ACTION_VALUE:g}"
        raise RequestError(
            f"{name} row {row} column {column} is {values[row, column]}. Give finite numbers within +-{bound}."
        )
    return values.astype(np.float32)


def _is_number(value: object) -> bool:
    """A float, or an int that fits one."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_ACTION_VALUE
    )
