"""What it costs that torch's threads spin: small layers on all cores, alone and beside others that do the same.

python benchmarks/threads.py
"""

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

import tyro

PROGRAM = """
import sys, time, torch
net = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(384, 384), torch.nn.GELU()) for _ in range(12)])
x, calls = torch.randn(128, 384), 0
with torch.inference_mode():
    began = time.monotonic()
    while time.monotonic() - began < float(sys.argv[1]):
        net(x)
        calls += 1
print(calls / float(sys.argv[1]))
"""


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Print calls a second of each process, by GOMP_SPINCOUNT and by how many processes run at once."""

    seconds: float = 6.0
    """Of each measurement."""
    rounds: int = 3
    """Of which the median is printed; the settings take turns."""
    spins: tuple[str, ...] = ("", "2000", "0")
    """Values of GOMP_SPINCOUNT; "" is torch's own way."""
    processes: tuple[int, ...] = (1, 2, 3)

    def __call__(self) -> None:
        bare = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        found: dict[tuple[str, int], list[float]] = {}
        for _ in range(self.rounds):
            for count in self.processes:
                for spin in self.spins:
                    environment = bare | ({"GOMP_SPINCOUNT": spin} if spin else {})
                    command = [sys.executable, "-c", PROGRAM, str(self.seconds)]
                    running = [
                        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                        for _ in range(count)
                    ]
                    rates = [float(process.communicate()[0]) for process in running]
                    found.setdefault((spin, count), []).append(statistics.mean(rates))
        for count in self.processes:
            own = statistics.median(found[self.spins[0], count])
            for spin in self.spins:
                rate = statistics.median(found[spin, count])
                name = f"GOMP_SPINCOUNT={spin}" if spin else "as torch has it"
                print(f"{count} at once, {name}: {rate:.1f} calls/s each, {rate / own:.2f} times")


if __name__ == "__main__":
    tyro.cli(Threads)()
