"""A checkpoint that sees through two cameras: each is a segment of its own, fitted, generated and written apart."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from makers.own_checkpoint import tiny_model
from makers.pico_checkpoint import FRONT, WRIST, pictures, small_pico, write_pico
from PIL import Image

from orrery.errors import ContractError, RequestError
from orrery.runtime.inputs import read_inputs
from orrery.runtime.load import load
from orrery.runtime.prepare import prepare
from orrery.runtime.run import run
from orrery.tasks.defaults import resolve
from orrery.tasks.request import Request

ACTIONS = np.random.default_rng(1).uniform(-0.03, 0.03, (16, 5)).astype(np.float32) * [1, 1, 1, 5, 0] + [0, 0, 0, 0, 1]
STATE = [0.1, -0.1, 0.2, 1.0, 0.5]
DYNAMICS: dict[str, Any] = {"task": "forward_dynamics", "actions": ACTIONS, "steps": 2}
POLICY: dict[str, Any] = {"task": "policy_no_video", "prompt": "put it down", "state": STATE, "steps": 2}


def prepared(request: Request) -> Any:
    model, task = small_pico(), request.row
    contract = model.contract(None) if task.action is not None else None
    settings = resolve(request, task, "pico", contract=contract)
    return prepare(model, request, settings, read_inputs(request, settings, model.sound.rate), contract)


def made(**fields: Any) -> Any:
    return run(small_pico(), Request(**fields))


def test_each_camera_is_a_segment_that_starts_when_the_first_does():
    order = dict(reversed(pictures().items()))
    request = Request(**DYNAMICS, vision=order)
    front, wrist, action = prepared(request).job.sample.segments
    assert [(s.kind, s.camera, s.shares_origin) for s in (front, wrist)] == [("vision", 0, False), ("vision", 1, True)]
    assert (front.rows, wrist.rows) == (FRONT // 4, WRIST // 4)
    assert action.kind == "action"
    codec = small_pico().vision
    for segment, picture in ((front, order["front"]), (wrist, order["wrist"])):
        assert segment.given.tolist() == [True, *[False] * 4]
        assert segment.clean[0].sum() == pytest.approx(codec.encode(picture[None]).sum().item(), rel=1e-4)


def test_forward_dynamics_makes_a_video_of_every_camera():
    result = made(**DYNAMICS, vision=pictures())
    assert {name: video.shape for name, video in result.videos.items()} == {
        "front": (17, FRONT, FRONT, 3),
        "wrist": (17, WRIST, WRIST, 3),
    }
    assert result.video is result.videos["front"]
    assert list(result.latents) == ["vision", "vision-wrist", "action"]
    for name, picture in pictures().items():
        assert np.array_equal(result.videos[name][0], picture)
    assert result.manifest["view"]["wrist"]["size"] == [WRIST, WRIST]


def test_the_second_camera_changes_what_the_first_one_sees():
    one = made(**DYNAMICS, vision=pictures())
    other = made(**DYNAMICS, vision={**pictures(), "wrist": pictures(seed=9)["wrist"]})
    assert (one.latents["vision"] - other.latents["vision"]).abs().max() > 1e-3


def test_inverse_dynamics_reads_both_and_makes_actions_alone():
    result = made(task="inverse_dynamics", vision=pictures(17), steps=2)
    assert result.video is None
    assert result.actions.shape == (16, 5)


def test_a_policy_sees_both_and_the_state_under_its_own_normaliser():
    request = Request(**POLICY, vision=pictures())
    action = prepared(request).job.sample.segments[2]
    contract = small_pico().contract(None)
    expected = contract.state_normaliser.encode(np.array([STATE], np.float32))
    assert torch.equal(action.clean[0, 0, :5], torch.from_numpy(expected[0]))
    assert (action.start, action.given.tolist()) == (0, [True, *[False] * 16])
    result = run(small_pico(), request)
    assert result.actions.shape == (16, 5)
    assert result.videos == {}


def test_tasks_without_actions_show_the_first_camera_alone():
    result = made(task="image_to_video", vision=pictures()["front"], size=(FRONT, FRONT), steps=1, sound="make")
    assert list(result.videos) == ["front"]
    assert result.video.shape == (17, FRONT, FRONT, 3)
    assert result.sound.shape == (17 * 400, 2)


def test_pictures_of_other_sizes_are_fitted_to_each_camera():
    result = made(**DYNAMICS, vision=pictures(front=64, wrist=40))
    assert result.videos["wrist"].shape == (17, WRIST, WRIST, 3)


def test_a_pack_of_both_kinds_equals_them_alone():
    requests = [
        Request(**DYNAMICS, vision=pictures()),
        Request(**POLICY, vision=pictures(seed=3)),
        Request(task="text_to_image", prompt="a cube", size=(FRONT, FRONT), steps=2),
    ]
    for request, together in zip(requests, run(small_pico(), requests), strict=True):
        alone = run(small_pico(), request)
        for name, latents in alone.latents.items():
            assert (together.latents[name] - latents).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("error", "fields", "named"),
    [
        (RequestError, {**DYNAMICS, "vision": pictures()["front"]}, "front and wrist"),
        (ContractError, {**DYNAMICS, "vision": {"front": pictures()["front"]}}, "wrist"),
        (ContractError, {**DYNAMICS, "vision": {**pictures(), "side": pictures()["front"]}}, "side"),
        (RequestError, {**DYNAMICS, "vision": pictures(), "size": (32, 32)}, "Leave size out"),
        (RequestError, {**DYNAMICS, "vision": pictures(), "pins": {8: pictures()["front"]}}, "which camera"),
        (RequestError, {"task": "image_to_video", "vision": pictures()}, "one camera"),
        (RequestError, {"task": "reason", "prompt": "what?", "vision": pictures()}, "one camera"),
        (RequestError, {**DYNAMICS, "vision": pictures(17)}, r"vision\['front'\] has 17"),
        (RequestError, {**DYNAMICS, "vision": pictures(), "state": STATE}, "takes no state"),
        (RequestError, {**POLICY, "vision": pictures(), "state": None}, "needs state"),
        (RequestError, {**DYNAMICS, "vision": {}}, "0 cameras"),
        (RequestError, {**DYNAMICS, "vision": {1: pictures()["front"]}}, "name of a camera"),
    ],
)
def test_what_does_not_fit_the_cameras_is_refused(error, fields, named):
    with pytest.raises(error, match=named):
        made(**fields)


def test_a_checkpoint_of_one_picture_takes_no_cameras_by_name():
    with pytest.raises(RequestError, match="one picture"):
        run(tiny_model(), Request(task="inverse_dynamics", vision=pictures(9)))


def test_a_document_names_a_file_for_each_camera_and_a_film_comes_for_each(tmp_path):
    for name, picture in pictures().items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    document = {**DYNAMICS, "actions": ACTIONS.tolist(), "vision": {"front": "front.png", "wrist": "wrist.png"}}
    (tmp_path / "request.json").write_text(json.dumps(document))
    write_pico(tmp_path / "pico")
    request = Request.from_json(tmp_path / "request.json")
    assert Request.from_json(request.to_json()).to_json() == request.to_json()
    result = run(load(tmp_path / "pico"), request).write(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run.json", "video.mp4", "video-wrist.mp4"}
    assert np.array_equal(result.video, made(**DYNAMICS, vision=pictures()).video)
    with pytest.raises(RequestError, match=r"vision\['wrist'\]"):
        Request.from_json({**document, "vision": {"front": "front.png", "wrist": 4}})
