"""Seconds from command to first answer, each against its budget: `.venv/bin/python benchmarks/startup.py`.

Timings depend on the machine, so they are measured here and not asserted in a test; tests/test_imports.py checks what
is loaded, which decides them. Wall time is judged; CPU time tells a slow program from a busy machine. Exits with 1 when
a median is over its budget.
"""

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 7

# (what, command, budget in seconds)
COMMANDS = [
    ("orrery --help", [str(Path(sys.executable).with_name("orrery")), "--help"], 0.5),
    ("import orrery", [sys.executable, "-c", "import orrery"], 0.2),
    ("import orrery.tasks.request", [sys.executable, "-c", "import orrery.tasks.request"], 0.5),
    ("second bootstrap.py", ["python3", str(ROOT / "bootstrap.py"), "run", "true"], 2.0),
]


def measure(command: list[str]) -> tuple[list[float], float]:
    """(wall seconds of each of `RUNS` runs, mean CPU seconds), after one run that fills the file cache."""
    subprocess.run(command, check=True, capture_output=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall.append(time.perf_counter() - begin)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / RUNS


def main() -> int:
    over = False
    print(f"{'':30}{'median s':>10}{'worst s':>10}{'CPU s':>10}{'budget s':>10}")
    for name, command, budget_s in COMMANDS:
        wall, cpu_s = measure(command)
        median = statistics.median(wall)
        over |= median > budget_s
        verdict = "  OVER" if median > budget_s else ""
        print(f"{name:30}{median:10.3f}{max(wall):10.3f}{cpu_s:10.3f}{budget_s:10.1f}{verdict}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
