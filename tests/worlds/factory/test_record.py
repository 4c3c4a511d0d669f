"""Plans are read strictly; what is recorded from them depends on nothing else, and a killed recording goes on."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orrery.data.check import check_dataset
from orrery.data.lerobot import extra_path, open_dataset
from orrery.data.media import read_sound
from orrery.errors import DatasetError, OrreryError
from orrery.worlds.factory.behaviours import BRANCHES
from orrery.worlds.factory.parts import HELD_OUT
from orrery.worlds.factory.plan import episodes, read_plan
from orrery.worlds.factory.record import folder_hash, record
from orrery.worlds.factory.tasks import TASKS

PLAN = """
format = "orrery.factory_plan"
version = 1
name = "small"
cameras = ["front"]
height = 32
width = 32
clearances_m = [0.003, 0.001]
[[split]]
name = "train"
first_seed = 100
last_seed = 199
unseen = false
random_look = true
groups = 0
episodes = { expert = { press_start = 2, stack = 1 }, noise_1 = { press_start = 1 } }
[[split]]
name = "test"
first_seed = 200
last_seed = 299
unseen = true
random_look = false
groups = 0
episodes = { expert = { belt_pick = 1 } }
"""


def planned(folder: Path, text: str = PLAN):
    path = folder / "plan.toml"
    path.write_text(text)
    return read_plan(path)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    told = []
    summary = record(planned(folder), folder / "out", tell=lambda done, total: told.append((done, total)))
    return folder / "out", summary, told


def about(root: Path, number: int) -> dict:
    return json.loads(extra_path(root, "about", "json", number).read_text())


def test_a_plan_is_spread_over_tasks_and_behaviours_and_each_episode_has_a_seed(tmp_path):
    text = PLAN.replace("{ press_start = 2, stack = 1 }", "4").replace("groups = 0", "groups = 2", 1)
    (train, _) = planned(tmp_path, text).splits
    specs = episodes(train)
    own = [spec for spec in specs if spec.branch is None]
    assert [spec.seed for spec in own] == list(range(100, 100 + len(own)))
    assert {spec.task for spec in own[:10]} >= set(list(TASKS)[:5])
    siblings = [spec for spec in specs if spec.branch is not None]
    assert len(siblings) == 2 * len(TASKS) * (len(BRANCHES) - 1)
    assert {spec.seed for spec in siblings} <= {spec.seed for spec in own if spec.behaviour == "expert"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"small"', '"small"\ncolour = 1', "does not know colour"),
        ("height = 32\n", "", "lacks height"),
        ("height = 32", "height = 33", "even whole number"),
        ('["front"]', '["top"]', "cameras are front and some of"),
        ("version = 1", "version = 2", "is read"),
        ("first_seed = 200", "first_seed = 150", "share seeds from 150"),
        ("last_seed = 199", "last_seed = 101", "needs 4 seeds"),
        ("press_start = 2", "pres_start = 2", "Did you mean 'press_start'"),
        ("noise_1", "noise_9", "no behaviour"),
        ("noise_1 = { press_start = 1 }", "biased = 1", "is about pegs"),
        ("groups = 0", "groups = 3", "groups must be 0 to 0"),
        ("unseen = true", "unseen = 1", "true or false"),
        ("[[split]]", "[[split]", "not valid TOML"),
        ('"train"', '"../train"', "becomes a folder"),
        ("first_seed = 100", 'first_seed = "100"', "whole numbers"),
        ("[0.003, 0.001]", "[]", "clearances_m lists"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_is_wrong(tmp_path, old, new, said):
    with pytest.raises(OrreryError, match=said):
        planned(tmp_path, PLAN.replace(old, new, 1))


def test_what_was_recorded_reads_back_with_sound_events_and_objects(recorded):
    out, summary, told = recorded
    dataset = open_dataset(out / "train")
    assert (len(dataset), dataset.problems) == (summary["splits"]["train"]["episodes"], ())
    assert told[-1] == (5, 5)
    for number in range(len(dataset)):
        episode = dataset.episode(number)
        facts = about(out / "train", number)
        assert facts["instruction"] == episode.task
        assert 100 <= facts["seed"] < 200
        assert episode.frames("observation.images.front").shape == (episode.length, 32, 32, 3)
        sound = read_sound(extra_path(out / "train", "sound", "flac", number))
        assert sound.samples.shape == (episode.length * 2400, 2)
        if facts["behaviour"] == "expert":
            assert facts["success"]
            np.testing.assert_allclose(episode.columns["action"], episode.columns["expert.action"], atol=1e-6)


def test_the_test_split_holds_what_training_never_shows(recorded):
    out, _, _ = recorded
    facts = about(out / "test", 0)
    wanted = facts["layout"]["parts"][facts["goals"][0]["part"]]["part"]
    assert (wanted["finish"], wanted["kind"]) in HELD_OUT
    spoken = TASKS["belt_pick"].held_out_phrasings
    assert any(facts["instruction"].startswith(phrase.split("{")[0]) for phrase in spoken)
    report = check_dataset(out / "test", against=[out / "train"])
    assert [finding for finding in report.findings if finding.severity == "error"] == []


def test_two_processes_write_the_same_bytes(recorded, tmp_path):
    out, summary, _ = recorded
    assert record(planned(tmp_path), tmp_path / "out", workers=2)["splits"] == summary["splits"]
    assert folder_hash(tmp_path / "out" / "train") == folder_hash(out / "train")


def test_a_killed_recording_loses_no_finished_episode_and_goes_on_to_the_same_bytes(recorded, tmp_path):
    _, summary, _ = recorded
    plan = planned(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom orrery.worlds.factory.plan import read_plan\n"
        "from orrery.worlds.factory.record import record\n"
        "record(read_plan(Path(sys.argv[1])), Path(sys.argv[2]), tell=lambda done, total: print(done, flush=True))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "plan.toml"), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.stdout.readline().strip() != "2":
            pass
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGKILL)
    found = open_dataset(tmp_path / "out" / "train")
    assert 2 <= len(found) <= 4
    assert found.episode(1).frames("observation.images.front").shape[1:] == (32, 32, 3)
    assert record(plan, tmp_path / "out")["splits"] == summary["splits"]


def test_a_folder_of_something_else_or_of_another_plan_is_refused(recorded, tmp_path):
    out, _, _ = recorded
    plan = planned(tmp_path)
    with pytest.raises(DatasetError, match="another plan"):
        record(replace(plan, sha256="0" * 64), out)
    with pytest.raises(DatasetError, match="not empty"):
        record(plan, tmp_path)


def open_ports() -> set[str]:
    """Addresses, in hexadecimal, of this machine's sockets that listen beyond its loopback."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            # 0A listens; 0100007F is 127.0.0.1, alone or in an IPv6 address.
            if state == "0A" and "0100007F:" not in address:
                found.add(address)
    return found


def test_a_local_ray_of_two_workers_writes_the_same_bytes_and_listens_to_nobody_else(recorded, tmp_path):
    # Not importorskip: Ray must not be imported before.
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    _, summary, _ = recorded
    before, seen = open_ports(), set()
    made = record(
        planned(tmp_path), tmp_path / "out", workers=2, ray="local", tell=lambda done, total: seen.update(open_ports())
    )
    assert made["splits"] == summary["splits"]
    assert seen == before
