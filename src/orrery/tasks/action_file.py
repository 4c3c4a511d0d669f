"""Read the actions that a request names as a file: JSON rows, or a NumPy array. Numbers only; nothing is executed."""

from pathlib import Path

import numpy as np

from orrery.errors import RequestError
from orrery.tasks.checks import read_json, shown
from orrery.tasks.values import Array, table

MAX_BYTES = 64 * 2**20


def read_actions(path: Path) -> Array:
    """Raw actions, float32 (T, A), from `.json` (rows, or an object with "actions" or "action") or `.npy`.

    Raises:
        RequestError: no such file, another format, or numbers that `table` refuses.
    """
    if path.suffix == ".json":
        rows = read_json(path, max_bytes=MAX_BYTES)
        if isinstance(rows, dict):
            named = [name for name in ("actions", "action") if name in rows]
            if len(named) != 1:
                raise RequestError(f"{path.name!r} has the keys {shown(list(rows))}. Give rows, or one key 'actions'.")
            rows = rows[named[0]]
        return table(path.name, rows)
    if path.suffix != ".npy":
        raise RequestError(f"Actions cannot be read from {path.name!r}. Give a .json or .npy file.")
    if not path.is_file():
        raise RequestError(f"There is no file {shown(str(path), 200)}. Give the path of a .npy file of actions.")
    if path.stat().st_size > MAX_BYTES:
        raise RequestError(
            f"{path.name!r} has {path.stat().st_size} bytes, over the {MAX_BYTES} that are read. Cut it."
        )
    try:
        # Mapped, so that a header that promises more numbers than the file holds costs no memory.
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RequestError(
            f"{path.name!r} is not a NumPy array of numbers ({type(error).__name__}). Save it again."
        ) from None
    if not isinstance(values, np.ndarray):
        raise RequestError(f"{path.name!r} holds several arrays. Save one array (T, A).")
    return table(path.name, np.array(values))
