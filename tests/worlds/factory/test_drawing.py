import pickle

import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.drawing import Drawing, drawing_of
from orrery.worlds.factory.rollout import roll
from orrery.worlds.factory.tasks import TASKS, draw_job


def played(task, seed, steps):
    rng = np.random.default_rng(seed)
    job = draw_job(task, rng)
    cell = Cell(job.layout, job.parameters)
    attempt = roll(cell, job, policy(BEHAVIOURS["play"], job, rng), steps=steps, to_the_end=True)
    return cell, [moment.state for moment in attempt.moments]


def rotated(turn, vector):
    """A vector (3,) turned by a quaternion (w, x, y, z)."""
    w, axis = turn[0], turn[1:]
    return vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)


@pytest.mark.parametrize("task", TASKS)
def test_poses_are_those_of_the_simulation(task):
    cell, states = played(task, 3, 12)
    drawing = drawing_of(cell, states)
    assert len(drawing) == 12
    visible = np.flatnonzero(cell.model.geom_group < 3)
    for t in (0, 7):
        cell.restore(states[t])
        place = np.concatenate([np.zeros((1, 3)), drawing.place_m[t]])
        turn = np.concatenate([[[1, 0, 0, 0]], drawing.turn[t]])
        for row, geom in enumerate(visible):
            body = drawing.geom_body[row]
            middle = place[body] + rotated(turn[body], drawing.geom_place_m[row])
            assert np.abs(middle - cell.data.geom_xpos[geom]).max() < 1e-6
            for axis, column in zip(np.eye(3), cell.data.geom_xmat[geom].reshape(3, 3).T, strict=True):
                along = rotated(turn[body], rotated(drawing.geom_turn[row], axis))
                assert np.abs(along - column).max() < 1e-6
        for row in range(len(drawing.cameras)):
            body = drawing.camera_body[row]
            eye = place[body] + rotated(turn[body], drawing.camera_place_m[row])
            assert np.abs(eye - cell.data.cam_xpos[row]).max() < 1e-6


def test_lamp_and_belt_are_those_of_each_state():
    cell, states = played("press_start", 5, 60)
    drawing = drawing_of(cell, states)
    assert drawing.lamp_on.tolist() == [state.memory.running for state in states]
    assert np.allclose(drawing.belt_shift_m, [state.memory.belt_travel_m for state in states], atol=1e-6)
    assert cell.memory == states[-1].memory
    assert np.array_equal(cell.snapshot().physics, states[-1].physics)


def test_arrays_and_pickle_give_the_same_drawing_back(tmp_path):
    cell, states = played("kit_fill", 1, 10)
    drawing = drawing_of(cell, states)
    np.savez(tmp_path / "drawing.npz", **drawing.arrays())
    with np.load(tmp_path / "drawing.npz") as stored:
        read = Drawing.from_arrays(stored)
    for again in (read, pickle.loads(pickle.dumps(drawing))):
        assert again.cameras == drawing.cameras == ("front", "side", "wrist")
        assert (again.lamp, again.belt) == (drawing.lamp, drawing.belt)
        for name, array in drawing.arrays().items():
            assert np.array_equal(again.arrays()[name], array)
            assert again.arrays()[name].dtype == array.dtype


def test_an_episode_is_small():
    cell, states = played("kit_fill", 1, 2)
    assert len(pickle.dumps(drawing_of(cell, states * 35))) < 30_000


def test_what_is_no_drawing_is_refused():
    cell, states = played("stack", 1, 1)
    with pytest.raises(SettingsError, match="at least one frame"):
        drawing_of(cell, [])
    arrays = drawing_of(cell, states).arrays()
    del arrays["lamp"]
    with pytest.raises(SettingsError, match="lamp"):
        Drawing.from_arrays(arrays)
    cell.model.geom_type[0] = 2
    with pytest.raises(SettingsError, match="neither a box nor a cylinder"):
        drawing_of(cell, states)
