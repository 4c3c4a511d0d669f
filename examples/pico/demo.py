"""Ask the small trained model everything it can do, and write one page with what came out.

python examples/pico/demo.py                                   # the model that comes with the repository, all panels
python examples/pico/demo.py --panels plan act --checkpoint FOLDER --out OUT
"""

import json
import os
import platform
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

# Before torch is loaded: its threads would spin while they wait, and beside another busy process that takes five times
# as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro
from panels import CHUNKS, PANELS, SIZE

import orrery
from orrery.errors import OrreryError, SettingsError
from orrery.evaluation.factory.ask import can, check_model
from orrery.evaluation.factory.figure import Suite
from orrery.evaluation.page import Page, Section, write_page
from orrery.runtime.model import Model
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.tasks.checks import nearest, shown
from orrery.weights.atomic import write_atomic

NO_EVIDENCE = "Generated video is no evidence of safety. Everything here is simulated or made by a model."
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Question, imagine, plan, recover and act with a checkpoint; write index.html and results.json."""

    checkpoint: str = "pico"
    """A local folder, a name of ours or a hub id."""
    out: Path = Path("out/pico")
    """Where the page and its numbers are written."""
    panels: tuple[str, ...] = ()
    """Some of ask, imagine, plan, recover and act; all if left out."""
    seed: int = 0
    """Of test episodes and of all generation."""
    threads: int = 2
    """CPU cores to compute on."""
    workers: int = 2
    """Processes that simulate and draw."""

    def __call__(self) -> None:
        began = time.monotonic()
        for name in self.panels:
            if name not in PANELS:
                raise SettingsError(f"There is no panel {shown(name)}. {nearest(name, PANELS)}")
        torch.set_num_threads(self.threads)
        suite = Suite(size=SIZE, seed=self.seed, workers=self.workers, batch=BATCH)
        model = orrery.load(self.checkpoint)
        check_model(model)
        if model.origin.trained is False:
            print(RANDOM_WEIGHTS)
        seconds = {"load": time.monotonic() - began}
        print(f"Loaded {model.origin.path} in {seconds['load']:.1f} s", flush=True)
        sections = {}
        for name in [name for name in PANELS if not self.panels or name in self.panels]:
            start = time.monotonic()
            sections[name] = self.section(name, model, suite)
            seconds[name] = time.monotonic() - start
            print_section(name, sections[name], seconds[name])
        page = page_of(model, sections, {**self.facts(model), "Seconds": spent(seconds)})
        write_page(self.out / "index.html", page)
        write_atomic(self.out / "results.json", results_of(page, sections, seconds))
        print(f"{time.monotonic() - began:.0f} s in all: {spent(seconds)}")
        print(f"Open {self.out / 'index.html'}; numbers are in {self.out / 'results.json'}.")

    def section(self, name: str, model: Model, suite: Suite) -> Section:
        """One panel with the commands that make its numbers again, few and full."""
        panel = PANELS[name]
        lacking = [task for task in panel.tasks if not can(model, task)]
        if lacking:
            made = Section(title=name.capitalize(), text=f"The checkpoint cannot do {', '.join(lacking)}.")
        else:
            made = panel.show(model, suite)
        again = ["python3", "bootstrap.py", "demo", "--panels", name, "--checkpoint", self.checkpoint]
        again += ["--seed", str(self.seed), "--out", str(self.out)]
        full = ["orrery", "eval", self.checkpoint, "--suite", "factory", "--size", "full", "--rows", *panel.rows]
        full += ["--out", str(self.out / "eval")]
        commands = f"{shlex.join(again)}\n.venv/bin/{shlex.join(full)}    # the full figure, on many cases"
        return replace(made, command=commands)

    def facts(self, model: Model) -> dict[str, str]:
        """What the numbers depend on beside the test episodes."""
        weights = ", ".join(f"{name} sha256 {digest}" for name, digest in model.origin.weights.items())
        return {
            "Checkpoint": str(model.origin.path),
            "Parameters": f"{sum(each.numel() for each in model.mot.parameters()) / 1e6:.1f} million in the network",
            "Weights": weights,
            "Licence": model.origin.licence or "not stated",
            "Machine": f"{platform.machine()}, {self.threads} CPU threads, torch {torch.__version__}",
            "Seed": f"{self.seed}; episodes are those of the test range, of which training sees none",
        }


def page_of(model: Model, sections: dict[str, Section], facts: dict[str, str]) -> Page:
    """What a reader must know, then the panels."""
    cases = (
        f"Numbers rest on few cases so that they take minutes: {SIZE.question_episodes} episodes of questions, "
        f"{SIZE.captions} sentences, {SIZE.rollouts} plans of {CHUNKS} chunks, {4 * SIZE.inverse_windows} windows of "
        f"actions and {7 * SIZE.trials} trials. Each row says how many; the second command of a panel takes many more."
    )
    random = [RANDOM_WEIGHTS] if model.origin.trained is False else []
    return Page(
        title=f"Orrery: what {model.origin.path.name} can do",
        summary="One small model, in a simulated factory cell that it has not seen in training: it answers, imagines "
        "with sound, obeys actions, recovers actions and controls the gantry. Every number stands beside what it has "
        "to beat.",
        warnings=(*random, NO_EVIDENCE, cases),
        facts=tuple(facts.items()),
        sections=tuple(sections.values()),
    )


def results_of(page: Page, sections: dict[str, Section], seconds: dict[str, float]) -> bytes:
    """The page's numbers as JSON."""
    document = {
        "format": "orrery.pico_demo",
        "version": 1,
        "warnings": list(page.warnings),
        "facts": dict(page.facts),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "panels": {
            name: {
                "command": section.command,
                "measures": [measure.to_json() for measure in section.measures],
                "tables": [{"head": table.head, "rows": table.rows} for table in section.tables],
            }
            for name, section in sections.items()
        },
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def print_section(name: str, section: Section, seconds: float) -> None:
    """The numbers of a panel, for those who look at the terminal only."""
    print(f"{name}: {seconds:.1f} s", flush=True)
    for measure in section.measures:
        value, baseline = (
            "none" if number is None else f"{number:.3g}" for number in (measure.value, measure.baseline)
        )
        print(f"  {measure.name}: {value} {measure.unit} | {measure.baseline_name}: {baseline}", flush=True)


def spent(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())


def main() -> None:
    """Exit code 2 and one line for what the caller can mend."""
    try:
        tyro.cli(Demo)()
    except OrreryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
