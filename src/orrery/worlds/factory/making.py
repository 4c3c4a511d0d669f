"""What a worker of `stream.Stream` does: `python -m orrery.worlds.factory.making FIRST STEP SPLIT SOUND QUESTIONS`.

A process of its own rather than one of multiprocessing, which would import whoever trains, and torch with it.
"""

import os
import pickle
import signal
import sys

from orrery.errors import TaskError
from orrery.worlds.factory.mixture import FIRST_SEED, StreamSplit, spec_of
from orrery.worlds.factory.stream import HEADER, record_of


def make(first: int, step: int, split: StreamSplit, *, sound: bool, questions: bool) -> None:
    """Make every `step`-th record from `first` on and write them to stdout until nobody reads it."""
    # Whatever else prints must not get between the records.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Ctrl-C reaches the whole group; whoever reads decides when this ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    index = first
    while True:
        try:
            record = record_of(spec_of(index, split), sound=sound, questions=questions)
        except TaskError as error:
            # One in some thousands has a part in a rail, or no room on the bench.
            print(f"Record {index} of {split} is left out: {error}", file=sys.stderr, flush=True)
            index += step
            continue
        body = pickle.dumps(record, protocol=5)
        try:
            pipe.write(HEADER.pack(len(body)) + body)
            pipe.flush()
        except BrokenPipeError:
            return
        index += step


if __name__ == "__main__":
    _, begin, stride, name, heard, asked = sys.argv
    make(
        int(begin),
        int(stride),
        next(split for split in FIRST_SEED if split == name),
        sound=heard == "1",
        questions=asked == "1",
    )
