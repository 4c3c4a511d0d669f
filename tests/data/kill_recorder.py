"""Record small datasets in children, kill them, look at what is left, and go on. Run by test_lerobot_writer.

Usage: kill_recorder.py FOLDER KILLS SEED kills at so many random moments; kill_recorder.py FOLDER steps kills before
every touch of the file system that adopting an episode makes. Prints one JSON object of counts. Forks, so that a run
costs no start; the parent neither encodes nor reads tables, whose threads would not survive a fork.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from orrery.data.lerobot import extra_path, open_dataset
from orrery.data.lerobot_writer import Writer, stage_episode
from orrery.weights.atomic import write_atomic

EPISODES = 4
CAMERAS = {"observation.images.top": (32, 48), "observation.images.side": (16, 16)}
STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.listdir", "os.scandir",
         "shutil.rmtree")  # fmt: skip


def episode(number: int) -> dict:
    rng = np.random.default_rng(number)
    length = 5 + number
    return {
        "task": ("push", "pull", "push")[number % 3],
        "columns": {"action": rng.standard_normal((length, 3)).astype(np.float32)},
        "frames": {c: rng.integers(0, 256, (length, *size, 3), dtype=np.uint8) for c, size in CAMERAS.items()},
        "extras": {"about.json": lambda path: write_atomic(path, json.dumps({"seed": number}).encode())},
    }


def resumed(root: Path) -> Writer:
    return Writer(root, fps=10, robot_type="b", columns={"action": ("x_m", "y_m", "z_m")}, cameras=CAMERAS, resume=True)


def staged(root: Path, number: int) -> Path:
    return root.parent / "staging" / f"{number:03d}"


def record(root: Path) -> None:
    """Stage pairs of episodes out of order, adopt them in order, add the last one; go on where another one stopped."""
    with resumed(root) as writer:
        for number in range(len(writer)):
            shutil.rmtree(staged(root, number), ignore_errors=True)
        for number in range(len(writer), EPISODES - 1):
            for n in (number + 1, number):
                if n < EPISODES - 1 and not staged(root, n).exists():
                    stage_episode(staged(root, n), layout=writer.layout, **episode(n))
            assert writer.adopt(staged(root, number)) == number
        if len(writer) < EPISODES:
            writer.add(**episode(EPISODES - 1))


def look(root: Path) -> None:
    """Every episode that counts is whole; only the totals of info.json may lag behind the index by one."""
    if not list((root / "meta" / "episodes").rglob("file-*.parquet")):
        return
    dataset = open_dataset(root)
    for number in range(len(dataset)):
        given, read = episode(number), dataset.episode(number)
        assert read.task == given["task"]
        np.testing.assert_array_equal(read.columns["action"], given["columns"]["action"])
        assert json.loads(extra_path(root, "about", "json", number).read_bytes()) == {"seed": number}
    assert not [p for p in dataset.problems if "info.json says" not in p], dataset.problems


def child(work: Callable[[], None]) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def killed(process: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def tree(root: Path) -> str:
    """A hash of the names and bytes of all files."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    text = [f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def complete(root: Path, expected: str) -> None:
    assert not killed(child(lambda: look(root)))
    assert not killed(child(lambda: record(root)))
    assert tree(root) == expected, sorted(str(p) for p in root.rglob("*"))


def at_random_moments(folder: Path, kills: int, rng: random.Random, expected: str, whole_s: float) -> dict:
    counts = {"kills": 0, "begun": 0, "leftovers": 0}
    while counts["kills"] < kills:
        shutil.rmtree(folder)
        root = folder / "dataset"
        for _ in range(2):  # the second one goes on from the first, and is killed as well
            process = child(lambda root=root: record(root))
            time.sleep(rng.uniform(0, whole_s))
            os.kill(process, signal.SIGKILL)
            counts["kills"] += killed(process)
            counts["begun"] += root.exists()
            counts["leftovers"] += any(".saving-" in path.name for path in root.rglob("*"))
            assert not killed(child(lambda root=root: look(root)))
        complete(root, expected)
    return counts


def before_every_step(folder: Path, expected: str) -> dict:
    """Kill the adoption of an episode with a new task before its first touch of the file system, its second, ..."""
    shutil.rmtree(folder)
    base, root = folder / "base", folder / "work" / "dataset"

    def prepare() -> None:
        writer = resumed(base / "dataset")
        for n in range(EPISODES - 1):
            stage_episode(staged(base / "dataset", n), layout=writer.layout, **episode(n))
        writer.adopt(staged(base / "dataset", 0))

    assert not killed(child(prepare))
    step, hit = 0, True
    while hit:
        step += 1
        shutil.rmtree(root.parent, ignore_errors=True)
        shutil.copytree(base, root.parent)

        def work(left: int = step) -> None:
            writer = resumed(root)

            def count(event: str, _: object) -> None:
                nonlocal left
                left -= event in STEPS
                if left == 0:
                    left = -1  # the kill is an event itself
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            writer.adopt(staged(root, 1))
            left = -1

        hit = killed(child(work))
        assert not killed(child(lambda: look(root)))
        if step % 10 == 0 or not hit:
            complete(root, expected)
    return {"kills": step - 1}


def main() -> None:
    folder, way = Path(sys.argv[1]) / "work", sys.argv[2]
    begin = time.monotonic()
    assert not killed(child(lambda: record(folder / "dataset")))
    whole_s, expected = time.monotonic() - begin, tree(folder / "dataset")
    if way == "steps":
        counts = before_every_step(folder, expected)
    else:
        counts = at_random_moments(folder, int(way), random.Random(int(sys.argv[3])), expected, whole_s)
    assert "torch" not in sys.modules
    print(json.dumps({**counts, "undisturbed_s": round(whole_s, 2), "all_s": round(time.monotonic() - begin, 1)}))


if __name__ == "__main__":
    main()
