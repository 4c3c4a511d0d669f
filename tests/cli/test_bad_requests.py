"""Kinds of bad request from the command line to its end: one clear line, exit code 2, nothing left behind.

What `Request` refuses by itself has its own table in tests/tasks; here each kind goes through the whole command.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.own_checkpoint import CHUNK, HEIGHT, RATE_HZ, WIDTH, write_own
from PIL import Image

from orrery.cli.main import main
from orrery.data.media import Sound
from orrery.data.write_media import write_png, write_video, write_wav
from orrery.model.config import TINY
from orrery.model.published import config_to_published
from orrery.runtime.load import load
from orrery.runtime.model import Model

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (CHUNK + 1, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, good media and bad ones."""
    folder = tmp_path_factory.mktemp("desk")
    write_own(folder / "own")
    good_media(folder)
    bad_media(folder)
    bad_actions(folder)
    bad_checkpoints(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(desk: Path) -> Model:
    """The checkpoint, loaded once: what comes after loading needs no loading of its own."""
    return load(desk / "own")


def good_media(folder: Path) -> None:
    write_png(folder / "good.png", PIXELS[0])
    write_png(folder / "large.png", np.zeros((48, 80, 3), np.uint8))
    write_png(folder / "odd.png", np.zeros((30, 44, 3), np.uint8))
    write_video(folder / "good.mp4", PIXELS, RATE_HZ)
    write_video(folder / "short.mp4", PIXELS[:4], RATE_HZ)
    write_video(folder / "fast.mp4", PIXELS, 24)
    write_wav(folder / "short.wav", Sound(samples=np.zeros((400, 2), np.float32), rate=8000))
    write_wav(folder / "mono.wav", Sound(samples=np.zeros((7200, 1), np.float32), rate=8000))


def bad_media(folder: Path) -> None:
    png, film = (folder / "good.png").read_bytes(), (folder / "good.mp4").read_bytes()
    (folder / "cut.png").write_bytes(png[: len(png) // 2])
    (folder / "picture.mp4").write_bytes(png)
    (folder / "film.png").write_bytes(film)
    (folder / "cut.mp4").write_bytes(film[: len(film) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.png").write_text("a picture of a block")
    (folder / "text.wav").write_text("la la la")
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {folder / 'good.mp4'}\n")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "huge.png").write_bytes(png_header(30_000, 30_000))
    frames = [Image.fromarray(frame) for frame in PIXELS[:3]]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.png", save_all=True, append_images=frames[1:], format="PNG")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 4), np.uint8)).save(folder / "clear.png")
    (folder / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="24"/>')


def png_header(width: int, height: int) -> bytes:
    """A PNG that states its size and holds next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bad_actions(folder: Path) -> None:
    rows = np.zeros((CHUNK, 3), np.float32)
    np.save(folder / "good.npy", rows)
    rows[3, 1] = np.nan
    np.save(folder / "nan.npy", rows)
    np.save(folder / "wide.npy", np.zeros((CHUNK, 7), np.float32))
    np.save(folder / "flat.npy", np.zeros(24, np.float32))
    np.save(folder / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (folder / "text.npy").write_text("0 0 0")
    (folder / "rows.csv").write_text("0,0,0\n")
    (folder / "odd.json").write_text('{"poses": [[0, 0, 0]]}')


def bad_checkpoints(folder: Path) -> None:
    own = folder / "own"

    def copy(name: str) -> Path:
        return Path(shutil.copytree(own, folder / name))

    def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
        path.write_bytes(edit(path.read_bytes()))

    change(copy("flipped") / "model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    change(copy("cut") / "model.safetensors", lambda data: data[:-100])
    change(copy("nan") / "model.safetensors", lambda data: data[:-4] + struct.pack("<f", float("nan")))
    change(copy("edited") / "config.json", lambda data: data.replace(b'"hop": 320', b'"hop": 321'))
    change(copy("resealed") / "manifest.json", lambda data: data.replace(b'"version": 1', b'"version": 2'))
    change(copy("untied") / "manifest.json", lambda data: data[:-20])
    (copy("lacking") / "eyes.safetensors").unlink()
    (copy("crowded") / "extra.safetensors").write_bytes(b"")
    (folder / "nothing").mkdir()
    pickled = folder / "pickled"
    (pickled / "transformer").mkdir(parents=True)
    (pickled / "model_index.json").write_text('{"_class_name": "Cosmos3OmniPipeline"}')
    config = config_to_published(replace(TINY, family="custom"))
    (pickled / "transformer" / "config.json").write_text(json.dumps(config))
    (pickled / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    shutil.copytree(pickled, folder / "unknown")
    (folder / "unknown" / "transformer" / "config.json").write_text(json.dumps({**config, "mixture": 8}))


T2I = {"task": "text_to_image", "prompt": "a block", "size": [24, 40], "steps": 1}
T2V = {"task": "text_to_video", "prompt": "a block", "size": [24, 40], "frames": 9, "steps": 1}
I2V = {**T2V, "task": "image_to_video", "vision": "good.png"}
V2V = {**T2V, "task": "video_to_video", "vision": "good.mp4"}
FD = {"task": "forward_dynamics", "vision": "good.png", "actions": "good.npy", "steps": 1}
ID = {"task": "inverse_dynamics", "vision": "good.mp4", "steps": 1}
POLICY = {"task": "policy", "vision": "good.png", "prompt": "push", "steps": 1}
REASON = {"task": "reason", "prompt": "why?", "max_new_tokens": 1}


def zeros(rows: int, columns: int = 3) -> list[list[float]]:
    return [[0.0] * columns] * rows


CAMERA = {"name": "front", "height": HEIGHT, "width": WIDTH, "layout": "full", "flip": "none"}
CONTRACT: dict[str, tuple[Any, str]] = {
    "embodiment": ("droid_lerobot", "custom"),
    "domain_id": (8, "31"),
    "action_names": (["dx", "dy", "dz"], "'dz'"),
    "units": (["mm", "mm", "1"], "'mm'"),
    "frame": ("gripper", "'base'"),
    "mode": ("absolute", "'relative'"),
    "rotation": ("rot6d", "'none'"),
    "gripper_index": (0, "2"),
    "gripper_range": ([0.0, 0.085], "0.085"),
    "gripper_open": ("lo", "'hi'"),
    "control_rate_hz": (15, "10"),
    "chunk": (16, "8"),
    "cameras": ([{**CAMERA, "flip": "horizontal"}], "'none'"),
    "normaliser": ({"sha256": "0" * 64}, "0000"),
}

REQUESTS: dict[str, tuple[object, str]] = {
    # The document.
    "unknown task": ({**T2I, "task": "text_to_vidio"}, "'text_to_vidio'"),
    "unknown key": ({**T2I, "guidence": 3}, "'guidence'"),
    "no prompt": ({"task": "text_to_video"}, "prompt"),
    "steps zero": ({**T2I, "steps": 0}, "got 0"),
    "steps true": ({**T2I, "steps": True}, "True"),
    "seed negative": ({**T2I, "seed": -1}, "-1"),
    "frames not 4k+1": ({**T2V, "frames": 16}, "got 16"),
    "frames beyond all bounds": ({**T2V, "frames": 10**9}, "1000000000"),
    "size of too many pixels": ({**T2V, "size": [8192, 8192]}, "8192"),
    "unknown sampler": ({**T2V, "sampler": "ddim"}, "'ddim'"),
    "karras with a shift": ({**T2V, "schedule": "karras", "shift": 3.0}, "3.0"),
    "guidance text": ({**T2V, "guidance": "high"}, "'high'"),
    "a list of nothing": ([], "0 requests"),
    "a list with a number": ([T2I, 7], "Request 1"),
    "a list with a bad request": ([T2I, {**T2I, "steps": -3}], "got -3"),
    "one bad of a list that reads media": ([T2I, {**I2V, "vision": "missing.png"}], "missing.png"),
    # What the checkpoint can hold.
    "height no multiple": ({**T2V, "size": [30, 40]}, "got 30"),
    "width no multiple": ({**T2V, "size": [24, 44]}, "got 44"),
    "picture's own size no multiple": ({**POLICY, "vision": "odd.png", "size": [30, 44]}, "30"),
    "sound of hours": ({**T2V, "fps": 0.001, "sound": "make"}, "0.001"),
    "nothing left to make": ({**I2V, "frames": 1}, "frames 1"),
    "overlong prompt in tokens": ({**T2I, "prompt": "zq " * 6000}, "4096"),
    "placeholder in a question": ({**REASON, "prompt": "what is <|image_pad|>?"}, "<|image_pad|>"),
    # Actions.
    "actions too few": ({**FD, "actions": zeros(4)}, "4"),
    "actions too many": ({**FD, "actions": zeros(12)}, "12"),
    "actions wrong width": ({**FD, "actions": zeros(CHUNK, 4)}, "4"),
    "actions wrong width in a file": ({**FD, "actions": "wide.npy"}, "7"),
    "actions NaN in a file": ({**FD, "actions": "nan.npy"}, "row 3 column 1 is nan"),
    "actions text": ({**FD, "actions": [["a", "b", "c"]] * CHUNK}, "'a'"),
    "actions ragged": ({**FD, "actions": [*zeros(7), [0.0]]}, "row 7"),
    "actions absurd": ({**FD, "actions": [[1e30] * 3] * CHUNK}, "1e+30"),
    "actions flat in a file": ({**FD, "actions": "flat.npy"}, "(24,)"),
    "actions pickled": ({**FD, "actions": "objects.npy"}, "objects.npy"),
    "actions not an array": ({**FD, "actions": "text.npy"}, "text.npy"),
    "actions of another format": ({**FD, "actions": "rows.csv"}, "rows.csv"),
    "actions under another key": ({**FD, "actions": "odd.json"}, "'poses'"),
    "actions file missing": ({**FD, "actions": "none.npy"}, "none.npy"),
    "state wrong width": ({**POLICY, "state": [0.0]}, "1"),
    "unknown embodiment": ({**POLICY, "embodiment": "droid_lerobt"}, "'droid_lerobt'"),
    "embodiment of another checkpoint": ({**POLICY, "embodiment": "droid_lerobot"}, "'droid_lerobot'"),
    "another control rate": ({**POLICY, "fps": 24}, "24"),
    "another chunk": ({**POLICY, "frames": 17}, "16"),
    # Media.
    "picture missing": ({**I2V, "vision": "missing.png"}, "missing.png"),
    "picture cut short": ({**I2V, "vision": "cut.png"}, "cut.png"),
    "picture empty": ({**I2V, "vision": "empty.png"}, "empty.png"),
    "picture of words": ({**I2V, "vision": "text.png"}, "text.png"),
    "picture is a folder": ({**I2V, "vision": "folder.png"}, "folder.png"),
    "picture is a pipe": ({**I2V, "vision": "pipe.png"}, "pipe.png"),
    "picture of 30000 x 30000": ({**I2V, "vision": "huge.png"}, "30000"),
    "animated GIF": ({**I2V, "vision": "moving.gif"}, "moving.gif"),
    "animated PNG": ({**I2V, "vision": "moving.png"}, "moving.png"),
    "picture one can see through": ({**I2V, "vision": "clear.png"}, "clear.png"),
    "drawing": ({**I2V, "vision": "drawing.svg"}, "drawing.svg"),
    "film named picture": ({**I2V, "vision": "film.png"}, "film.png"),
    "film for a picture": ({**I2V, "vision": "good.mp4"}, "good.mp4 has 9"),
    "film missing": ({**V2V, "vision": "missing.mp4"}, "missing.mp4"),
    "picture named film": ({**V2V, "vision": "picture.mp4"}, "picture.mp4"),
    "playlist named film": ({**V2V, "vision": "list.mp4"}, "list.mp4"),
    "film cut short": ({**V2V, "vision": "cut.mp4"}, "cut.mp4"),
    "film empty": ({**V2V, "vision": "empty.mp4"}, "empty.mp4"),
    "film shorter than the clip": ({**V2V, "vision": "short.mp4"}, "short.mp4 has 4"),
    "film of another rate": ({**V2V, "vision": "fast.mp4"}, "24"),
    "film of another length": ({**ID, "vision": "short.mp4"}, "short.mp4 has 4"),
    "picture for a film": ({**ID, "vision": "good.png"}, "good.png has 1"),
    "pin missing": ({**T2V, "pins": {"8": "missing.png"}}, "missing.png"),
    "pins of different sizes": ({**I2V, "pins": {"8": "large.png"}}, "(48, 80)"),
    "sound missing": ({**T2V, "sound": "missing.wav"}, "missing.wav"),
    "sound empty": ({**T2V, "sound": "empty.wav"}, "empty.wav"),
    "sound of words": ({**T2V, "sound": "text.wav"}, "text.wav"),
    "sound too short": ({**T2V, "sound": "short.wav"}, "short.wav has 400"),
    "sound of one channel": ({**T2V, "sound": "mono.wav"}, "mono.wav"),
    "sound of a silent film": ({**T2V, "sound": "good.mp4"}, "good.mp4"),
    "question about a broken picture": ({**REASON, "vision": ["good.png", "cut.png"]}, "cut.png"),
}

OPTIONS: dict[str, tuple[list[str], str]] = {
    "unknown device": (["--device", "tpu9"], "'tpu9'"),
    "device that is not there": (["--device", "cuda:63"], "'cuda:63'"),
    "device without numbers": (["--device", "meta"], "'meta'"),
    "unknown number format": (["--dtype", "int4"], "'int4'"),
    "number format of no use": (["--dtype", "float64"], "'float64'"),
    "unknown family": (["--family", "mega"], "'mega'"),
    "no threads": (["--threads", "0"], "got 0"),
    "results where something is": (["--out", "{desk}/own"], "own"),
    "results where a file is": (["--out", "{desk}/good.png"], "good.png"),
    "results below a file": (["--out", "{desk}/good.png/out"], "good.png"),
    "no such checkpoint": (["--model", "{desk}/none"], "none"),
    "checkpoint is a file": (["--model", "{desk}/good.png"], "good.png"),
    "checkpoint is an empty folder": (["--model", "{desk}/nothing"], "nothing"),
    "hub id that is not in the cache": (["--model", "nobody/nothing"], "nobody/nothing"),
    "checkpoint flipped": (["--model", "{desk}/flipped"], "model.safetensors"),
    "checkpoint cut short": (["--model", "{desk}/cut"], "model.safetensors"),
    "checkpoint cut short, unverified": (["--model", "{desk}/cut", "--no-verify"], "model.safetensors"),
    "checkpoint with NaN, unverified": (["--model", "{desk}/nan", "--no-verify"], "NaN"),
    "checkpoint edited": (["--model", "{desk}/edited"], "config.json"),
    "checkpoint of another version": (["--model", "{desk}/resealed"], "version 2"),
    "manifest cut short": (["--model", "{desk}/untied"], "manifest.json"),
    "checkpoint lacking a file": (["--model", "{desk}/lacking"], "eyes.safetensors"),
    "checkpoint with a file too many": (["--model", "{desk}/crowded"], "extra.safetensors"),
    "pickled checkpoint": (["--model", "{desk}/pickled"], "pickle"),
    "released checkpoint with an unknown setting": (["--model", "{desk}/unknown"], "mixture"),
}

FILES: dict[str, tuple[bytes | None, str]] = {
    "no request": (None, "request.json"),
    "empty request": (b"", "empty"),
    "not JSON": (b"task: reason", "line 1"),
    "not UTF-8": (b'{"task": "\xff"}', "UTF-8"),
    "NaN in the request": (b'{"task": "forward_dynamics", "actions": [[NaN]]}', "NaN"),
}


def refused(monkeypatch, capsys, desk: Path, folder: Path, options: list[str]) -> str:
    """The one line that the command leaves; everything else about a refusal is checked here."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(folder)
    chosen = {"--model": str(desk / "own"), "--out": str(folder / "out")}
    given = [option.format(desk=desk) for option in options]
    filled = [word for name, value in chosen.items() if name not in given for word in (name, value)]
    monkeypatch.setattr("sys.argv", ["orrery", "run", str(desk / "request.json"), *filled, *given])
    before = sorted(desk.rglob("*"))
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith("orrery: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert len(err) < 800
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []
    assert sorted(desk.rglob("*")) == before
    return err


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_bad_request_is_one_line_and_leaves_nothing(monkeypatch, capsys, desk, loaded, tmp_path, kind):
    document, named = REQUESTS[kind]
    monkeypatch.setattr("orrery.runtime.load.load", lambda *_, **__: loaded)
    (desk / "request.json").write_text(json.dumps(document))
    assert named in refused(monkeypatch, capsys, desk, tmp_path, [])


@pytest.mark.parametrize("kind", CONTRACT)
def test_a_contract_that_disagrees_is_refused_with_both_values(monkeypatch, capsys, desk, tmp_path, kind):
    theirs, ours = CONTRACT[kind]
    (desk / "request.json").write_text(json.dumps({**POLICY, "contract": {kind: theirs}}))
    line = refused(monkeypatch, capsys, desk, tmp_path, [])
    assert kind in line
    what, _, values = line.partition(" of the request is ")
    said, _, stored = values.partition(", of the checkpoint ")
    assert kind in what
    assert said != stored
    assert ours in values


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_bad_option_or_checkpoint_is_one_line_and_leaves_nothing(monkeypatch, capsys, desk, tmp_path, kind):
    options, named = OPTIONS[kind]
    (desk / "request.json").write_text(json.dumps(T2I))
    assert named in refused(monkeypatch, capsys, desk, tmp_path, options)


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_document_is_one_line_and_leaves_nothing(monkeypatch, capsys, desk, tmp_path, kind):
    content, named = FILES[kind]
    path = desk / "request.json"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    assert named in refused(monkeypatch, capsys, desk, tmp_path, [])


def test_there_are_many_kinds():
    assert len(REQUESTS) + len(CONTRACT) + len(OPTIONS) + len(FILES) >= 100


@pytest.mark.parametrize("document", [T2I, T2V, I2V, V2V, FD, ID, POLICY, REASON], ids=lambda request: request["task"])
def test_the_requests_that_were_spoilt_are_good_before(monkeypatch, capsys, desk, tmp_path, document):
    """Control: otherwise the kinds above could all fail for one and the same reason."""
    (desk / "request.json").write_text(json.dumps(document))
    arguments = ["run", desk / "request.json", "--model", desk / "own", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["orrery", *map(str, arguments)])
    main()
    assert (tmp_path / "out" / "run.json").is_file()
    capsys.readouterr()
