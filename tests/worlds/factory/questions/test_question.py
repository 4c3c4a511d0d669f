import json
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import CONTROL_HZ, Cell
from orrery.worlds.factory.questions.edits import make_clip
from orrery.worlds.factory.questions.forecast import END_M, let_go, out_of_the_way, play_on
from orrery.worlds.factory.questions.phrasings import WORDS
from orrery.worlds.factory.questions.question import FAMILIES, SYMMETRIC, Question, ask, balanced, shortfalls
from orrery.worlds.factory.questions.sights import SEEN_PX, Witness
from orrery.worlds.factory.rollout import Attempt, roll
from orrery.worlds.factory.tasks import TASKS, draw_job

WHO = ("expert", "noise_1", "wrong_part", "goals", "expert", "late_gripper")
COUNT = 14
STEPS = 80


def play(seed: int) -> tuple[Cell, Attempt]:
    rng = np.random.default_rng([seed, 5])
    job = draw_job(list(TASKS)[seed % len(TASKS)], rng, pairs="train")
    cell = Cell(job.layout, job.parameters)
    return cell, roll(cell, job, policy(BEHAVIOURS[WHO[seed % len(WHO)]], job, rng), steps=STEPS)


def asked(cell: Cell, attempt: Attempt, seed: int, split: str = "train") -> list[Question]:
    rng = np.random.default_rng([seed, 6])
    clip = make_clip(cell, attempt, rng)
    return ask(cell, attempt, rng, split=split, height=128, width=128, clip=clip)


@pytest.fixture(scope="module")
def played():
    return [play(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def pool(played):
    return [asked(cell, attempt, seed) for seed, (cell, attempt) in enumerate(played)]


@pytest.fixture(scope="module")
def every(pool):
    return [question for questions in pool for question in questions]


def test_every_answer_is_one_of_its_choices(every):
    for question in every:
        assert question.answer in question.choices or not question.choices
        assert len(set(question.choices)) == len(question.choices) != 1
        assert question.chance == (1 / len(question.choices) if question.choices else None)
        assert "{" not in question.prompt


def test_frames_lie_in_the_attempt(played, pool):
    for (_, attempt), questions in zip(played, pool, strict=True):
        for question in questions:
            assert 0 <= question.start_frame < question.stop_frame <= len(attempt.moments)


def test_an_attempt_has_a_varied_handful(pool, every):
    assert 15 <= np.mean([len(questions) for questions in pool]) <= 60
    assert max(max(Counter(q.family for q in questions).values()) for questions in pool) <= 8
    assert len({question.family for question in every}) >= 24


def test_asking_twice_is_the_same(played, pool):
    cell, attempt = played[0]
    assert asked(cell, attempt, 0) == pool[0]


def test_a_question_survives_json(every):
    for question in every[:100]:
        assert Question.from_dict(json.loads(json.dumps(question.as_dict()))) == question


def test_held_out_templates_never_occur_in_training(played, every):
    assert all(question.template < len(WORDS[question.family].train) for question in every)
    cell, attempt = played[0]
    tested = asked(cell, attempt, 0, "test")
    assert tested
    assert all(question.template >= len(WORDS[question.family].train) for question in tested)
    assert not {question.text for question in tested} & {question.text for question in every}


def test_phrasings_of_a_family_have_the_same_blanks():
    for rows in WORDS.values():
        assert len(rows.train) >= 3
        assert rows.test
        for text in (*rows.train, *rows.test):
            assert all("{" + name + "}" in text for name in rows.blanks)


def test_a_point_lies_on_its_part_and_in_its_box(played, pool):
    found = 0
    for (cell, attempt), questions in zip(played, pool, strict=True):
        witness = Witness(cell, attempt, 128, 128)
        for question in questions:
            if question.kind not in ("point", "box"):
                continue
            sight = witness.look(question.start_frame, question.camera)
            (index,) = (i for i, part in enumerate(sight.parts) if part.words in question.text)
            mask = sight.masks[index]
            assert mask.sum() >= SEEN_PX
            numbers = np.array([int(part) for part in question.answer.split(",")]) / 1000 * 128
            if question.kind == "point":
                assert mask[int(numbers[1]), int(numbers[0])]
            else:
                left, top, right, bottom = numbers.round().astype(int)
                assert mask[top:bottom, left:right].sum() == mask.sum()
                assert mask[top, left:right].any()
                assert mask[top:bottom, left].any()
                assert mask[bottom - 1, left:right].any()
                assert mask[top:bottom, right - 1].any()
            found += 1
    assert found > 20


def test_what_is_asked_about_is_seen_and_alone(played, pool):
    for (cell, attempt), questions in zip(played, pool, strict=True):
        witness = Witness(cell, attempt, 128, 128)
        for question in questions:
            if question.family in ("left_right", "front_behind"):
                sight = witness.look(question.start_frame, question.camera)
                named = [i for i in sight.seen if sight.parts[i].words in question.text]
                assert len(named) == 2
                first = min(named, key=lambda i: question.text.index(sight.parts[i].words))
                other = next(i for i in named if i != first)
                if question.family == "left_right":
                    # Only this phrasing names the other part first.
                    one, two = (other, first) if question.text.startswith("On which side") else (first, other)
                    assert (sight.across_m[one] < sight.across_m[two]) == (question.answer == "left")
                    assert abs(sight.across_m[one] - sight.across_m[two]) > 0.03


def test_when_is_the_time_of_the_event(played, pool):
    found = 0
    for (_, attempt), questions in zip(played, pool, strict=True):
        for question in questions:
            if question.family == "when":
                at_s = question.start_frame / CONTROL_HZ + float(question.answer)
                near = [event for event in attempt.events if abs(event.time_s - at_s) < 0.026]
                assert question.asked in {event.kind for event in near}
                found += 1
    assert found > 10


def test_answers_are_balanced(every):
    chosen = balanced(every, np.random.default_rng(0), 10_000)
    groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for question in chosen:
        if question.choices and question.family not in SYMMETRIC:
            groups[question.family, question.asked][question.answer] += 1
    assert {"left_right", "lamp", "plausible"} <= {family for family, _ in groups}
    for (family, words), answers in groups.items():
        assert len(set(answers.values())) == 1, (family, words, answers)
        offered = {choice for q in chosen if (q.family, q.asked) == (family, words) for choice in q.choices}
        assert set(answers) == offered


def test_where_choices_come_first_the_answer_is_anywhere(every):
    rows = [question for question in every if question.family in SYMMETRIC and len(question.choices) == 2]
    first = np.mean([question.answer == min(question.choices) for question in rows])
    assert first == pytest.approx(0.5, abs=3 * 0.5 / len(rows) ** 0.5)


def test_balancing_keeps_to_its_number_and_names_what_falls_short(every):
    chosen = balanced(every, np.random.default_rng(0), 12)
    counts = Counter(question.family for question in chosen)
    assert max(counts.values()) <= 24
    short = shortfalls(chosen, 12)
    assert all(short[family] == counts[family] for family in short)
    assert set(short) == {family for family in FAMILIES if counts[family] < 12}


def test_a_forecast_is_what_happens_when_nobody_interferes():
    """Two cells: one plays on, the other is left alone and watched."""
    cell, attempt = play(0)
    idle = roll(cell, replace(attempt.job, goals=()), out_of_the_way, steps=1)
    cell.restore(idle.moments[0].state)
    index = next(i for i in range(len(cell.layout.parts)) if cell.touches(f"part_{i}", "belt"))
    seconds = play_on(cell, index, 20.0)
    cell.restore(idle.moments[0].state)
    began_s, heading = cell.time_s, np.sign(cell.parameters.belt_speed_m_s)
    while heading * cell.part_m(index)[0] <= END_M:
        cell.step(np.array([0.0, 0.0, 0.0, 0.0, 1.0]))
    assert seconds == pytest.approx(cell.time_s - began_s, abs=0.1)


def test_what_is_let_go_of_lies_where_it_was_over(played):
    cell, attempt = played[4]
    assert (attempt.job.task, WHO[4]) == ("stack", "expert")
    frame = next(f for f, moment in enumerate(attempt.moments) if moment.phase == "carry")
    held = attempt.moments[frame].state.memory.held
    landed = []
    for _ in range(2):
        cell.restore(attempt.moments[frame].state)
        landed.append(let_go(cell, held))
    assert landed[0] == landed[1]
    assert landed[0] in ("bench", "part", "")
    assert cell.part_m(held)[2] < 0.1


def test_only_cameras_that_are_recorded_are_asked_about():
    job = draw_job("stack", np.random.default_rng(3))
    cell = Cell(job.layout, job.parameters)
    attempt = roll(cell, job, policy(BEHAVIOURS["expert"], job, np.random.default_rng(3)))
    settings = {"split": "train", "height": 128, "width": 128}
    two = ask(cell, attempt, np.random.default_rng(0), cameras=("front", "wrist"), **settings)
    assert {question.camera for question in two} == {"front", "wrist"}
    assert "side" in {question.camera for question in ask(cell, attempt, np.random.default_rng(0), **settings)}
