from dataclasses import dataclass

import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.evaluation.question_only import blind_scores, is_right, overlap


@dataclass(frozen=True, kw_only=True)
class Row:
    """The least that the baseline reads of a question."""

    family: str = "colour"
    template: int = 0
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    kind: str = "choice"
    tolerance: float = 0.0


COLOURS = ("red", "green", "blue", "brass")
KINDS = ("cube", "disc", "peg", "bar")


def chosen(rng: np.random.Generator, count: int, *, leak: bool) -> list[Row]:
    """Questions whose answer goes with the word for a kind in four of five, or with nothing."""
    rows = []
    for _ in range(count):
        kind = int(rng.integers(4))
        answer = COLOURS[kind] if leak and rng.random() < 0.8 else COLOURS[rng.integers(4)]
        choices = tuple(COLOURS[i] for i in rng.permutation(4))
        template = int(rng.integers(3))
        text = ("Which colour is the {}?", "Name the {}'s colour.", "The {} has which colour?")[template]
        rows.append(Row(template=template, text=text.format(KINDS[kind]), answer=answer, choices=choices))
    return rows


def timed(rng: np.random.Generator, count: int, *, leak: bool) -> list[Row]:
    rows = []
    for _ in range(count):
        kind = int(rng.integers(4))
        second = kind * 0.6 + rng.normal(0, 0.05) if leak else rng.uniform(0, 2)
        text = f"When is the {KINDS[kind]} lifted?"
        rows.append(Row(family="when", text=text, answer=f"{second:.2f}", kind="time", tolerance=0.15))
    return rows


@pytest.mark.parametrize("made", [chosen, timed])
def test_a_family_that_words_give_away_is_found(made):
    rng = np.random.default_rng(0)
    (row,) = blind_scores(made(rng, 400, leak=True), made(rng, 300, leak=True))
    assert row.over_chance_points > 30
    assert row.interval[0] > row.chance + 0.2


@pytest.mark.parametrize("made", [chosen, timed])
def test_a_fair_family_is_at_chance(made):
    rng = np.random.default_rng(1)
    (row,) = blind_scores(made(rng, 1000, leak=False), made(rng, 1200, leak=False))
    assert abs(row.accuracy - row.chance) < 0.045
    assert row.over_chance_points < 5


def test_a_choice_that_is_right_more_often_is_found():
    rng = np.random.default_rng(2)

    def skewed(count: int) -> list[Row]:
        rows = []
        for _ in range(count):
            pair = tuple(COLOURS[i] for i in rng.permutation(4)[:2])
            answer = "red" if "red" in pair and rng.random() < 0.9 else pair[0]
            rows.append(Row(text="Which?", answer=answer, choices=tuple(pair[i] for i in rng.permutation(2))))
        return rows

    (row,) = blind_scores(skewed(600), skewed(600))
    assert row.majority > row.chance + 0.15
    assert row.accuracy > row.chance + 0.15


def test_scores_do_not_depend_on_the_order_of_training_questions():
    rng = np.random.default_rng(3)
    known, asked = chosen(rng, 300, leak=True), chosen(rng, 200, leak=True)
    assert blind_scores(known, asked)[0].accuracy == blind_scores(known[::-1], asked)[0].accuracy


def test_a_family_without_training_questions_is_refused():
    with pytest.raises(SettingsError, match="no training questions of colour"):
        blind_scores([], chosen(np.random.default_rng(4), 3, leak=False))


def test_answers_count_within_their_tolerance():
    time = Row(text="", answer="1.50", kind="time", tolerance=0.1)
    assert is_right(time, "1.6")
    assert not is_right(time, "1.65")
    assert not is_right(time, "soon")
    point = Row(text="", answer="500, 500", kind="point", tolerance=30)
    assert is_right(point, "520, 520")
    assert not is_right(point, "530, 530")
    assert not is_right(point, "500")
    box = Row(text="", answer="0, 0, 100, 100", kind="box", tolerance=0.5)
    assert is_right(box, "0, 0, 100, 60")
    assert not is_right(box, "50, 50, 150, 150")
    assert is_right(Row(text="", answer="Red", choices=("Red", "blue")), " red ")


def test_overlap_is_symmetric_and_one_with_itself():
    rng = np.random.default_rng(5)
    for _ in range(20):
        one, other = (np.concatenate([low := rng.uniform(0, 5, 2), low + rng.uniform(1, 5, 2)]) for _ in range(2))
        assert overlap(one, one) == pytest.approx(1)
        assert overlap(one, other) == pytest.approx(overlap(other, one))
