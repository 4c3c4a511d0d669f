"""The dataset that is shipped: whole, without faults, and made again to the same bytes."""

import re
from pathlib import Path

import pyarrow.parquet as pq

from orrery.data.check import check_dataset
from orrery.data.lerobot import extra_path, numbered, open_dataset
from orrery.worlds.factory.plan import episodes, read_plan
from orrery.worlds.factory.questions.question import FAMILIES, Question
from orrery.worlds.factory.record import folder_hash, stage

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
    plan = read_plan(PLAN)
    (split,) = plan.splits
    lengths = [episode["length"] for episode in open_dataset(SAMPLE).rows]
    number = lengths.index(min(lengths))
    staged = stage(episodes(split)[number], plan, split, tmp_path / "staged")
    for camera in plan.cameras:
        key = f"observation.images.{camera}"
        shipped = SAMPLE / "videos" / key / f"{numbered(number)}.mp4"
        assert (staged / "videos" / f"{key}.mp4").read_bytes() == shipped.read_bytes()
    for name in (
        "about.json",
        "sound.flac",
        "events.parquet",
        "objects.parquet",
        "questions.parquet",
        "phases.parquet",
    ):
        kind, suffix = name.split(".")
        assert (staged / "extras" / name).read_bytes() == extra_path(SAMPLE, kind, suffix, number).read_bytes()


def test_the_questions_of_the_sample_read_back():
    asked = [
        Question.from_dict(row)
        for number in range(10)
        for row in pq.read_table(extra_path(SAMPLE, "questions", "parquet", number)).to_pylist()
    ]
    assert len({question.family for question in asked}) >= 16
    assert {question.family for question in asked} <= set(FAMILIES)
    assert all(question.answer in question.choices for question in asked if question.choices)
