"""Marks of what a run was like at each stage, so that another run can be compared with it stage by stage."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

BUCKETS = 32
"""Sums that a mark keeps of each array. The distance that they tell is off by about a quarter at most, 1/sqrt(32)."""
_PIECE = 2**20
Arrays = Sequence[Tensor | npt.NDArray[Any]]


def mark(stage: str, arrays: Arrays) -> dict[str, Any]:
    """A stage's name, the sha256 of all its bytes, and what tells how far another one is from it.

    Every value goes into the sums, so a difference in a single one is seen.
    """
    digest, norms, sketches = hashlib.sha256(), [], []
    for array in arrays:
        plain = array.detach().cpu().float().numpy() if isinstance(array, Tensor) else np.asarray(array)
        digest.update(f"{plain.dtype}{plain.shape}".encode())
        digest.update(np.ascontiguousarray(plain).tobytes())
        rms, sketch = _summed(plain.ravel())
        norms.append(rms)
        sketches.append(sketch)
    return {"stage": stage, "sha256": digest.hexdigest(), "rms": norms, "sketch": sketches}


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How far two marks of one stage are from each other: root mean square of the difference, as a share of the larger
    root mean square; of the array where it is largest. Infinite where they are not of as many arrays."""
    if len(one["rms"]) != len(other["rms"]):
        return float("inf")
    shares = [0.0]
    for size, size_2, sketch, sketch_2 in zip(one["rms"], other["rms"], one["sketch"], other["sketch"], strict=True):
        if largest := max(size, size_2):
            shares.append(float(np.linalg.norm(np.subtract(sketch, sketch_2))) / largest)
    return max(shares)


def near(one: Mapping[str, Any], other: Mapping[str, Any], tolerance: float) -> bool:
    """Whether two marks of one stage are apart by no more than a share of their root mean square."""
    return apart(one, other) <= tolerance


def is_mark(row: object) -> bool:
    """Whether a value read from a record has the form of a mark."""
    match row:
        case {"stage": str(), "sha256": str(), "rms": list(norms), "sketch": list(sketches)}:
            lists = all(isinstance(sketch, list) and len(sketch) == BUCKETS for sketch in sketches)
            numbers = [*norms, *(value for sketch in sketches if lists for value in sketch)]
            return lists and len(norms) == len(sketches) and all(isinstance(value, float | int) for value in numbers)
    return False


def _summed(flat: npt.NDArray[Any]) -> tuple[float, list[float]]:
    """Root mean square of values (n,), and their sums with random signs in random buckets, over sqrt(n).

    The squared distance of two such sums is that of the values in expectation.

    Source: count sketch, Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002.
    """
    squares, sums = 0.0, np.zeros(BUCKETS)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        words = _mixed(start, piece.size)
        signed = np.where(words >> np.uint64(63), piece, -piece)
        buckets = (words % np.uint64(BUCKETS)).astype(np.intp)
        sums += np.bincount(buckets, weights=signed, minlength=BUCKETS)
        squares += float(np.square(piece).sum())  # not by BLAS, whose sum depends on its threads
    count = max(1, flat.size)
    return float(np.sqrt(squares / count)), (sums / np.sqrt(count)).tolist()


def _mixed(start: int, count: int) -> npt.NDArray[np.uint64]:
    """`orrery.data.order.mix` of start, start + 1, ...: no library's random stream, so marks stay comparable."""
    words = np.arange(start, start + count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
