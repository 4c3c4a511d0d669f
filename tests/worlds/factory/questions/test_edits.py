from dataclasses import replace

import numpy as np
import pytest

from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.contacts import Impact
from orrery.worlds.factory.hearing import history
from orrery.worlds.factory.questions.edits import (
    EDITS,
    LEAST_JUMP_M,
    Clip,
    clip_sound,
    film_clip,
    loud_strikes,
    make_clip,
    moved,
)
from orrery.worlds.factory.rollout import Attempt, roll
from orrery.worlds.factory.sound import RATE_HZ, Strike
from orrery.worlds.factory.tasks import TASKS, draw_job


def with_blow(attempt: Attempt) -> Attempt:
    """The attempt with one hard blow of a part on the bench in its middle, and quiet drives around it."""
    middle = len(attempt.reports) // 2
    reports = list(attempt.reports)
    blow = Impact(
        time_s=reports[middle].motion.start_s + 0.02, bodies=("bench", "part_0"), impulse_Ns=0.4, speed_m_s=1.0,
        point_m=(0.1, 0.0, 0.0),
    )  # fmt: skip
    reports[middle] = replace(reports[middle], impacts=(blow,))
    for index in range(len(reports)):
        motion = replace(
            reports[index].motion, gantry_m_s=(0.0, 0.0, 0.0), yaw_rad_s=0.0, gripper_m_s=0.0, belt_m_s=0.0
        )  # fmt: skip
        reports[index] = replace(reports[index], motion=motion, rubbings=())
    return replace(attempt, reports=tuple(reports))


@pytest.fixture(scope="module")
def clips() -> dict[str, tuple[Cell, Attempt, Clip]]:
    """One clip of each edit, and one without."""
    found: dict[str, tuple[Cell, Attempt, Clip]] = {}
    for seed in range(60):
        rng = np.random.default_rng([seed, 3])
        job = draw_job(("belt_sort", "stack", "belt_pick")[seed % 3], rng)
        cell = Cell(job.layout, job.parameters)
        attempt = with_blow(roll(cell, job, policy(BEHAVIOURS["expert"], job, rng), steps=70))
        for _ in range(6):
            clip = make_clip(cell, attempt, rng)
            if clip is not None:
                found.setdefault(clip.edit, (cell, attempt, clip))
        if len(found) == len(EDITS) + 1:
            break
    return found


def differing(cell: Cell, attempt: Attempt, clip: Clip) -> np.ndarray:
    """Which numbers of the physics differ from the attempt, (T, n)."""
    true = [moment.state.physics for moment in attempt.moments[clip.start_frame : clip.stop_frame]]
    return np.array([state.physics != other for state, other in zip(clip.states, true, strict=True)])


def pose_columns(cell: Cell, clip: Clip) -> np.ndarray:
    """The numbers of the physics that hold the pose of the clip's part, found by moving it."""
    pose = np.array([0.31, 0.22, 0.43, 0.5, 0.5, -0.5, -0.5])
    index = int(clip.subject.removeprefix("part_"))
    return moved(cell, clip.states[0], index, pose).physics != clip.states[0].physics


def test_every_edit_occurs(clips):
    assert set(clips) == {*EDITS, "none"}


def test_what_is_not_edited_is_the_attempt(clips):
    cell, attempt, clip = clips["none"]
    assert not differing(cell, attempt, clip).any()
    cell.restore(attempt.moments[0].state)
    assert list(clip.history) == history(cell, attempt.reports)
    assert clip.subject == ""


@pytest.mark.parametrize("edit", ["teleport", "frozen"])
def test_only_the_pose_of_one_part_differs_and_only_from_its_frame_on(clips, edit):
    cell, attempt, clip = clips[edit]
    differs = differing(cell, attempt, clip)
    begins = clip.edit_start - clip.start_frame
    assert not differs[:begins].any()
    assert differs[begins + 1 :].any(axis=1).all()
    assert not differs[:, ~pose_columns(cell, clip)].any()


def test_what_is_teleported_jumps(clips):
    cell, _, clip = clips["teleport"]
    places = []
    for frame in (clip.edit_start - 1, clip.edit_start):
        cell.restore(clip.states[frame - clip.start_frame])
        places.append(cell.part_m(int(clip.subject.removeprefix("part_"))))
    assert np.linalg.norm(places[1] - places[0]) > LEAST_JUMP_M - 0.01


def test_what_is_frozen_stands_still(clips):
    cell, attempt, clip = clips["frozen"]
    index = int(clip.subject.removeprefix("part_"))
    places = []
    for state in clip.states[clip.edit_start - clip.start_frame :]:
        cell.restore(state)
        places.append(cell.part_m(index))
    assert np.ptp(places, axis=0).max() < 1e-9
    true = np.array([moment.parts[index, :3] for moment in attempt.moments[clip.edit_start : clip.stop_frame]])
    assert np.linalg.norm(true[-1] - true[0]) > 0.03


def test_reversed_gravity_lifts_parts_and_leaves_the_cell_as_it_was(clips):
    cell, attempt, clip = clips["reversed_gravity"]
    index = int(clip.subject.removeprefix("part_"))
    assert not differing(cell, attempt, clip)[: clip.edit_start - clip.start_frame + 1].any()
    cell.restore(clip.states[-1])
    assert cell.part_m(index)[2] > attempt.moments[clip.stop_frame - 1].parts[index, 2] + 0.1
    assert cell.model.opt.gravity[2] == pytest.approx(-9.81)


def test_a_shifted_sound_is_late_or_early_by_so_much(clips):
    cell, attempt, clip = clips["sound_shifted"]
    assert not differing(cell, attempt, clip).any()
    cell.restore(attempt.moments[0].state)
    true = history(cell, attempt.reports)
    assert len(true) == len(clip.history)
    moved_s = [
        b.time_s - a.time_s
        for a, b in zip(true, clip.history, strict=True)
        if isinstance(a, Strike) and isinstance(b, Strike)
    ]
    assert np.ptp(moved_s) < 1e-9
    assert 0.2 <= abs(moved_s[0]) <= 0.4


def test_a_wrong_material_changes_one_strike(clips):
    cell, attempt, clip = clips["wrong_material"]
    assert not differing(cell, attempt, clip).any()
    cell.restore(attempt.moments[0].state)
    true = history(cell, attempt.reports)
    (changed,) = [(a, b) for a, b in zip(true, clip.history, strict=True) if a != b]
    assert changed[0].time_s == changed[1].time_s
    assert clip.subject in {body.name for body in changed[1].bodies}
    assert {body.material for body in changed[0].bodies} != {body.material for body in changed[1].bodies}


def test_every_clip_is_filmed_and_heard_alike(clips):
    for cell, _, clip in clips.values():
        pictures = list(film_clip(cell, clip, "front", 24, 32))
        frames = clip.stop_frame - clip.start_frame
        assert len(pictures) == len(clip.states) == frames
        assert pictures[0].shape == (24, 32, 3)
        assert clip_sound(clip).shape == (frames * RATE_HZ // 20, 2)


def test_the_same_generator_makes_the_same_clip(clips):
    cell, attempt, _ = clips["none"]
    one, two = (make_clip(cell, attempt, np.random.default_rng(9)) for _ in range(2))
    assert (one.edit, one.start_frame, one.subject, one.history) == (
        two.edit,
        two.start_frame,
        two.subject,
        two.history,
    )
    assert all((a.physics == b.physics).all() for a, b in zip(one.states, two.states, strict=True))


def test_half_of_the_clips_are_untouched():
    rng = np.random.default_rng(4)
    job = draw_job(list(TASKS)[1], rng)
    cell = Cell(job.layout, job.parameters)
    attempt = roll(cell, job, policy(BEHAVIOURS["expert"], job, rng), steps=60)
    made = [make_clip(cell, attempt, rng) for _ in range(16)]
    untouched = np.mean([clip is not None and clip.edit == "none" for clip in made])
    assert untouched == pytest.approx(0.5, abs=0.38)


def test_a_blow_in_silence_is_loud():
    rng = np.random.default_rng(5)
    job = draw_job("stack", rng)
    cell = Cell(job.layout, job.parameters)
    start = cell.snapshot()
    attempt = with_blow(roll(cell, job, policy(BEHAVIOURS["expert"], job, rng)))
    cell.restore(start)
    heard = history(cell, attempt.reports)
    blows = [strike for _, strike in loud_strikes(heard)]
    assert any(strike.impulse_Ns == 0.4 for strike in blows)
