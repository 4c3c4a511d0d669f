import mujoco
import numpy as np
import pytest
import torch

from orrery.errors import SettingsError
from orrery.training import pictures
from orrery.training.pictures import draw, draw_scenes, scenes_of, sent
from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.drawing import drawing_of
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import film, roll
from orrery.worlds.factory.tasks import TASKS, draw_job


def played(task, seed, steps):
    rng = np.random.default_rng(seed)
    job = draw_job(task, rng)
    cell = Cell(job.layout, job.parameters)
    attempt = roll(cell, job, policy(BEHAVIOURS["expert" if seed % 2 else "play"], job, rng), steps=steps)
    return cell, [moment.state for moment in attempt.moments]


def one_ray_at_a_time(model, data, place, rays, groups, static, body, geom, share, normal, count, cutoff):
    """`mujoco.mj_multiRay` without its bundles, which leave out slivers of shadows (MuJoCo 3.17)."""
    found, side = np.empty(1, np.int32), np.empty(3)
    for k, ray in enumerate(rays.reshape(-1, 3)):
        share[k] = mujoco.mj_ray(model, data, place, ray, groups, static, body, found, side)
        geom[k] = found[0]
        if normal is not None:
            normal[3 * k : 3 * k + 3] = side


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("task", TASKS)
def test_pictures_are_those_of_the_renderer(task, seed, monkeypatch):
    cell, states = played(task, seed, 50)
    drawing, last = drawing_of(cell, states), len(states) - 1

    def apart(camera, size, frame):
        (wanted,) = film(cell, [states[frame]], camera, size, size, Renderer(cell.model))
        (got,) = draw([drawing], [[frame]], camera, size, size, "cpu").numpy()
        return np.abs(got.astype(int) - wanted)

    for camera in ("front", "wrist"):
        for size, frame in ((128, last), (64, last // 2)):
            difference = apart(camera, size, frame)
            # Measured: 0.6 % of the pixels in the worst of 112 pictures, 0.02 % on average; slivers of shadows.
            assert difference.mean() < 0.5
            assert (difference.max(axis=-1) <= 2).mean() > 0.99
    monkeypatch.setattr(mujoco, "mj_multiRay", one_ray_at_a_time)
    for camera in ("front", "wrist"):
        # float32 decides otherwise for a pixel here and there, at the edge of something.
        assert (apart(camera, 48, last) == 0).all(axis=-1).mean() > 0.999


def test_drawings_are_drawn_together_as_alone():
    (one, states), (other, more) = played("belt_sort", 0, 6), played("peg_insert", 1, 4)
    first, second = drawing_of(one, states), drawing_of(other, more)
    both = draw([first, second], [[4, 0], [2, 3, 3]], "wrist", 24, 32, "cpu", chunk=2)
    assert both.shape == (5, 24, 32, 3)
    alone = [draw([first], [[4, 0]], "wrist", 24, 32, "cpu"), draw([second], [[2, 3, 3]], "wrist", 24, 32, "cpu")]
    assert torch.equal(both, torch.cat(alone))
    scenes = scenes_of([first, second], "cpu")
    assert len(scenes) == 10
    assert torch.equal(both, draw_scenes(scenes, torch.tensor([4, 0, 8, 9, 9]), "wrist", 24, 32))
    assert draw([first, second], [[], []], "front", 8, 8, "cpu").shape == (0, 8, 8, 3)


def test_frames_that_are_put_in_place_together_are_drawn_as_alone(monkeypatch):
    cell, states = played("belt_sort", 0, 7)
    drawing = drawing_of(cell, states)
    together = draw([drawing], [range(7)], "front", 24, 32, "cpu", chunk=2)
    monkeypatch.setattr(pictures, "POSED", 4)
    assert torch.equal(draw([drawing], [range(7)], "front", 24, 32, "cpu", chunk=2), together)
    monkeypatch.setattr(pictures, "POSED", 1)
    assert torch.equal(draw([drawing], [range(7)], "front", 24, 32, "cpu", chunk=3), together)


def test_arrays_that_are_sent_together_arrive_as_they_were():
    arrays = [
        np.arange(5, dtype=np.uint8), np.arange(6.0).reshape(2, 3), np.zeros((0, 2), np.int16),
        np.array([[True], [False]]), np.arange(12, dtype=np.float32).reshape(3, 4).T, np.arange(3),
    ]  # fmt: skip
    for array, tensor in zip(arrays, sent(arrays, torch.device("cpu")), strict=True):
        assert tensor.numpy().dtype == array.dtype
        assert np.array_equal(tensor.numpy(), array)


def test_lower_precision_of_matrix_products_changes_nothing():
    cell, states = played("stack", 0, 2)
    drawing = drawing_of(cell, states)
    exact = draw([drawing], [[1]], "front", 32, 32, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(draw([drawing], [[1]], "front", 32, 32, "cpu"), exact)


def test_what_cannot_be_drawn_is_refused():
    cell, states = played("stack", 0, 2)
    drawing = drawing_of(cell, states)
    with pytest.raises(SettingsError, match="frames 0 to 1"):
        draw([drawing], [[2]], "front", 8, 8, "cpu")
    with pytest.raises(SettingsError, match="No camera"):
        draw([drawing], [[0]], "back", 8, 8, "cpu")
    with pytest.raises(SettingsError, match="at least one pixel"):
        draw([drawing], [[0]], "front", 0, 8, "cpu")
    with pytest.raises(SettingsError, match="each of 1 drawings"):
        draw([drawing], [[0], [1]], "front", 8, 8, "cpu")
    with pytest.raises(SettingsError, match="at least one drawing"):
        draw([], [], "front", 8, 8, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, when it loads its compiler
def test_fused_pictures_on_a_gpu_are_those_of_the_processor():
    cell, states = played("belt_sort", 0, 20)
    drawing = drawing_of(cell, states)
    for camera in ("front", "wrist"):
        plain = draw([drawing], [range(20)], camera, 64, 64, "cpu").numpy().astype(int)
        fused = draw([drawing], [range(20)], camera, 64, 64, "cuda", chunk=16).cpu().numpy()
        apart = np.abs(plain - fused)
        assert apart.mean() < 0.1
        assert (apart.max(axis=-1) <= 1).mean() > 0.998
