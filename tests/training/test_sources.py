import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from makers.own_checkpoint import CHUNK, CONTRACT, HEIGHT, WIDTH, tiny_model

from orrery.data.clips import read_clips
from orrery.data.lerobot import open_dataset
from orrery.data.lerobot_writer import Writer
from orrery.data.write_media import write_video
from orrery.errors import DatasetError
from orrery.tasks.task import TASKS
from orrery.training.batch import Source, draw_batch
from orrery.training.recipe import Recipe, Share
from orrery.training.sources import ClipSource, EpisodeSource, Recording, read_recordings

RNG = torch.Generator()


def recording(length, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Recording(
        frames=frames, actions=rng.uniform(-0.1, 0.1, (length - 1, 3)).astype(np.float32), prompt=f"part {seed}"
    )


def source(*recordings):
    model = tiny_model()
    return EpisodeSource(recordings, text=model.text, codec=model.vision, contract=CONTRACT)


def test_windows_never_cross_episodes_and_are_all_there():
    first, second = recording(CHUNK + 3, 0), recording(CHUNK + 1, 1)
    windows = source(first, second)
    assert isinstance(windows, Source)
    assert len(windows) == 3 + 1
    places = [windows.place(index) for index in range(4)]
    assert [(place[0] is second, place[1]) for place in places] == [(False, 0), (False, 1), (False, 2), (True, 0)]


def test_a_window_holds_the_frames_and_the_actions_between_them():
    whole = recording(CHUNK + 2, 0)
    window = source(whole).window(1, TASKS["policy"], RNG)
    model = tiny_model()
    assert np.array_equal(model.vision.decode(window.vision), whole.frames[1 : CHUNK + 2])
    decoded = CONTRACT.decode(window.actions.numpy())
    assert np.allclose(decoded, whole.actions[1 : CHUNK + 1], atol=1e-6)
    assert (window.vision_fps, window.action_fps, window.domain) == (10.0, 10.0, 31)
    assert model.text.decode(window.prompt.tolist()).endswith("part 0\nassistant\n")
    one = source(whole).window(1, TASKS["policy_no_video"], RNG)
    assert one.vision.shape[1] == 1
    assert torch.equal(one.actions, window.actions)


def test_recordings_that_do_not_fit_are_named():
    with pytest.raises(DatasetError, match="Recording 1 has 8 frames"):
        source(recording(CHUNK + 1, 0), recording(CHUNK, 1))
    wide = recording(CHUNK + 1, 0)
    with pytest.raises(DatasetError, match="2 columns"):
        source(replace(wide, actions=wide.actions[:, :2]))


def test_a_dataset_becomes_batches(tmp_path):
    rows = recording(CHUNK + 4, 3)
    columns = {"action": ("dx", "dy", "grip")}
    with Writer(tmp_path / "set", fps=10, robot_type="test", columns=columns, cameras={"front": (48, 80)}) as writer:
        large = rows.frames.repeat(2, axis=1).repeat(2, axis=2)
        writer.add(task="push", columns={"action": np.pad(rows.actions, ((0, 1), (0, 0)))}, frames={"front": large})
    dataset = open_dataset(tmp_path / "set", trusted=True)
    (read,) = read_recordings(dataset, camera="front", size=(HEIGHT, WIDTH))
    assert read.frames.shape == rows.frames.shape
    assert read.prompt == "push"
    assert np.array_equal(read.actions, rows.actions)
    model = tiny_model()
    mixture = tuple(Share(task=name) for name in ("forward_dynamics", "inverse_dynamics", "policy", "policy_no_video"))
    recipe = Recipe(model=model.mot.config, mixture=mixture, steps=1, batch=6)
    batch = draw_batch(source(read), recipe, 0, torch.device("cpu"))
    assert batch.sigmas.numel() == 12
    with pytest.raises(DatasetError, match="no column 'actions'"):
        read_recordings(dataset, camera="front", size=(HEIGHT, WIDTH), actions="actions")


def test_captioned_clips_become_windows(tmp_path):
    rng = np.random.default_rng(0)
    write_video(tmp_path / "a.mp4", rng.integers(0, 256, (70, 48, 80, 3), dtype=np.uint8), 30)
    window = {"start_frame": 2, "end_frame": 68, "temporal_interval": 1, "caption": "a block slides"}
    line = {"uuid": "a", "duration": 2.3, "width": 80, "height": 48, "vision_path": "a.mp4", "t2w_windows": [window]}
    (tmp_path / "clips.jsonl").write_text(json.dumps(line) + "\n")
    model = tiny_model()
    arguments = {"size": (HEIGHT, WIDTH), "text": model.text, "codec": model.vision}
    clips = ClipSource(read_clips(tmp_path / "clips.jsonl"), frames=9, **arguments)
    assert isinstance(clips, Source)
    assert len(clips) == 1
    found = clips.window(0, TASKS["text_to_video"], RNG)
    assert found.vision.shape[1] == 3
    assert found.vision_fps == 30.0
    assert clips.window(0, TASKS["text_to_image"], RNG).vision.shape[1] == 1
    with pytest.raises(DatasetError, match="fewer than 69"):
        ClipSource(read_clips(tmp_path / "clips.jsonl"), frames=69, **arguments)
