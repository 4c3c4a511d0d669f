"""Golden: latents after four solver steps of the whole pipeline against diffusers 0.42.1, from a released folder that
diffusers itself wrote, in the modes that both know. Random weights, float32, CPU, the same noise."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import CosmosActionCondition
from makers.released_folder import write_released
from PIL import Image

from orrery.model.config import TINY
from orrery.packing.patches import patchify
from orrery.runtime.generate import generate
from orrery.runtime.inputs import read_inputs
from orrery.runtime.load import load
from orrery.runtime.prepare import prepare
from orrery.tasks.defaults import resolve
from orrery.tasks.embodiment import embodiment
from orrery.tasks.request import Request
from orrery.tokenizers.samples import latent_count, samples_of_clip

TOLERANCE = 1e-3
STEPS, FPS, FRAMES, CHUNK, HEIGHT, WIDTH = 4, 24, 9, 8, 64, 80
EDGE_LIKE = replace(
    TINY, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
)
rng = np.random.default_rng(0)
PICTURE = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
CLIP = rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
ROBOT_VIEW = rng.integers(0, 256, (CHUNK + 1, 48, 80, 3), dtype=np.uint8)
"""Smaller than its canvas of 192 x 320: 3 x 5 latents are kept, odd numbers. Sides are multiples of 16, because
diffusers would round others down."""
NORMALISED = rng.uniform(-1, 1, (CHUNK, 10)).astype(np.float32)


@cache
def pair(family: str, native: bool) -> Any:
    folder = Path(mkdtemp(prefix="orrery-test-"))
    config = {"qwen": TINY, "nemotron": EDGE_LIKE}[family]
    peer = write_released(folder, config, native=native, shard="100KB")
    peer.set_progress_bar_config(disable=True)
    peer.decode_sound = lambda latent: latent
    return peer, load(folder)


def pictures(frames: Any) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


def droid(**values: Any) -> CosmosActionCondition:
    return CosmosActionCondition(chunk_size=CHUNK, domain_name="droid_lerobot", resolution_tier=256, **values)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text_to_image": ({"task": "text_to_image"}, {"num_frames": 1}),
    "text_to_video": ({"task": "text_to_video"}, {}),
    "image_to_video": ({"task": "image_to_video", "vision": PICTURE}, {"image": PICTURE}),
    "video_to_video": ({"task": "video_to_video", "vision": CLIP[:5]}, {"video": pictures(CLIP[:5])}),
    "text_to_video with sound": ({"task": "text_to_video", "sound": "make"}, {"enable_sound": True}),
    "image_to_video with sound": (
        {"task": "image_to_video", "vision": PICTURE, "sound": "make"},
        {"image": PICTURE, "enable_sound": True},
    ),
    "forward_dynamics": (
        {
            "task": "forward_dynamics",
            "vision": ROBOT_VIEW[0],
            "actions": embodiment("droid_lerobot").normaliser.decode(NORMALISED),
        },
        {
            "action": droid(
                mode="forward_dynamics", image=Image.fromarray(ROBOT_VIEW[0]), raw_actions=torch.from_numpy(NORMALISED)
            )
        },
    ),
    "inverse_dynamics": (
        {"task": "inverse_dynamics", "vision": ROBOT_VIEW},
        {"action": droid(mode="inverse_dynamics", video=pictures(ROBOT_VIEW))},
    ),
    "policy": (
        {"task": "policy", "vision": ROBOT_VIEW[0]},
        {"action": droid(mode="policy", image=Image.fromarray(ROBOT_VIEW[0]))},
    ),
}


def theirs(peer: Any, arguments: dict[str, Any], guidance: float, seed: int) -> dict[str, Any]:
    if "action" not in arguments:
        arguments = {"num_frames": FRAMES, "height": HEIGHT, "width": WIDTH, **arguments}
    out = peer(
        prompt="a red cube is lifted",
        negative_prompt="blurry",
        fps=float(FPS),
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        output_type="latent",
        generator=torch.Generator().manual_seed(seed),
        **arguments,
    )
    found = {"vision": out.video[0]}
    if out.sound is not None:
        found["sound"] = out.sound.T
    if out.action is not None:
        found["action"] = out.action[0]
    return found


def noise_of(task: str, frames: int, height: int, width: int, sound: bool, seed: int) -> list[Any]:
    """What diffusers draws: vision, sound and actions from one generator, in its own shapes."""
    draw = torch.Generator().manual_seed(seed)
    latent = torch.randn(1, TINY.vision_channels, 1 + (frames - 1) // 4, height, width, generator=draw)[0]
    noise = [patchify(latent, TINY.vision_patch)]
    if sound:
        count = latent_count(samples_of_clip(frames, float(FPS), 48000), 1920)
        noise.append(torch.randn(TINY.sound_width, count, generator=draw).T[:, None])
    if task in ("forward_dynamics", "inverse_dynamics", "policy"):
        noise.append(torch.randn(CHUNK, TINY.action_width, generator=draw)[:, None])
    return noise


def ours(model: Any, fields: dict[str, Any], peer: Any, guidance: float, karras: bool, seed: int) -> dict[str, Any]:
    acting = "dynamics" in fields["task"] or fields["task"] == "policy"
    single = fields["task"] == "text_to_image"
    flow = {"schedule": "karras"} if karras else {"schedule": "native", "shift": 3.0}
    where = {"embodiment": "droid_lerobot", "fps": FPS} if acting else {"size": (HEIGHT, WIDTH)}
    if acting and fields["task"] != "forward_dynamics":
        where["frames"] = CHUNK + 1
    if not acting and not single:
        where |= {"frames": FRAMES, "fps": FPS}
    words = peer.tokenize_prompt(
        "a red cube is lifted",
        "blurry",
        num_frames=1 if single else FRAMES,
        height=192 if acting else HEIGHT,
        width=320 if acting else WIDTH,
        fps=float(FPS),
        action_mode=fields["task"] if acting else None,
        action_view_point="ego_view",
    )
    request = Request(
        prompt="x", prompt_format="raw", steps=STEPS, guidance=guidance, seed=seed, **fields, **flow, **where
    )
    settings = resolve(request, request.row, model.family)
    inputs = read_inputs(request, settings, model.sound.rate)
    height, width = (48 // 16, 80 // 16) if acting else (HEIGHT // 16, WIDTH // 16)
    noise = noise_of(fields["task"], settings.frames, height, width, settings.sound is not None, seed)
    prepared = prepare(model, request, settings, inputs, None, noise)
    job = prepared.job
    # Our prompt rules differ from diffusers' on purpose; what is compared here are its own tokens.
    job = replace(job, sample=replace(job.sample, token_ids=torch.tensor(words[0])))
    if job.negative is not None:
        job = replace(job, negative=replace(job.negative, token_ids=torch.tensor(words[1])))
    (latents,) = generate(model.mot, [job])
    from orrery.runtime.prepare import finish

    return dict(finish(model, replace(prepared, job=job), latents, {}).latents)


@pytest.mark.oracle
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("family", "native"), [("qwen", False), ("nemotron", True)], ids=["karras", "native"])
def test_latents_are_those_of_diffusers(family, native, case, guidance):
    peer, model = pair(family, native)
    fields, arguments = CASES[case]
    expected = theirs(peer, arguments, guidance, seed=5)
    found = ours(model, fields, peer, guidance, karras=not native, seed=5)
    for kind, latents in expected.items():
        assert found[kind].shape == latents.shape
        assert latents.std() > 0.1
        assert (found[kind] - latents).abs().max() <= TOLERANCE, kind


@pytest.mark.oracle
def test_the_comparison_can_fail():
    """Control: another shift of the grid is another result."""
    peer, model = pair("nemotron", True)
    expected = theirs(peer, {"num_frames": 9}, 1.0, seed=5)["vision"]
    found = ours(model, {"task": "text_to_video"}, peer, 1.0, karras=True, seed=5)["vision"]
    assert (found - expected).abs().max() > 10 * TOLERANCE


@pytest.mark.oracle
def test_action_prompts_are_worded_as_theirs():
    peer, model = pair("qwen", False)
    request = Request(
        task="policy",
        prompt="lift the cube",
        vision=ROBOT_VIEW[0],
        embodiment="droid_lerobot",
        frames=CHUNK + 1,
        fps=15,
    )
    settings = resolve(request, request.row, "nano")
    settings = replace(settings, viewpoint="ego_view", view_description="")
    prepared = prepare(model, request, settings, read_inputs(request, settings, 48000), None)
    expected, _ = peer.tokenize_prompt(
        "lift the cube", num_frames=9, height=192, width=320, fps=15, action_mode="policy", action_view_point="ego_view"
    )
    text = model.text.decode(prepared.job.sample.token_ids.tolist())
    theirs_text = peer.text_tokenizer.decode(expected, skip_special_tokens=True)
    ours_object, theirs_object = (
        json.loads(words[words.index("{") : words.rindex("}") + 1]) for words in (text, theirs_text)
    )
    assert list(ours_object) == list(theirs_object)
    assert ours_object == theirs_object
