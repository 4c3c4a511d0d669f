"""The whole table: its rows, what each came to, and the two files that say so."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orrery.errors import SettingsError
from orrery.evaluation.factory.ask import can, check_model
from orrery.evaluation.factory.codec import codec
from orrery.evaluation.factory.dynamics import forward_dynamics, imagined_state, obedience
from orrery.evaluation.factory.figure import Outcome, Suite
from orrery.evaluation.factory.inverse import inverse_dynamics
from orrery.evaluation.factory.policy import policy
from orrery.evaluation.factory.probe import Reader
from orrery.evaluation.factory.reasoner import grounding, reasoner
from orrery.evaluation.factory.sound import sound
from orrery.evaluation.factory.text_to_media import text_to_image, text_to_video
from orrery.evaluation.page import Page, Section, write_page
from orrery.runtime.model import Model
from orrery.runtime.result import RANDOM_WEIGHTS
from orrery.tasks.checks import nearest, shown
from orrery.weights.atomic import write_atomic
from orrery.weights.documents import dump_json

FORMAT, VERSION = "orrery.factory_suite", 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Tools:
    """What rows use beside the model."""

    reader: Reader | None
    """The probes, where they are shipped."""
    policy_only: Model | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One row of the table."""

    name: str
    title: str
    text: str
    measure: Callable[[Model, Suite, Tools], Outcome]
    tasks: tuple[str, ...] = ()
    """What the model must be able to do."""
    probes: bool = False
    sound: bool = False


def _with_probes(
    measure: Callable[[Model, Suite, Reader], Outcome],
) -> Callable[[Model, Suite, Tools], Outcome]:
    def measured(model: Model, suite: Suite, tools: Tools) -> Outcome:
        assert tools.reader is not None
        return measure(model, suite, tools.reader)

    return measured


ROWS = {
    row.name: row
    for row in (
        Row(
            name="reasoner",
            title="Reasoner: what is there, and what happened?",
            text="Questions about pictures and spans of test episodes, answered by writing. Answers on "
            "offer are right equally often within what is asked. A model of the words alone is the baseline.",
            measure=lambda model, suite, _: reasoner(model, suite),
            tasks=("reason",),
        ),
        Row(
            name="grounding",
            title="Reasoner: where is it?",
            text="Points and boxes of parts that their colour and kind pick out, in thousandths of the picture.",
            measure=lambda model, suite, _: grounding(model, suite),
            tasks=("reason",),
        ),
        Row(
            name="forward",
            title="Forward dynamics: what will the cameras see?",
            text="From one frame of each camera and 16 actions the model makes the 16 frames that follow. Moving "
            "pixels are those whose true colour differs from the given frame.",
            measure=lambda model, suite, _: forward_dynamics(model, suite),
            tasks=("forward_dynamics",),
        ),
        Row(
            name="state",
            title="Forward dynamics: where will things be?",
            text="Chunks follow on each other, each from the last frames that the one before imagined. A frozen probe, "
            "trained on the simulator, reads the places of parts and gripper from the imagined frames.",
            measure=_with_probes(imagined_state),
            tasks=("forward_dynamics",),
            probes=True,
        ),
        Row(
            name="obeys",
            title="Does it obey its actions?",
            text="The loss with the actions of another window over that with the true ones, on the same noise; and of "
            "four ways on from one saved state, which one the imagined clip is nearest to.",
            measure=lambda model, suite, _: obedience(model, suite),
            tasks=("forward_dynamics",),
        ),
        Row(
            name="inverse",
            title="Inverse dynamics: which actions did this?",
            text="From 17 frames of each camera the model says which actions led from each to the next. Those of whole "
            "episodes are replayed in the simulator from the true start, without looking.",
            measure=lambda model, suite, _: inverse_dynamics(model, suite),
            tasks=("inverse_dynamics",),
        ),
        Row(
            name="policy",
            title="Policy: can it do the work?",
            text="Closed loop in the simulator, under the look of the evaluation, on test seeds.",
            measure=lambda model, suite, tools: policy(model, suite, tools.policy_only),
            tasks=("policy_no_video",),
        ),
        Row(
            name="text_to_image",
            title="Text to image: is what was asked for there?",
            text="Test scenes in words. A frozen probe looks for the parts, their kinds, colours and places.",
            measure=_with_probes(text_to_image),
            tasks=("text_to_image",),
            probes=True,
        ),
        Row(
            name="text_to_video",
            title="Text to video: is what was asked for there?",
            text="The sentence of a whole episode; the clip of one chunk is judged by its last frame, by the frozen "
            "probe. The true pictures are the end of the episode.",
            measure=_with_probes(text_to_video),
            tasks=("text_to_video",),
            probes=True,
        ),
        Row(
            name="sound",
            title="Sound: does it sound when and as it should?",
            text="Forward dynamics with sound, for windows in which something strikes. Onsets are found by rises of "
            "the spectrum, with a threshold tuned on true sounds of other seeds; materials are told by a frozen probe.",
            measure=_with_probes(sound),
            tasks=("forward_dynamics",),
            probes=True,
            sound=True,
        ),
        Row(
            name="codec",
            title="Codecs: what is lost before the model sees it?",
            text="Windows encoded and decoded again, without the network.",
            measure=lambda model, suite, _: codec(model, suite),
        ),
    )
}


def chosen_rows(names: Sequence[str]) -> list[Row]:
    """Rows by name, all when none is named.

    Raises:
        SettingsError: a name that is none.
    """
    for name in names:
        if name not in ROWS:
            raise SettingsError(f"The suite factory has no row {shown(name)}. {nearest(name, ROWS)}")
    return [row for name, row in ROWS.items() if not names or name in names]


def evaluate(
    model: Model, suite: Suite, tools: Tools, names: Sequence[str] = (), *, command: str = "orrery eval CHECKPOINT"
) -> dict[str, Any]:
    """Measure the rows.

    Args:
        names: of ROWS; all when empty.
        command: what makes the whole again; each row adds its own name.

    Returns:
        A document of plain values but for "outcomes", which `write_table` shows and leaves out.

    Raises:
        ContractError: a checkpoint for something else than the factory gantry.
        SettingsError: no such row.
    """
    check_model(model)
    rows, outcomes, told = chosen_rows(names), {}, []
    for row in rows:
        began = time.monotonic()
        obstacle = _obstacle(row, model, tools)
        suite.tell(f"{row.name}: {obstacle or row.title}")
        outcome = Outcome(figures=(), note=obstacle) if obstacle else row.measure(model, suite, tools)
        outcomes[row.name] = outcome
        told.append(
            {
                "row": row.name,
                "title": row.title,
                "skipped": obstacle or None,
                "note": outcome.note,
                "seconds": round(time.monotonic() - began, 1),
                "command": f"{command} --rows {row.name}",
                "figures": [figure.to_json() for figure in outcome.figures],
            }
        )
        for figure in outcome.figures:
            if figure.floor is not None:
                suite.tell(f"  {figure.name}: {figure.value} {figure.unit} ({figure.reached})")
    return {
        "format": FORMAT,
        "version": VERSION,
        "checkpoint": {
            "name": model.origin.path.name,
            "files": dict(model.origin.weights),
            "trained": model.origin.trained,
        },
        "device": str(model.device),
        "suite": {key: value for key, value in asdict(suite).items() if key != "tell"},
        "probes": None if tools.reader is None else tools.reader.note,
        "command": command,
        "rows": told,
        "outcomes": outcomes,
    }


def _obstacle(row: Row, model: Model, tools: Tools) -> str:
    lacking = [task for task in row.tasks if not can(model, task)]
    if lacking:
        return f"The checkpoint cannot do {', '.join(lacking)}."
    if row.sound and model.sound is None:
        return "The checkpoint has no sound codec."
    if row.probes and tools.reader is None:
        return "The probes are not there; train them with training.probe."
    return ""


def write_table(out: Path, result: dict[str, Any]) -> None:
    """results.json and results.html in a folder."""
    plain = {key: value for key, value in result.items() if key != "outcomes"}
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "results.json", dump_json(plain))
    write_page(out / "results.html", page_of(result))


def page_of(result: dict[str, Any]) -> Page:
    """The table for readers."""
    sections = []
    for told in result["rows"]:
        outcome: Outcome = result["outcomes"][told["row"]]
        text = " ".join(part for part in (ROWS[told["row"]].text, told["note"], f"Took {told['seconds']:g} s.") if part)
        sections.append(
            Section(
                title=told["title"],
                text=text,
                measures=tuple(measure for figure in outcome.figures for measure in figure.measures()),
                strips=outcome.strips,
                command=told["command"],
            )
        )
    asked = [figure for told in result["rows"] for figure in told["figures"] if figure["reached"] is not None]
    counts = {word: sum(figure["reached"] == word for figure in asked) for word in ("goal", "floor", "missed")}
    warnings = ["Simulated test episodes; no evidence about anything real."]
    if result["checkpoint"]["trained"] is False:
        warnings.insert(0, RANDOM_WEIGHTS)
    if result["suite"]["size"]["name"] != "full":
        warnings.append(f"Size {result['suite']['size']['name']}: intervals are wide. Size full is for claims.")
    facts = (
        ("checkpoint", result["checkpoint"]["name"]),
        ("device", result["device"]),
        ("suite", json.dumps(result["suite"])),
        ("probes", result["probes"] or "none"),
        ("command", result["command"]),
    )
    return Page(
        title=f"Factory suite: {result['checkpoint']['name']}",
        summary=f"Of {len(asked)} figures that something is asked of, {counts['goal']} reach the goal, "
        f"{counts['floor']} the floor alone, and {counts['missed']} miss it.",
        warnings=tuple(warnings),
        facts=facts,
        sections=tuple(sections),
    )
