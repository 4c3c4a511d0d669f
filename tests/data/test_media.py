import os
import random
import signal
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from makers.small_media import encode, encode_sound, moving_block, tone
from PIL import Image

from orrery.data import child, decode, media
from orrery.data.limits import LIMITS, Limits
from orrery.data.media import probe_video, read_image, read_sound, read_video, read_video_at
from orrery.data.write_media import write_video
from orrery.errors import MediaError

VIDEOS = ("film.mp4", "film.mov", "film.hevc.mp4", "film.av1.mp4", "film.webm", "film.mkv")
SOUNDS = ("sound.wav", "sound.pcm.wav", "sound.flac", "sound.mp3", "sound.aac", "sound.m4a", "sound.opus", "sound.webm")


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", VIDEOS)
def test_every_video_format_reads_the_same_confined_and_trusted(samples: Path, name: str):
    video = read_video(samples / name)
    assert video.fps == 24
    assert video.frames.shape == ((12, 96, 128, 3) if "av1" in name else (12, 48, 64, 3))
    np.testing.assert_array_equal(video.frames, read_video(samples / name, trusted=True).frames)
    facts = probe_video(samples / name)
    assert (facts.width, facts.height, facts.fps) == (video.frames.shape[2], video.frames.shape[1], 24)
    assert facts.frames in (None, 12)
    assert facts.seconds == pytest.approx(0.5, abs=0.01)


def test_written_colours_come_back(samples: Path):
    error = read_video(samples / "film.mp4").frames.astype(int) - moving_block(12, 48, 64)
    assert np.abs(error).mean() < 1.5
    assert probe_video(samples / "film.mp4").metadata["made-by"] == "test"
    assert probe_video(samples / "film.mp4").sound


@pytest.mark.parametrize("name", SOUNDS)
def test_every_sound_format_is_read(samples: Path, name: str):
    sound = read_sound(samples / name)
    assert sound.rate == 48_000
    assert sound.samples.shape[1] == 2
    # Lossy formats pad the end, and may begin a little late; the tone itself is still there.
    assert 12_000 <= len(sound.samples) <= 12_000 + 4_096
    assert np.sqrt((sound.samples[3000:9000] ** 2).mean()) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)
    np.testing.assert_array_equal(sound.samples, read_sound(samples / name, trusted=True).samples)


def test_sound_is_resampled_to_the_rate_asked(samples: Path):
    sound = read_sound(samples / "sound.wav", rate=16_000)
    assert sound.rate == 16_000
    assert len(sound.samples) == 4_000
    np.testing.assert_allclose(sound.samples[500:3500], tone(4_000, 16_000, 2).samples[500:3500], atol=0.01)


def test_sound_of_a_video_is_read_and_a_silent_one_refused(samples: Path):
    assert read_sound(samples / "film.mp4").samples.shape == (24_576, 2)
    with pytest.raises(MediaError, match="no sound track"):
        read_sound(samples / "film.webm")


@pytest.mark.parametrize("name", ["film.mp4", "film.webm"])
def test_a_range_of_frames_equals_the_range_of_all(samples: Path, name: str):
    whole = read_video(samples / name).frames
    np.testing.assert_array_equal(read_video(samples / name, start=3, stop=8).frames, whole[3:8])
    np.testing.assert_array_equal(read_video(samples / name, start=9).frames, whole[9:])


@pytest.mark.parametrize(
    ("rate", "expected"), [(24, range(12)), (12, range(0, 12, 2)), (48, np.arange(24) // 2), (8, range(0, 12, 3))]
)
@pytest.mark.parametrize("name", ["film.mp4", "film.webm"])
def test_resampling_shows_the_frame_of_that_moment(samples: Path, name: str, rate: int, expected):
    whole = read_video(samples / name).frames
    video = read_video(samples / name, fps=rate)
    assert video.fps == rate
    np.testing.assert_array_equal(video.frames, whole[list(expected)])
    part = read_video(samples / name, fps=rate, start=1, stop=3)
    np.testing.assert_array_equal(part.frames, video.frames[1:3])


def test_frames_are_found_by_time(tmp_path: Path):
    write_video(tmp_path / "long.mp4", moving_block(60, 48, 160), 10, keyframe_every=8)
    whole = read_video(tmp_path / "long.mp4").frames
    found = read_video_at(tmp_path / "long.mp4", [3.01, 3.09, 3.3, 5.9], tolerance_s=0.02)
    np.testing.assert_array_equal(found, whole[[30, 31, 33, 59]])
    with pytest.raises(MediaError, match=r"no frame within 0\.02"):
        read_video_at(tmp_path / "long.mp4", [3.05], tolerance_s=0.02)
    with pytest.raises(MediaError, match=r"no frame within .* of 6\.2"):
        read_video_at(tmp_path / "long.mp4", [5.9, 6.2], tolerance_s=0.02)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_pictures_are_read_from_paths_and_bytes(samples: Path, suffix: str):
    pixels = read_image(samples / f"picture.{suffix}")
    assert np.abs(pixels.astype(int) - moving_block(1, 48, 64)[0]).mean() < (0.01 if suffix == "png" else 4)
    np.testing.assert_array_equal(pixels, read_image((samples / f"picture.{suffix}").read_bytes()))
    np.testing.assert_array_equal(pixels, read_image(samples / f"picture.{suffix}", trusted=True))


def test_a_turned_photograph_is_read_upright(tmp_path: Path):
    pixels = moving_block(1, 48, 64)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(pixels, -1))


def test_a_turned_video_is_read_upright(samples: Path):
    # The display matrix of a video track sits in its tkhd box, 52 bytes into it; this one is a quarter turn.
    content = (samples / "film.mov").read_bytes()
    at = content.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 48 << 16, 0, 1 << 30)
    turned = content[:at] + matrix + content[at + 36 :]
    upright = read_video(samples / "film.mov").frames
    assert probe_video(turned).width == 48
    np.testing.assert_array_equal(read_video(turned).frames, np.rot90(upright, -1, (1, 2)))


def test_pictures_that_would_need_a_guess_are_refused(tmp_path: Path):
    frames = [Image.fromarray(f) for f in moving_block(3, 16, 32)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    clear = frames[0].convert("RGBA")
    clear.save(tmp_path / "opaque.png")
    clear.putpixel((0, 0), (1, 2, 3, 0))
    clear.save(tmp_path / "clear.png")
    frames[0].convert("CMYK").save(tmp_path / "ink.jpg")
    for name, reason in (
        ("moving.webp", "animation of 3"),
        ("moving.png", "animation of 3"),
        ("moving.gif", "not a pic"),
        ("clear.png", "transparent"),
        ("ink.jpg", "CMYK"),
    ):
        with pytest.raises(MediaError, match=reason):
            read_image(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), np.asarray(frames[0]))


def test_a_png_bomb_is_refused_from_its_header(monkeypatch):
    bomb = png(30_000, 30_000)
    with pytest.raises(MediaError, match="30000x30000"):
        read_image(bomb)
    monkeypatch.setattr(decode.Image, "open", lambda *_, **__: pytest.fail("the picture was opened"))
    with pytest.raises(MediaError, match="30000x30000"):
        read_image(bomb, trusted=True)


@pytest.mark.parametrize(
    ("limits", "read", "reason"),
    [
        (Limits(image_side=64), Limits(image_side=63), "64x48"),
        (Limits(image_pixels=48 * 64), Limits(image_pixels=48 * 64 - 1), "64x48"),
    ],
)
def test_picture_limits_hold_at_the_limit_and_not_one_beyond(samples: Path, limits: Limits, read: Limits, reason: str):
    for name in ("picture.png", "picture.jpg", "picture.webp"):
        assert read_image(samples / name, limits=limits, trusted=True).shape == (48, 64, 3)
        with pytest.raises(MediaError, match=reason):
            read_image(samples / name, limits=read, trusted=True)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"video_side": 64}, {"video_side": 63}),
        ({"video_frames": 12}, {"video_frames": 11}),
        ({"video_s": 0.51}, {"video_s": 0.45}),
        ({"decoded_bytes": 12 * 48 * 64 * 3}, {"decoded_bytes": 12 * 48 * 64 * 3 - 1}),
    ],
)
def test_video_limits_hold_at_the_limit_and_not_one_beyond(samples: Path, good: dict, bad: dict):
    for name in ("film.mov", "film.webm"):  # a webm states neither frames nor, here, their bytes
        assert len(read_video(samples / name, limits=replace(LIMITS, **good)).frames) == 12
        with pytest.raises(MediaError, match=r"64x48|more than|lasts"):
            read_video(samples / name, limits=replace(LIMITS, **bad))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"sound_s": 0.25}, {"sound_s": 0.2499}),
        ({"sound_rate_hz": 48_000}, {"sound_rate_hz": 47_999}),
        ({"sound_channels": 2}, {"sound_channels": 1}),
        ({"decoded_bytes": 96_000}, {"decoded_bytes": 95_999}),
    ],
)
def test_sound_limits_hold_at_the_limit_and_not_one_beyond(samples: Path, good: dict, bad: dict):
    for name in ("sound.wav", "sound.flac"):
        assert len(read_sound(samples / name, limits=replace(LIMITS, **good), trusted=True).samples) == 12_000
        with pytest.raises(MediaError, match=r"channels|lasts|decodes"):
            read_sound(samples / name, limits=replace(LIMITS, **bad), trusted=True)


def test_file_size_limit(samples: Path):
    size = (samples / "picture.png").stat().st_size
    read_image(samples / "picture.png", limits=Limits(file_bytes=size))
    with pytest.raises(MediaError, match=f"{size} bytes"):
        read_image(samples / "picture.png", limits=Limits(file_bytes=size - 1))


def test_resampling_cannot_multiply_frames_beyond_the_limit(samples: Path):
    with pytest.raises(MediaError, match="decodes to more"):
        read_video(samples / "film.mp4", fps=1000, limits=replace(LIMITS, decoded_bytes=2**20))


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path):
    encode(tmp_path / "bomb.mp4", "mp4", "libx264", np.zeros((8, 2048, 2048, 3), np.uint8))
    with pytest.raises(MediaError, match="decodes to more than"):
        read_video(tmp_path / "bomb.mp4", fps=1000)
    # Too little memory for the decoder itself: it fails there, and this process goes on.
    with pytest.raises(MediaError, match=r"memory|damaged"):
        read_video(tmp_path / "bomb.mp4", limits=replace(LIMITS, memory_bytes=100 * 2**20))
    assert read_video(tmp_path / "bomb.mp4", stop=1).frames.shape == (1, 2048, 2048, 3)


@pytest.mark.parametrize(
    ("container", "codec"), [("mov", "jpeg2000"), ("webm", "libvpx"), ("mp4", "mpeg4"), ("matroska", "ffv1")]
)
def test_codecs_outside_the_list_are_refused_by_name(tmp_path: Path, container: str, codec: str):
    encode(tmp_path / "film", container, codec, moving_block(3, 48, 64))
    with pytest.raises(MediaError, match=r"its video codec is (jpeg2000|vp8|mpeg4|ffv1)"):
        read_video(tmp_path / "film")


def test_sound_codecs_outside_the_list_are_refused_by_name(tmp_path: Path):
    encode_sound(tmp_path / "sound.mkv", "matroska", "ac3", tone(9_000, 48_000, 2))
    with pytest.raises(MediaError, match="its sound codec is ac3"):
        read_sound(tmp_path / "sound.mkv")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile secret.mp4\n",
        b"GIF89a",
        b"\0" * 64,
        b"%PDF",
    ],
    ids=["empty", "playlist", "concat", "gif", "zeros", "pdf"],
)
def test_other_formats_are_refused_before_a_decoder_sees_them(content: bytes):
    for read in (read_image, read_video, read_sound):
        with pytest.raises(MediaError, match="not a"):
            read(content)


def test_what_is_not_a_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    reasons = {"missing.mp4": "no such file", ".": "folder", "pipe": "regular", "a\0b": "cannot be opened"}
    for path, reason in reasons.items():
        with pytest.raises(MediaError, match=reason):
            read_video(f"{tmp_path}/{path}")


def test_ranges_and_rates_that_mean_nothing_are_refused(samples: Path):
    film = samples / "film.mp4"
    for ask in ({"start": -1}, {"start": 3, "stop": 3}, {"stop": 13}, {"start": 12}, {"fps": 0.0}, {"fps": 1001.0}):
        with pytest.raises(MediaError):
            read_video(film, **ask)
    with pytest.raises(MediaError, match="frame rate of nan"):
        read_video(film, fps=float("nan"))
    with pytest.raises(MediaError, match="must be at least one and rise"):
        read_video_at(film, [0.2, 0.1], tolerance_s=0.01)
    with pytest.raises(MediaError, match="cannot be read at 0 Hz"):
        read_sound(samples / "sound.wav", rate=0)
    assert media.as_rate(30000 / 1001) == Fraction(30000, 1001)


def test_a_video_cut_short_is_refused(tmp_path: Path):
    write_video(tmp_path / "film.mp4", moving_block(60, 48, 160), 24)
    whole = (tmp_path / "film.mp4").read_bytes()  # its index comes first
    for share in (0.5, 0.7, 0.9, 0.99):
        with pytest.raises(MediaError):
            read_video(whole[: int(len(whole) * share)])


def test_messages_are_ours_and_one_line(samples: Path):
    broken = bytearray((samples / "film.mp4").read_bytes())
    broken[60:90] = bytes(30)
    with pytest.raises(MediaError) as caught:
        read_video(bytes(broken))
    text = str(caught.value)
    assert "\n" not in text
    assert "Errno" not in text
    assert "0x" not in text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_an_error_or_a_valid_result(samples: Path, seed: int):
    """55 seeded mutations a seed: bytes flipped, blocks zeroed, files cut, pieces moved; every fifth confined."""
    rng = random.Random(seed)
    names = [f"picture.{s}" for s in ("png", "jpg", "webp")] + list(VIDEOS) + list(SOUNDS)
    refused = 0
    for case in range(55):
        name = names[case % len(names)]
        content = bytearray((samples / name).read_bytes())
        for _ in range(rng.choice((1, 4, 30))):
            at, size = rng.randrange(len(content)), rng.randrange(1, 64)
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    content[at : at + size] = bytes(min(size, len(content) - at))
                case 2:
                    content[at : at + 4] = rng.randbytes(min(4, len(content) - at))
                case _:
                    content[at : at + size] = content[: min(size, len(content) - at)]
        if rng.random() < 0.2:
            del content[rng.randrange(16, len(content)) :]
        read = {"picture": read_image, "film": read_video, "sound": read_sound}[name.split(".")[0]]
        try:
            result = read(bytes(content), trusted=case % 5 != 0)
        except MediaError:
            refused += 1
        else:
            assert (
                np.size(result) if read is read_image else len(result.frames if read is read_video else result.samples)
            )
    assert refused > 10


def test_a_decoder_that_dies_costs_one_file_only(samples: Path, monkeypatch: pytest.MonkeyPatch):
    assert read_image(samples / "picture.png").shape == (48, 64, 3)
    with pytest.raises(MediaError, match="stopped the decoder"):
        read_video(samples / "film.mp4", limits=replace(LIMITS, cpu_s=0))
    server = child.decoder()
    assert read_image(samples / "picture.png").shape == (48, 64, 3)
    assert child.decoder() is server
    server.process.kill()
    server.process.wait()
    assert read_image(samples / "picture.png").shape == (48, 64, 3)
    assert child.decoder() is not server


def test_the_kernel_holds_the_decoding_process_to_its_limits(tmp_path: Path):
    code = f"""
import time
from orrery.data.child import confine
from orrery.data.limits import Limits
confine(Limits(memory_bytes=2**30, decoded_bytes=1000, wall_s=1))
try:
    bytearray(2**31)
except MemoryError:
    print("memory", flush=True)
try:
    open({str(tmp_path / "out")!r}, "wb", buffering=0).write(bytes(1000))
    open({str(tmp_path / "out")!r}, "ab", buffering=0).write(b"x")
except OSError:
    print("output", flush=True)
time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGALRM
    assert ended.stdout.split() == ["memory", "output"]
    assert (tmp_path / "out").stat().st_size == 1000


def test_the_decoding_process_loads_no_torch_and_no_secrets(monkeypatch: pytest.MonkeyPatch):
    code = "import sys, orrery.data.child; print({'torch', 'jaxtyping', 'einops'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
    monkeypatch.setenv("SOME_TOKEN", "secret")
    server = child.Decoder()
    environment = Path(f"/proc/{server.process.pid}/environ")
    if environment.exists():
        assert b"SOME_TOKEN" not in environment.read_bytes()
    server.close()
    assert server.process.returncode in (0, -signal.SIGTERM)


def test_real_recordings(real: Path):
    assert read_video(real / "umi" / "clip.mp4").frames.shape == (33, 256, 256, 3)
    assert read_video(real / "av" / "av_0.mp4", start=58).frames.shape == (3, 480, 832, 3)
    first = read_image(real / "umi" / "first.png").astype(int)
    assert np.abs(first - read_video(real / "umi" / "clip.mp4", stop=1).frames[0]).mean() < 3
    assert read_image(real / "av" / "av_0.jpg").shape == (480, 832, 3)
