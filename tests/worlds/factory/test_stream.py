"""Records to train on: functions of their index, whoever makes them; and true in what they say."""

import itertools
import re
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from orrery.errors import DatasetError, SettingsError
from orrery.worlds.factory.behaviours import BURST_STEPS, CALM_STEPS, behaviour, policy
from orrery.worlds.factory.cell import Cell
from orrery.worlds.factory.mixture import BLOCK, FIRST_SEED, MIX, SEEDS, RecordSpec, spec_of
from orrery.worlds.factory.parts import HELD_OUT
from orrery.worlds.factory.pcm import HALF_TAPS, decimated
from orrery.worlds.factory.questions.sights import Witness
from orrery.worlds.factory.rollout import roll
from orrery.worlds.factory.scene_words import scene_caption
from orrery.worlds.factory.shards import read_shard, write_shard
from orrery.worlds.factory.stream import AFTER_STEPS, CLIP_STEPS, CLIPS, Record, record_of, stream
from orrery.worlds.factory.tasks import TASKS, draw_job


def found(split, **wanted) -> RecordSpec:
    """The first spec of a split whose episode is so."""
    return next(
        spec
        for spec in (spec_of(index, split) for index in range(2000))
        if all(getattr(spec if hasattr(spec, name) else spec.episode, name) == value for name, value in wanted.items())
    )


def values(record: Record) -> list:
    """Everything in a record in a form that can be compared."""
    plain = {field.name: getattr(record, field.name) for field in fields(record)}
    plain |= {f"drawing {name}": array for name, array in plain.pop("drawing").arrays().items()}
    return [
        (name, value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else (name, value)
        for name, value in plain.items()
    ]


@pytest.fixture(scope="module")
def success() -> Record:
    spec = found("train", task="press_start", behaviour="expert", branch=None, questions=True)
    return record_of(spec)


def test_a_block_has_the_shares_of_the_mixture_and_seven_blocks_every_task_equally_often():
    assert sum(row.records for row in MIX) == BLOCK
    for split in FIRST_SEED:
        specs = [spec_of(index, split) for index in range(7 * BLOCK)]
        assert Counter(spec.episode.task for spec in specs) == dict.fromkeys(TASKS, BLOCK)
        for block in range(7):
            part = specs[block * BLOCK : (block + 1) * BLOCK]
            assert Counter(spec.episode.behaviour == "bursts" for spec in part)[True] == 35
            assert Counter(spec.episode.branch for spec in part)["let_go"] == 3
        assert {spec.episode.task for spec in specs if spec.episode.behaviour == "biased"} <= {"peg_insert"}


def test_seeds_of_splits_are_apart_and_groups_share_theirs():
    ranges = sorted((first, first + SEEDS - 1) for first in FIRST_SEED.values())
    assert ranges[0][0] >= 10_000_000
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ranges))
    groups = {}
    for index in range(3 * BLOCK):
        spec = spec_of(index, "train")
        assert spec.group <= index
        assert spec.episode.seed == FIRST_SEED["train"] + spec.group
        groups.setdefault(spec.group, []).append(spec)
    for members in groups.values():
        ways = [spec.episode.branch for spec in members]
        assert ways == [None] or sorted(map(str, ways)) == ["expert", "let_go", "play", "straight"]
        shared = {(s.episode.seed, s.episode.task, s.episode.behaviour, s.random_look, s.pairs) for s in members}
        assert len(shared) == 1


def test_looks_pairs_and_words_are_those_of_the_split():
    specs = {split: [spec_of(index, split) for index in range(2 * BLOCK)] for split in FIRST_SEED}
    assert 0.03 < np.mean([spec.random_look for spec in specs["train"]]) < 0.2
    assert not any(spec.random_look for split in ("validation", "test") for spec in specs[split])
    assert {spec.words for spec in specs["test"]} == {"test"}
    assert {spec.words for split in ("train", "validation") for spec in specs[split]} == {"train"}
    assert Counter(spec.pairs for spec in specs["test"]) == {"train": BLOCK, "held_out": BLOCK}


def test_an_index_without_a_seed_is_refused():
    with pytest.raises(SettingsError, match="numbered"):
        spec_of(SEEDS, "train")


def test_a_record_is_a_function_of_its_index(success):
    assert values(record_of(spec_of(success.index, "train"))) == values(success)


def test_without_sound_and_questions_nothing_else_changes(success):
    bare = record_of(spec_of(success.index, "train"), sound=False, questions=False)
    assert (bare.sound, bare.questions) == (None, ())
    assert values(replace(bare, sound=success.sound, questions=success.questions)) == values(success)


def test_sixteen_actions_follow_on_every_state_up_to_the_success(success):
    assert success.success
    lamp = next(time_s for time_s, kind, _ in success.events if kind == "belt_started")
    assert len(success.state) - round(lamp * 20) >= AFTER_STEPS
    assert len(success.sound) == 800 * len(success.state)
    spec = found("train", task="belt_pick", behaviour="expert", branch=None)
    made = record_of(spec, sound=False, questions=False)
    grasps = [round(time_s * 20) for time_s, kind, _ in made.events if kind == "grasped"]
    assert len(made.state) - grasps[-1] > AFTER_STEPS


def test_steps_after_a_late_success_go_beyond_the_time():
    rng = np.random.default_rng(3)
    job = draw_job("press_start", rng)
    whole = roll(Cell(job.layout, job.parameters), job, policy(behaviour("expert"), job, rng), after_steps=0)
    assert whole.success
    tight = roll(
        Cell(job.layout, job.parameters), job, policy(behaviour("expert"), job, rng), steps=len(whole.moments),
        after_steps=AFTER_STEPS,
    )  # fmt: skip
    assert len(tight.moments) == len(whole.moments) + AFTER_STEPS


def test_bursts_throw_an_expert_off_and_let_it_find_back_undisturbed():
    rng = np.random.default_rng(0)
    job = draw_job("kit_fill", rng, random_look=False)
    cell = Cell(job.layout, job.parameters, listens=False)
    made = roll(cell, job, policy(behaviour("bursts"), job, rng), steps=140, to_the_end=True)
    near = np.array([np.abs(moment.action - moment.expert).max() < 1e-6 for moment in made.moments])
    runs = [len(run) for run in re.findall("1+", "".join("01"[int(one)] for one in near))]
    assert sum(run >= 16 for run in runs) >= 2
    wild = [len(run) for run in re.findall("0+", "".join("01"[int(one)] for one in near))]
    assert len(wild) >= 3
    assert min(wild) >= 1
    assert np.median(wild) <= BURST_STEPS[1]
    assert max(runs) <= CALM_STEPS[1]
    assert max(np.abs(moment.action - moment.expert)[:3].max() for moment in made.moments) > 0.015


def test_a_cell_that_does_not_listen_moves_the_same():
    job = draw_job("stack", np.random.default_rng(1))
    ends = []
    for listens in (True, False):
        cell = Cell(job.layout, job.parameters, listens=listens)
        made = roll(cell, job, policy(behaviour("noise_1"), job, np.random.default_rng(2)), steps=30)
        ends.append(cell.snapshot().physics)
        assert bool(made.impacts or made.rubbings) <= listens
    np.testing.assert_array_equal(*ends)


def test_an_expert_who_keeps_holds_what_it_lifted_and_lets_go_of_what_it_inserted():
    for task in ("belt_pick", "peg_insert"):
        job = draw_job(task, np.random.default_rng(1))
        cell = Cell(job.layout, job.parameters, listens=False)
        actor = policy(behaviour("expert"), job, np.random.default_rng(0))
        made = roll(cell, job, actor, after_steps=25, keeps=True)
        assert not any(moment.failure for moment in made.moments[-25:])
        assert made.moments[-26].failure
        actions = np.stack([moment.expert for moment in made.moments[-20:]])
        if task == "belt_pick":
            assert np.abs(actions).max() < 1e-3
            assert cell.memory.held == job.goals[0].part
        else:
            assert actions[:, 4].min() > 0.2
            assert cell.memory.held is None


def test_siblings_begin_in_one_state():
    group = found("train", task="stack", branch="play").group
    specs = [spec for spec in (spec_of(group + k, "train") for k in range(BLOCK)) if spec.group == group]
    made = [record_of(spec, sound=False, questions=False) for spec in specs]
    assert {record.branch for record in made} == {"expert", "play", "straight", "let_go"}
    assert len({record.fork_step for record in made}) == 1
    for record in made[1:]:
        np.testing.assert_array_equal(record.state[0], made[0].state[0])
        np.testing.assert_array_equal(record.parts[0], made[0].parts[0])
        assert not np.allclose(record.state[-1], made[0].state[-1])
    expert = next(record for record in made if record.branch == "expert")
    np.testing.assert_allclose(expert.action, expert.expert, atol=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_scene_captions_name_exactly_what_is_seen_and_where_it_is(split):
    plurals = {"cubes", "discs", "pegs", "bars", "crosses"}
    for seed, task in enumerate(TASKS):
        rng = np.random.default_rng([seed, 5])
        job = draw_job(task, rng)
        cell = Cell(job.layout, job.parameters, listens=False)
        made = roll(cell, job, policy(behaviour("expert"), job, rng))
        witness = Witness(cell, made, 128, 128, cameras=("front",))
        for frame in (0, len(made.moments) // 2, len(made.moments) - 1):
            sight = witness.look(frame, "front")
            text = scene_caption(cell, sight, rng, split)
            assert 2 <= len(text.split()) <= 45
            named = text.split(";")[0].rstrip(".")
            # What a part stands on is named once more.
            named = re.sub(r" on a \w+ \w+", "", named)
            counted = Counter()
            for number, finish, kind in re.findall(
                r"\b(a|two|three|four) (?:cracked )?(red|green|blue|purple|steel|brass) (\w+)", named, re.IGNORECASE
            ):
                count = {"a": 1, "two": 2, "three": 3, "four": 4}[number.lower()]
                assert (kind in plurals) == (count > 1)
                single = {"crosses": "cross"}.get(kind, kind.rstrip("s") if count > 1 else kind)
                counted[finish.lower(), single] += count
            assert counted == Counter((sight.parts[i].finish, sight.parts[i].kind) for i in sight.seen)
            assert ("in the gripper" in text) == (sight.held is not None and sight.held in sight.seen)
            assert ("on the belt" in text) <= ("belt" in sight.support or frame == 0)
            assert ("cracked" in text) <= any(part.cracked for part in sight.parts)


def test_what_a_finished_expert_left_is_said():
    said = {}
    for task in ("peg_insert", "stack", "inspect_reject", "kit_fill"):
        rng = np.random.default_rng(1)
        job = draw_job(task, rng)
        cell = Cell(job.layout, job.parameters, listens=False)
        made = roll(cell, job, policy(behaviour("expert"), job, rng), after_steps=12, keeps=True)
        assert made.success
        sight = Witness(cell, made, 128, 128, cameras=("front",)).look(len(made.moments) - 1, "front")
        said[task] = scene_caption(cell, sight, rng, "train")
    assert f"{said['peg_insert']}".count("in the hole of the fixture") == 1
    assert re.search(r"(red|green|blue|purple|steel|brass) \w+ on a (red|green|blue|purple|steel|brass)", said["stack"])
    assert "in the reject bin" in said["inspect_reject"]
    assert re.search("in the (left|middle|right) slot", said["kit_fill"])


def test_clips_are_told_by_what_happens_in_them():
    record = record_of(found("train", task="stack", behaviour="expert", branch=None), sound=False, questions=False)
    assert record.success
    assert 1 <= len(record.clips) <= CLIPS
    for frame, text in record.clips:
        assert 0 <= frame <= len(record.state) - CLIP_STEPS - 1
        within = {kind for at_s, kind, _ in record.events if 0 < at_s - frame / 20 <= CLIP_STEPS / 20}
        for kind, words in (("grasped", "it grasps the"), ("released", " go")):
            assert (words in text.lower() and "nothing" not in text) == (kind in within)


def test_the_words_of_the_test_split_are_not_in_training(success):
    spec = found("test", task="stack", behaviour="expert", branch=None, pairs="held_out")
    record = record_of(spec, sound=False)
    row = TASKS["stack"]
    assert len(record.instructions) == len(row.held_out_phrasings)
    assert len(success.instructions) == len(TASKS["press_start"].phrasings)
    pair = tuple(re.search(r"the (\w+) (\w+) above", record.instructions[0]).groups())
    assert pair in HELD_OUT


def test_questions_are_about_pictures_of_the_front_camera_within_the_record(success):
    assert len(success.questions) >= 5
    for question in success.questions:
        assert (question.camera, question.sound, question.action) == ("front", False, False)
        assert question.media in ("frame", "episode")
        assert 0 <= question.start_frame < question.stop_frame <= len(success.state)


def test_decimation_keeps_what_is_below_seven_kilohertz_and_removes_what_would_fold():
    times = np.arange(-HALF_TAPS, 9600 + HALF_TAPS) / 48_000
    for pitch, kept in ((200.0, 1.0), (3000.0, 1.0), (6600.0, 1.0), (8600.0, 0.0), (15_000.0, 0.0)):
        tone = np.sin(2 * np.pi * pitch * times).astype(np.float32)
        made = decimated(np.stack([tone, -tone], axis=1))
        assert made.shape == (3200, 2)
        np.testing.assert_allclose(made[:, 0], -made[:, 1], atol=1e-6)
        expected = kept * np.sin(2 * np.pi * pitch * np.arange(3200) / 16_000)
        np.testing.assert_allclose(made[:, 0], expected, atol=2e-3 if kept < 1 else 1e-2)


def test_shards_read_back_as_they_were_written(success, tmp_path):
    bare = record_of(spec_of(success.index, "validation"), sound=False)
    write_shard(tmp_path / "one.npz", [success, bare])
    again = read_shard(tmp_path / "one.npz")
    assert [values(record) for record in again] == [values(success), values(bare)]
    whole = (tmp_path / "one.npz").read_bytes()
    for damaged in (b"", b"something else", whole[: len(whole) // 2]):
        (tmp_path / "two.npz").write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"two\.npz"):
            read_shard(tmp_path / "two.npz")


def test_two_workers_make_the_same_records_each_once():
    with stream(40, 2, split="train", sound=False, questions=False) as records:
        made = {record.index: record for record in (next(records) for _ in range(4))}
    assert len(made) == 4
    assert {0, 1} & {index - 40 for index in made}
    for index in list(made)[:2]:
        assert values(record_of(spec_of(index, "train"), sound=False, questions=False)) == values(made[index])
    assert all(process.poll() is not None for process in records.processes)
    with pytest.raises(DatasetError, match="closed"):
        next(records)


def test_a_dead_worker_is_an_error_and_nothing_is_left_running():
    with stream(0, 2, split="train", ahead=1, sound=False, questions=False) as records:
        next(records)
        records.processes[1].kill()
        with pytest.raises(DatasetError, match="Worker 1"):
            list(itertools.islice(records, 50))
    assert all(process.poll() is not None for process in records.processes)
