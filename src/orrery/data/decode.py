"""Turn the bytes of one picture, video or sound into arrays, within limits. Called in the decoding process or, for
trusted files, in place; naming files, choosing the process and joining the pieces is left to `media`.

Every function reads an open file, hands its pixels or samples piece by piece to `emit` and returns facts that fit JSON.
What a decoder library says about a damaged file never reaches the caller: messages are ours.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from orrery.data.limits import Limits
from orrery.errors import MediaError

Emit = Callable[[np.ndarray], None]
Facts = dict[str, Any]

PICTURES = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
VIDEO_CONTAINERS = ("mov", "matroska")
SOUND_CONTAINERS = ("wav", "flac", "mp3", "aac", "ogg", "mov", "matroska")
VIDEO_CODECS = ("h264", "hevc", "av1", "vp9")
SOUND_CODECS = ("aac", "opus", "flac", "mp3")
# The library opens decoders while it reads the header, so the allow-list has to reach it by decoder name.
DECODERS = (
    "h264,hevc,av1,libdav1d,vp9,libvpx-vp9,aac,opus,libopus,flac,mp3,mp3float,"
    "pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,pcm_f32le,pcm_f64le,pcm_s16be,pcm_s24be,pcm_s32be"
)
STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"jp2 ", b"jpx ", b"crx ")
# Few threads: each reserves an arena of address space, and the address space of the decoding process is limited.
THREADS = 2

PICTURE_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    AttributeError, OverflowError, NotImplementedError, RuntimeError, Warning, Image.DecompressionBombError,
)  # fmt: skip
STREAM_FAULTS = (av.FFmpegError, OSError, ValueError, EOFError, OverflowError, IndexError, KeyError, RuntimeError)


def sniff(head: bytes) -> str:
    """Name the container that a file begins as: "png", "mov", "wav"...; "" for one that is not read."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"RIFF"):
        return {b"WEBP": "webp", b"WAVE": "wav"}.get(head[8:12], "")
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[4:8] == b"ftyp":
        return "" if head[8:12] in STILL_BRANDS else "mov"
    for magic, container in ((b"\x1a\x45\xdf\xa3", "matroska"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3")):
        if head.startswith(magic):
            return container
    if len(head) > 1 and head[0] == 0xFF:
        if head[1] & 0xF6 == 0xF0:
            return "aac"
        if head[1] & 0xE6 == 0xE2:
            return "mp3"
    return ""


def container_of(file: BinaryIO, allowed: Sequence[str], what: str) -> str:
    """Sniff the container of `file` and rewind it; MediaError when it is not one of `allowed`."""
    file.seek(0)
    container = sniff(file.read(16))
    file.seek(0)
    if container not in allowed:
        found = f"it begins as {container}" if container else "its first bytes name no format that is read"
        raise MediaError(f"not {what} ({found}). Formats read: {', '.join(allowed)}.")
    return container


def check_size(width: int, height: int, side: int, pixels: int, what: str) -> None:
    if width < 1 or height < 1:
        raise MediaError(f"the {what} states a size of {width}x{height}; it is damaged.")
    if max(width, height) > side or width * height > pixels:
        raise MediaError(
            f"the {what} is {width}x{height} pixels; at most {side} a side and {pixels} in all are read. Scale it down."
        )


def stated_size(head: bytes, container: str) -> tuple[int, int] | None:
    """(width, height) from the first 32 bytes of a PNG or WebP; None where they do not say. No library is asked."""
    if container == "png" and head[12:16] == b"IHDR":
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if container == "webp" and head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if container == "webp" and head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def decode_image(file: BinaryIO, limits: Limits, emit: Emit) -> Facts:
    """Read one still picture as a viewer shows it (EXIF rotation applied), uint8 (H, W, 3) RGB.

    Greyscale and palette pictures become RGB. Refused: animations, visible transparency, CMYK and other modes whose
    conversion would be a guess.
    """
    container = container_of(file, tuple(PICTURES), "a picture")
    size = stated_size(file.read(32), container)
    file.seek(0)
    if size:
        check_size(*size, limits.image_side, limits.image_pixels, "picture")
    try:
        with Image.open(file, formats=[PICTURES[container]]) as image:
            check_size(*image.size, limits.image_side, limits.image_pixels, "picture")
            if isinstance(image, PngImageFile | WebPImageFile) and image.is_animated:
                raise MediaError(f"the picture is an animation of {image.n_frames} frames. Give one still frame.")
            if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise MediaError(f"the picture has colour mode {image.mode}. Save it as 8-bit RGB.")
            transparent = image.mode in ("LA", "RGBA") or "transparency" in image.info
            upright = ImageOps.exif_transpose(image)
            if transparent and np.asarray(upright.convert("RGBA"))[..., 3].min() < 255:
                raise MediaError("the picture has transparent pixels. Flatten it onto a background first.")
            pixels = np.asarray(upright.convert("RGB"))
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError(
            f"the picture states more pixels than the {limits.image_pixels} read. Scale it down."
        ) from None
    except PICTURE_FAULTS:
        raise MediaError(f"the {container} picture is damaged and cannot be decoded. Save it again.") from None
    emit(pixels)
    return {"shape": list(pixels.shape)}


def open_container(file: BinaryIO, container: str) -> Any:
    """Open for reading through the open file alone, so that no reference inside it can name another file."""
    options = {"codec_whitelist": DECODERS}
    return av.open(file, mode="r", format=container, options=options, metadata_errors="replace")


def video_stream(opened: Any, limits: Limits) -> tuple[Any, Facts]:
    """The first video track that is not cover art, its header held against the limits, and the facts it states."""
    streams = [s for s in opened.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise MediaError("it holds no video track. Give a video.")
    stream = streams[0]
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    if codec not in VIDEO_CODECS:
        raise MediaError(f"its video codec is {codec}; codecs read: {', '.join(VIDEO_CODECS)}. Convert it to h264.")
    width, height = stream.codec_context.width, stream.codec_context.height
    check_size(width, height, limits.video_side, limits.video_side**2, "video")
    rate = stream.average_rate or stream.guessed_rate
    if not rate or not 0 < rate <= 1000:
        raise MediaError(f"it states a frame rate of {rate} per second. Convert it to a constant rate.")
    seconds = header_seconds(opened, stream)
    if seconds > limits.video_s:
        raise MediaError(f"the video lasts {seconds:.1f} s; at most {limits.video_s:g} s are read. Cut it.")
    stream.thread_type, stream.codec_context.thread_count = "AUTO", THREADS
    stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    facts = {"width": width, "height": height, "fps": [rate.numerator, rate.denominator], "codec": codec}
    return stream, {**facts, "frames": stream.frames, "seconds": seconds}


def header_seconds(opened: Any, stream: Any) -> float:
    of_track = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    return max(of_track, opened.duration / av.time_base if opened.duration else 0.0)


def decoded_frames(opened: Any, stream: Any, limits: Limits, facts: Facts) -> Iterator[tuple[float, Any]]:
    """(seconds, frame) in display order; every frame is counted and measured, whether it is used or not."""
    size, first_s, previous_s = (facts["width"], facts["height"]), None, -float("inf")
    count, packets = 0, 0
    for packet in opened.demux(stream):
        if packet.is_corrupt:
            raise MediaError(f"the video is damaged after frame {count}. Copy or convert it again.")
        packets += packet.size > 0
        for frame in packet.decode():
            if count >= limits.video_frames:
                raise MediaError(
                    f"the video has more than {limits.video_frames} frames, the most that are read. Cut it."
                )
            if (frame.width, frame.height) != size:
                raise MediaError(
                    f"frame {count} is {frame.width}x{frame.height} in a video of {size[0]}x{size[1]}. Convert it."
                )
            if frame.is_corrupt:
                raise MediaError(f"frame {count} of the video is damaged. Copy or convert it again.")
            seconds = (
                count / float(Fraction(*facts["fps"])) if frame.pts is None else float(frame.pts * frame.time_base)
            )
            first_s = seconds if first_s is None else first_s
            if seconds - first_s > limits.video_s:
                raise MediaError(f"the video lasts more than the {limits.video_s:g} s that are read. Cut it.")
            if seconds <= previous_s:
                raise MediaError(f"the time of frame {count} does not follow the one before. Convert the video again.")
            previous_s = seconds
            count += 1
            yield seconds, frame
    if packets < facts["frames"]:
        raise MediaError(f"the video ends after {packets} of the {facts['frames']} frames it states. Copy it again.")


def rgb(frame: Any) -> np.ndarray:
    """uint8 (H, W, 3), turned the way a player shows it. Untagged video is taken as BT.601, limited range."""
    # 2 and 0 are "unspecified" in ITU-T H.273; BT.601 is what the conversion library, and so every peer, assumes.
    matrix = "ITU601" if int(frame.colorspace) in (0, 2) else None
    pixels = frame.to_ndarray(format="rgb24", src_colorspace=matrix, threads=1)
    turns, rest = divmod(int(frame.rotation), 90)
    if rest:
        raise MediaError(f"the video is to be shown turned by {frame.rotation} degrees. Convert it upright.")
    return np.ascontiguousarray(np.rot90(pixels, turns))


class Room:
    """Counts what is handed back, so that decoding stops at the limit instead of filling the disk."""

    def __init__(self, limits: Limits, emit: Emit) -> None:
        self.left, self.limit, self.emit, self.pieces = limits.decoded_bytes, limits.decoded_bytes, emit, 0
        self.shape: tuple[int, ...] = ()

    def add(self, array: np.ndarray) -> None:
        self.expect(array.nbytes)
        self.left -= array.nbytes
        self.pieces += 1
        self.shape = array.shape
        self.emit(array)

    def expect(self, size: int) -> None:
        if size > self.left:
            raise MediaError(
                f"it decodes to more than the {self.limit} bytes that are read. Take a shorter or smaller part."
            )


def probe_video(file: BinaryIO, limits: Limits, emit: Emit) -> Facts:
    """Facts alone: width and height as shown, fps, frames (0: not stated), seconds, codec, sound, metadata."""
    container = container_of(file, VIDEO_CONTAINERS, "a video")
    try:
        with open_container(file, container) as opened:
            stream, facts = video_stream(opened, limits)
            _, frame = next(decoded_frames(opened, stream, limits, facts))
            height, width = rgb(frame).shape[:2]
            sound, metadata = bool(opened.streams.audio), dict(opened.metadata)
    except MediaError:
        raise
    except (*STREAM_FAULTS, StopIteration):
        raise MediaError(f"the {container} video is damaged and cannot be decoded. Copy or convert it again.") from None
    return {**facts, "width": width, "height": height, "sound": sound, "metadata": metadata}


def decode_video(
    file: BinaryIO, start: int, stop: int | None, fps: tuple[int, int] | None, limits: Limits, emit: Emit
) -> Facts:
    """Frames start..stop as stored or, with `fps`, of the video resampled to that constant rate.

    A resampled frame k is the one on show at k/fps after the first. `stop` None means to the end.
    """
    container = container_of(file, VIDEO_CONTAINERS, "a video")
    room = Room(limits, emit)
    try:
        with open_container(file, container) as opened:
            stream, facts = video_stream(opened, limits)
            known = round(facts["seconds"] * fps[0] / fps[1]) if fps else facts["frames"]
            last = known if stop is None else min(stop, known or stop)
            room.expect(max(last - start, 0) * facts["width"] * facts["height"] * 3)
            frames = decoded_frames(opened, stream, limits, facts)
            shown = resampled(frames, Fraction(*fps), Fraction(*facts["fps"]), stream.time_base) if fps else frames
            count = 0
            for count, (_, frame) in enumerate(shown, 1):
                if count > start:
                    room.add(rgb(frame))
                if count == stop:
                    break
    except MediaError:
        raise
    except STREAM_FAULTS:
        raise MediaError(f"the {container} video is damaged and cannot be decoded. Copy or convert it again.") from None
    if not room.pieces or (stop is not None and count < stop):
        raise MediaError(f"frames {start} to {'the end' if stop is None else stop} were asked for, it has {count}.")
    return {**facts, "fps": list(fps) if fps else facts["fps"], "shape": [room.pieces, *room.shape]}


def resampled(
    frames: Iterator[tuple[float, Any]], rate: Fraction, native: Fraction, tick: Fraction
) -> Iterator[tuple[float, Any]]:
    """Repeat or skip frames so that number k is the one on show k/rate seconds after the first."""
    # Stored times are rounded to whole ticks, so a frame may be up to one tick late and still be the one meant.
    slack = min(float(tick), 0.25 / float(rate), 0.25 / float(native))
    at, held, first_s, k = 0.0, None, 0.0, 0
    for seconds, frame in frames:
        if held is None:
            first_s = seconds
        while held is not None and first_s + k / float(rate) < seconds - slack:
            yield at, held
            k += 1
        at, held = seconds, frame
    while held is not None and first_s + k / float(rate) < at + 1 / float(native) - slack:
        yield at, held
        k += 1


def decode_video_at(file: BinaryIO, times: Sequence[float], tolerance_s: float, limits: Limits, emit: Emit) -> Facts:
    """The frame nearest to each of the rising `times` (seconds), none further off than `tolerance_s`."""
    container = container_of(file, VIDEO_CONTAINERS, "a video")
    room = Room(limits, emit)
    try:
        with open_container(file, container) as opened:
            stream, facts = video_stream(opened, limits)
            room.expect(len(times) * facts["width"] * facts["height"] * 3)
            opened.seek(max(0, round(times[0] / stream.time_base)), stream=stream)
            # After a seek fewer packets are seen than the header counts.
            frames = decoded_frames(opened, stream, limits, {**facts, "frames": 0})
            before: tuple[float, Any] | None = None
            after: tuple[float, Any] | None = next(frames, None)
            for time in times:
                while after is not None and after[0] < time:
                    before, after = after, next(frames, None)
                near = min((f for f in (before, after) if f is not None), key=lambda f: abs(f[0] - time), default=None)
                if near is None or abs(near[0] - time) > tolerance_s:
                    found = "it is empty" if near is None else f"the nearest frame is at {near[0]:.4f} s"
                    raise MediaError(f"no frame within {tolerance_s:.4f} s of {time:.4f} s; {found}.")
                room.add(rgb(near[1]))
    except MediaError:
        raise
    except STREAM_FAULTS:
        raise MediaError(f"the {container} video is damaged and cannot be decoded. Copy or convert it again.") from None
    return {**facts, "shape": [room.pieces, *room.shape]}


def decode_sound(file: BinaryIO, rate_hz: int | None, limits: Limits, emit: Emit) -> Facts:
    """The first sound track, float32 (N, channels), resampled when `rate_hz` differs from its own rate."""
    container = container_of(file, SOUND_CONTAINERS, "a sound or a video with sound")
    room, samples = Room(limits, emit), 0
    try:
        with open_container(file, container) as opened:
            stream, facts = sound_stream(opened, limits)
            rate = rate_hz or facts["rate"]
            resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
            for packet in opened.demux(stream):
                if packet.is_corrupt:
                    raise MediaError(f"the sound is damaged after {samples / rate:.2f} s. Copy or convert it again.")
                pieces = [r for frame in packet.decode() for r in resampler.resample(checked_sound(frame, facts))]
                for piece in pieces if packet.size else [*pieces, *resampler.resample(None)]:
                    block = np.ascontiguousarray(piece.to_ndarray().T, dtype=np.float32)
                    samples += len(block)
                    if samples > limits.sound_s * rate:
                        raise MediaError(f"the sound lasts more than the {limits.sound_s:g} s that are read. Cut it.")
                    if not np.isfinite(block).all():
                        raise MediaError(
                            f"the sound holds NaN or infinity near {samples / rate:.2f} s. Write it again."
                        )
                    room.add(block)
    except MediaError:
        raise
    except STREAM_FAULTS:
        raise MediaError(f"the {container} sound is damaged and cannot be decoded. Copy or convert it again.") from None
    if not samples:
        raise MediaError("the sound track is empty. Give one with at least one sample.")
    return {"shape": [samples, facts["channels"]], "rate": rate}


def sound_stream(opened: Any, limits: Limits) -> tuple[Any, Facts]:
    """The first sound track, its header held against the limits."""
    if not opened.streams.audio:
        raise MediaError("it holds no sound track. Give a sound, or a video with sound.")
    stream = opened.streams.audio[0]
    codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    if codec not in SOUND_CODECS and not codec.startswith("pcm_"):
        raise MediaError(f"its sound codec is {codec}; codecs read: {', '.join(SOUND_CODECS)}, pcm. Convert it to wav.")
    rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
    if not 0 < rate <= limits.sound_rate_hz or not 0 < channels <= limits.sound_channels:
        raise MediaError(
            f"the sound has {channels} channels at {rate} Hz; at most {limits.sound_channels} at "
            f"{limits.sound_rate_hz} Hz are read. Convert it."
        )
    seconds = header_seconds(opened, stream)
    if seconds > limits.sound_s:
        raise MediaError(f"the sound lasts {seconds:.1f} s; at most {limits.sound_s:g} s are read. Cut it.")
    return stream, {"rate": rate, "channels": channels}


def checked_sound(frame: Any, facts: Facts) -> Any:
    if frame.sample_rate != facts["rate"] or len(frame.layout.channels) != facts["channels"]:
        raise MediaError("the sound changes its rate or channels midway. Convert it.")
    return frame
