import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import ContractError
from orrery.tasks.rotation import (
    DROID_TO_OPENCV,
    follow_deltas,
    framewise_deltas,
    matrix_from_euler_xyz,
    matrix_from_quat_xyzw,
    matrix_from_rot6d,
    poses,
    rot6d_from_matrix,
)

QUARTER = math.pi / 2
ANGLES = st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3)


def random_rotations(count, seed=0):
    return matrix_from_quat_xyzw(np.random.default_rng(seed).normal(size=(count, 4)))


def assert_rotations(matrices):
    np.testing.assert_allclose(
        matrices @ np.swapaxes(matrices, 1, 2), np.broadcast_to(np.eye(3), matrices.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("angles", "image_of_x_y_z"),
    [
        ((QUARTER, 0, 0), [(1, 0, 0), (0, 0, 1), (0, -1, 0)]),
        ((0, QUARTER, 0), [(0, 0, -1), (0, 1, 0), (1, 0, 0)]),
        ((0, 0, QUARTER), [(0, 1, 0), (-1, 0, 0), (0, 0, 1)]),
        # About the fixed x first and the fixed z after it: y goes to z and stays there.
        ((QUARTER, 0, QUARTER), [(0, 1, 0), (0, 0, 1), (1, 0, 0)]),
    ],
)
def test_euler_angles_turn_about_fixed_axes_x_then_y_then_z(angles, image_of_x_y_z):
    (matrix,) = matrix_from_euler_xyz(np.array([angles], dtype=float))
    np.testing.assert_allclose(matrix, np.array(image_of_x_y_z, dtype=float).T, atol=1e-15)


@given(ANGLES)
def test_euler_angles_and_the_quaternion_of_the_same_turns_agree(angles):
    def about(axis, angle):
        return np.array([*(math.sin(angle / 2) * np.eye(3)[axis]), math.cos(angle / 2)])

    def product(p, q):
        return np.array([*(p[3] * q[:3] + q[3] * p[:3] + np.cross(p[:3], q[:3])), p[3] * q[3] - p[:3] @ q[:3]])

    quaternion = product(about(2, angles[2]), product(about(1, angles[1]), about(0, angles[0])))
    euler = matrix_from_euler_xyz(np.array([angles]))
    assert_rotations(euler)
    np.testing.assert_allclose(matrix_from_quat_xyzw(quaternion[None]), euler, atol=1e-12)
    np.testing.assert_allclose(matrix_from_quat_xyzw(-3 * quaternion[None]), euler, atol=1e-12)


def test_rot6d_is_the_first_two_columns_not_rows():
    matrix = np.arange(9.0).reshape(1, 3, 3)
    np.testing.assert_array_equal(rot6d_from_matrix(matrix), [[0, 3, 6, 1, 4, 7]])
    np.testing.assert_array_equal(rot6d_from_matrix(np.eye(3)[None]), [[1, 0, 0, 0, 1, 0]])


def test_rot6d_comes_back_and_noisy_columns_become_a_rotation_near_by():
    rotations = random_rotations(50)
    np.testing.assert_allclose(matrix_from_rot6d(rot6d_from_matrix(rotations)), rotations, atol=1e-12)
    noisy = rot6d_from_matrix(rotations) + np.random.default_rng(1).normal(0, 0.02, (50, 6))
    mended = matrix_from_rot6d(noisy)
    assert_rotations(mended)
    np.testing.assert_allclose(mended, rotations, atol=0.1)


@pytest.mark.parametrize("row", [[0] * 6, [1, 0, 0, 2, 0, 0], [math.nan, 0, 0, 0, 1, 0]])
def test_columns_that_span_no_rotation_are_refused(row):
    with pytest.raises(ContractError, match="rot6d row 1"):
        matrix_from_rot6d(np.array([[1, 0, 0, 0, 1, 0], row], dtype=float))


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [math.inf, 0, 0, 1]])
def test_a_quaternion_without_a_direction_is_refused(row):
    with pytest.raises(ContractError, match="Quaternion 1"):
        matrix_from_quat_xyzw(np.array([[0, 0, 0, 1], row], dtype=float))


def test_deltas_lead_back_through_all_poses():
    rng = np.random.default_rng(3)
    path = poses(rng.normal(size=(30, 3)), random_rotations(30, seed=4))
    deltas = framewise_deltas(path)
    assert deltas.shape == (29, 9)
    np.testing.assert_allclose(follow_deltas(path[0], deltas), path, atol=1e-10)


def test_deltas_do_not_depend_on_where_the_base_stands():
    rng = np.random.default_rng(5)
    path = poses(rng.normal(size=(10, 3)), random_rotations(10, seed=6))
    (base,) = poses(rng.normal(size=(1, 3)), random_rotations(1, seed=7))
    np.testing.assert_allclose(framewise_deltas(base @ path), framewise_deltas(path), atol=1e-12)


def test_a_delta_is_seen_from_the_pose_it_starts_at():
    # Looking along the world's y, a step along the world's x is a step to the right, which is -y of the gripper.
    turned = matrix_from_euler_xyz(np.array([[0, 0, QUARTER]] * 2))
    path = poses(np.array([[0, 0, 0], [0.1, 0, 0]], dtype=float), turned)
    np.testing.assert_allclose(framewise_deltas(path), [[0, -0.1, 0, 1, 0, 0, 0, 1, 0]], atol=1e-15)


def test_the_droid_turn_is_a_rotation_about_the_approach_axis():
    assert_rotations(DROID_TO_OPENCV[None])
    np.testing.assert_array_equal(DROID_TO_OPENCV @ [0, 0, 1], [0, 0, 1])
    np.testing.assert_array_equal(DROID_TO_OPENCV @ [1, 0, 0], [0, 1, 0])
