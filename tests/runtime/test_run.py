"""Laws of carrying out requests, on a tiny checkpoint of our own: packs, one reading of texts, seeds, given frames."""

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from makers.own_checkpoint import CHUNK, HEIGHT, RATE_HZ, WIDTH, tiny_model, write_own
from PIL import Image

from orrery.cli.main import main
from orrery.data.media import Sound, probe_video
from orrery.data.write_media import write_png, write_video, write_wav
from orrery.errors import RequestError, TaskError
from orrery.model.mot import MoT
from orrery.packing.pack import TextPack
from orrery.runtime.load import load
from orrery.runtime.report import report
from orrery.runtime.result import RANDOM_WEIGHTS, SYNTHETIC
from orrery.runtime.run import run
from orrery.runtime.save import save
from orrery.runtime.trace import near
from orrery.tasks.request import Request
from orrery.tasks.task import TASKS

rng = np.random.default_rng(0)
PICTURE = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
OTHER = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
CLIP = rng.integers(0, 256, (CHUNK + 1, HEIGHT, WIDTH, 3), dtype=np.uint8)
ACTIONS = rng.uniform(-0.1, 0.1, (CHUNK, 3)).astype(np.float32)
STATE = [0.05, -0.1, 1.0]
SOUND_RATE, SOUND_SAMPLES = 8000, 7200
"""Nine frames at ten a second."""
SOUND = rng.uniform(-1, 1, (SOUND_SAMPLES, 2)).astype(np.float32)
FILM = {"frames": 9, "size": (HEIGHT, WIDTH), "steps": 2}

MIXED: dict[str, dict[str, Any]] = {
    "picture": {"task": "text_to_image", "prompt": "a block", "size": (16, 24), "steps": 3, "seed": 1},
    "video": {"task": "text_to_video", "prompt": "a block", **FILM, "sampler": "euler", "guidance": 3.0},
    "sound made": {
        "task": "image_to_video",
        "vision": PICTURE,
        "prompt": "it rings",
        **FILM,
        "steps": 4,
        "sound": "make",
        "guidance": {"vision": 2.0, "sound": 4.0},
        "negative_prompt": "dull",
    },
    "clip": {
        "task": "video_to_video",
        "vision": CLIP,
        "prompt": "go on",
        **FILM,
        "frames": 13,
        "sampler": "stochastic",
        "steps": 3,
    },
    "pins, sound given": {
        "task": "text_to_video",
        "prompt": "a block",
        **FILM,
        "pins": {8: OTHER},
        "sound": SOUND,
        "sound_rate": SOUND_RATE,
        "seed": 5,
    },
    "forward dynamics": {"task": "forward_dynamics", "vision": PICTURE, "actions": ACTIONS, "state": STATE, "steps": 5},
    "inverse dynamics": {"task": "inverse_dynamics", "vision": CLIP, "steps": 4, "schedule": "karras"},
    "policy": {
        "task": "policy",
        "vision": PICTURE,
        "prompt": "push it",
        "state": STATE,
        "steps": 3,
        "shift": 3.0,
        "guidance": 2.0,
        "negative_prompt": "dull",
        "guidance_interval": (400, 900),
    },
}
NO_VIDEO = {"task": "policy_no_video", "vision": PICTURE, "prompt": "push it", "steps": 2, "seed": 2}
QUESTION = {"task": "reason", "prompt": "what is on the table?", "vision": [PICTURE], "max_new_tokens": 4}


def made(**fields: Any) -> Any:
    return run(tiny_model(), Request(**fields))


def test_a_pack_of_eight_equals_the_eight_alone():
    requests = [Request(**fields) for fields in MIXED.values()]
    packed = run(tiny_model(), requests, trace=True)
    for name, request, together in zip(MIXED, requests, packed, strict=True):
        alone = run(tiny_model(), request, trace=True)
        assert together.latents.keys() == alone.latents.keys()
        for kind, latents in alone.latents.items():
            assert latents.std() > 0.1
            assert (together.latents[kind] - latents).abs().max() <= 1e-5, (name, kind)
        stages, stages_alone = (each.manifest["stages"] for each in (together, alone))
        assert [row["stage"] for row in stages] == [row["stage"] for row in stages_alone]
        assert all(near(*rows, 1e-3) for rows in zip(stages, stages_alone, strict=True)), name
        assert {**together.manifest, "stages": []} == {**alone.manifest, "stages": []}


def test_questions_may_stand_between_and_results_keep_the_order():
    requests = [Request(**fields) for fields in (QUESTION, MIXED["picture"], QUESTION, NO_VIDEO)]
    first, picture, second, policy = run(tiny_model(), requests)
    assert first.text is not None
    assert first.text == second.text == made(**QUESTION).text
    assert picture.video.shape == (1, 16, 24, 3)
    assert policy.actions.shape == (CHUNK, 3)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], int]]:
    """Lengths of the texts, and tokens in all, of every call of the text tower."""
    counted: list[tuple[tuple[int, ...], int]] = []
    read = MoT.read

    def watched(self: MoT, text: TextPack, *arguments: Any, **names: Any) -> Any:
        counted.append((tuple(text.lengths), text.token_ids.numel()))
        return read(self, text, *arguments, **names)

    monkeypatch.setattr(MoT, "read", watched)
    monkeypatch.setattr("orrery.runtime.generate._LAST_READ", WeakKeyDictionary())
    return counted


def length_of(text: str) -> int:
    return len(tiny_model().need_text().prompt_ids(text))


def test_the_text_tower_reads_every_distinct_text_once(readings):
    run(tiny_model(), [Request(**fields) for fields in MIXED.values()])
    # "a block" is asked three times, "dull" is the negative prompt of two, "" is a prompt and a negative prompt.
    expected = {"a block", "it rings", "go on", "push it", "dull", ""}
    ((lengths, tokens),) = readings
    assert sorted(lengths) == sorted(map(length_of, expected))
    assert tokens == sum(map(length_of, expected))


@pytest.mark.parametrize("steps", [1, 9])
def test_sampling_steps_add_no_reading(readings, steps):
    made(**{**MIXED["video"], "steps": steps})
    assert readings == [((length_of("a block"), length_of("")), length_of("a block") + length_of(""))]


def test_an_answer_reads_its_prompt_once_and_then_token_by_token(readings):
    written = made(**{**QUESTION, "max_new_tokens": 6, "temperature": 2.0})
    (prompt, *rest) = [tokens for _, tokens in readings]
    assert prompt > 20
    assert len(rest) <= 5
    assert set(rest) <= {1}
    assert written.manifest["ended"] in ("length", "eos")


@pytest.mark.parametrize("name", MIXED)
def test_a_seed_decides_the_result(name):
    first, again = made(**MIXED[name]), made(**MIXED[name])
    other = made(**{**MIXED[name], "seed": 77})
    made_kinds = [kind for kind in first.latents if not torch.equal(first.latents[kind], other.latents[kind])]
    assert made_kinds, "another seed is another result"
    assert all(torch.equal(latents, again.latents[kind]) for kind, latents in first.latents.items())


def test_frames_that_are_given_come_back_pixel_by_pixel():
    assert np.array_equal(made(**MIXED["sound made"]).video[0], PICTURE)
    clip = made(**MIXED["clip"]).video
    assert clip.shape == (13, HEIGHT, WIDTH, 3)
    assert np.array_equal(clip[:5], CLIP[:5])
    late = made(**{**MIXED["clip"], "clip_from": "last", "clip_frames": 9}).video
    assert np.array_equal(late[:9], CLIP)
    assert np.array_equal(made(**MIXED["forward dynamics"]).video[0], PICTURE)


def test_a_pin_is_held_and_nothing_else_is():
    video = made(**MIXED["pins, sound given"]).video
    assert all(np.array_equal(frame, OTHER) for frame in video[5:9])
    assert not any(np.array_equal(frame, OTHER) for frame in video[:5])
    both = {**MIXED["pins, sound given"], "pins": {0: PICTURE, 8: CLIP[:4]}}
    video = made(**both).video
    assert np.array_equal(video[0], PICTURE)
    assert np.array_equal(video[5:9], CLIP[:4])


def test_sound_is_made_or_given():
    given, loud = made(**MIXED["pins, sound given"]), made(**MIXED["sound made"])
    assert np.abs(given.sound - SOUND).max() < 1e-6
    assert (given.sound_rate, loud.sound_rate) == (SOUND_RATE, SOUND_RATE)
    assert loud.sound.shape == (SOUND_SAMPLES, 2)
    assert loud.sound.std() > 0.01
    assert made(**MIXED["video"]).sound is None


def test_a_policy_without_imagined_future_gives_actions_alone():
    result = made(**NO_VIDEO)
    assert result.video is None
    assert result.sound is None
    assert result.actions.shape == (CHUNK, 3)
    assert result.latents["vision"].shape[1] == 1


def test_actions_need_not_wait_for_the_frames_imagined_beside_them():
    request = Request(**MIXED["policy"])
    whole, bare = (run(tiny_model(), request, envelope=None, frames=frames) for frames in (True, False))
    assert whole.video is not None
    assert bare.video is None
    assert np.array_equal(bare.actions, whole.actions)
    assert torch.equal(bare.latents["vision"], whole.latents["vision"])
    assert (whole.manifest["frames_decoded"], bare.manifest["frames_decoded"]) == (True, False)
    with pytest.raises(RequestError, match="'image_to_video' makes no actions"):
        run(tiny_model(), Request(task="image_to_video", vision=PICTURE, prompt="it moves", frames=5), frames=False)


def test_the_row_of_the_current_state_is_not_among_the_actions():
    result = made(**MIXED["policy"])
    assert result.actions.shape == (CHUNK, 3)
    assert result.latents["action"].shape == (CHUNK + 1, 3)
    normaliser = tiny_model().contracts["custom"].normaliser
    state = normaliser.encode(np.asarray([STATE], np.float32))
    assert np.array_equal(result.latents["action"][:1].numpy(), state)
    assert np.allclose(result.actions, normaliser.decode(result.latents["action"][1:].numpy()))


def test_what_was_shown_is_not_given_back_as_if_made():
    forward, inverse = made(**MIXED["forward dynamics"]), made(**MIXED["inverse dynamics"])
    assert forward.actions is None
    assert forward.video.shape == CLIP.shape
    assert inverse.video is None
    assert inverse.actions.shape == (CHUNK, 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_every_mode_and_stays_finite(tmp_path, dtype):
    write_own(tmp_path / "own")
    model = load(tmp_path / "own", dtype=dtype)
    assert str(model.mot.embed.weight.dtype) == f"torch.{dtype}"
    every = [Request(**fields) for fields in (*MIXED.values(), NO_VIDEO, QUESTION)]
    for result in run(model, every):
        assert all(latents.isfinite().all() for latents in result.latents.values())
        assert result.manifest["dtype"] == dtype


def test_a_model_that_was_saved_and_loaded_gives_the_same_bits(tmp_path):
    write_own(tmp_path / "own")
    requests = [Request(**fields) for fields in (*MIXED.values(), QUESTION)]
    for mine, loaded in zip(run(tiny_model(), requests), run(load(tmp_path / "own"), requests), strict=True):
        assert mine.text == loaded.text
        assert all(torch.equal(latents, loaded.latents[kind]) for kind, latents in mine.latents.items())


def test_an_empty_list_is_refused():
    with pytest.raises(RequestError, match="empty"):
        run(tiny_model(), [])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, the media that requests name, and a request for each task."""
    folder = tmp_path_factory.mktemp("desk")
    write_own(folder / "own")
    write_png(folder / "picture.png", PICTURE)
    write_video(folder / "clip.mp4", CLIP, RATE_HZ)
    write_wav(folder / "sound.wav", Sound(samples=SOUND, rate=SOUND_RATE))
    (folder / "actions.json").write_text(json.dumps(ACTIONS.tolist()))
    film = {"frames": 9, "size": [HEIGHT, WIDTH]}
    first = {"vision": "picture.png", "steps": 2}
    documents = {
        "reason": {"prompt": "what is on the table?", "vision": ["picture.png", "clip.mp4"], "max_new_tokens": 4},
        "text_to_image": {"prompt": "a block", "size": [24, 40], "steps": 2},
        "text_to_video": {"prompt": "a block", **film, "steps": 2, "sound": "make"},
        "image_to_video": {**first, **film, "sound": "sound.wav", "pins": {"8": "picture.png"}},
        "video_to_video": {"vision": "clip.mp4", **film, "steps": 2},
        "forward_dynamics": {**first, "actions": "actions.json"},
        "inverse_dynamics": {"vision": "clip.mp4", "steps": 2},
        "policy": {**first, "prompt": "push", "state": STATE},
        "policy_no_video": {**first, "prompt": "push"},
    }
    for task, fields in documents.items():
        (folder / f"{task}.json").write_text(json.dumps({"task": task, "seed": 3, **fields}))
    (folder / "all.json").write_text(json.dumps([json.loads((folder / f"{task}.json").read_text()) for task in TASKS]))
    return folder


WRITTEN = {
    "reason": {"answer.txt"},
    "text_to_image": {"image.png"},
    "text_to_video": {"video.mp4", "sound.wav"},
    "image_to_video": {"video.mp4", "sound.wav"},
    "video_to_video": {"video.mp4"},
    "forward_dynamics": {"video.mp4"},
    "inverse_dynamics": {"actions.json"},
    "policy": {"video.mp4", "actions.json"},
    "policy_no_video": {"actions.json"},
}


def command(monkeypatch: pytest.MonkeyPatch, desk: Path, document: str, out: Path) -> None:
    arguments = ["run", desk / document, "--model", desk / "own", "--out", out]
    monkeypatch.setattr("sys.argv", ["orrery", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def written(desk: Path) -> Path:
    """The results of every task, from one list."""
    with pytest.MonkeyPatch.context() as patch:
        command(patch, desk, "all.json", desk / "all")
    return desk / "all"


def folder_of(written: Path, task: str) -> Path:
    return written / f"{list(TASKS).index(task):03}"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_from_a_document_and_keeps_a_whole_record(monkeypatch, desk, tmp_path, task):
    command(monkeypatch, desk, f"{task}.json", tmp_path / "out")
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert set(files) == WRITTEN[task] | {"run.json"}
    record = json.loads(files["run.json"].read_text())
    assert record["outputs"] == {
        name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in WRITTEN[task]
    }
    asked = json.loads((desk / f"{task}.json").read_text())
    named = [asked.get("sound"), asked.get("actions"), *asked.get("pins", {}).values()]
    named += asked["vision"] if isinstance(asked.get("vision"), list) else [asked.get("vision")]
    for name in (name for name in named if isinstance(name, str) and name != "make"):
        assert record["inputs"][str(desk / name)] == hashlib.sha256((desk / name).read_bytes()).hexdigest()
    weights = record["checkpoint"]["files"]["model.safetensors"]
    assert weights == hashlib.sha256((desk / "own" / "model.safetensors").read_bytes()).hexdigest()
    assert record["seed"] == record["settings"]["seed"] == 3
    assert (record["synthetic"], record["digital_source_type"]) == (True, SYNTHETIC)
    assert (record["weights"], record["weights_trained"]) == ("random", False)
    assert RANDOM_WEIGHTS in record["warnings"]
    assert record["licence"] == "OpenMDW-1.1"
    assert record["versions"].keys() >= {"orrery", "python", "torch", "numpy", "av"}
    assert (record["device"], record["dtype"]) == ("cpu", "float32")
    assert (record["contract"] is None) == (TASKS[task].action is None)
    settings = record["settings"]
    if not TASKS[task].writes:
        effective = ("steps", "sampler", "schedule", "shift", "guidance", "frames", "prompt_format", "negative_prompt")
        assert all(settings[name] is not None for name in effective)


def test_every_medium_carries_the_mark(written):
    with Image.open(folder_of(written, "text_to_image") / "image.png") as image:
        texts = image.text
    assert texts["digitalSourceType"] == SYNTHETIC
    assert texts["description"] == RANDOM_WEIGHTS
    film = probe_video(folder_of(written, "text_to_video") / "video.mp4").metadata
    assert film["digitalSourceType"] == SYNTHETIC
    assert film["description"] == RANDOM_WEIGHTS
    wave = (folder_of(written, "text_to_video") / "sound.wav").read_bytes()
    start = wave.index(b"ICMT") + 4
    (length,) = struct.unpack("<I", wave[start : start + 4])
    assert json.loads(wave[start + 4 : start + 4 + length].rstrip(b"\0"))["digitalSourceType"] == SYNTHETIC
    for task in ("policy", "inverse_dynamics"):
        actions = json.loads((folder_of(written, task) / "actions.json").read_text())
        assert actions["digital_source_type"] == SYNTHETIC
        assert np.isfinite(actions["actions"]).all()


def test_a_list_of_requests_is_one_pack_with_the_results_of_each_alone(monkeypatch, desk, written, tmp_path):
    command(monkeypatch, desk, "policy.json", tmp_path / "out")
    for name in ("actions.json", "run.json"):
        alone, packed = ((f / name).read_text() for f in (tmp_path / "out", folder_of(written, "policy")))
        if name == "actions.json":
            assert np.allclose(json.loads(alone)["actions"], json.loads(packed)["actions"], atol=1e-5)
        else:
            assert json.loads(alone)["settings"] == json.loads(packed)["settings"]


def test_two_processes_write_the_same_bytes(desk, tmp_path):
    outs = [tmp_path / "one", tmp_path / "two"]
    # A process that hangs says where, and ends.
    program = "import faulthandler; faulthandler.dump_traceback_later(300, exit=True)\n"
    program += "from orrery.cli.main import main; main()"
    command = [sys.executable, "-c", program, "run", str(desk / "all.json")]
    options = ["--threads", "1", "--model", str(desk / "own"), "--out"]
    running = [
        subprocess.Popen([*command, *options, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for out in outs
    ]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    first, second = (
        {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in outs
    )
    assert len(first) == sum(len(files) + 1 for files in WRITTEN.values())
    assert first == second


def test_frames_without_a_rate_are_not_looked_at():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    with pytest.raises(RequestError, match="3 frames"):
        run(tiny_model(), Request(task="reason", prompt="what moves?", vision=frames))


def test_what_a_checkpoint_was_not_trained_for_is_refused(tmp_path):
    save(replace(tiny_model(), tasks=("policy", "text_to_image")), tmp_path / "own", trained=True, licence="Apache-2.0")
    model = load(tmp_path / "own")
    assert model.tasks == ("policy", "text_to_image")
    assert run(model, Request(task="text_to_image", prompt="a", size=(HEIGHT, WIDTH), steps=1)).video is not None
    with pytest.raises(TaskError, match="trained for policy, text_to_image, not for 'text_to_video'"):
        run(model, Request(task="text_to_video", prompt="a", size=(HEIGHT, WIDTH), frames=5, steps=1))
    tasks = report(str(tmp_path / "own")).to_json()["tasks"]
    assert [name for name, obstacle in tasks.items() if obstacle is None] == ["text_to_image", "policy"]


def test_the_record_says_how_pictures_were_fitted():
    wide = np.repeat(PICTURE, 2, axis=1)
    view = made(task="image_to_video", prompt="a", vision=wide, frames=5, size=(HEIGHT, WIDTH), steps=1).manifest[
        "view"
    ]
    assert view["source"] == [HEIGHT, 2 * WIDTH]
    assert view["size"] == [HEIGHT, WIDTH]
    assert "cut at the centre" in view["how"]
    same = made(task="image_to_video", prompt="a", vision=PICTURE, frames=5, size=(HEIGHT, WIDTH), steps=1)
    assert same.manifest["view"]["how"] == "as given"
