"""Save over and over in a child, kill it, and open what is left. Run by test_kills; without torch, so it forks fast.

Usage: kill_saves.py FOLDER moments|steps SEED_OR_0 "swap"|"two renames". Prints one JSON object of counts.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orrery.weights.folder import open_folder, save_folder

KILLS = 25
PARTS = 4
STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "ctypes.dlsym")


def save(path: Path, number: int, *, swap: bool) -> None:
    documents = {f"part-{k}.bin": bytes([number % 256]) * 100_000 for k in range(PARTS)}
    save_folder(path, tensors={}, documents=documents, metadata={"number": number}, swap=swap)


def check(path: Path) -> int:
    """Open the checkpoint and return its number, having compared all it holds."""
    folder = open_folder(path)
    number: int = folder.metadata["number"]
    for k in range(PARTS):
        assert folder.file(f"part-{k}.bin").read_bytes() == bytes([number % 256]) * 100_000
    return number


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """Start `work` in a child; returns its process id and a pipe to read what it acknowledges, a byte for each save."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            work(writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    return child, reader


def reap(child: int, reader: int) -> tuple[int, bool]:
    """Wait for a child; returns the saves it acknowledged and whether it was killed."""
    acknowledged = 0
    while data := os.read(reader, 4096):
        acknowledged += len(data)
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return acknowledged, code != 0


def look(path: Path, counts: dict[str, int], last: int, acknowledged: int) -> int:
    """Judge what a killed child left behind: `last` was there before it, and it acknowledged so many saves."""
    counts["between renames"] += not path.exists()
    counts["orphans"] += any(".saving-" in child.name for child in path.parent.iterdir())
    number = check(path)
    assert last + acknowledged <= number <= last + acknowledged + 1, (last, acknowledged, number)
    counts["saves"] += number - last
    return number


def at_random_moments(path: Path, rng: random.Random, counts: dict[str, int], *, swap: bool) -> None:
    last = 0
    for _ in range(KILLS):

        def work(pipe: int, first: int = last + 1) -> None:
            for number in range(first, first + 100_000):
                save(path, number, swap=swap)
                os.write(pipe, b".")

        child, reader = fork(work)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        acknowledged, killed = reap(child, reader)
        counts["kills"] += killed
        last = look(path, counts, last, acknowledged)


def before_every_step(path: Path, counts: dict[str, int], *, swap: bool) -> None:
    """Kill one save before its first touch of the file system, the next before its second, until one gets through."""
    last, step, killed = 0, 0, True
    while killed:
        step += 1

        def work(pipe: int, left: int = step, number: int = last + 1) -> None:
            def count(event: str, _: object) -> None:
                nonlocal left
                left -= event in STEPS
                if left == 0:
                    left = -1  # the kill is an event itself
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            save(path, number, swap=swap)
            left = -1
            os.write(pipe, b".")

        acknowledged, killed = reap(*fork(work))
        counts["kills"] += killed
        last = look(path, counts, last, acknowledged)


def main() -> None:
    path, way, seed, swap = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "swap"
    counts = dict.fromkeys(("kills", "saves", "orphans", "between renames"), 0)
    save(path, 0, swap=swap)
    if way == "steps":
        before_every_step(path, counts, swap=swap)
    else:
        at_random_moments(path, random.Random(seed), counts, swap=swap)
    save(path, 0, swap=swap)
    assert [child.name for child in path.parent.iterdir()] == [path.name], "orphans left after a whole save"
    assert "torch" not in sys.modules
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
