"""Poses of grippers and cameras: rotations in their several spellings, and the motion from one pose to the next.

Float64 throughout: deltas between neighbouring frames are small differences of large numbers. Which column of which
dataset holds a pose, and how it is normalised, is decided elsewhere.
"""

import numpy as np
from jaxtyping import Float

from orrery.errors import ContractError

DROID_TO_OPENCV: Float[np.ndarray, "3 3"] = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""Turns the recorded DROID gripper frame into x right, y down, z forward; multiplied on the right."""


def matrix_from_euler_xyz(angles_rad: Float[np.ndarray, "T 3"]) -> Float[np.ndarray, "T 3 3"]:
    """Rotations about the fixed axes x, then y, then z, by the three angles in radians: R = Rz Ry Rx."""
    a, b, c = np.moveaxis(angles_rad.astype(np.float64), 1, 0)
    zero, one = np.zeros_like(a), np.ones_like(a)
    about_x = _rows((one, zero, zero), (zero, np.cos(a), -np.sin(a)), (zero, np.sin(a), np.cos(a)))
    about_y = _rows((np.cos(b), zero, np.sin(b)), (zero, one, zero), (-np.sin(b), zero, np.cos(b)))
    about_z = _rows((np.cos(c), -np.sin(c), zero), (np.sin(c), np.cos(c), zero), (zero, zero, one))
    return about_z @ about_y @ about_x


def matrix_from_quat_xyzw(quaternions: Float[np.ndarray, "T 4"]) -> Float[np.ndarray, "T 3 3"]:
    """Rotations of quaternions with the real part last. They are scaled to length 1; q and -q are one rotation.

    Raises:
        ContractError: a quaternion of length 0, or not finite.
    """
    length = np.linalg.norm(quaternions.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 1e-6)).all():
        row = int(np.argmin(np.isfinite(length) & (length > 1e-6)))
        raise ContractError(f"Quaternion {row} is {quaternions[row].tolist()}, no rotation. Check the columns.")
    x, y, z, w = np.moveaxis(quaternions / length, 1, 0)
    return _rows(
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )


def rot6d_from_matrix(rotations: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "T 6"]:
    """The first two columns, one after the other: (R00, R10, R20, R01, R11, R21). Identity is (1, 0, 0, 0, 1, 0)."""
    return np.concatenate([rotations[:, :, 0], rotations[:, :, 1]], axis=1)


def matrix_from_rot6d(columns: Float[np.ndarray, "T 6"]) -> Float[np.ndarray, "T 3 3"]:
    """The rotation nearest to what two noisy columns and their cross product span. Undoes `rot6d_from_matrix`.

    Raises:
        ContractError: a row whose two columns are parallel, zero or not finite spans no rotation.
    """
    columns = columns.astype(np.float64)
    first, second = columns[:, :3], columns[:, 3:]
    third = np.cross(first, second)
    fine = np.isfinite(columns).all(axis=1)
    fine &= np.linalg.norm(third, axis=1) > 1e-6 * np.maximum(np.square(columns).sum(axis=1), 1e-12)
    if not fine.all():
        row = int(np.argmin(fine))
        raise ContractError(f"rot6d row {row} is {columns[row].tolist()}, no rotation. Check columns and normaliser.")
    u, _, vt = np.linalg.svd(np.stack([first, second, third], axis=2))
    flip = np.ones((len(columns), 1, 3))
    flip[:, 0, 2] = np.sign(np.linalg.det(u @ vt))
    return (u * flip) @ vt


def poses(positions_m: Float[np.ndarray, "T 3"], rotations: Float[np.ndarray, "T 3 3"]) -> Float[np.ndarray, "T 4 4"]:
    """Rigid transforms from positions in metres and rotations."""
    transforms = np.zeros((len(positions_m), 4, 4))
    transforms[:, :3, :3] = rotations
    transforms[:, :3, 3] = positions_m
    transforms[:, 3, 3] = 1
    return transforms


def framewise_deltas(transforms: Float[np.ndarray, "T 4 4"]) -> Float[np.ndarray, "T-1 9"]:
    """Motion from each pose to the next, seen from the pose it starts at: T_i^-1 T_(i+1) as (x, y, z, rot6d).

    Translation keeps the unit of the poses. Row i leads from frame i into frame i + 1.
    """
    inverse = np.swapaxes(transforms[:-1, :3, :3], 1, 2)
    moved = transforms[1:, :3, 3] - transforms[:-1, :3, 3]
    turned = inverse @ transforms[1:, :3, :3]
    return np.concatenate([np.einsum("tij,tj->ti", inverse, moved), rot6d_from_matrix(turned)], axis=1)


def follow_deltas(start: Float[np.ndarray, "4 4"], deltas: Float[np.ndarray, "N 9"]) -> Float[np.ndarray, "N+1 4 4"]:
    """The poses that deltas lead through from `start`: T_(i+1) = T_i dT_i. Undoes `framewise_deltas`.

    Raises:
        ContractError: a row that holds no rotation.
    """
    reached = [start.astype(np.float64)]
    for step in poses(deltas[:, :3], matrix_from_rot6d(deltas[:, 3:])):
        reached.append(reached[-1] @ step)
    return np.stack(reached)


def _rows(*rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Float[np.ndarray, "T 3 3"]:
    """Matrices from the three rows of their entries, each entry (T,)."""
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
