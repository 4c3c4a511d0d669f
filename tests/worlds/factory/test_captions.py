import re
from dataclasses import replace

import numpy as np
import pytest

from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.captions import LEVELS, caption, happenings, things
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.rollout import Attempt, roll
from orrery.worlds.factory.tasks import draw_job


def played(task: str, behaviour: str, seed: int) -> Attempt:
    rng = np.random.default_rng(seed)
    job = draw_job(task, rng)
    return roll(Cell(job.layout, job.parameters), job, policy(BEHAVIOURS[behaviour], job, rng))


@pytest.fixture(scope="module")
def attempts():
    rows = (
        ("stack", "expert", 0),
        ("belt_pick", "wrong_part", 1),
        ("press_start", "expert", 2),
        ("kit_fill", "noise_1", 3),
    )
    return [played(*row) for row in rows]


def test_captions_depend_on_attempt_and_generator_alone(attempts):
    for level in LEVELS:
        one, two = (caption(attempts[0], np.random.default_rng(7), level=level, split="train") for _ in range(2))
        assert one == two


def test_held_out_phrasings_never_occur_in_training(attempts):
    def seen(split):
        rng = np.random.default_rng(0)
        return {
            caption(each, rng, level=level, split=split) for each in attempts for level in LEVELS for _ in range(30)
        }

    assert len(seen("train")) > 60
    assert not seen("train") & seen("test")


def test_captions_name_only_what_happened(attempts):
    rng = np.random.default_rng(1)
    for attempt in attempts:
        present = {placed.part.finish for placed in attempt.job.layout.parts}
        events = " ".join(words for _, words in happenings(attempt))
        for word in ("red", "green", "blue", "purple", "brass"):
            assert word not in events or word in present
        kinds = {event.kind for event in attempt.events}
        for kind, word in (
            ("grasped", "grasps"),
            ("released", "lets"),
            ("pressed", "presses"),
            ("lamp_on", "lamp goes on"),
        ):
            assert (word in events) <= (kind in kinds)
        text = caption(attempt, rng, level="dense", split="train")
        told = [float(time) for time in re.findall(r"(\d+\.\d) s\b", text)]
        assert told == pytest.approx([time_s for time_s, _ in happenings(attempt)], abs=0.051)
        assert told == sorted(told)


def test_the_outcome_that_is_told_is_the_true_one(attempts):
    success = next(each for each in attempts if each.success)
    failed = replace(success, success=False, failure="dropped")
    for split in ("train", "test"):
        for seed in range(10):
            label = caption(success, np.random.default_rng(seed), level="label", split=split)
            other = caption(failed, np.random.default_rng(seed), level="label", split=split)
            assert label.replace("done", "failed") == other != label
            sentence = caption(failed, np.random.default_rng(seed), level="sentence", split=split)
            assert "it dropped the part" in sentence


def test_things_are_counted(attempts):
    for attempt in attempts:
        numbers = [
            ("no", "one", "two", "three", "four").index(word)
            for word in re.findall(r"\b(?:one|two|three|four)\b", things(attempt))
        ]
        assert sum(numbers) == len(attempt.job.layout.parts)
