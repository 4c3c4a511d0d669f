"""The probes: their targets agree with the camera, they learn, and a saved one reads the same."""

from functools import cache

import numpy as np
import pytest
import torch

from orrery.evaluation.factory.probe import load_probes, untrained
from orrery.training.probe import (
    FIRST_SEED,
    FIRST_VALIDATION_SEED,
    GRID,
    MATERIALS,
    PAIRS,
    WINDOW,
    PictureProbe,
    ProbeEpisode,
    SoundProbe,
    band_weights,
    bench_m,
    blow_window,
    frames_from,
    probe_episode,
    reading_loss,
    save_probes,
)
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.layout import CellParameters
from orrery.worlds.factory.render import project
from orrery.worlds.factory.tasks import draw_job


@cache
def episode() -> ProbeEpisode:
    return probe_episode((FIRST_SEED + 3, True))


def test_cells_of_the_grid_lie_where_the_camera_sees_them():
    job = draw_job("stack", np.random.default_rng(0), parameters=CellParameters())
    cell = Cell(job.layout, job.parameters)
    points = bench_m()[0].reshape(3, -1).T
    seen = project(cell.model, cell.data, "front", points, GRID, GRID)
    rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
    assert np.abs(seen[:, 0] - columns - 0.5).max() < 1e-3
    assert np.abs(seen[:, 1] - rows - 0.5).max() < 1e-3


def test_targets_say_which_pairs_are_there_and_where():
    targets = episode().targets
    frames = len(targets["lamp"])
    assert targets["present"].shape == (frames, len(PAIRS))
    assert set(np.unique(targets["present"])) <= {-1.0, 0.0, 1.0}
    unique = targets["unique"] > 0
    assert (targets["present"][unique] == 1).all()
    assert (np.abs(targets["position"][unique]) < 0.6).all()
    assert ((targets["heat"][:, :-1][unique] > 0) & (targets["heat"][:, :-1][unique] < 1)).all()


def test_a_few_steps_bring_the_loss_down():
    torch.manual_seed(0)
    probe = PictureProbe()
    pictures, targets = frames_from([episode()], 2, torch.device("cpu"), 0, in_turn=True)(0)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss = torch.stack(list(reading_loss(probe(pictures), targets).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_saved_probes_read_the_same(tmp_path):
    reader = untrained()
    save_probes(tmp_path / "probes", reader.picture, reader.sound, {"part_mm": 2.0})
    again = load_probes(tmp_path / "probes")
    assert "part_mm 2" in again.note
    pictures = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    one, other = reader.read(pictures), again.read(pictures)
    assert other.position_m == pytest.approx(one.position_m, abs=2e-3)  # stored as float16
    total = sum(path.stat().st_size for path in (tmp_path / "probes").iterdir())
    assert total < 2 * 2**20


def test_the_sound_probe_hears_every_band_and_pads_with_silence():
    assert (band_weights().sum(axis=0) > 0).all()
    sound = np.ones(1000, np.float32)
    window = blow_window(sound, 0.0)
    assert window.shape == (WINDOW,)
    assert window.sum() < WINDOW
    assert SoundProbe()(torch.from_numpy(window[None])).shape == (1, len(MATERIALS))


def test_the_shipped_probes_read_true_pictures_and_untrained_ones_do_not():
    unseen = probe_episode((FIRST_VALIDATION_SEED + 3, True))
    pictures, targets = frames_from([unseen], 4, torch.device("cpu"), 0, in_turn=True)(0)
    found = {}
    for name, reader in (("shipped", load_probes()), ("untrained", untrained())):
        sights = reader.read(pictures.numpy())
        found[name] = np.linalg.norm(sights.gripper_m - targets["gripper"][:, :3].numpy(), axis=1).mean()
    assert found["shipped"] < 0.04 < found["untrained"]
