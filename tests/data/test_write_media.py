from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from makers.small_media import moving_block, tone
from PIL import Image

from orrery.data.media import Sound, probe_video, read_image, read_sound, read_video
from orrery.data.write_media import encode_video, write_flac, write_png, write_video, write_wav
from orrery.errors import MediaError

MARK = {"synthetic": "true", "digital-source-type": "trainedAlgorithmicMedia", "note": "é 日本"}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", moving_block(9, 48, 64), 24, sound=tone(18_000, 44_100, 2), metadata=MARK)
        write_png(tmp_path / f"{name}.png", moving_block(1, 48, 64)[0], metadata=MARK)
        write_wav(tmp_path / f"{name}.wav", tone(1_000, 48_000, 2), metadata=MARK)
    for suffix in ("mp4", "png", "wav"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".mp4", ".mp4", ".png", ".png", ".wav", ".wav"]


@pytest.mark.parametrize("fps", [10, 24, 30, 12.5, Fraction(30000, 1001), 29.97])
def test_frame_count_and_rate_are_exact(tmp_path: Path, fps: Fraction | float | int):
    for count in (1, 2, 17):
        write_video(tmp_path / "film.mp4", moving_block(count, 32, 48), fps)
        video = read_video(tmp_path / "film.mp4", trusted=True)
        assert len(video.frames) == count
        assert video.fps == Fraction(fps).limit_denominator(1001)
    assert read_video(tmp_path / "film.mp4", fps=fps, trusted=True).frames.shape == (17, 32, 48, 3)


def test_saturated_colours_survive_the_conversion(tmp_path: Path):
    bars = np.zeros((3, 32, 96, 3), np.uint8)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)]
    for i, colour in enumerate(colours):
        bars[:, :, 16 * i : 16 * i + 16] = colour
    write_video(tmp_path / "bars.mp4", bars, 10)
    shown = read_video(tmp_path / "bars.mp4").frames[1, 16, 8::16].astype(int)
    assert np.abs(shown - np.array(colours)).max() <= 3


def test_the_mark_is_found_again(tmp_path: Path):
    write_video(tmp_path / "a.mp4", moving_block(2, 32, 48), 10, metadata=MARK)
    assert MARK.items() <= probe_video(tmp_path / "a.mp4").metadata.items()
    write_png(tmp_path / "a.png", moving_block(1, 32, 48)[0], metadata=MARK)
    with Image.open(tmp_path / "a.png") as image:
        assert MARK.items() <= image.info.items()
    write_wav(tmp_path / "a.wav", tone(10, 8_000, 1), metadata=MARK)
    assert "trainedAlgorithmicMedia" in (tmp_path / "a.wav").read_bytes().decode("latin-1")


def test_the_index_comes_before_the_pictures(tmp_path: Path):
    write_video(tmp_path / "a.mp4", moving_block(2, 32, 48), 10)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_png_and_wav_are_exact(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    samples = np.random.default_rng(0).uniform(-1, 1, (777, 3)).astype(np.float32)
    write_wav(tmp_path / "a.wav", Sound(samples=samples, rate=22_050), metadata={"odd": "x"})
    back = read_sound(tmp_path / "a.wav")
    assert back.rate == 22_050
    np.testing.assert_array_equal(back.samples, samples)


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (48_000, 1), (16_000, 1)])
def test_sound_beside_pictures_stays_in_time(tmp_path: Path, rate: int, channels: int):
    noise = np.random.default_rng(0).standard_normal(rate)
    quiet = np.convolve(noise, np.ones(40) / 40, "same").astype(np.float32) * 0.3
    sound = Sound(samples=np.repeat(quiet[:, None], channels, 1), rate=rate)
    write_video(tmp_path / "a.mp4", moving_block(24, 32, 48), 24, sound=sound)
    back = read_sound(tmp_path / "a.mp4", rate=rate)
    assert back.samples.shape[1] == channels
    assert 0 <= len(back.samples) - rate <= 1024
    middle = slice(2_000, rate - 2_000)
    assert np.abs(back.samples[middle, 0] - quiet[middle]).max() < 0.03


@pytest.mark.parametrize(
    ("shape", "fps", "reason"),
    [
        ((2, 33, 48, 3), 10, "even sides"),
        ((2, 32, 47, 3), 10, "even sides"),
        ((0, 32, 48, 3), 10, "no frames"),
        ((2, 0, 0, 3), 10, "even sides"),
        ((2, 32, 48, 3), 0, "frame rate of 0"),
        ((2, 32, 48, 3), float("nan"), "frame rate of nan"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path, shape, fps, reason: str):
    with pytest.raises(MediaError, match=reason):
        write_video(tmp_path / "a.mp4", np.zeros(shape, np.uint8), fps)
    assert not list(tmp_path.iterdir())


def test_a_failure_midway_leaves_the_previous_file(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"previous")

    def frames():
        yield np.zeros((32, 48, 3), np.uint8)
        yield np.zeros((32, 64, 3), np.uint8)

    with pytest.raises(MediaError, match="frame 1 is uint8"):
        encode_video(
            tmp_path / "a.mp4", frames(), 10, size=(32, 48), sound=None, metadata={}, quality=18, keyframe_every=2
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"previous"


def test_sounds_that_cannot_be_written_are_refused(tmp_path: Path):
    for samples, reason in (
        (np.full((4, 1), np.nan, np.float32), "NaN"),
        (np.zeros((0, 1), np.float32), "0 samples"),
        (np.zeros((4, 9), np.float32), "9 channels"),
    ):
        with pytest.raises(MediaError, match=reason):
            write_wav(tmp_path / "a.wav", Sound(samples=samples, rate=48_000))
    with pytest.raises(MediaError, match="3 channels"):
        write_video(
            tmp_path / "a.mp4",
            moving_block(2, 32, 48),
            10,
            sound=Sound(samples=np.zeros((9, 3), np.float32), rate=8000),
        )
    with pytest.raises(MediaError, match="quality 52"):
        write_video(tmp_path / "a.mp4", moving_block(2, 32, 48), 10, quality=52)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("rate", "channels", "count"), [(48_000, 2, 20_001), (16_000, 1, 5), (96_000, 1, 4_608)])
def test_flac_comes_back_within_half_a_step_of_16_bits(tmp_path: Path, rate: int, channels: int, count: int):
    samples = np.random.default_rng(0).uniform(-1, 1 - 2**-15, (count, channels)).astype(np.float32)
    samples[:2] = [[-1.0], [2**-16]][: len(samples)]
    write_flac(tmp_path / "a.flac", Sound(samples=samples, rate=rate))
    for trusted in (True, False):
        back = read_sound(tmp_path / "a.flac", trusted=trusted)
        assert back.rate == rate
        assert back.samples.shape == samples.shape
        assert np.abs(back.samples - samples).max() <= 2**-16
    write_flac(tmp_path / "b.flac", back)
    np.testing.assert_array_equal(read_sound(tmp_path / "b.flac").samples, back.samples)


def test_the_loudest_sample_of_a_flac_is_one_step_below_one(tmp_path: Path):
    write_flac(tmp_path / "a.flac", Sound(samples=np.ones((9, 1), np.float32), rate=8_000))
    np.testing.assert_array_equal(read_sound(tmp_path / "a.flac").samples, np.float32(1 - 2**-15))


def test_flac_is_the_same_bytes_each_time_and_carries_the_mark(tmp_path: Path):
    for name in ("a", "b"):
        write_flac(tmp_path / f"{name}.flac", tone(30_000, 48_000, 2), metadata=MARK)
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()
    with av.open(str(tmp_path / "a.flac")) as opened:
        assert MARK.items() <= opened.metadata.items()
        assert opened.streams.audio[0].codec_context.format.name == "s16"


@pytest.mark.parametrize(
    ("samples", "rate", "reason"),
    [
        (np.full((4, 1), 1.0001, np.float32), 48_000, r"reaches 1\.0001, outside \[-1, 1\]"),
        (np.full((4, 1), -1.5, np.float32), 48_000, r"reaches 1\.5"),
        (np.full((4, 1), np.nan, np.float32), 48_000, "NaN"),
        (np.zeros((0, 1), np.float32), 48_000, "0 samples"),
        (np.zeros((4, 3), np.float32), 48_000, "3 channels"),
        (np.zeros((4, 1), np.float32), 70_001, "70001 Hz"),
    ],
)
def test_a_flac_that_cannot_be_is_refused_and_nothing_is_left(tmp_path: Path, samples, rate: int, reason: str):
    with pytest.raises(MediaError, match=reason):
        write_flac(tmp_path / "a.flac", Sound(samples=samples, rate=rate))
    assert not list(tmp_path.iterdir())
