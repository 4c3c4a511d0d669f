"""Kinds of request that are refused from the document alone: one line, the bad value in it, and what to do instead."""

import json

import numpy as np
import pytest

from orrery.errors import RequestError, TaskError
from orrery.tasks.request import Request

T2I = {"task": "text_to_image", "prompt": "a gear"}
T2V = {"task": "text_to_video", "prompt": "a gear"}
I2V = {"task": "image_to_video", "vision": "a.png"}
V2V = {"task": "video_to_video", "vision": "a.mp4"}
FD = {"task": "forward_dynamics", "vision": "a.png", "actions": [[0.0] * 10] * 16, "embodiment": "droid_lerobot"}
ID = {"task": "inverse_dynamics", "vision": "a.mp4"}
POLICY = {"task": "policy", "vision": "a.png", "prompt": "pick"}
REASON = {"task": "reason", "prompt": "why?"}

DOCUMENTS = {
    "no task": ({"prompt": "a"}, "'prompt'"),
    "unknown task": ({"task": "image2video"}, "image_to_video"),
    "task not text": ({"task": 3}, "3"),
    "unknown key": ({**T2I, "guidence": 3}, "'guidance'"),
    "key of another peer": ({**T2I, "num_inference_steps": 3}, "'num_inference_steps'"),
    "prompt not text": ({**T2I, "prompt": ["a"]}, "['a']"),
    "overlong prompt": ({**T2I, "prompt": "a" * 20_001}, "20001"),
    "lone surrogate": ({**T2I, "prompt": "a\ud800"}, "\\ud800"),
    "NUL in the prompt": ({**T2I, "prompt": "a\x00"}, "NUL"),
    "no prompt": ({"task": "text_to_video"}, "prompt"),
    "nothing to reason about": ({"task": "reason"}, "ask a question"),
    "steps zero": ({**T2I, "steps": 0}, "got 0"),
    "steps negative": ({**T2I, "steps": -4}, "got -4"),
    "steps huge": ({**T2I, "steps": 10**12}, "1000000000000"),
    "steps a fraction": ({**T2I, "steps": 3.5}, "3.5"),
    "steps true": ({**T2I, "steps": True}, "True"),
    "seed text": ({**T2I, "seed": "7"}, "'7'"),
    "seed negative": ({**T2I, "seed": -1}, "-1"),
    "seed beyond 63 bits": ({**T2I, "seed": 2**63}, str(2**63)),
    "frames not 4k+1": ({**T2V, "frames": 16}, "Give 13 or 17"),
    "frames zero": ({**T2V, "frames": 0}, "got 0"),
    "frames huge": ({**T2V, "frames": 301}, "301"),
    "frames of a picture": ({**T2I, "frames": 5}, "one frame"),
    "fps of a picture": ({**T2I, "fps": 24}, "takes no fps"),
    "fps zero": ({**T2V, "fps": 0}, "got 0"),
    "fps text": ({**T2V, "fps": "24"}, "'24'"),
    "size zero": ({**T2V, "size": [0, 320]}, "got 0"),
    "size negative": ({**T2V, "size": [192, -320]}, "-320"),
    "size odd": ({**T2V, "size": [193, 320]}, "193"),
    "size one number": ({**T2V, "size": 256}, "256"),
    "size three numbers": ({**T2V, "size": [3, 192, 320]}, "(3, 192, 320)"),
    "size too many pixels": ({**T2V, "size": [8192, 8192]}, "8192x8192"),
    "guidance negative": ({**T2V, "guidance": -1}, "-1"),
    "guidance text": ({**T2V, "guidance": "high"}, "'high'"),
    "guidance of what is not made": ({**T2V, "guidance": {"action": 3}}, "'action'"),
    "interval reversed": ({**T2V, "guidance_interval": [900, 400]}, "low < high"),
    "interval one number": ({**T2V, "guidance_interval": [400]}, "(400,)"),
    "interval out of range": ({**T2V, "guidance_interval": [0, 4000]}, "4000"),
    "shift zero": ({**T2V, "shift": 0}, "got 0"),
    "unknown sampler": ({**T2V, "sampler": "euler_a"}, "'euler'"),
    "unknown schedule": ({**T2V, "schedule": "karas"}, "'karras'"),
    "unknown prompt format": ({**T2V, "prompt_format": "xml"}, "'xml'"),
    "no picture for image_to_video": ({"task": "image_to_video"}, "needs vision"),
    "picture for text_to_video": ({**T2V, "vision": "a.png"}, "takes no vision"),
    "list of pictures for a video": ({**I2V, "vision": ["a.png", "b.png"]}, "list of 2"),
    "vision a number": ({**I2V, "vision": 4}, "got 4"),
    "vision empty path": ({**I2V, "vision": ""}, "empty path"),
    "vision an address": ({**I2V, "vision": "https://example.org/a.png"}, "https"),
    "vision inline data": ({**I2V, "vision": "data:image/png;base64,AAAA"}, "address"),
    "too many pictures": ({**REASON, "vision": ["a.png"] * 9}, "9 items"),
    "pins not an object": ({**T2V, "pins": ["a.png"]}, "['a.png']"),
    "pin not a number": ({**T2V, "pins": {"first": "a.png"}}, "'first'"),
    "pin negative": ({**T2V, "pins": {"-4": "a.png"}}, "'-4'"),
    "pin inside a latent frame": ({**T2V, "pins": {"14": "a.png"}}, "Use 16"),
    "pin beyond the frames": ({**T2V, "frames": 17, "pins": {"20": "a.png"}}, "pin 20"),
    "pin beyond any frames": ({**T2V, "pins": {"4000": "a.png"}}, "4000"),
    "pin already given": ({**I2V, "frames": 17, "pins": {"0": "a.png"}}, "already given"),
    "pin of a picture task": ({**T2I, "pins": {"0": "a.png"}}, "takes no pins"),
    "clip not 4k+1": ({**V2V, "clip_frames": 6}, "Give 5 or 9"),
    "clip as long as the video": ({**V2V, "clip_frames": 9, "frames": 9}, "nothing to make"),
    "clip for another task": ({**I2V, "clip_frames": 5}, "video_to_video"),
    "clip from the middle": ({**V2V, "clip_from": "middle"}, "'middle'"),
    "sound a number": ({**T2V, "sound": 1}, "got 1"),
    "sound for a picture": ({**T2I, "sound": "make"}, "cannot carry sound"),
    "rate without samples": ({**T2V, "sound": "make", "sound_rate": 48_000}, "48000"),
    "no actions": ({"task": "forward_dynamics", "vision": "a.png"}, "needs actions"),
    "actions for a policy": ({**POLICY, "actions": [[0.0]]}, "takes no actions"),
    "actions wrong width": ({**FD, "actions": [[0.0] * 7] * 16}, "7 values"),
    "actions too few": ({**FD, "frames": 33}, "need 32 actions, got 16"),
    "actions too many": ({**FD, "frames": 9}, "need 8 actions, got 16"),
    "actions not a multiple of 4": ({**FD, "actions": [[0.0] * 10] * 15}, "Give 12 or 16"),
    "actions empty": ({**FD, "actions": []}, "got []"),
    "actions ragged": ({**FD, "actions": [[0.0] * 10] * 3 + [[0.0] * 9]}, "row 3 has 9"),
    "actions flat": ({**FD, "actions": [0.0] * 10}, "row 0"),
    "actions text": ({**FD, "actions": [["a"] * 10] * 16}, "'a'"),
    "actions true": ({**FD, "actions": [[True] * 10] * 16}, "True"),
    "actions NaN": ({**FD, "actions": [[0.0] * 10] * 15 + [[float("nan")] * 10]}, "row 15 column 0 is nan"),
    "actions infinite": ({**FD, "actions": [[float("inf")] * 10] * 16}, "inf"),
    "actions absurd": ({**FD, "actions": [[1e9] * 10] * 16}, "1000000000.0"),
    "actions too wide": ({**FD, "actions": [[0.0] * 65] * 16}, "65"),
    "unknown embodiment": ({**POLICY, "embodiment": "droid_lerobt"}, "'droid_lerobot'"),
    "embodiment for a video": ({**T2V, "embodiment": "umi"}, "takes no embodiment"),
    "state wrong width": ({**POLICY, "embodiment": "droid_joints", "state": [0.0] * 7}, "7 values"),
    "state unlike the actions": ({**FD, "embodiment": "custom", "state": [0.0]}, "1 values"),
    "state NaN": ({**POLICY, "state": [float("nan")]}, "nan"),
    "unknown viewpoint": ({**POLICY, "viewpoint": "egoview"}, "'ego_view'"),
    "contract not an object": ({**POLICY, "contract": "droid"}, "'droid'"),
    "contract with an unknown key": ({**POLICY, "contract": {"unit": "m"}}, "'units'"),
    "one frame of dynamics": ({**ID, "frames": 1}, "at least 5"),
    "sampling words for a video": ({**T2V, "temperature": 0.7}, "takes no temperature"),
    "steps for reasoning": ({**REASON, "steps": 4}, "takes no steps"),
    "temperature negative": ({**REASON, "temperature": -0.1}, "-0.1"),
    "top_p above one": ({**REASON, "top_p": 1.2}, "1.2"),
    "top_k zero": ({**REASON, "top_k": 0}, "got 0"),
    "repetition penalty zero": ({**REASON, "repetition_penalty": 0}, "got 0"),
    "tokens huge": ({**REASON, "max_new_tokens": 10**6}, "1000000"),
    "stop not a list": ({**REASON, "stop": "\n"}, "'\\n'"),
    "stop empty": ({**REASON, "stop": [""]}, "stop[0]"),
    "video_fps zero": ({**REASON, "video_fps": 0}, "got 0"),
    "a list": ([T2I], "JSON object"),
    "a number": (7, "7"),
}


def refuse(document):
    with pytest.raises((RequestError, TaskError)) as caught:
        Request.from_json(document)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert message.isascii()
    assert message.endswith((".", "?"))
    assert message.count(". ") >= 1
    return message


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_refused_on_one_line_with_the_value_and_the_next_step(kind):
    document, shown = DOCUMENTS[kind]
    assert shown in refuse(document)


FILES = {
    "empty": (b"", "is empty"),
    "blank": (b" \n", "is empty"),
    "not JSON": (b"task: reason", "line 1, column 1"),
    "cut short": (b'{"task": "reason", "prompt": "wh', "is not JSON"),
    "not UTF-8": (b'{"task": "\xff"}', "not UTF-8"),
    "surrogate": (b'{"task": "reason", "prompt": "\\ud800"}', "surrogate"),
    "surrogate in a key": (b'{"task": "reason", "\\ud800": 1}', "\\ud800"),
    "repeated key": (b'{"task": "reason", "seed": 1, "seed": 2}', "'seed'"),
    "NaN": (b'{"task": "reason", "temperature": NaN}', "NaN"),
    "infinity": (b'{"task": "reason", "temperature": -Infinity}', "-Infinity"),
    "number beyond range": (b'{"task": "reason", "temperature": 1e999}', "1e999"),
    "endless digits": (b'{"task": "reason", "seed": ' + b"9" * 5000 + b"}", "5000 digits"),
    "deep": (b'{"task": ' + b"[" * 65 + b"]" * 65 + b"}", "deeper than 64"),
    "very deep": (b"[" * 200_000, "JSON"),
    "a list": (json.dumps([T2I]).encode(), "JSON object"),
    "a string": (b'"reason"', "JSON object"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_refused(kind, tmp_path):
    content, shown = FILES[kind]
    path = tmp_path / "request.json"
    path.write_bytes(content)
    if kind == "very deep":  # which of the two limits is met first differs between Python versions
        with pytest.raises(RequestError, match=r"nests deeper|not JSON"):
            Request.from_json(path)
    else:
        assert shown in refuse(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no file" in refuse(tmp_path / "request.json")
    assert "folder" in refuse(tmp_path)


ARRAYS = {
    "float picture": ({**I2V, "vision": np.zeros((8, 8, 3), np.float32)}, "float32"),
    "grey picture": ({**I2V, "vision": np.zeros((8, 8), np.uint8)}, "(8, 8)"),
    "picture with alpha": ({**I2V, "vision": np.zeros((8, 8, 4), np.uint8)}, "(8, 8, 4)"),
    "no frames": ({**I2V, "vision": np.zeros((0, 8, 8, 3), np.uint8)}, "(0, 8, 8, 3)"),
    "picture too wide": ({**I2V, "vision": np.zeros((1, 8194, 3), np.uint8)}, "(1, 8194, 3)"),
    "two frames pinned": ({**T2V, "pins": {4: np.zeros((2, 8, 8, 3), np.uint8)}}, "2 frames"),
    "four frames pinned at 0": ({**T2V, "pins": {0: np.zeros((4, 8, 8, 3), np.uint8)}}, "4 frames"),
    "samples too loud": ({**T2V, "sound": np.full((9, 2), 1.5, np.float32), "sound_rate": 48_000}, "[-1, 1]"),
    "samples NaN": ({**T2V, "sound": np.full((9, 2), np.nan, np.float32), "sound_rate": 48_000}, "[-1, 1]"),
    "samples flat": ({**T2V, "sound": np.zeros(9, np.float32), "sound_rate": 48_000}, "(9,)"),
    "samples without rate": ({**T2V, "sound": np.zeros((9, 2), np.float32)}, "None"),
    "actions flat": ({**FD, "actions": np.zeros(16, np.float32)}, "(16,)"),
    "actions of words": ({**FD, "actions": np.full((16, 10), "a")}, "(16, 10)"),
    "actions NaN": ({**FD, "actions": np.full((16, 10), np.nan)}, "nan"),
    "state a number": ({**POLICY, "state": 3}, "3"),
    "steps beyond printing": ({**T2I, "steps": 10**5000}, "16610 bits"),
    "shift beyond printing": ({**T2I, "shift": 10**5000}, "16610 bits"),
    "state beyond floats": ({**POLICY, "state": [10**400]}, "row 0"),
    "pin index a bool": ({**T2V, "pins": {True: "a.png"}}, "True"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_bad_values_from_python_are_refused(kind):
    fields, shown = ARRAYS[kind]
    with pytest.raises(RequestError) as caught:
        Request(**fields)
    message = str(caught.value)
    assert shown in message
    assert "\n" not in message


def test_an_array_of_pixels_cannot_be_written_as_json():
    request = Request(task="image_to_video", vision=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(RequestError, match="Save it to a file"):
        request.to_json()
