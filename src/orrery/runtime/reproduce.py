"""Carry out a recorded run again and say whether it comes out the same, and if not, at which stage it parts.

Stages, in order: input, weights, setting, encoded inputs, noise, sampler step 1, 2, ..., decoded (or answer), files.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from orrery.errors import CheckpointError, OrreryError, SettingsError
from orrery.runtime.load import load
from orrery.runtime.run import run
from orrery.runtime.trace import near
from orrery.tasks.request import Request
from orrery.weights.documents import dump_json

TOLERANCE = 1e-3
"""Share of a stage's root mean square by which float32 runs may differ between machines and thread counts: sums are
added in another order there, and every sampling step passes the difference on."""
LOOSE = 5e-2
"""The same for bfloat16 and float16, which round at the third and the fourth digit."""
ENVIRONMENT = ("device", "dtype", "threads")
Verdict = Literal["bit-equal", "within tolerance", "different"]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came of it."""

    verdict: Verdict
    stage: str
    """Where the first difference arises; "" where there is none."""
    reason: str
    """What differs, with both values."""
    remarks: tuple[str, ...]
    """What else is not as it was, and can be the cause."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "format": "orrery.reproduction",
            "version": 1,
            "verdict": self.verdict,
            "stage": self.stage,
            "reason": self.reason,
            "remarks": list(self.remarks),
        }

    def to_text(self) -> str:
        """In words."""
        where = f" The first difference is at: {self.stage}." if self.stage else ""
        return "\n".join([f"{self.verdict}.{where} {self.reason}".strip(), *(f"  {row}" for row in self.remarks)])


def read_manifest(path: Path) -> dict[str, Any]:
    """A run.json that can be carried out again.

    Raises:
        SettingsError: no such file, another format, or a run that was not recorded with its request.
    """
    if not path.is_file():
        raise SettingsError(f"There is no file {path}. Name the run.json beside a result.")
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON: {error}. Name the run.json beside a result.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "orrery.run":
        raise SettingsError(f"{path} is not the record of a run. Name the run.json beside a result.")
    for key in ("request", "stages"):
        if key not in manifest:
            raise SettingsError(
                f"{path} has no {key}, so it cannot be carried out again. Runs of `orrery run` are recorded with it."
            )
    return manifest


def reproduce(
    manifest: Mapping[str, Any],
    *,
    model: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
) -> Reproduction:
    """Carry a recorded run out again.

    Args:
        manifest: of `read_manifest`.
        model: where the checkpoint lies now; where it lay then when None.
        device, dtype, threads: as they were when None.

    Raises:
        CheckpointError: the checkpoint is not there, or damaged.
    """
    recorded = manifest["request"]
    try:
        request = Request.from_json(recorded["document"], Path(recorded["folder"]))
    except OrreryError as error:
        return _differs("input", str(error), ())
    torch.set_num_threads(threads or int(manifest["threads"]))
    source = model or recorded["model"]
    try:
        loaded = load(
            source, device=device or manifest["device"], dtype=dtype or manifest["dtype"], family=recorded["family"]
        )
    except CheckpointError as error:
        if "sha256" in str(error) or "hash" in str(error):
            return _differs("weights", str(error), ())
        raise
    then, now = manifest["checkpoint"]["files"], dict(loaded.origin.weights)
    changed = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if changed:
        return _differs("weights", f"Other bytes in {', '.join(changed)}.", _remarks(manifest, {}))
    try:
        # What left the process then has been looked at; that it comes out again is all that is asked.
        result = run(loaded, request, envelope=None)
    except OrreryError as error:
        return _differs("input", str(error), ())
    fresh = json.loads(dump_json(dict(result.manifest)))
    remarks = _remarks(manifest, fresh)
    for stage, key in (("input", "inputs"), ("setting", "settings")):
        pairs = _pairs(manifest[key], fresh[key])
        if pairs:
            name, one, other = pairs[0]
            more = f" So do {', '.join(name for name, _, _ in pairs[1:])}." if pairs[1:] else ""
            return _differs(stage, f"{name} was {one!r:.200} and is {other!r:.200}.{more}", remarks)
    stages = {row["stage"]: row for row in fresh["stages"]}
    tolerance = TOLERANCE if fresh["dtype"] == manifest["dtype"] == "float32" else LOOSE
    first = ""
    for row in manifest["stages"]:
        other = stages.get(row["stage"])
        if other is None:
            return _differs(row["stage"], "It is not there any more.", remarks)
        if other["sha256"] == row["sha256"]:
            continue
        # An answer is words: near is not the same.
        if row["stage"] == "answer" or not near(row, other, tolerance):
            return _differs(row["stage"], f"Values differ by more than {tolerance:g} of their size.", remarks)
        first = first or row["stage"]
    if first:
        reason = f"What {len(manifest['stages'])} stages keep of their values is within {tolerance:g} of their size."
        return Reproduction(verdict="within tolerance", stage=first, reason=reason, remarks=remarks)
    with tempfile.TemporaryDirectory() as folder:
        outputs = result.write(Path(folder) / "again").manifest["outputs"]
    pairs = _pairs(manifest["outputs"], outputs)
    if pairs:
        return _differs("files", f"{pairs[0][0]} has other bytes, though what was decoded is the same.", remarks)
    return Reproduction(
        verdict="bit-equal", stage="", reason=f"All {len(outputs)} files have the same bytes.", remarks=remarks
    )


def _differs(stage: str, reason: str, remarks: tuple[str, ...]) -> Reproduction:
    return Reproduction(verdict="different", stage=stage, reason=reason, remarks=remarks)


def _remarks(manifest: Mapping[str, Any], fresh: Mapping[str, Any]) -> tuple[str, ...]:
    """What of the surroundings is not as it was."""
    if not fresh:
        return ()
    pairs = [(name, manifest[name], fresh[name]) for name in ENVIRONMENT if manifest[name] != fresh[name]]
    pairs += _pairs(manifest["versions"], fresh["versions"])
    return tuple(f"{name} was {one} and is {other}" for name, one, other in pairs)


def _pairs(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """The entries in which two documents differ, by name."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            pair
            for key in sorted({*one, *other})
            for pair in _pairs(one.get(key), other.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if one == other else [(path, one, other)]
