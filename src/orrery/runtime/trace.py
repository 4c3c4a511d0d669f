"""Marks of what a run was like at each stage, so that another run can be compared with it stage by stage."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

VALUES = 16
"""Of each array, evenly spread, that a mark keeps as they are."""
Arrays = Sequence[Tensor | npt.NDArray[Any]]


def mark(stage: str, arrays: Arrays) -> dict[str, Any]:
    """A stage's name, the sha256 of all its bytes, and what tells how far another one is from it."""
    digest, norms, values = hashlib.sha256(), [], []
    for array in arrays:
        plain = array.detach().cpu().float().numpy() if isinstance(array, Tensor) else np.asarray(array)
        digest.update(f"{plain.dtype}{plain.shape}".encode())
        digest.update(np.ascontiguousarray(plain).tobytes())
        flat = plain.astype(np.float64).ravel()
        norms.append(float(np.sqrt(np.square(flat).mean())) if flat.size else 0.0)
        values.append(flat[np.linspace(0, max(0, flat.size - 1), min(VALUES, flat.size)).astype(int)].tolist())
    return {"stage": stage, "sha256": digest.hexdigest(), "rms": norms, "values": values}


def near(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> bool:
    """Whether two marks of one stage are apart by no more than a share of their root mean square, in what they keep."""
    if len(one["rms"]) != len(other["rms"]):
        return False
    for size, size_2, values, values_2 in zip(one["rms"], other["rms"], one["values"], other["values"], strict=True):
        if len(values) != len(values_2) or abs(size - size_2) > tolerance * max(size, size_2):
            return False
        if values and np.abs(np.subtract(values, values_2)).max() > tolerance * max(size, size_2, 1e-12):
            return False
    return True
