"""Decode foreign files in a process of their own, with hard limits on memory, time and output.

A small server process imports the decoders once and forks for every file, so a file costs milliseconds and a crash
costs that file only. Files arrive as open descriptors: the child opens nothing by name. The choice between this and
decoding in place is made in `media`. The standard fork server is not used: it runs the caller's main script again.
"""

import functools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from orrery.data import decode
from orrery.data.limits import Limits
from orrery.errors import MediaError

# Decoders by the name used between the processes.
CALLS: dict[str, Callable[..., decode.Facts]] = {
    "image": decode.decode_image,
    "probe_video": decode.probe_video,
    "video": decode.decode_video,
    "video_at": decode.decode_video_at,
    "sound": decode.decode_sound,
}

GONE = "decoding it took more memory or time than allowed, or stopped the decoder. Convert it, or take a shorter part."
# The decoders need to find Python and its libraries; keys and tokens in the environment are not for them.
KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG")


class Decoder:
    """The server process of this process. Safe to use from several threads: every request has its own connection."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        # One thread and two arenas: libraries reserve address space by the core, and address space is limited.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "orrery.data.child"], stdin=theirs.fileno(), env=environment
        )
        theirs.close()
        self.control = ours
        self.close = weakref.finalize(self, _close, self.control, self.process, os.getpid())

    def run(self, name: str, file: BinaryIO, ask: dict[str, Any], limits: Limits, out: BinaryIO) -> decode.Facts:
        """Decode `file` into `out` (raw bytes of the arrays, in order) and return the facts; MediaError on failure."""
        near, far = socket.socketpair()
        message = json.dumps({"name": name, "ask": ask, "limits": asdict(limits)}).encode()
        with near:
            with far:
                socket.send_fds(self.control, [message], [far.fileno(), file.fileno(), out.fileno()])
            # The child ends itself at wall_s; this is for a machine so busy that it could not.
            near.settimeout(limits.wall_s + 30)
            answer = b""
            try:
                while piece := near.recv(65536):
                    answer += piece
            except TimeoutError:
                raise MediaError(GONE) from None
        if not answer:
            raise MediaError(GONE)
        facts: decode.Facts = json.loads(answer)
        if "error" in facts:
            raise MediaError(facts["error"])
        return facts


def _close(control: socket.socket, process: "subprocess.Popen[bytes]", owner: int) -> None:
    control.close()
    if os.getpid() == owner:
        # Closing is not enough: a process forked from this one may hold the other end of `control` open.
        process.terminate()
        process.wait()


@functools.cache
def _decoder_of(process: int) -> Decoder:
    return Decoder()


def decoder() -> Decoder:
    """The decoder of this process, started on first use, started again when it has died or after a fork."""
    found = _decoder_of(os.getpid())
    if found.process.poll() is not None:
        _decoder_of.cache_clear()
        found = _decoder_of(os.getpid())
    return found


def confine(limits: Limits) -> None:
    """Hold this process to the limits. It cannot raise them again, and the kernel ends it when it passes them."""
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.decoded_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    signal.alarm(limits.wall_s)


def answer(message: bytes, connection: socket.socket, source: int, target: int) -> None:
    """Carry out one request and write its facts, or its error, as JSON to `connection`."""
    request = json.loads(message)
    limits = Limits(**request["limits"])
    confine(limits)
    with open(source, "rb") as file, open(target, "wb") as out:

        def emit(array: np.ndarray) -> None:
            out.write(array.data)

        try:
            facts = CALLS[request["name"]](file, **request["ask"], limits=limits, emit=emit)
        except MediaError as error:
            facts = {"error": str(error)}
        except (MemoryError, OSError):
            facts = {"error": GONE}
    connection.sendall(json.dumps(facts).encode())


def serve(control: socket.socket) -> None:
    """Fork for every request until the other side closes `control`."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 2**20, 3)
        if not message:
            return
        if os.fork() == 0:
            # Whatever happens, the child ends here: without an answer the other side reads the end of the connection.
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                answer(message, socket.socket(fileno=descriptors[0]), descriptors[1], descriptors[2])
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
