"""Windows become examples as tasks say, and what a step trains on follows from seed and step alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from makers.training_run import MIXTURE, RECIPE, SMALL, RandomWindows

from orrery.errors import DatasetError
from orrery.packing.segment import Segment
from orrery.tasks.task import TASKS, Task, task_named, with_sound
from orrery.training.batch import Batch, Example, Window, draw_batch, draw_task, make_example
from orrery.training.noise import Purpose, generator
from orrery.training.recipe import Share

CPU = torch.device("cpu")
N, Y = False, True


def window(task: str = "policy") -> Window:
    return RandomWindows(1).window(0, task_named(task), torch.Generator())


def segments(task: str, given: Window, sound: str | None = None, clip: int = 2) -> dict[str, Segment]:
    row = task_named(task) if sound is None else with_sound(task_named(task), sound)
    sample = make_example(given, row, SMALL, drop_caption=False, clip_latents=clip).sample
    return {segment.kind: segment for segment in sample.segments}


@pytest.mark.parametrize(
    ("task", "vision", "action"),
    [
        ("text_to_image", [N], None),
        ("text_to_video", [N, N, N], None),
        ("image_to_video", [Y, N, N], None),
        ("video_to_video", [Y, Y, N], None),
        ("forward_dynamics", [Y, N, N], [Y] * 8),
        ("inverse_dynamics", [Y, Y, Y], [N] * 8),
        ("policy", [Y, N, N], [N] * 8),
        ("policy_no_video", [Y], [N] * 8),
    ],
)
def test_a_task_decides_what_is_given(task, vision, action):
    made = segments(task, window())
    assert made["vision"].given.tolist() == vision
    assert ("action" in made) == (action is not None)
    if action is not None:
        assert made["action"].given.tolist() == action
    assert "sound" not in made


@pytest.mark.parametrize(("sound", "given"), [("none", N), ("all", Y)])
def test_sound_is_made_or_given(sound, given):
    assert segments("image_to_video", window(), sound)["sound"].given.tolist() == [given] * 5


def test_every_task_has_an_example():
    for task in TASKS.values():
        example = make_example(window(), task, SMALL, drop_caption=False, clip_latents=2)
        assert example.supervised.any() == task.writes
        assert bool(example.sample.segments) != task.writes


def test_an_answer_is_supervised_and_its_prompt_is_not():
    given = window("reason")
    example = make_example(given, TASKS["reason"], SMALL, drop_caption=False, clip_latents=2)
    assert torch.equal(example.sample.token_ids[example.supervised], given.answer)
    assert torch.equal(example.sample.token_ids[~example.supervised], given.prompt)


def test_a_dropped_caption_leaves_the_empty_prompt_but_never_an_answer_without_its_question():
    given = window()
    question = make_example(given, TASKS["reason"], SMALL, drop_caption=True, clip_latents=2).sample
    assert torch.equal(question.token_ids[:5], given.prompt)
    for drop, prompt in ((False, given.prompt), (True, given.empty_prompt)):
        sample = make_example(given, TASKS["policy"], SMALL, drop_caption=drop, clip_latents=2).sample
        assert torch.equal(sample.token_ids, prompt)


def test_clean_data_is_whole_and_padding_is_marked():
    given = window()
    made = segments("policy", given)
    vision, action = made["vision"], made["action"]
    # 3 columns of latents fill one and a half patches of 2.
    assert (vision.rows, vision.cols, vision.valid.sum().item()) == (2, 2, SMALL.vision_channels * 4 * 3)
    assert torch.equal(action.clean[:, 0, :5], given.actions)
    assert action.valid[0].tolist() == [Y] * 5 + [N] * (SMALL.action_width - 5)
    assert (action.clean[:, 0, 5:] == 0).all()
    assert (action.start, action.domain, action.fps) == (1, 3, 24.0)


def test_observed_action_rows_are_always_given_and_come_before_frame_1():
    given = replace(window(), observed_rows=2)
    action = segments("policy", given)["action"]
    assert action.given.tolist() == [Y, Y] + [N] * 6
    assert action.start == -1  # row 2 stands at frame 1


def without(name: str) -> Window:
    return replace(window(), **{name: None})


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("reason", without("answer"), "no answer, which task 'reason'"),
        ("text_to_image", without("vision"), "no vision, which task 'text_to_image' needs"),
        ("policy", without("actions"), "no actions, which task 'policy' needs"),
        ("policy", replace(window(), vision=torch.zeros(4, 3, 4, 4)), "8 channels, as the model has, got 4"),
        ("policy", replace(window(), actions=torch.zeros(8, 17)), "16 columns at most, as the model has, got 17"),
        ("policy", replace(window(), observed_rows=8), "All 8 action rows are observed"),
        ("video_to_video", replace(window(), vision=torch.zeros(8, 2, 4, 4)), "leaves nothing to make of 2"),
    ],
)
def test_a_window_that_does_not_fit_its_task_is_refused(task, given, message):
    with pytest.raises(DatasetError, match=message):
        segments(task, given)


def test_sound_that_does_not_fit_is_refused():
    with pytest.raises(DatasetError, match="no sound"):
        segments("image_to_video", without("sound"), "none")
    with pytest.raises(DatasetError, match="12 values, as the model has, got 9"):
        segments("image_to_video", replace(window(), sound=torch.zeros(5, 9)), "none")


def test_the_first_token_cannot_be_supervised():
    sample = make_example(window(), TASKS["policy"], SMALL, drop_caption=False, clip_latents=2).sample
    with pytest.raises(ValueError, match="not the first"):
        Example(sample=sample, supervised=torch.ones_like(sample.token_ids, dtype=torch.bool))


def test_windows_come_in_an_order_that_covers_every_epoch():
    class Numbered(RandomWindows):
        def window(self, index: int, task: Task, rng: torch.Generator) -> Window:
            seen.append(index)
            return super().window(index, task, rng)

    seen: list[int] = []
    for step in range(7):
        draw_batch(Numbered(14), RECIPE, step, CPU)
    assert sorted(seen[:14]) == sorted(seen[14:]) == list(range(14))
    assert seen[:14] != seen[14:]
    with pytest.raises(DatasetError, match="holds no windows"):
        draw_batch(RandomWindows(0), RECIPE, 0, CPU)


def test_tasks_are_drawn_by_weight_and_captions_dropped_by_probability():
    mixture = (Share(task="policy", weight=3.0, caption_dropout=0.0), Share(task="reason", caption_dropout=0.6))
    draws = Counter(
        (share.task, dropped)
        for share, dropped in (draw_task(mixture, generator(0, Purpose.TASK, row)) for row in range(4000))
    )
    assert draws["policy", True] == 0
    assert draws["policy", False] / 4000 == pytest.approx(0.75, abs=0.03)
    assert draws["reason", True] / (4000 - draws["policy", False]) == pytest.approx(0.6, abs=0.05)


def equal(a: Batch, b: Batch) -> bool:
    pairs = [*zip(a.pack.latents, b.pack.latents, strict=True), *zip(a.noise, b.noise, strict=True)]
    pairs += [(a.sigmas, b.sigmas), (a.labels, b.labels), (a.pack.text.token_ids, b.pack.text.token_ids)]
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_batch_follows_from_its_step_and_seed():
    source = RandomWindows(7)
    first = draw_batch(source, RECIPE, 4, CPU)
    torch.randn(3)  # the global generator is of no account
    assert equal(first, draw_batch(source, RECIPE, 4, CPU))
    assert first.sigmas.tolist() != draw_batch(source, RECIPE, 5, CPU).sigmas.tolist()
    assert first.sigmas.tolist() != draw_batch(source, replace(RECIPE, seed=4), 4, CPU).sigmas.tolist()


def test_a_sample_is_the_same_whatever_is_packed_with_it():
    # Rows 6 to 8 of the run: as half of one step, and as all of another.
    wide, narrow = replace(RECIPE, batch=6), replace(RECIPE, batch=3)
    large, small = draw_batch(RandomWindows(7), wide, 1, CPU), draw_batch(RandomWindows(7), narrow, 2, CPU)
    count = len(small.pack.segments)
    assert count > 0
    assert torch.equal(large.sigmas[:count], small.sigmas)
    for a, b in zip(large.pack.latents[:count], small.pack.latents, strict=True):
        assert torch.equal(a, b)


def test_shared_noise_reaches_all_segments_of_a_sample():
    recipe = replace(RECIPE, mixture=MIXTURE[2:4], independent_noise=False)
    given = draw_batch(RandomWindows(7), recipe, 0, CPU)
    for sample in range(recipe.batch):
        assert given.sigmas[given.pack.of(sample)].unique().numel() == 1
