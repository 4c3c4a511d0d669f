from pathlib import Path

import numpy as np
import pytest
from makers.small_media import encode, encode_sound, moving_block, tone
from PIL import Image

from orrery.data.write_media import write_video, write_wav

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "real"


@pytest.fixture(scope="session")
def real() -> Path:
    """Real recordings that are not part of the repository."""
    if not REAL.is_dir():
        pytest.skip("real recordings are not on this machine")
    return REAL


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file of every kind that is read: film.* 12 frames of 48x64 at 24 per second, picture.*, sound.*."""
    folder = tmp_path_factory.mktemp("samples")
    film = moving_block(12, 48, 64)
    write_video(folder / "film.mp4", film, 24, sound=tone(24_000, 48_000, 2), metadata={"made-by": "test"})
    encode(folder / "film.mov", "mov", "libx264", film)
    encode(folder / "film.hevc.mp4", "mp4", "libx265", film)
    encode(folder / "film.av1.mp4", "mp4", "libsvtav1", np.repeat(np.repeat(film, 2, 1), 2, 2))
    encode(folder / "film.webm", "webm", "libvpx-vp9", film)
    encode(folder / "film.mkv", "matroska", "libx264", film)
    for suffix in ("png", "jpg", "webp"):
        Image.fromarray(film[0]).save(folder / f"picture.{suffix}", quality=90)
    sound = tone(12_000, 48_000, 2)
    write_wav(folder / "sound.wav", sound)
    for suffix, container, codec in (
        ("pcm.wav", "wav", "pcm_s16le"),
        ("flac", "flac", "flac"),
        ("mp3", "mp3", "libmp3lame"),
        ("aac", "adts", "aac"),
        ("m4a", "mp4", "aac"),
        ("opus", "ogg", "libopus"),
        ("webm", "webm", "libopus"),
    ):
        encode_sound(folder / f"sound.{suffix}", container, codec, sound)
    return folder
