import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import OrreryError
from orrery.tasks.request import Request
from orrery.tasks.task import TASKS

ACTIONS = [[0.5, -0.25]] * 8

GOOD = {
    "text_to_image": {"prompt": "a gear"},
    "text_to_video": {
        "prompt": "a gear",
        "frames": 9,
        "fps": 24,
        "pins": {"0": "a.png", "8": "b.png"},
        "sound": "make",
    },
    "image_to_video": {
        "prompt": "it turns",
        "vision": "a.png",
        "size": [192, 320],
        "guidance": {"vision": 2.5},
        "seed": 7,
    },
    "video_to_video": {"vision": "a.mp4", "frames": 17, "clip_frames": 9, "clip_from": "last", "sound": "a.wav"},
    "forward_dynamics": {"vision": "a.png", "actions": ACTIONS, "state": [0.0, 1.0], "contract": {"chunk": 8}},
    "inverse_dynamics": {"vision": "a.mp4", "embodiment": "droid_lerobot", "guidance_interval": [400, 1000]},
    "policy": {"prompt": "pick it", "vision": "a.png", "schedule": "karras", "sampler": "unipc", "shift": 5},
    "policy_no_video": {"prompt": "pick it", "vision": "a.png", "fps": 15},
    "reason": {"prompt": "why?", "vision": ["a.png", "b.mp4"], "stop": ["\n"], "temperature": 0, "top_k": 20},
}


@pytest.mark.parametrize("task", TASKS)
def test_json_round_trip(task, tmp_path):
    request = Request.from_json({"task": task, **GOOD[task]}, base=tmp_path)
    document = request.to_json()
    assert Request.from_json(json.loads(json.dumps(document))).to_json() == document
    assert request.row.name == task


def test_paths_in_a_file_start_from_its_folder(tmp_path):
    path = tmp_path / "request.json"
    path.write_text('{"task": "image_to_video", "vision": "frames/a.png", "sound": "make", "pins": {"4": "b.png"}}')
    request = Request.from_json(path)
    assert request.vision == tmp_path / "frames" / "a.png"
    assert request.pins == {4: tmp_path / "b.png"}
    assert request.row.sound == "none"


def test_arrays_of_actions_become_lists_and_come_back_equal():
    actions = np.linspace(-1, 1, 16, dtype=np.float32).reshape(8, 2)
    request = Request(task="forward_dynamics", vision=Path("a.png"), actions=actions)
    again = Request.from_json(request.to_json()).action_table()
    assert again is not None
    np.testing.assert_array_equal(again, actions)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("a.png")
WORDS = st.text(max_size=4)
ANY = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
FIELDS = [item.name for item in fields(Request) if item.name != "task"]


@given(task=st.sampled_from(sorted(TASKS)), spoilt=st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=3))
def test_any_document_is_taken_whole_or_refused_on_one_line(task, spoilt):
    refusal = ""
    try:
        document = Request.from_json({"task": task, **GOOD[task], **spoilt}).to_json()
    except OrreryError as error:
        document, refusal = None, str(error)
    assert (document is None) == bool(refusal)
    assert "\n" not in refusal
    if document is not None:
        assert Request.from_json(document).to_json() == document
