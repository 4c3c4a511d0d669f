import json

import pytest

from orrery.errors import RequestError, TaskError
from orrery.tasks.contract import ActionContract, Camera
from orrery.tasks.defaults import FAMILIES, resolve
from orrery.tasks.normaliser import Normaliser
from orrery.tasks.request import Request
from orrery.tasks.settings import negative_text, positive_text

CONTRACT = ActionContract(
    embodiment="block",
    domain_id=30,
    action_names=("x", "y"),
    units=("px", "px"),
    frame="pixels",
    mode="relative",
    control_rate_hz=10,
    chunk=8,
    cameras=(Camera(name="top", height=48, width=64),),
    normaliser=Normaliser(),
)
ASKED = {
    "reason": {"prompt": "why?"},
    "text_to_image": {"prompt": "a gear"},
    "text_to_video": {"prompt": "a gear"},
    "image_to_video": {"vision": "a.png"},
    "video_to_video": {"vision": "a.mp4"},
    "forward_dynamics": {"vision": "a.png", "actions": "a.npy", "embodiment": "droid_lerobot"},
    "inverse_dynamics": {"vision": "a.mp4", "embodiment": "droid_lerobot"},
    "policy": {"vision": "a.png", "embodiment": "droid_lerobot"},
    "policy_no_video": {"vision": "a.png", "embodiment": "droid_lerobot"},
}


def settle(task, family, *, contract=None, **more):
    request = Request(**{"task": task, **ASKED[task], **more})
    return resolve(request, request.row, family, contract=contract)


@pytest.mark.parametrize("family", ["edge", "nano", "super", "orrery"])
@pytest.mark.parametrize("task", ASKED)
def test_every_task_has_settings_that_json_can_hold(family, task):
    settings = settle(task, family)
    assert json.loads(json.dumps(settings.to_json())) == settings.to_json()
    assert (settings.task, settings.family, settings.seed) == (task, family, 0)


@pytest.mark.parametrize(
    ("family", "task", "expected"),
    [
        ("nano", "text_to_image", (50, 4.0, 3.0, 1, None, (960, 960))),
        ("nano", "text_to_video", (35, 6.0, 10.0, 189, 24, (720, 1280))),
        ("super", "image_to_video", (35, 6.0, 10.0, 189, 24, (720, 1280))),
        ("super", "video_to_video", (35, 6.0, 10.0, 189, 24, (720, 1280))),
        ("edge", "text_to_video", (35, 5.0, 3.0, 121, 24, (480, 832))),
        ("edge", "text_to_image", (50, 4.0, 3.0, 1, None, (640, 640))),
        ("nano", "policy", (30, 1.0, 10.0, 17, 15, None)),
        ("super-image-to-video-4step", "image_to_video", (4, 1.0, None, 189, 24, (480, 832))),
        ("super-text-to-image-4step", "text_to_image", (4, 1.0, None, 1, None, (1024, 1024))),
    ],
)
def test_published_defaults(family, task, expected):
    settings = settle(task, family)
    assert settings.guidance is not None
    scale = settings.guidance["vision"]
    assert (settings.steps, scale, settings.shift, settings.frames, settings.fps, settings.size) == expected
    fixed = family.endswith("4step")
    assert (settings.sampler, settings.schedule) == (("stochastic", "fixed") if fixed else ("unipc", "native"))


@pytest.mark.parametrize(("family", "interval"), [("policy-droid", None), ("edge-policy-droid", (960.0, 1001.0))])
def test_the_droid_policies(family, interval):
    request = Request(task="policy", vision="a.png", state=[0.0] * 8)
    settings = resolve(request, request.row, family)
    assert (settings.steps, settings.shift, settings.guidance) == (4, 5.0, {"vision": 3.0, "action": 3.0})
    assert (settings.chunk, settings.frames, settings.latent_frames, settings.fps) == (32, 33, 9, 15)
    assert (settings.action_rows, settings.action_rows_given, settings.action_start) == (33, 1, 0)
    assert (settings.embodiment, settings.domain_id, settings.action_width) == ("droid_joints", 8, 8)
    assert (settings.guidance_interval, settings.tier, settings.prompt_format) == (interval, "480", "json")
    assert positive_text(settings, height=544, width=736) == negative_text(settings, height=544, width=736) == ""


@pytest.mark.parametrize("state", [None, [0.0] * 7])
def test_a_droid_policy_needs_its_whole_state(state):
    request = Request(task="policy", vision="a.png", state=state)
    with pytest.raises(RequestError, match="8"):
        resolve(request, request.row, "policy-droid")


def test_what_is_asked_goes_before_the_defaults():
    settings = settle(
        "text_to_video",
        "nano",
        frames=17,
        fps=12.5,
        size=(192, 320),
        steps=8,
        guidance={"sound": 2},
        guidance_interval=(400, 1000),
        shift=5,
        sampler="euler",
        schedule="flow",
        seed=3,
        sound="make",
        pins={16: "a.png"},
    )
    assert (settings.frames, settings.latent_frames, settings.fps, settings.size) == (17, 5, 12.5, (192, 320))
    assert (settings.steps, settings.shift, settings.sampler, settings.schedule) == (8, 5.0, "euler", "flow")
    assert (settings.guidance, settings.guidance_interval) == ({"vision": 6.0, "sound": 2.0}, (400.0, 1000.0))
    assert (settings.seed, settings.sound, settings.pins) == (3, "make", (16,))


def test_karras_has_no_shift():
    assert settle("text_to_video", "nano", schedule="karras").shift is None
    with pytest.raises(RequestError, match="karras schedule has no shift, got 5"):
        settle("text_to_video", "nano", schedule="karras", shift=5)


@pytest.mark.parametrize(
    "change", [{"steps": 8}, {"guidance": 6}, {"shift": 5}, {"sampler": "unipc"}, {"schedule": "native"}]
)
def test_a_distilled_checkpoint_takes_no_other_flow(change):
    with pytest.raises(RequestError, match="distilled to 4 fixed steps"):
        settle("image_to_video", "super-image-to-video-4step", **change)


def test_a_contract_goes_before_the_rows():
    request = Request(task="policy", vision="a.png")
    settings = resolve(request, request.row, "orrery", contract=CONTRACT)
    assert (settings.embodiment, settings.domain_id, settings.action_width) == ("block", 30, 2)
    assert (settings.chunk, settings.frames, settings.fps, settings.size) == (8, 9, 10, (48, 64))
    assert (settings.action_rows, settings.action_rows_given, settings.action_start) == (8, 0, 1)


def test_actions_without_a_picture_of_the_future_keep_their_chunk():
    settings = settle("policy_no_video", "nano", prompt="pick it")
    assert (settings.frames, settings.latent_frames, settings.chunk, settings.action_rows) == (1, 1, 16, 16)
    assert '"time": "0:00-0:01"' in positive_text(settings, height=256, width=320)


@pytest.mark.parametrize(
    ("task", "more", "given"),
    [("text_to_video", {}, 0), ("image_to_video", {}, 1), ("video_to_video", {}, 5), ("inverse_dynamics", {}, 17)],
)
def test_given_frames(task, more, given):
    assert settle(task, "nano", **more).given_frames == given


@pytest.mark.parametrize(
    ("family", "more", "told"),
    [
        ("nano", {}, "not bundled"),
        ("nano", {"negative_prompt": "blur"}, None),
        ("nano", {"guidance": 1, "negative_prompt": "blur"}, "no effect"),
        ("orrery", {}, None),
    ],
)
def test_what_does_not_follow_the_release_is_told(family, more, told):
    notes = settle("text_to_video", family, **more).notes
    assert (told is None and not notes) or (len(notes) == 1 and told in notes[0])


def test_texts_of_a_video():
    settings = settle("text_to_video", "nano", negative_prompt='{"style": "flat"}')
    words = "The video is 7.9 seconds long and is of 24 FPS. This video is of 720x1280 resolution."
    assert positive_text(settings, height=720, width=1280) == f"a gear. {words}"
    assert negative_text(settings, height=720, width=1280) == f'{{"style": "flat"}}. {words}'


def test_a_caption_that_is_an_object_gets_its_metadata_inside():
    settings = settle("text_to_image", "nano", prompt='{"context": "a shop"}')
    expected = '{"context": "a shop", "resolution": {"H": 960, "W": 960}, "aspect_ratio": "1,1"}'
    assert positive_text(settings, height=960, width=960) == expected


def test_whole_rates_word_the_prompt_as_whole_numbers():
    texts = {positive_text(settle("policy", "nano", prompt="go", fps=fps), height=256, width=256) for fps in (15, 15.0)}
    assert len(texts) == 1
    assert '"fps": 15,' in texts.pop()


@pytest.mark.parametrize(
    ("task", "family", "more", "named"),
    [
        ("policy", "orrery", {"embodiment": None}, "needs an embodiment"),
        ("policy", "nano", {"embodiment": "custom"}, "chunk length"),
        ("policy", "nano", {"embodiment": "libero", "fps": None}, "no published rate"),
        ("policy", "nano", {"embodiment": "xdof_yam", "frames": 17}, "no published rate"),
        ("text_to_video", "nano", {"pins": {200: "a.png"}}, "pin 200"),
        ("video_to_video", "orrery", {"clip_frames": 17}, "nothing to make"),
    ],
)
def test_what_is_still_missing_is_named(task, family, more, named):
    with pytest.raises(RequestError, match=named):
        settle(task, family, **more)


@pytest.mark.parametrize(
    ("task", "family", "named"),
    [("policy", "nanno", "'nano'"), ("text_to_video", "super-image-to-video-4step", "image_to_video")],
)
def test_a_family_without_the_task_is_named(task, family, named):
    with pytest.raises(TaskError, match=named):
        settle(task, family)


def test_no_row_asks_for_frames_that_cannot_be_made():
    rows = [row for table in FAMILIES.values() for row in table.values()]
    assert all(row.frames is None or row.frames % 4 == 1 for row in rows)
