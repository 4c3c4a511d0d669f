import hashlib
import json

import pytest

from orrery.errors import TaskError
from orrery.tasks.prompt import (
    SYSTEM_IMAGE,
    SYSTEM_VIDEO,
    VIEWPOINTS,
    action_json,
    action_plain,
    negative,
    plain,
    structured,
    with_audio,
)

VIDEO = {"frames": 189, "fps": 24, "height": 720, "width": 1280}
IMAGE = {"frames": 1, "fps": 24, "height": 960, "width": 960}
DROID = {"viewpoint": "concat_view", "view_description": "Wrist on top.", "frames": 33, "fps": 15}
DROID |= {"height": 544, "width": 736}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A gear", "A gear. The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution."),
        (
            " A gear... ",
            "A gear. The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution.",
        ),
        ("Why?", "Why?. The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution."),
        ("", "The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution."),
    ],
)
def test_sentences_of_a_video(caption, expected):
    assert plain(caption, **VIDEO) == expected


def test_a_picture_has_no_duration():
    assert plain("A gear.", **IMAGE) == "A gear. This image is of 960x960 resolution."


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", "blur."),
        ("same", "blur. The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution."),
        (
            "inverse",
            "blur. The video is not 7.9 seconds long and is not of 24 FPS. This video is not of 720x1280 resolution.",
        ),
    ],
)
def test_metadata_of_a_negative_prompt(mode, expected):
    assert negative("blur.", mode, **VIDEO) == expected


def test_inverse_metadata_of_a_picture():
    assert negative("", "inverse", **IMAGE) == "This image is not of 960x960 resolution."


def test_a_json_caption_keeps_its_order_and_takes_new_keys_last():
    caption = '{"fps": 1, "style_medium": "caf\\u00e9", "actions": []}'
    assert structured(caption, **VIDEO, aspect="16,9") == (
        '{"fps": 24.0, "style_medium": "caf\\u00e9", "actions": [], "duration": "7s", '
        '"resolution": {"H": 720, "W": 1280}, "aspect_ratio": "16,9"}'
    )


def test_a_json_caption_of_a_picture_loses_duration_and_fps():
    caption = '{"duration": "3s", "context": "", "fps": 24}'
    assert structured(caption, **IMAGE, aspect="1,1") == (
        '{"context": "", "resolution": {"H": 960, "W": 960}, "aspect_ratio": "1,1"}'
    )


@pytest.mark.parametrize("caption", ["A gear.", "[1, 2]", "7", "", "{"])
def test_text_that_is_no_object_is_not_structured(caption):
    assert structured(caption, **VIDEO, aspect="16,9") is None


def test_the_action_object_byte_for_byte():
    assert action_json("Pick up the cup ", **DROID, aspect="4,3") == (
        '{"cinematography": {"framing": "This video contains concatenated views from multiple camera perspectives. '
        'Wrist on top."}, "actions": [{"time": "0:00-0:02", "description": "Pick up the cup."}], "duration": "2s", '
        '"fps": 15, "resolution": {"H": 544, "W": 736}, "aspect_ratio": "4,3"}'
    )


def test_idle_frames_follow_the_description():
    said = json.loads(action_json("Wait!", **DROID, aspect="4,3", idle=(3, 33)))
    assert said["actions"] == [{"time": "0:00-0:02", "description": "Wait!", "idle_frame": "3 out of 33."}]


def test_half_seconds_round_to_even():
    said = [json.loads(action_json("go", **{**DROID, "frames": n, "fps": 2}, aspect="4,3")) for n in (5, 7, 121)]
    assert [row["actions"][0]["time"] for row in said] == ["0:00-0:02", "0:00-0:04", "0:00-1:00"]
    assert [row["duration"] for row in said] == ["2s", "3s", "60s"]


def test_an_empty_caption_stays_empty():
    assert action_json("  ", **DROID, aspect="4,3") == ""


def test_actions_as_sentences():
    assert action_plain("Pick up the cup", **DROID) == (
        "Pick up the cup. This video contains concatenated views from multiple camera perspectives. Wrist on top. "
        "The video is 2.2 seconds long and is of 15 FPS. This video is of 544x736 resolution."
    )


def test_an_unknown_viewpoint_is_refused():
    with pytest.raises(TaskError, match="'wrist_view'"):
        action_json("go", **{**DROID, "viewpoint": "wrist"}, aspect="4,3")


def test_audio_separator():
    assert with_audio("A gear turns.", "It hums.") == "A gear turns. Audio description: It hums."


def test_fixed_sentences_have_not_drifted():
    words = "\n".join((SYSTEM_IMAGE, SYSTEM_VIDEO, *VIEWPOINTS.values()))
    assert (
        hashlib.sha256(words.encode()).hexdigest() == "51e9fd3d85165ae6478781b2efdeb4112cde37a235e901ed15e9bec32fe88f21"
    )
