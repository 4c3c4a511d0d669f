"""The example, in parts and as a whole, on an episode of two seconds."""

import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import orrery
from orrery.errors import DatasetError
from orrery.tasks.embodiment import embodiment
from orrery.tasks.rotation import follow_deltas, poses
from orrery.tasks.task import task_named
from orrery.worlds.factory.record import record_episode

ROOT = Path(__file__).parent.parent.parent
DROID = ROOT.parent / "shared" / "data" / "real" / "droid"


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples" / "one_episode"))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield SimpleNamespace(
            **{name: importlib.import_module(name) for name in ("episode", "learner", "comparisons", "demo")}
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "cell"
    record_episode(path, seed=0, frames=80, size=32)
    return path


@pytest.fixture(scope="module")
def droid():
    if not DROID.is_dir():
        pytest.skip("the real recording is not there")
    return DROID


def test_actions_sound_and_contract_of_the_cell_are_those_that_were_recorded(example, folder):
    recording = example.episode.read_recording(folder)
    recorded = example.episode.open_dataset(folder).episode(0).columns["action"]
    assert recording.frames.shape == (80, 32, 32, 3)
    np.testing.assert_array_equal(recording.actions, recorded[:79])
    assert recording.contract == embodiment("factory_gantry").contract(cameras=recording.contract.cameras)
    assert len(recording.sound_of(30).samples) == 30 * 2400


def test_no_training_window_sees_a_held_out_frame_and_the_other_way_round(example, folder):
    recording = example.episode.read_recording(folder)
    chunk = example.episode.CHUNK
    assert max(recording.training_starts) + chunk == recording.cut - 1
    assert min(recording.held_out_starts) == recording.cut
    assert max(recording.held_out_starts) + chunk == len(recording.frames) - 1
    for start in (*recording.training_starts, *recording.held_out_starts):
        assert len(recording.clip(start)) == len(recording.chunk(start)) + 1 == chunk + 1


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [((360, 640), (64, 112)), ((64, 64), (64, 64)), ((480, 640), (80, 96)), ((2160, 512), (176, 48))],
)
def test_frames_are_scaled_down_to_multiples_of_16_and_never_up(example, recorded, shown):
    assert example.episode.frame_size(*recorded) == shown


def test_the_prompt_is_trained_in_the_form_that_it_is_asked_in(example, folder):
    recording = example.episode.read_recording(folder)
    codec, text = example.learner.PixelPatchCodec(spatial=8), example.learner.train_tokenizer([recording.prompt], 300)
    source = recording.windows(recording.cut, codec, text)
    assert len(source) == len(recording.training_starts)
    window = source.window(3, task_named("policy"), torch.Generator())
    request = example.comparisons.ask(SimpleNamespace(), recording, "policy", 3, 0)
    assert text.decode(window.prompt.tolist(), skip_special=False).count(request.prompt) == 1
    np.testing.assert_allclose(recording.contract.decode(window.actions.numpy()), recording.chunk(3), atol=1e-6)
    np.testing.assert_array_equal(codec.decode(window.vision), recording.clip(3))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield 1
    torch.set_num_threads(before)


def test_a_short_run_writes_the_page_and_its_numbers_come_again_from_the_checkpoint(
    example, folder, tmp_path, monkeypatch, one_thread
):
    for name, value in {"STEPS": 1, "JUDGED": 3, "JUDGED_HELD_OUT": 2, "SHOWN": 1}.items():
        monkeypatch.setattr(example.comparisons, name, value)
    out = tmp_path / "out"
    example.demo.Demo(folder=folder, out=out, minutes=0.02, threads=one_thread)()
    first = json.loads((out / "results.json").read_text())
    page = (out / "page.html").read_text()
    assert "memorises one episode" in page
    assert page.count("<video") == 5
    assert "memorises" in " ".join(first["warnings"])
    assert set(first["comparisons"]) == {"forward_dynamics", "inverse_dynamics", "policy", "reconstruction"}
    for comparison in first["comparisons"].values():
        assert comparison["measures"]
        for measure in comparison["measures"]:
            assert measure["baseline"]["name"]
            assert "value" in measure["baseline"]
    exact = first["comparisons"]["reconstruction"]["measures"][0]
    assert exact["value"] == "infinite"
    model = orrery.load(out / "checkpoint")
    assert list(model.contracts) == ["factory_gantry"]
    assert model.origin.trained

    again = tmp_path / "again"
    example.demo.Demo(folder=folder, out=again, checkpoint=out / "checkpoint", threads=one_thread)()
    second = json.loads((again / "results.json").read_text())
    for name, comparison in first["comparisons"].items():
        assert second["comparisons"][name]["measures"] == comparison["measures"]


def test_a_mistake_is_one_line_and_exit_code_2(example, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["demo.py", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        example.demo.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_dataset_without_actions_says_which_columns_it_has(example, folder):
    dataset = example.episode.open_dataset(folder)
    episode = dataset.episode(0, columns=["observation.state"])
    odd = SimpleNamespace(root=folder, robot_type="other", features=dataset.features)
    with pytest.raises(DatasetError, match=r"It has: observation\.state"):
        example.episode.actions_of(odd, episode, None, [])


def test_an_unknown_robot_is_taken_by_its_action_column_and_that_is_said(example, folder):
    dataset = example.episode.open_dataset(folder)
    other = SimpleNamespace(root=folder, robot_type="other", features=dataset.features)
    remarks = []
    view = example.episode.Camera(name="top", height=32, width=32)
    actions, contract = example.episode.actions_of(other, dataset.episode(0), view, remarks)
    assert contract.action_names == ("dx_m", "dy_m", "dz_m", "dyaw_rad", "gripper")
    assert contract.embodiment == "custom"
    assert "does not say what its actions mean" in remarks[0]
    assert np.quantile(contract.encode(actions), 0.99, axis=0) == pytest.approx(1, abs=1e-4)


def test_real_episode_names_what_is_missing_and_its_deltas_lead_along_the_recorded_path(example, droid):
    dataset = example.episode.open_dataset(droid, cameras="available")
    episode = dataset.episode(0)
    assert sum("has no video file" in problem for problem in dataset.problems) == 2
    assert any("empty text" in problem for problem in dataset.problems)
    view = example.episode.Camera(name=next(iter(episode.cameras)), height=64, width=112)
    actions, contract = example.episode.actions_of(dataset, episode, view, [])
    assert (contract.embodiment, contract.width, contract.control_rate_hz) == ("droid_lerobot", 10, 15)
    assert actions.shape == (episode.length - 1, 10)
    assert set(np.unique(actions[:, 9].round())) == {0, 1}
    pose = episode.columns[example.episode.POSE].astype(float)
    turned = example.episode.matrix_from_euler_xyz(pose[:1, 3:]) @ example.episode.DROID_TO_OPENCV
    (start,) = poses(pose[:1, :3], turned)
    path = follow_deltas(start, actions[:, :9].astype(float))
    # float32 actions drift over 721 steps, by far less than the 0.6 m of the path.
    assert np.abs(path[:, :3, 3] - pose[:, :3]).max() < 1e-3
    # Most of the motion lies inside the published range that the contract normalises by.
    inside = (np.abs(contract.encode(actions)[:, :9]) <= 1.05).mean()
    assert 0.8 < inside <= 1
    assert math.isfinite(inside)
