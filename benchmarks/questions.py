"""Can questions about the factory be answered without looking? `.venv/bin/python benchmarks/questions.py`.

Attempts of all tasks and behaviours are played, asked about and balanced, for training and for validation from
different seeds; a model of the words alone learns from the ones and answers the others. Exits with 1 when it, or the
commonest answer, is more than 5 points above chance in a family of 1,000 validation questions or more. `--look K` draws
K questions beside their pictures instead, ten on a sheet, to be checked by eye.
"""

import argparse
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# Read when numpy is loaded: one core for each worker.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image, ImageDraw

from orrery.evaluation.question_only import blind_scores
from orrery.worlds.factory.behaviours import BEHAVIOURS, policy
from orrery.worlds.factory.cell import CONTROL_HZ, Cell
from orrery.worlds.factory.questions.edits import film_clip, make_clip
from orrery.worlds.factory.questions.phrasings import TEXT_ALONE
from orrery.worlds.factory.questions.question import FAMILIES, Question, ask, balanced
from orrery.worlds.factory.rollout import film, roll
from orrery.worlds.factory.tasks import TASKS, draw_job

WHO = (
    "expert",
    "expert",
    "expert",
    "noise_0.25",
    "noise_0.5",
    "noise_1",
    "noise_2",
    "biased",
    "wrong_part",
    "wrong_part",
    "late_gripper",
    "play",
    "goals",
    "goals",
)
"""Behaviours in the shares of a data set."""
EXTRA = ("inspect_reject", "belt_sort")
"""Tasks that are played twice as often: cracks and full bins are asked about in them alone."""
MOST_POINTS, ENOUGH = 5.0, 1000
SHOWN = 4
"""Pictures of a span on a sheet."""


def attempt(seed: int) -> tuple[list[Question], float]:
    """Questions about one attempt, and the seconds that asking took."""
    rng = np.random.default_rng([seed, 1])
    tasks = (*TASKS, *EXTRA)
    job = draw_job(tasks[int(rng.integers(len(tasks)))], rng, pairs="train")
    cell = Cell(job.layout, job.parameters)
    played = roll(cell, job, policy(BEHAVIOURS[WHO[int(rng.integers(len(WHO)))]], job, rng))
    began = time.perf_counter()
    clip = make_clip(cell, played, rng)
    questions = ask(cell, played, rng, split="train", height=128, width=128, clip=clip)
    return questions, time.perf_counter() - began


def pool(attempts: int, first: int, workers: int) -> tuple[list[Question], float]:
    """All their questions, and the mean seconds of asking."""
    seeds = range(first, first + attempts)
    if workers == 1:
        made = [attempt(seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
            made = list(processes.map(attempt, seeds, chunksize=8))
    return [question for questions, _ in made for question in questions], float(np.mean([took for _, took in made]))


def judge(learnt: int, attempts: int, workers: int, per_family: int) -> bool:
    """Print the table; whether every family with enough questions is near chance."""
    rng = np.random.default_rng(0)
    training, took_s = pool(learnt, 9_600_000, workers)
    validation, _ = pool(attempts, 9_700_000, workers)
    print(f"{learnt} + {attempts} attempts; {len(training) / learnt:.1f} questions an attempt, asked in {took_s:.2f} s")
    raw = Counter(question.family for question in validation)
    training, validation = balanced(training, rng, per_family), balanced(validation, rng, per_family)
    # A family without training questions cannot be judged.
    known = {question.family for question in training}
    rows = {row.family: row for row in blind_scores(training, [q for q in validation if q.family in known])}
    good = True
    print(
        f"{'family':16} {'asked':>6} {'train':>6} {'valid':>6} {'chance':>7} {'common':>7} {'words':>7}"
        f" {'interval':>15} {'points':>7}"
    )
    for family in FAMILIES:
        if family not in rows:
            print(f"{family:16} {raw[family]:6} too few to balance")
            continue
        row = rows[family]
        over = row.over_chance_points > MOST_POINTS and family not in TEXT_ALONE
        bad = over and row.questions >= ENOUGH
        note = "ABOVE CHANCE" if bad else f"below {ENOUGH}" if row.questions < ENOUGH else ""
        note = "read from the text" if family in TEXT_ALONE else note
        good &= not bad
        print(
            f"{family:16} {raw[family]:6} {row.training:6} {row.questions:6} {row.chance:7.3f} {row.majority:7.3f}"
            f" {row.accuracy:7.3f}   {row.interval[0]:.3f} - {row.interval[1]:.3f}"
            f" {row.over_chance_points:7.1f}  {note}"
        )
    return good


def look(count: int, folder: Path, first: int, families: list[str]) -> None:
    """Write sheets of ten questions, each with pictures of what is asked about, at 256 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Image.Image] = []
    for seed in range(first, first + 10 * count):
        rows += _rows(seed, families)
        if len(rows) >= count:
            break
    for sheet in range(0, count, 10):
        ten = rows[sheet : min(sheet + 10, count)]
        page = Image.new("RGB", (2 * ten[0].width, 5 * ten[0].height), "white")
        for place, row in enumerate(ten):
            page.paste(row, (place % 2 * row.width, place // 2 * row.height))
        page.save(folder / f"sheet_{sheet // 10}.png")
    print(f"{min(count, len(rows))} questions in {folder}")


def _rows(seed: int, families: list[str]) -> Iterator[Image.Image]:
    """Two questions of one attempt, drawn."""
    rng = np.random.default_rng([seed, 2])
    job = draw_job(list(TASKS)[seed % len(TASKS)], rng)
    cell = Cell(job.layout, job.parameters)
    played = roll(cell, job, policy(BEHAVIOURS[WHO[int(rng.integers(len(WHO)))]], job, rng))
    clip = make_clip(cell, played, rng)
    questions = ask(cell, played, rng, split="train", height=128, width=128, clip=clip)
    wanted = [question for question in questions if not families or question.family in families]
    by_family: dict[str, list[Question]] = {}
    for question in wanted:
        by_family.setdefault(question.family, []).append(question)
    names = list(by_family)
    for index in rng.permutation(len(names))[:2]:
        question = by_family[names[index]][int(rng.integers(len(by_family[names[index]])))]
        frames = np.unique(np.linspace(question.start_frame, question.stop_frame - 1, SHOWN).round().astype(int))
        if question.media == "clip":
            assert clip is not None
            whole = list(film_clip(cell, clip, question.camera, 256, 256))
            pictures = [whole[frame - clip.start_frame] for frame in frames]
        else:
            states = [played.moments[frame].state for frame in frames]
            pictures = list(film(cell, states, question.camera, 256, 256))
        yield _drawn(
            question, [Image.fromarray(picture) for picture in pictures], seed, [int(frame) for frame in frames]
        )


def _drawn(question: Question, pictures: list[Image.Image], seed: int, frames: list[int]) -> Image.Image:
    row = Image.new("RGB", (SHOWN * 210 + 10, 300), "white")
    draw = ImageDraw.Draw(row)
    text = f"[{question.family} {seed} {question.camera}] {question.prompt}"
    for line, words in enumerate(textwrap.wrap(text, 130)):
        draw.text((5, 3 + 13 * line), words, fill="black")
    draw.text((5, 48), f"-> {question.answer}", fill="red")
    size = 232 if len(pictures) == 1 else 205
    for place, (picture, frame) in enumerate(zip(pictures, frames, strict=True)):
        if question.kind in ("point", "box"):
            marks = [float(part) / 1000 * 256 for part in question.answer.split(",")]
            if question.kind == "box":
                ImageDraw.Draw(picture).rectangle(marks, outline="white")
            else:
                ImageDraw.Draw(picture).ellipse(
                    [marks[0] - 3, marks[1] - 3, marks[0] + 3, marks[1] + 3], outline="white"
                )
        row.paste(picture.resize((size, size)), (5 + place * 210, 64))
        draw.text((8 + place * 210, 270), f"{(frame - frames[0]) / CONTROL_HZ:.2f} s", fill="black")
    return row


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--attempts", type=int, default=1000, help="of validation")
    options.add_argument("--training", type=int, default=500, help="attempts that the model of words learns from")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--per-family", type=int, default=2000)
    options.add_argument("--look", type=int, default=0, help="draw so many questions instead")
    options.add_argument("--families", nargs="*", default=[], help="with --look: only these")
    options.add_argument("--first", type=int, default=0, help="with --look: first seed")
    options.add_argument("--out", type=Path, default=Path("question_sheets"))
    given = options.parse_args()
    if given.look:
        look(given.look, given.out, given.first, given.families)
        return 0
    return 0 if judge(given.training, given.attempts, given.workers, given.per_family) else 1


if __name__ == "__main__":
    sys.exit(main())
