import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from orrery.data.resize import cover, onto_canvas, resize, resize_exact, weights
from orrery.tasks.canvas import action_canvas

SIDES = st.integers(1, 80)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def by_torch(frame: np.ndarray, size: tuple[int, int], kind: str) -> np.ndarray:
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    out = interpolate(planes, size=size, mode=kind, align_corners=False, antialias=True)
    return out[0].permute(1, 2, 0).numpy()


@pytest.mark.oracle
@settings(max_examples=25, deadline=None)
@given(height=SIDES, width=SIDES, H=SIDES, W=SIDES, kind=st.sampled_from(["bilinear", "bicubic"]))
def test_filters_agree_with_torch_and_pillow(height: int, width: int, H: int, W: int, kind: str):
    frame = noise(height, width, 3)
    ours = resize_exact(frame, (H, W), kind)
    # PyTorch 2.13 gives a constant column for a result of width 1; Pillow and arithmetic do not.
    if W > 1:
        assert np.abs(ours - by_torch(frame, (H, W), kind)).max() < 1e-3 * 255
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for channel in range(3):
        plane = Image.fromarray(frame[..., channel].astype(np.float32)).resize((W, H), filters[kind])
        assert np.abs(ours[..., channel] - np.asarray(plane)).max() < 1e-3 * 255


@pytest.mark.oracle
@pytest.mark.parametrize("size", [(192, 320), (480, 832), (31, 47)])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_rounded_frames_agree_with_torch(size: tuple[int, int], kind: str):
    frame = noise(360, 640, 3)
    expected = by_torch(frame, size, kind).round().clip(0, 255)
    difference = np.abs(resize(frame[None], size, kind)[0].astype(int) - expected)
    # Where the sizes have a common factor exact halves occur, and sums in another order fall on their other side.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 5e-3


@settings(max_examples=25, deadline=None)
@given(wanted=SIDES, given_=SIDES, kind=st.sampled_from(["bilinear", "bicubic"]))
def test_weights_keep_an_even_picture_even(wanted: int, given_: int, kind: str):
    np.testing.assert_allclose(weights(given_, wanted, kind).sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(weights(wanted, wanted, "bilinear"), np.eye(wanted, dtype=np.float32))


def test_cover_fills_the_size_and_keeps_the_middle():
    frames = noise(2, 48, 64, 3)
    np.testing.assert_array_equal(cover(frames, (48, 64)), frames)
    np.testing.assert_array_equal(cover(frames, (48, 48)), frames[:, :, 8:56])
    np.testing.assert_array_equal(cover(frames, (24, 64)), frames[:, 12:36])
    tall = cover(noise(1, 100, 40, 3), (32, 96))
    assert tall.shape == (1, 32, 96, 3)


def test_the_canvas_never_enlarges_and_pads_right_and_bottom():
    frames = noise(1, 540, 640, 3)
    canvas = action_canvas((540, 640), "480")
    out = onto_canvas(frames, canvas)
    assert out.shape == (1, 544, 736, 3)
    np.testing.assert_array_equal(out[:, :540, :640], frames)
    np.testing.assert_array_equal(out[:, 540:, :640], frames[:, 538:534:-1])
    np.testing.assert_array_equal(out[:, :540, 640:], frames[:, :, 638:542:-1])


def test_the_canvas_repeats_the_edge_where_there_is_too_little_to_reflect():
    frames = noise(1, 20, 20, 3)
    canvas = action_canvas((20, 20), "256")
    out = onto_canvas(frames, canvas)
    assert canvas.pad == "edge"
    np.testing.assert_array_equal(out[0, 20:, :20], np.broadcast_to(frames[0, 19], (canvas.height - 20, 20, 3)))


def test_a_large_observation_is_scaled_down_onto_the_canvas():
    canvas = action_canvas((720, 1280), "256")
    out = onto_canvas(noise(1, 720, 1280, 3), canvas)
    assert out.shape == (1, 192, 320, 3)
    scaled = resize(noise(1, 720, 1280, 3), (canvas.content_height, canvas.content_width), "bicubic")
    np.testing.assert_array_equal(out[:, : canvas.content_height, : canvas.content_width], scaled)
