"""Experts do every task, and what degrades them makes them fail for the reason that is said."""

import numpy as np
import pytest

from orrery.errors import TaskError
from orrery.worlds.factory.behaviours import BEHAVIOURS, behaviour, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.experts import PHASES
from orrery.worlds.factory.goals import FAILURES
from orrery.worlds.factory.parts import HELD_OUT
from orrery.worlds.factory.rollout import AFTER_STEPS, Attempt, film, roll
from orrery.worlds.factory.tasks import TASKS, draw_job


def attempt(task: str, seed: int, name: str = "expert", **settings) -> Attempt:
    job = draw_job(task, np.random.default_rng([seed, 0]), **settings)
    return roll(Cell(job.layout, job.parameters), job, policy(BEHAVIOURS[name], job, np.random.default_rng([seed, 1])))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_expert_succeeds_and_its_record_is_whole(task):
    made = attempt(task, 1000)
    assert made.success
    assert made.failure == ""
    assert len(made.moments) == len(made.reports) <= TASKS[task].horizon + AFTER_STEPS
    assert {moment.phase for moment in made.moments} <= set(PHASES)
    assert {moment.failure for moment in made.moments} <= {"", *FAILURES}
    assert made.moments[-1].failure == ""
    for moment in made.moments:
        np.testing.assert_allclose(moment.action, moment.expert, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_tight_peg_goes_in_straight_and_jams_when_it_is_led_beside_the_hole(seed):
    assert attempt("peg_insert", seed, clearance_m=0.0003).success
    beside = attempt("peg_insert", seed, "biased", clearance_m=0.0003)
    assert not beside.success
    assert beside.failure in ("jammed", "not_finished", "knocked_over", "dropped")


@pytest.mark.parametrize(
    ("task", "name", "why"),
    [
        ("stack", "wrong_part", {"wrong_part"}),
        ("belt_pick", "wrong_part", {"wrong_part", "reached_end"}),
        ("press_start", "wrong_part", {"wrong_button"}),
        ("belt_sort", "wrong_part", {"wrong_place"}),
        ("stack", "play", set(FAILURES)),
        ("kit_fill", "noise_2", set(FAILURES)),
        ("stack", "late_gripper", {"missed", "dropped", "not_finished"}),
    ],
)
def test_what_goes_wrong_is_named(task, name, why):
    made = attempt(task, 3, name)
    assert not made.success
    assert made.failure in why


def test_the_experts_action_is_recorded_beside_anyone_elses():
    made = attempt("stack", 4, "noise_1")
    differing = [not np.allclose(moment.action[:3], moment.expert[:3], atol=1e-4) for moment in made.moments]
    assert np.mean(differing) > 0.8


def test_attempts_repeat_and_depend_on_their_seeds():
    def trace(seed: int) -> bytes:
        return b"".join(
            moment.action.tobytes() + moment.parts.tobytes() for moment in attempt("stack", seed, "goals").moments
        )

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


def test_a_film_shows_the_moments_and_leaves_no_trace():
    job = draw_job("belt_pick", np.random.default_rng(0))
    cell = Cell(job.layout, job.parameters)
    made = roll(cell, job, policy(BEHAVIOURS["expert"], job, np.random.default_rng(0)), steps=6)
    states = [moment.state for moment in made.moments]
    once, again = (np.stack(list(film(cell, states, "front", 48, 64))) for _ in range(2))
    assert once.shape == (6, 48, 64, 3)
    np.testing.assert_array_equal(once, again)
    assert (once[0] != once[-1]).any()


@pytest.mark.parametrize("task", sorted(TASKS))
def test_pairs_are_dealt_as_asked(task):
    for seed in range(15):
        job = draw_job(task, np.random.default_rng(seed), pairs="train")
        assert not {(placed.part.finish, placed.part.kind) for placed in job.layout.parts} & HELD_OUT
    dealt = [draw_job(task, np.random.default_rng(seed), pairs="held_out") for seed in range(15)]
    held = [any((placed.part.finish, placed.part.kind) in HELD_OUT for placed in job.layout.parts) for job in dealt]
    assert sum(held) >= (0 if task == "peg_insert" else 12)


def test_unknown_rows_are_refused_with_the_nearest():
    with pytest.raises(TaskError, match="Did you mean 'expert'"):
        behaviour("exprt")
    with pytest.raises(TaskError, match="Did you mean 'stack'"):
        draw_job("stak", np.random.default_rng(0))
