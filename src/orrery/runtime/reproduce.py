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
from orrery.runtime.speed import Speed
from orrery.runtime.trace import apart, is_mark
from orrery.tasks.request import Request
from orrery.weights.documents import dump_json, listed
from orrery.weights.folder import sha256_of_file
from orrery.weights.hub import resolve

TOLERANCE = 1e-3
"""Share of a stage's root mean square by which float32 runs may differ between machines, packs and thread counts: sums
are added in another order there, and every sampling step passes the difference on."""
LOOSE = 5e-2
"""The same for bfloat16 and float16, which round at the third and the fourth digit."""
ENVIRONMENT = ("device", "dtype", "threads")
KEPT: tuple[tuple[str, type], ...] = (
    ("request.document", dict),
    ("request.folder", str),
    ("request.model", str),
    ("request.packed", int),
    ("stages", list),
    ("settings", dict),
    ("inputs", dict),
    ("outputs", dict),
    ("checkpoint.files", dict),
    ("versions", dict),
    ("device", str),
    ("dtype", str),
    ("speed", dict),
    ("threads", int),
)
"""What a record has to hold for its run to be carried out again."""
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
        label = "remark" if self.verdict == "bit-equal" else "possible cause"
        rows = [f"  {label}: {row}" for row in self.remarks]
        return "\n".join([f"{self.verdict}.{where} {self.reason}".strip(), *rows])


def read_manifest(path: Path) -> dict[str, Any]:
    """A run.json that can be carried out again.

    Raises:
        SettingsError: no such file, another format or version, or a run that was not recorded with its request.
    """
    if not path.is_file():
        raise SettingsError(f"There is no file {path}. Name the run.json beside a result.")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is no JSON: {error}. Name the run.json beside a result.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "orrery.run":
        raise SettingsError(f"{path} is not the record of a run. Name the run.json beside a result.")
    if manifest.get("version") != 1:
        raise SettingsError(f"{path} has version {manifest.get('version')!r}, and version 1 is read. Update.")
    for name, kind in KEPT:
        if not isinstance(_entry(manifest, name), kind):
            raise SettingsError(
                f"{path} has no {name} as `orrery run` records it, so it cannot be carried out again. Run it anew."
            )
    if not all(is_mark(row) for row in manifest["stages"]):
        raise SettingsError(f"{path} has stages of another form than `orrery run` records. Run it anew.")
    if not 1 <= manifest["threads"] <= 1024:
        raise SettingsError(f"{path} has threads {manifest['threads']}, not from 1 to 1024. Run it anew.")
    return manifest


def reproduce(
    manifest: Mapping[str, Any],
    *,
    model: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    speed: str | None = None,
) -> Reproduction:
    """Carry a recorded run out again. The number of threads stays set in torch.

    Args:
        manifest: of `read_manifest`.
        model: where the checkpoint lies now; where it lay then when None.
        device, dtype, threads, speed: as they were when None.

    Raises:
        CheckpointError: the checkpoint is not there, or it cannot be loaded though its files are those of the record.
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
            source,
            device=device or manifest["device"],
            dtype=dtype or manifest["dtype"],
            family=recorded.get("family"),
            speed=speed or Speed.from_json(manifest["speed"]),
            offload=manifest.get("offload"),
        )
    except CheckpointError:
        changed = _changed(resolve(source), manifest["checkpoint"]["files"])
        if not changed:
            raise
        return _differs("weights", f"Other bytes, or no file: {listed(changed)}.", ())
    then, now = manifest["checkpoint"]["files"], dict(loaded.origin.weights)
    changed = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if changed:
        return _differs("weights", f"Other bytes in {listed(changed)}.", ())
    try:
        # What left the process then has been looked at; that it comes out again is all that is asked.
        result = run(loaded, request, envelope=None, trace=True, frames=manifest.get("frames_decoded", True))
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
    first, largest = "", 0.0
    for row in manifest["stages"]:
        other = stages.get(row["stage"])
        if other is None:
            return _differs(row["stage"], "It is not there any more.", remarks)
        if other["sha256"] == row["sha256"]:
            continue
        since = f" Bits differ since {first}." if first else ""
        if row["stage"] == "answer":  # words: near is not the same
            return _differs(row["stage"], f"It has other words.{since}", remarks)
        share = apart(row, other)
        if share > tolerance:
            reason = f"Values differ by {share:.2g} of their size, and {tolerance:g} is allowed.{since}"
            return _differs(row["stage"], reason, remarks)
        first, largest = first or row["stage"], max(largest, share)
    if first:
        reason = f"Values differ by up to {largest:.2g} of their size, and {tolerance:g} is allowed."
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
    pairs = [(name, manifest[name], fresh[name]) for name in ENVIRONMENT if manifest[name] != fresh[name]]
    pairs += _pairs(manifest["speed"], fresh["speed"], "speed")
    pairs += _pairs(manifest["versions"], fresh["versions"])
    others = manifest["request"]["packed"] - 1
    pack = [f"it ran in one pack with {others} more and runs alone: sums are added in another order"] if others else []
    return (*(f"{name} was {one} and is {other}" for name, one, other in pairs), *pack)


def _entry(document: Any, name: str) -> Any:
    """The entry that a dotted name leads to; None where there is none."""
    for part in name.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _changed(folder: Path, then: Mapping[str, str]) -> list[str]:
    """The files of a checkpoint that are gone or have other bytes than then."""

    gone = [name for name in then if not (folder / name).is_file()]
    return sorted([*gone, *(name for name in then.keys() - gone if sha256_of_file(folder / name) != then[name])])


def _pairs(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """The entries in which two documents differ, by name."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            pair
            for key in sorted({*one, *other})
            for pair in _pairs(one.get(key), other.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if one == other else [(path, one, other)]
