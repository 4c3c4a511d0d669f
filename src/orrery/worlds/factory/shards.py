"""Files of training records: arrays as a NumPy archive, everything else as JSON inside it. Nothing is unpickled."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from orrery.errors import DatasetError
from orrery.weights.atomic import write_atomic
from orrery.worlds.factory.drawing import Drawing
from orrery.worlds.factory.questions.question import Question
from orrery.worlds.factory.stream import Record

FORMAT, VERSION = "orrery.factory_records", 2
ARRAYS = ("state", "action", "expert", "parts", "view", "sound")


def write_shard(path: Path, records: Sequence[Record]) -> None:
    """Write records to one file, whole or not at all; a file of that name is replaced.

    Raises:
        OSError: as for any write.
    """
    arrays: dict[str, Any] = {}
    rows = []
    for number, record in enumerate(records):
        row = {field.name: getattr(record, field.name) for field in fields(record)}
        row["questions"] = [asdict(question) for question in record.questions]
        for name in ARRAYS:
            values = row.pop(name)
            if values is not None:
                arrays[f"{number}/{name}"] = values
        arrays |= {f"{number}/drawing/{name}": values for name, values in row.pop("drawing").arrays().items()}
        rows.append(row)
    head = json.dumps({"format": FORMAT, "version": VERSION, "records": rows})
    file = io.BytesIO()
    np.savez(file, head=np.frombuffer(head.encode(), dtype=np.uint8), **arrays)
    write_atomic(path, file.getvalue())


def read_shard(path: Path) -> list[Record]:
    """The records of a file, in their order.

    Raises:
        DatasetError: not such a file, or damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays.pop("head").tobytes())
        if head["format"] != FORMAT or head["version"] != VERSION:
            raise DatasetError(f"{path} holds {head['format']} {head['version']}; {FORMAT} {VERSION} is read.")
        sorted_arrays: dict[int, dict[str, np.ndarray]] = {}
        for name, values in arrays.items():
            number, _, rest = name.partition("/")
            sorted_arrays.setdefault(int(number), {})[rest] = values
        return [_record(row, sorted_arrays.get(number, {})) for number, row in enumerate(head["records"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is not a whole file of records: {error}. Make it again.") from None


def _record(row: dict[str, Any], arrays: dict[str, np.ndarray]) -> Record:
    drawn = {name.removeprefix("drawing/"): values for name, values in arrays.items() if name.startswith("drawing/")}
    return Record(
        **{
            **row,
            **{name: arrays.get(name) for name in ARRAYS},
            "drawing": Drawing.from_arrays(drawn),
            "looks": tuple((finish, kind) for finish, kind in row["looks"]),
            "instructions": tuple(row["instructions"]),
            "captions": tuple(row["captions"]),
            "scenes": tuple((frame, text) for frame, text in row["scenes"]),
            "clips": tuple((frame, text) for frame, text in row["clips"]),
            "questions": tuple(Question.from_dict(question) for question in row["questions"]),
            "events": tuple((time_s, kind, subject) for time_s, kind, subject in row["events"]),
        }
    )
