"""How far questions can be answered without looking: a linear model of their words, and the commonest answer.

A family of questions measures sight only if this model is at chance on it. It sees the text, the template and the
choices, and learns from training questions which choice is likely given which words. For answers that are numbers
(times, points, boxes) it predicts them from the words; chance is then what it reaches when the answers of its training
questions are shuffled.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from orrery.errors import SettingsError
from orrery.evaluation.metrics import wilson_interval

BUCKETS = 1 << 15
"""Words are hashed into so many features."""
STEPS, STEP_SIZE = 150, 0.05
SHRINK = 3.0
"""Weight of the squared coefficients against the mean log likelihood times the number of questions."""
SHUFFLES = 5


@runtime_checkable
class Asked(Protocol):
    """What is read of a question; `worlds.factory.questions.Question` is one."""

    @property
    def family(self) -> str: ...
    @property
    def template(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def choices(self) -> tuple[str, ...]: ...
    @property
    def kind(self) -> str: ...
    @property
    def tolerance(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Blind:
    """What can be guessed in one family. Shares from 0 to 1."""

    family: str
    training: int
    questions: int
    """Validation questions, on which the rest is measured."""
    chance: float
    majority: float
    """Of always giving the choice that was right most often in training."""
    accuracy: float
    """Of the model of words."""
    interval: tuple[float, float]
    """Wilson's interval of 95 % of `accuracy`."""

    @property
    def over_chance_points(self) -> float:
        """By how many points the better of the two beats chance."""
        return 100 * (max(self.accuracy, self.majority) - self.chance)


def blind_scores(training: Sequence[Asked], validation: Sequence[Asked], *, seed: int = 0) -> list[Blind]:
    """One row for each family of `validation`, by name.

    Args:
        training, validation: of different episodes.
        seed: of the shuffled answers.

    Raises:
        SettingsError: a family of `validation` has no training questions.
    """
    known: dict[str, list[Asked]] = defaultdict(list)
    asked: dict[str, list[Asked]] = defaultdict(list)
    for question in training:
        known[question.family].append(question)
    for question in validation:
        asked[question.family].append(question)
    missing = sorted(asked.keys() - known.keys())
    if missing:
        raise SettingsError(f"There are no training questions of {', '.join(missing)}. Generate more of them.")
    rng = np.random.default_rng(seed)
    return [
        (_of_choices if rows[0].choices else _of_numbers)(family, known[family], rows, rng)
        for family, rows in sorted(asked.items())
    ]


def is_right(question: Asked, answer: str) -> bool:
    """Whether an answer counts: the same words, a number within the tolerance, or a box that overlaps enough."""
    if question.kind in ("choice", "text"):
        return answer.strip().lower() == question.answer.lower()
    try:
        given, true = _numbers(answer), _numbers(question.answer)
    except ValueError:
        return False
    if given.shape != true.shape:
        return False
    if question.kind == "box":
        return overlap(given, true) >= question.tolerance
    return bool(np.linalg.norm(given - true) <= question.tolerance + 1e-9)


def overlap(one: Float64[np.ndarray, "4"], other: Float64[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    total = float(np.prod(np.maximum(one[2:] - one[:2], 0)) + np.prod(np.maximum(other[2:] - other[:2], 0))) - both
    return both / total if total > 0 else 0.0


def _row(family: str, training: int, right: int, of: int, chance: float, majority: float) -> Blind:
    return Blind(
        family=family,
        training=training,
        questions=of,
        chance=chance,
        majority=majority,
        accuracy=right / of,
        interval=wilson_interval(right, of),
    )


# Choices: one score for each, from the pairs of a choice with each word of the question.


def _of_choices(family: str, known: list[Asked], rows: list[Asked], rng: np.random.Generator) -> Blind:
    table = _Choices.of(known)
    weights = table.fit([question.choices.index(question.answer) for question in known])
    guesses = _Choices.of(rows).best(weights)
    right = sum(question.choices[guess] == question.answer for question, guess in zip(rows, guesses, strict=True))
    # How often each choice is right where it is offered.
    offered = Counter(choice for question in known for choice in question.choices)
    taken = Counter(question.answer for question in known)
    common = sum(
        max(question.choices, key=lambda choice: taken[choice] / max(1, offered[choice])) == question.answer
        for question in rows
    )
    chance = float(np.mean([1 / len(question.choices) for question in rows]))
    return _row(family, len(known), right, len(rows), chance, common / len(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Choices:
    """Features of the choices of many questions, flat."""

    feature: Int64[np.ndarray, " n"]
    choice: Int64[np.ndarray, " n"]
    """Which choice, counted over all questions, a feature belongs to."""
    begins: Int64[np.ndarray, " q"]
    """The first choice of each question."""
    total: int

    @classmethod
    def of(cls, questions: Sequence[Asked]) -> "_Choices":
        features: list[int] = []
        owners: list[int] = []
        begins: list[int] = []
        number = 0
        for question in questions:
            begins.append(number)
            words = _words(question)
            for place, choice in enumerate(question.choices):
                others = [f"beside {other}" for other in question.choices if other != choice]
                made = [_bucket(f"{choice}|{word}") for word in (*words, *others, f"place {place}", "")]
                features += made
                owners += [number] * len(made)
                number += 1
        return cls(
            feature=np.array(features, np.int64),
            choice=np.array(owners, np.int64),
            begins=np.array(begins, np.int64),
            total=number,
        )

    def scores(self, weights: Float64[np.ndarray, " w"]) -> Float64[np.ndarray, " {self.total}"]:
        return np.bincount(self.choice, weights[self.feature], self.total)

    def shares(self, weights: Float64[np.ndarray, " w"]) -> Float64[np.ndarray, " {self.total}"]:
        """Softmax over the choices of each question."""
        scores = self.scores(weights)
        sizes = np.diff([*self.begins, self.total])
        powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, self.begins), sizes))
        return powers / np.repeat(np.add.reduceat(powers, self.begins), sizes)

    def fit(self, answers: Sequence[int]) -> Float64[np.ndarray, " w"]:
        """Coefficients of the largest penalised likelihood, by Adam (arXiv:1412.6980) on all questions at once."""
        right = np.zeros(self.total)
        right[self.begins + np.array(answers)] = 1
        weights, mean, square = np.zeros(BUCKETS), np.zeros(BUCKETS), np.zeros(BUCKETS)
        for step in range(1, STEPS + 1):
            error = self.shares(weights) - right
            slope = (np.bincount(self.feature, error[self.choice], BUCKETS) + SHRINK * weights) / len(self.begins)
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope**2
            weights -= STEP_SIZE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        return weights

    def best(self, weights: Float64[np.ndarray, " w"]) -> list[int]:
        """The most likely choice of each question."""
        scores = self.scores(weights)
        ends = [*self.begins[1:], self.total]
        return [int(scores[begin:end].argmax()) for begin, end in zip(self.begins, ends, strict=True)]


def _words(question: Asked) -> list[str]:
    """Words and pairs of neighbouring words, once each, and the template."""
    words = "".join(letter if letter.isalnum() else " " for letter in question.text.lower()).split()
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    return [*sorted({*words, *pairs}), f"template {question.template}"]


def _bucket(text: str) -> int:
    return zlib.crc32(text.encode()) % BUCKETS


# Numbers: ridge regression on the words.


def _of_numbers(family: str, known: list[Asked], rows: list[Asked], rng: np.random.Generator) -> Blind:
    vocabulary = {word: i for i, word in enumerate(sorted({word for question in known for word in _words(question)}))}
    given, wanted = _counts(known, vocabulary), _counts(rows, vocabulary)
    answers = np.stack([_numbers(question.answer) for question in known])  # (n, coordinates)
    square = given @ given.T + SHRINK * np.eye(len(given))
    # Of the many coefficients only as many as there are questions are free: solve for those.
    reach = np.linalg.solve(square, given @ wanted.T).T

    def right(taught: Float64[np.ndarray, "n c"]) -> int:
        middle = np.median(taught, axis=0)
        predicted = middle + reach @ (taught - middle)
        return sum(
            is_right(question, ", ".join(map(str, guess)))
            for question, guess in zip(rows, predicted.tolist(), strict=True)
        )

    constant = ", ".join(map(str, np.median(answers, axis=0).tolist()))
    common = sum(is_right(question, constant) for question in rows) / len(rows)
    control = float(np.mean([right(rng.permutation(answers)) for _ in range(SHUFFLES)])) / len(rows)
    # The commonest answer learns nothing from words either: the better of the two is what a blind guess reaches.
    return _row(family, len(known), right(answers), len(rows), max(control, common), common)


def _counts(questions: Sequence[Asked], vocabulary: dict[str, int]) -> Float64[np.ndarray, "n v"]:
    counts = np.zeros((len(questions), len(vocabulary)))
    for row, question in enumerate(questions):
        for word in _words(question):
            if word in vocabulary:
                counts[row, vocabulary[word]] = 1
    return counts


def _numbers(answer: str) -> Float64[np.ndarray, " n"]:
    return np.array([float(part) for part in answer.split(",")])
