import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import TaskError
from orrery.tasks.canvas import ACTION_EXTRA, TIERS, action_canvas, aspect_label, cover_crop, tier

SIDES = st.integers(16, 2000)


@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES))
def test_cover_crop_covers_and_hardly_more(source, target):
    plan = cover_crop(source, target)
    assert plan.resized_height >= plan.height == target[0]
    assert plan.resized_width >= plan.width == target[1]
    assert plan.resized_height == target[0] or plan.resized_width == target[1]
    assert abs(plan.resized_height / source[0] - plan.resized_width / source[1]) * max(source) < 1 + max(source) / 16
    assert 0 <= 2 * plan.top <= plan.resized_height - plan.height
    assert 0 <= 2 * plan.left <= plan.resized_width - plan.width


@given(source=st.tuples(SIDES, SIDES), name=st.sampled_from(sorted(TIERS)))
def test_action_canvas_never_enlarges_and_holds_the_content(source, name):
    canvas = action_canvas(source, name)
    assert canvas.content_height <= min(source[0], canvas.height)
    assert canvas.content_width <= min(source[1], canvas.width)
    shrunk = (canvas.content_height, canvas.content_width) != source
    assert not shrunk or canvas.content_height == canvas.height or canvas.content_width == canvas.width


def test_the_droid_composite():
    canvas = action_canvas((540, 640), "480")
    assert (canvas.height, canvas.width, canvas.aspect) == (544, 736, "4,3")
    assert (canvas.content_height, canvas.content_width, canvas.pad) == (540, 640, "reflect")
    assert canvas.latent_crop(16) == (33, 40)


def test_a_small_observation_is_padded_with_its_edge():
    assert action_canvas((64, 96), "256").pad == "edge"


def test_a_tall_observation_of_tier_480_takes_the_extra_canvas():
    assert action_canvas((768, 512), "480").aspect == "2,3"


def test_the_first_entry_of_a_tier_wins_a_tie():
    assert action_canvas((256, 256), "256").aspect == "1,1"


def test_every_side_of_a_tier_is_a_multiple_of_16():
    sizes = [size for table in (*TIERS.values(), *ACTION_EXTRA.values()) for size in table.values()]
    assert all(side % 16 == 0 for size in sizes for side in size)


@pytest.mark.parametrize(("size", "label"), [((720, 1280), "16,9"), ((768, 512), "2,3"), ((540, 640), "32,27")])
def test_aspect_labels(size, label):
    assert aspect_label(*size) == label


def test_an_unknown_tier_is_refused():
    with pytest.raises(TaskError, match="1080"):
        tier("1080")
