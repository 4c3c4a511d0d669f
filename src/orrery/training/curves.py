"""The log of a run as one picture: losses by part, validation by noise level, answers, learning rate and speed.

While a run goes on, a process of its own draws, so that no step waits; `python -m orrery.training.curves LOG PICTURE`
draws the curves of any run.
"""

import importlib.util
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orrery.errors import SettingsError
from orrery.weights.atomic import replacing

CURVES = "curves.png"
MISSING = "matplotlib is not installed. Install the extra: pip install 'orrery[train]'."
COLUMNS = 4
Line = list[tuple[int, float]]
"""Steps and values."""
Panels = dict[str, dict[str, Line]]
"""Title -> label -> line."""


def can_draw() -> bool:
    """Whether matplotlib is installed; it is an extra."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(log: Path, picture: Path) -> None:
    """Draw a log of `train_world` to a PNG, whole or not at all.

    Raises:
        SettingsError: matplotlib is not installed, or there is no such log.
    """
    if not can_draw():
        raise SettingsError(f"Curves cannot be drawn: {MISSING}")
    if not log.is_file():
        raise SettingsError(f"There is no log {log}. Give the log.jsonl of a run.")
    from matplotlib.figure import Figure

    # The last line may just be being written.
    lines_of_log = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    panels = panels_of([json.loads(line) for line in lines_of_log])
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    # A figure of its own, without pyplot: nothing is left open, and no display is looked for.
    figure = Figure(figsize=(4.2 * COLUMNS, 2.8 * rows), layout="constrained")
    for place, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.set_title(title, fontsize=9)
        axes.tick_params(which="both", labelsize=7)
        levels = sum(label.startswith("noise") for label in lines)
        for number, (label, line) in enumerate(lines.items()):
            shade = _SHADES[number % len(_SHADES)] if levels == len(lines) else None
            steps, values = zip(*line, strict=True)
            # A line of one point would not be seen.
            axes.plot(steps, values, label=label, color=shade, linewidth=1.0, marker="" if len(line) > 2 else ".")
        if _falls(title) and all(value > 0 for line in lines.values() for _, value in line):
            axes.set_yscale("log")
        elif not _falls(title):
            axes.set_ylim(bottom=0)
        if len(lines) > 1:
            axes.legend(fontsize=6, frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    with replacing(picture) as file:
        figure.savefig(file, format="png", dpi=100)


_SHADES = ("#440154", "#3b528b", "#21918c", "#5ec962", "#d8c219")
"""From little noise to much: viridis, its end darker so that it shows on white."""


def panels_of(rows: Sequence[dict[str, Any]]) -> Panels:
    """What is drawn. Values that are not finite are left out, and what is 0 throughout: nothing was made there."""
    panels: defaultdict[str, defaultdict[str, Line]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in row.get("losses", {}).items():
            task, _, kind = name.rpartition(" ")
            modality, label = ("answers", kind) if task == "reason" else (kind, task)
            panels[f"loss: {modality}"][label].append((row["step"], value))
        for name, value in row.get("validation", {}).items():
            what, _, level = name.partition(" @")
            if level:
                panels[f"validation error: {what}"][f"noise {level}"].append((row["step"], value))
            elif name.startswith("right "):
                panels["validation: right answers"][name.removeprefix("right ")].append((row["step"], value))
            else:
                panels[f"validation: {name}"][name].append((row["step"], value))
        for name, title in (("learning_rate", "learning rate"), ("tokens_per_s", "tokens/s"), ("mfu", "utilisation")):
            if row.get(name) is not None:
                panels[title][title].append((row["step"], row[name]))
    finite = {
        title: {label: [(x, float(y)) for x, y in line if math.isfinite(y)] for label, line in lines.items()}
        for title, lines in panels.items()
    }
    drawn = {
        title: {label: line for label, line in lines.items() if any(value for _, value in line)}
        for title, lines in finite.items()
    }
    return {title: drawn[title] for title in sorted(drawn, key=_place) if drawn[title]}


def _falls(title: str) -> bool:
    """Whether it is an error, of which factors matter and not differences."""
    return title.startswith(("loss: ", "validation error: "))


def _place(title: str) -> tuple[int, str]:
    return (0 if title.startswith("loss") else 1 if title.startswith("validation") else 2, title)


class Drawing:
    """The curves of a run, drawn beside it in a process of its own."""

    def __init__(self, log: Path, picture: Path) -> None:
        self._command = [sys.executable, "-m", "orrery.training.curves", str(log), str(picture)]
        self._process: subprocess.Popen[bytes] | None = None

    def again(self) -> None:
        """Draw what the log holds now, unless it is just being drawn. Without matplotlib nothing is done."""
        if can_draw() and (self._process is None or self._process.poll() is not None):
            self._process = subprocess.Popen(self._command)

    def finish(self) -> str:
        """Draw all of the log and wait for it. Returns why it is not drawn, or nothing."""
        if not can_draw():
            return MISSING
        if self._process is not None:
            self._process.wait()
        self.again()
        assert self._process is not None
        status = self._process.wait()
        return f"The process that draws ended with status {status}; what it said is on stderr." if status else ""


if __name__ == "__main__":
    draw_curves(Path(sys.argv[1]), Path(sys.argv[2]))
