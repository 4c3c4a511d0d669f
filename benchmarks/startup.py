"""Seconds from command to first answer, each against its budget: `.venv/bin/python benchmarks/startup.py`.

Timings depend on the machine, so they are measured here and not asserted in a test; tests/test_imports.py checks what
is loaded, which decides them. Exits with 1 when a median is over its budget.
"""

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


def measure(command: list[str]) -> list[float]:
    """Wall seconds of `RUNS` runs, after one that fills the file cache."""
    seconds = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def main() -> int:
    over = False
    print(f"{'':30}{'median s':>10}{'worst s':>10}{'budget s':>10}")
    for name, command, budget_s in COMMANDS:
        seconds = measure(command)
        median = statistics.median(seconds)
        over |= median > budget_s
        print(f"{name:30}{median:10.3f}{max(seconds):10.3f}{budget_s:10.1f}{'  OVER' if median > budget_s else ''}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
