"""Cutting pictures as the released processors do, and the room and positions they have in a prompt."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.errors import MediaError, RequestError
from orrery.tokenizers.eyes import (
    EDGE_EYES,
    IMAGE_PAD,
    PICO_EYES,
    QWEN_EYES,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    Look,
    Span,
    expand,
    look_at_image,
    look_at_video,
    patchify,
    reason_positions,
    sample_frames,
    still_size,
    video_size,
    visual_spans,
)

SMALL_AREA = (64 * 64, 192 * 192)
SIZES = [(40, 70), (33, 251), (200, 190), (96, 128), (9, 300)]
TEXT, IMAGE, VIDEO = 1, 2, 3


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def look(kind, rows, cols, seconds=()):
    frames = max(len(seconds), 1)
    patches = torch.zeros(frames * rows * cols * 4, 1)
    return Look(kind=kind, patches=patches, grid=(frames, 2 * rows, 2 * cols), merge=2, seconds=seconds)


@pytest.mark.oracle
@pytest.mark.parametrize("eyes", [QWEN_EYES, EDGE_EYES], ids=["qwen", "edge"])
def test_stills_agree_with_transformers(eyes):
    if eyes is QWEN_EYES:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil as Processor
    else:
        from transformers.models.cosmos3_edge.image_processing_pil_cosmos3_edge import (
            Cosmos3EdgeImageProcessorPil as Processor,
        )
    processor = Processor(
        size={"shortest_edge": SMALL_AREA[0], "longest_edge": SMALL_AREA[1]},
        patch_size=eyes.patch,
        temporal_patch_size=eyes.temporal_patch,
        merge_size=eyes.merge,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    pictures = [picture(*size) for size in SIZES]
    expected = processor(images=pictures, return_tensors="np")
    looks = [look_at_image(one, replace(eyes, image_area=SMALL_AREA)) for one in pictures]
    assert [list(one.grid) for one in looks] == expected["image_grid_thw"].tolist()
    found = torch.cat([one.patches for one in looks])
    torch.testing.assert_close(found, torch.from_numpy(expected["pixel_values"]), rtol=0, atol=1e-6)


@pytest.mark.oracle
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 900), st.integers(1, 6000), st.integers(1, 6000))
def test_sizes_agree_with_transformers(frames, height, width):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as stills
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as videos

    def result(function, *arguments, **named):
        try:
            return function(*arguments, **named)
        except ValueError:
            return "refused"

    least, most = QWEN_EYES.image_area
    limits = {"factor": 32, "min_pixels": least, "max_pixels": most}
    assert result(still_size, height, width, QWEN_EYES) == result(stills, height, width, **limits)
    assert result(still_size, height, width, EDGE_EYES) == result(videos, 1, height, width, temporal_factor=1, **limits)
    for eyes in (QWEN_EYES, EDGE_EYES):
        least, most = eyes.video_area
        limits = {"factor": 32, "min_pixels": least, "max_pixels": most}
        shown = max(frames, eyes.temporal_patch)
        expected = result(videos, shown, height, width, temporal_factor=eyes.temporal_patch, **limits)
        assert result(video_size, frames, height, width, eyes) == expected


@pytest.mark.parametrize("eyes", [QWEN_EYES, EDGE_EYES], ids=["qwen", "edge"])
def test_every_value_of_a_patch_is_where_the_order_says(eyes):
    frames = np.stack([picture(64, 96, seed) for seed in range(4)])
    patches, grid = patchify(frames, eyes)
    assert grid == (4 // eyes.temporal_patch, 4, 6)
    rng = np.random.default_rng(1)
    for t, y, x, c in zip(*(rng.integers(0, size, 50) for size in frames.shape), strict=True):
        frame, row, col = t // eyes.temporal_patch, y // 16, x // 16
        block = (row // 2) * 3 + col // 2
        index = frame * 24 + block * 4 + (row % 2) * 2 + col % 2
        place = {"c": (c, 3), "t": (t % eyes.temporal_patch, eyes.temporal_patch), "y": (y % 16, 16), "x": (x % 16, 16)}
        value = np.ravel_multi_index(*zip(*(place[name] for name in eyes.value_order.split()), strict=True))
        assert patches[index, value].item() == pytest.approx(frames[t, y, x, c] / 127.5 - 1, abs=1e-6)


def test_a_video_of_equal_frames_is_the_still_again_and_again():
    still = picture(64, 96)
    eyes = replace(QWEN_EYES, image_area=SMALL_AREA)
    once = look_at_image(still, eyes)
    video = look_at_video(np.stack([still] * 5), [0.0, 0.5, 1.0, 1.5, 2.0], eyes)
    assert video.grid == (3, 4, 6)
    assert torch.equal(video.patches, once.patches.repeat(3, 1))
    assert video.seconds == (0.25, 1.25, 2.0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20000), st.floats(1, 120), st.floats(0.1, 10))
def test_sampled_frames_run_evenly_from_first_to_last(total, source_fps, fps):
    for eyes in (QWEN_EYES, EDGE_EYES):
        indices = sample_frames(total, source_fps, eyes, fps)
        assert len(indices) <= min(total, 768)
        assert len(indices) % eyes.temporal_patch == 0 or total == 1
        assert len(indices) >= min(total // eyes.temporal_patch * eyes.temporal_patch, 4)
        assert indices[0] == 0
        assert indices[-1] == (total - 1 if len(indices) > 1 else 0)
        gaps = np.diff(indices)
        assert (gaps >= 1).all()
        assert np.ptp(gaps) <= 1 if len(gaps) else True
        wanted = int(total / source_fps * fps)
        if 4 <= wanted <= min(768, total):
            assert 0 <= wanted - len(indices) < eyes.temporal_patch


@pytest.mark.oracle
@pytest.mark.parametrize(("total", "source_fps"), [(48, 24.0), (189, 24.0), (7, 30.0), (900, 29.97), (30000, 25.0)])
def test_sampled_frames_agree_with_transformers(total, source_fps):
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    processor = SimpleNamespace(fps=2, min_frames=4, max_frames=768)
    metadata = SimpleNamespace(total_num_frames=total, fps=source_fps)
    expected = Qwen3VLVideoProcessor.sample_frames(processor, metadata).tolist()
    assert sample_frames(total, source_fps, EDGE_EYES) == expected
    if len(expected) % 2 == 0:
        assert sample_frames(total, source_fps, QWEN_EYES) == expected


def test_placeholders_become_room_for_every_feature():
    prompt = f"see {VISION_START}{IMAGE_PAD}{VISION_END} and {VISION_START}{VIDEO_PAD}{VISION_END}."
    expanded = expand(prompt, [look("image", 1, 3), look("video", 2, 1, (0.25, 1.25))])
    frame = f"{VISION_START}{VIDEO_PAD * 2}{VISION_END}"
    assert expanded == (f"see {VISION_START}{IMAGE_PAD * 3}{VISION_END} and <0.2 seconds>{frame}<1.2 seconds>{frame}.")


@pytest.mark.oracle
@pytest.mark.parametrize(("eyes", "count"), [(QWEN_EYES, 7), (QWEN_EYES, 6), (EDGE_EYES, 5)])
def test_the_room_of_a_video_agrees_with_transformers(eyes, count):
    if eyes is QWEN_EYES:
        from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor as Processor
    else:
        from transformers.models.cosmos3_edge.processing_cosmos3_edge import Cosmos3EdgeProcessor as Processor
    indices, source_fps = [0, 13, 25, 38, 50, 63, 76][:count], 24.0
    frames = np.stack([picture(64, 96)] * count)
    video = look_at_video(frames, [index / source_fps for index in indices], replace(eyes, video_area=(4096, 10**6)))
    processor = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=eyes.merge, temporal_patch_size=eyes.temporal_patch),
        vision_start_token=VISION_START,
        vision_end_token=VISION_END,
        video_token=VIDEO_PAD,
    )
    processor._calculate_timestamps = lambda *values, **named: (
        Processor._calculate_timestamps(processor, *values, **named)
        if eyes is QWEN_EYES
        else Processor._calculate_timestamps(*values, **named)
    )
    metadata = SimpleNamespace(frames_indices=indices.copy(), fps=source_fps)
    inputs = {"video_grid_thw": torch.tensor([video.grid]), "video_metadata": [metadata]}
    assert expand(VIDEO_PAD, [video]) == Processor.replace_video_token(processor, inputs, 0)


@pytest.mark.parametrize(
    ("prompt", "looks"),
    [
        (f"{IMAGE_PAD}", []),
        ("nothing", [look("image", 1, 1)]),
        (f"{IMAGE_PAD}{IMAGE_PAD}", [look("image", 1, 1)]),
        (f"{VIDEO_PAD}", [look("image", 1, 1)]),
    ],
)
def test_placeholders_that_are_not_those_of_the_pictures_are_refused(prompt, looks):
    with pytest.raises(RequestError, match="The prompt has places for"):
        expand(prompt, looks)


def test_spans_are_found_in_order():
    ids = [TEXT, IMAGE, IMAGE, TEXT, TEXT, VIDEO, VIDEO, TEXT, VIDEO, VIDEO, TEXT]
    looks = [look("image", 1, 2), look("video", 2, 1, (0.0, 1.0))]
    spans = visual_spans(ids, looks, image_id=IMAGE, video_id=VIDEO)
    assert spans == [Span(start=1, rows=1, cols=2), Span(start=5, rows=2, cols=1), Span(start=8, rows=2, cols=1)]


@pytest.mark.parametrize(
    ("ids", "looks", "message"),
    [
        ([TEXT, IMAGE, TEXT], [look("image", 1, 2)], "No run of 2 pads"),
        ([TEXT, VIDEO, VIDEO], [look("image", 1, 2)], "No run of 2 pads"),
        ([TEXT, VIDEO, VIDEO], [look("image", 2, 2)], "No run of 4 pads"),
        ([IMAGE, IMAGE, IMAGE], [look("image", 1, 2)], "1 more visual pads"),
        ([TEXT], [look("image", 1, 1)], "No run of 1 pads"),
    ],
)
def test_pads_that_are_not_those_of_the_pictures_are_refused(ids, looks, message):
    with pytest.raises(RequestError, match=message):
        visual_spans(ids, looks, image_id=IMAGE, video_id=VIDEO)


@pytest.mark.oracle
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 5), st.integers(1, 5)), max_size=4))
def test_positions_agree_with_transformers(items):
    """Each item: text before it, frames (0: a still), rows and columns of features."""
    from transformers.models.cosmos3_omni.modeling_cosmos3_omni import Cosmos3OmniModel

    ids, kinds, looks = [], [], []
    for text, frames, rows, cols in items:
        ids += [TEXT] * text
        looks.append(look("video" if frames else "image", rows, cols, (0.0,) * frames))
        for _ in range(max(frames, 1)):
            ids += [TEXT, *[VIDEO if frames else IMAGE] * (rows * cols), TEXT]
    ids += [TEXT]
    kinds = [{TEXT: 0, IMAGE: 1, VIDEO: 2}[token] for token in ids]
    grids = {kind: [one.grid for one in looks if one.kind == kind] for kind in ("image", "video")}
    model = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    model.get_vision_position_ids = lambda *args, **named: Cosmos3OmniModel.get_vision_position_ids(
        model, *args, **named
    )
    expected, delta = Cosmos3OmniModel.get_rope_index(
        model,
        torch.tensor([ids]),
        torch.tensor([kinds]),
        image_grid_thw=torch.tensor(grids["image"]) if grids["image"] else None,
        video_grid_thw=torch.tensor(grids["video"]) if grids["video"] else None,
    )
    spans = visual_spans(ids, looks, image_id=IMAGE, video_id=VIDEO)
    positions, following = reason_positions(len(ids), spans)
    assert torch.equal(positions, expected[:, 0].float())
    assert following - len(ids) == delta.item()


def test_text_alone_counts_up():
    positions, following = reason_positions(5, [])
    assert torch.equal(positions, torch.arange(5.0).expand(3, 5))
    assert following == 5


@pytest.mark.parametrize(
    "see",
    [
        lambda: look_at_image(picture(1, 201), QWEN_EYES),
        lambda: look_at_image(np.zeros((0, 4, 3), dtype=np.uint8), EDGE_EYES),
        lambda: look_at_video(np.zeros((0, 32, 32, 3), dtype=np.uint8), [], QWEN_EYES),
        lambda: look_at_video(np.zeros((2, 32, 32, 3), dtype=np.uint8), [0.0], QWEN_EYES),
        lambda: sample_frames(0, 24.0, QWEN_EYES),
        lambda: sample_frames(10, 0.0, QWEN_EYES),
        lambda: sample_frames(10, 24.0, QWEN_EYES, float("nan")),
        lambda: sample_frames(10, 24.0, QWEN_EYES, float("inf")),
    ],
)
def test_nothing_to_see_is_refused(see):
    with pytest.raises(MediaError):
        see()


@pytest.mark.parametrize("side", [40, 64, 128, 200, 256])
def test_square_stills_have_64_features_for_pico(side):
    still = look_at_image(picture(side, side), PICO_EYES)
    assert (still.grid, still.features) == ((1, 16, 16), (8, 8))
    assert still.patches.shape == (256, 3 * 2 * 8 * 8)


def test_a_still_of_pico_s_own_size_is_not_resampled():
    pixels = picture(128, 128)
    corner = look_at_image(pixels, PICO_EYES).patches[0].reshape(3, 2, 8, 8)
    expected = torch.from_numpy(pixels[:8, :8].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
    assert torch.allclose(corner, expected[:, None].expand(-1, 2, -1, -1), atol=1e-6)


@pytest.mark.parametrize("frames", [1, 3, 8, 17, 97])
def test_videos_have_eight_frames_for_pico(frames):
    chosen = sample_frames(frames, 20.0, PICO_EYES)
    assert (len(chosen), chosen[0], chosen[-1]) == (8, 0, frames - 1)
    assert chosen == sorted(chosen)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert max(gaps) - min(gaps) <= 1
    clip = np.stack([picture(128, 128, seed) for seed in range(frames)])[chosen]
    video = look_at_video(clip, [index / 20 for index in chosen], PICO_EYES)
    assert (video.grid, video.features, len(video.seconds)) == ((4, 16, 16), (8, 8), 4)
