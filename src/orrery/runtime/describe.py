"""What a loaded checkpoint is, as plain data and as lines of text, for `orrery inspect`."""

from collections.abc import Mapping
from typing import Any

from orrery.runtime.load import parameter_count
from orrery.runtime.model import Model


def describe(model: Model) -> dict[str, Any]:
    """Sizes, abilities, contracts and origin; JSON-able. `tasks` maps each task to True or to what is missing."""
    origin = model.origin
    return {
        "format": "orrery.inspect",
        "version": 1,
        "path": str(origin.path),
        "layout": origin.layout,
        "family": model.family,
        "licence": origin.licence,
        "weights_trained": origin.trained,
        "parameters": {
            "network": parameter_count(model.mot),
            "vision_encoder": None if model.eyes is None else parameter_count(model.eyes),
        },
        "config": model.mot.config.to_json(),
        "vision_codec": None if model.vision is None else model.vision.codec_config(),
        "sound_codec": None if model.sound is None else model.sound.codec_config(),
        "tasks": model.abilities(),
        "contracts": {name: contract.to_json() for name, contract in model.contracts.items()},
        "files": dict(origin.weights),
        "notes": list(origin.notes),
    }


def as_text(facts: Mapping[str, Any]) -> str:
    """The main facts of `describe`, for reading; the rest is in its JSON."""
    trained = {True: "trained", False: "random: nothing here was learned", None: "as released"}
    parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in facts["parameters"].items() if count is not None]
    codecs = [facts[name]["kind"] for name in ("vision_codec", "sound_codec") if facts[name] is not None]
    rows = [
        ("path", facts["path"]),
        ("layout", facts["layout"]),
        ("family", facts["family"]),
        ("licence", facts["licence"] or "not stated"),
        ("weights", trained[facts["weights_trained"]]),
        ("parameters", ", ".join(parts)),
        ("codecs", ", ".join(codecs) or "none"),
        *[(f"task {name}", "yes" if able is True else f"no: {able}") for name, able in facts["tasks"].items()],
        *[(f"contract {name}", _contract_line(contract)) for name, contract in facts["contracts"].items()],
        *[("note", note) for note in facts["notes"]],
    ]
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(f"{label:{width}}{value}" for label, value in rows)


def _contract_line(contract: Mapping[str, Any]) -> str:
    return (
        f"{len(contract['action_names'])} actions ({contract['mode']}, rotation {contract['rotation']}), "
        f"chunk {contract['chunk']} at {contract['control_rate_hz']} Hz, "
        f"cameras {', '.join(camera['name'] for camera in contract['cameras']) or 'none'}"
    )
