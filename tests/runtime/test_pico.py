"""What only Pico's family does: its eyes, its defaults, its padded prompts."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from makers.own_checkpoint import tiny_model
from makers.pico_checkpoint import pictures, small_pico, write_pico

from orrery.errors import RequestError, TaskError
from orrery.model.vision_config import EDGE_VISION, NANO_VISION, PICO_VISION, SUPER_VISION
from orrery.runtime.model import sight_of
from orrery.runtime.run import run
from orrery.tasks.defaults import resolve
from orrery.tasks.request import Request
from orrery.tokenizers.eyes import EDGE_EYES, PICO_EYES, QWEN_EYES

CLIP = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
QUESTION: dict[str, Any] = {"task": "reason", "prompt": "what moves?"}


def test_the_encoder_decides_how_pictures_are_cut():
    assert [sight_of(config) for config in (NANO_VISION, SUPER_VISION)] == [QWEN_EYES] * 2
    assert sight_of(EDGE_VISION) == EDGE_EYES
    assert sight_of(PICO_VISION) == small_pico().sight == PICO_EYES
    with pytest.raises(TaskError, match="patch 4"):
        sight_of(replace(PICO_VISION, patch=4))


def test_frames_with_a_rate_are_a_video_of_any_length():
    answers = {
        run(small_pico(), Request(**QUESTION, vision=frames, fps=20)).manifest["inputs"]["vision[0]"]
        for frames in (CLIP, CLIP[:3])
    }
    assert len(answers) == 2
    still = run(small_pico(), Request(**QUESTION, vision=CLIP[0]))
    assert still.manifest["settings"]["max_new_tokens"] == 32
    assert still.manifest["settings"]["fps"] is None


def test_a_video_of_frames_is_one_of_a_file_with_the_same_frames(tmp_path):
    from orrery.data.media import read_video
    from orrery.data.write_media import write_video

    write_video(tmp_path / "clip.mp4", CLIP, 20, metadata={})
    frames = read_video(tmp_path / "clip.mp4").frames
    for model in (small_pico(), tiny_model()):
        ask = {**QUESTION, "max_new_tokens": 6}
        told, read = (
            run(model, Request(**ask, vision=frames, fps=20)),
            run(model, Request(**ask, vision=tmp_path / "clip.mp4")),
        )
        assert told.text == read.text


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"vision": CLIP}, "Give fps"),
        ({"vision": CLIP[0], "fps": 20}, "Leave fps out"),
        ({"vision": "a.mp4", "fps": 20}, "Leave fps out"),
        ({"fps": 20}, "Leave fps out"),
    ],
)
def test_a_rate_goes_with_frames_in_an_array_only(fields, named):
    with pytest.raises(RequestError, match=named):
        run(small_pico(), Request(**QUESTION, **fields))


def test_defaults_of_the_family():
    contract = small_pico().contract(None)

    def settings(**fields: Any) -> Any:
        request = Request(**fields)
        own = contract if request.row.action is not None else None
        return resolve(request, request.row, "pico", contract=own)

    video = settings(task="text_to_video", prompt="a cube")
    assert (video.steps, video.frames, video.fps, video.size) == (8, 17, 20, (128, 128))
    assert (video.sampler, video.shift, video.guidance, video.prompt_format) == ("euler", 3.0, {"vision": 1.0}, "raw")
    picture = settings(task="text_to_image", prompt="a cube")
    assert (picture.frames, picture.fps, picture.size) == (1, None, (128, 128))
    policy = settings(task="policy", prompt="go", vision=pictures(), state=[0.0] * 5)
    assert (policy.steps, policy.state, policy.action_start, policy.action_rows) == (4, True, 0, 17)
    inverse = settings(task="inverse_dynamics", vision=pictures(17))
    assert (inverse.steps, inverse.state, inverse.action_start, inverse.action_rows) == (1, False, 1, 16)
    assert (inverse.embodiment, inverse.chunk, inverse.fps) == ("factory_gantry", 16, 20)
    acting = settings(task="policy_no_video", prompt="go", vision=pictures(), state=[0.0] * 5)
    forward = settings(task="forward_dynamics", vision=pictures(), actions=[[0.0] * 5] * 16)
    assert (acting.steps, forward.steps) == (1, 4)
    with pytest.raises(RequestError, match="needs state"):
        settings(task="policy_no_video", prompt="go", vision=pictures())


def test_prompts_of_all_lengths_are_read_as_few():
    model = small_pico()
    assert {len(model.need_text().prompt_ids("cube " * count)) for count in range(6)} <= {32, 64}


def test_neither_loading_nor_running_imports_torch_s_compiler(tmp_path):
    """It takes seconds, ten times as long as all the rest of loading."""
    write_pico(tmp_path / "pico")
    script = (
        "import sys, numpy, orrery\n"
        f"model = orrery.load({str(tmp_path / 'pico')!r})\n"
        "noise = numpy.zeros((32, 32, 3), numpy.uint8)\n"
        "views = {'front': noise, 'wrist': noise[:16, :16]}\n"
        "orrery.run(model, orrery.Request(task='policy', prompt='go', vision=views, state=[0.0] * 5))\n"
        "orrery.run(model, orrery.Request(task='reason', prompt='what?', vision=noise))\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
