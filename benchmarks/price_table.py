"""What an approximate speed changes in the table of `orrery eval`: every figure exactly and at that speed.

    python benchmarks/price_table.py
    python benchmarks/price_table.py --speed 8bit --size standard --out out/price_table

The bound of `runtime.price` is lifted for it, for this is what a bound is judged by. Cases and seeds are the same for
both. Prints each figure with its interval, and marks those whose intervals at the other speed do not hold it. Needs the
extra `worlds`.
"""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from orrery.evaluation.factory.figure import SIZES, Suite
from orrery.evaluation.factory.probe import load_probes
from orrery.evaluation.factory.table import Tools, evaluate
from orrery.runtime.load import load
from orrery.runtime.price import made_fast
from orrery.runtime.speed import SPEEDS
from orrery.weights.atomic import write_atomic
from orrery.weights.documents import dump_json

ROWS = ("forward", "state", "obeys", "inverse", "policy", "text_to_image", "text_to_video", "sound")
"""Rows that are sampled; those that are answered in words do not depend on the speed."""


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """What to compare."""

    checkpoint: str = "pico"
    speed: Literal["fp8", "8bit"] = "fp8"
    size: Literal["quick", "standard", "full"] = "quick"
    device: str = "cpu"
    dtype: str = "float32"
    rows: tuple[str, ...] = ROWS
    threads: int | None = None
    seed: int = 0
    out: Path | None = None
    """JSON file to write both tables to."""


def main(job: PriceTable) -> None:
    """Evaluate twice and print."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    model = load(job.checkpoint, device=job.device, dtype=job.dtype)
    tools = Tools(reader=load_probes(device=job.device))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    suite = Suite(size=SIZES[job.size], seed=job.seed, batch=8 if job.device == "cpu" else 64, tell=tell)
    tables = {"exact": evaluate(model, suite, tools, job.rows)}
    priced = made_fast(model, SPEEDS[job.speed], bound=math.inf)
    assert priced.price is not None
    tables[job.speed] = evaluate(priced, replace(suite), tools, job.rows)
    print(
        f"{job.checkpoint}, {job.size}, seed {job.seed}: velocities are off by {priced.price.to_text()} of their size"
    )
    print(f"{'':58}{'exact':>22}{job.speed:>22}")
    for exact, other in zip(figures(tables["exact"]), figures(tables[job.speed]), strict=True):
        assert exact["name"] == other["name"]
        apart = "" if holds(exact, other) and holds(other, exact) else "  *"
        print(f"{exact['name'][:57]:58}{shown(exact):>22}{shown(other):>22} {exact['unit']}{apart}")
    if job.out is not None:
        plain = {
            name: {key: part for key, part in table.items() if key != "outcomes"} for name, table in tables.items()
        }
        write_atomic(job.out, dump_json({"format": "orrery.price_table", "version": 1, **plain}))


def figures(table: dict[str, Any]) -> list[dict[str, Any]]:
    """All figures of a table, in order."""
    return [figure for row in table["rows"] for figure in row.get("figures", ())]


def shown(figure: dict[str, Any]) -> str:
    """A value with its interval."""
    if figure["value"] is None:
        return "none"
    interval = figure["interval"]
    return f"{figure['value']:.3g}" + ("" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})")


def holds(figure: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the interval of one holds the value of the other; true where there is none."""
    interval, value = figure["interval"], other["value"]
    slack = 1e-6
    return interval is None or value is None or interval[0] - slack <= value <= interval[1] + slack


if __name__ == "__main__":
    main(tyro.cli(PriceTable))
