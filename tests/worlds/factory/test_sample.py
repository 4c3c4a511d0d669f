"""The dataset that is shipped: whole, without faults, and made again as it is."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from orrery.data.check import check_dataset
from orrery.data.lerobot import extra_path, open_dataset
from orrery.data.media import read_sound
from orrery.worlds.factory.plan import episodes, read_plan
from orrery.worlds.factory.questions.question import FAMILIES, Question
from orrery.worlds.factory.record import contents, folder_hash, play

ROOT = Path(__file__).parent.parent.parent.parent
SAMPLE, PLAN = ROOT / "examples" / "factory" / "sample", ROOT / "examples" / "factory" / "sample.toml"


def test_the_sample_is_the_one_of_the_datasheet_and_small():
    assert re.search(r"sample\W+10\W+635\W+7\W+`(\w+)`", (ROOT / "docs" / "factory.md").read_text())[1] == folder_hash(
        SAMPLE
    )
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 8_000_000


def test_the_sample_has_no_faults():
    report = check_dataset(SAMPLE)
    assert [finding for finding in report.findings if finding.severity != "note"] == []


def test_an_episode_of_the_sample_comes_out_the_same_again(tmp_path):
    """Not byte for byte: another kind of processor may round otherwise; docs/factory.md says where bytes were equal."""
    plan = read_plan(PLAN)
    (split,) = plan.splits
    dataset = open_dataset(SAMPLE)
    lengths = [row["length"] for row in dataset.rows]
    number = lengths.index(min(lengths))
    shipped = dataset.episode(number)
    made = contents(
        play(episodes(split)[number], plan, split), plan.cameras, (128, 128), split.name, unseen=split.unseen
    )
    assert made["task"] == shipped.task
    for name, values in made["columns"].items():
        np.testing.assert_allclose(values, shipped.columns[name], atol=1e-3)
    for camera, pictures in made["frames"].items():
        # What is left is the loss of the video.
        difference = np.abs(np.stack(list(pictures)).astype(int) - shipped.frames(camera))
        assert difference.mean() < 4
    made["extras"]["sound.flac"](tmp_path / "sound.flac")
    sounds = [
        read_sound(path).samples for path in (tmp_path / "sound.flac", extra_path(SAMPLE, "sound", "flac", number))
    ]
    np.testing.assert_allclose(*sounds, atol=1e-2)


def test_the_questions_of_the_sample_read_back():
    asked = [
        Question.from_dict(row)
        for number in range(10)
        for row in pq.read_table(extra_path(SAMPLE, "questions", "parquet", number)).to_pylist()
    ]
    assert len({question.family for question in asked}) >= 16
    assert {question.family for question in asked} <= set(FAMILIES)
    assert all(question.answer in question.choices for question in asked if question.choices)
