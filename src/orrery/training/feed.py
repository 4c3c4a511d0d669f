"""Episodes on their way into the bank, in threads of their own, so that a step waits for none of them."""

import queue
import threading
from collections.abc import Iterable
from contextlib import nullcontext
from types import TracebackType

import torch

from orrery.training.bank import Bank
from orrery.worlds.factory.stream import Record

TOGETHER, GATHER_S = 16, 0.3
"""Records that are taken in at once, and the wait after fewer. Many have few calls between them, for each of which the
thread that trains has to let go of the interpreter."""


class Feed:
    """Records that arrive from an iterator in a thread of its own, so that a step never waits for them."""

    def __init__(self, records: Iterable[Record], most: int = 10_000) -> None:
        # Enough for workers to go on while codecs are trained; a record has a third of a megabyte.
        self._ready: queue.Queue[Record] = queue.Queue(most)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self.ended = False
        self._thread = threading.Thread(target=self._drain, args=(records,), daemon=True)
        self._thread.start()

    def _drain(self, records: Iterable[Record]) -> None:
        try:
            for record in records:
                while not self._stop.is_set():
                    try:
                        self._ready.put(record, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if self._stop.is_set():
                    return
        except Exception as error:
            self._error = error
        finally:
            self.ended = True

    def take(self, *, wait_s: float = 0.0, most: int = 32) -> list[Record]:
        """What has arrived; waits for the first one, unless no more will come.

        Raises:
            Exception: what ended the iterator, if it was an error, once everything before it is taken.
        """
        found: list[Record] = []
        try:
            while len(found) < most:
                waits = wait_s and not found and not self.ended
                found.append(self._ready.get(timeout=wait_s) if waits else self._ready.get_nowait())
        except queue.Empty:
            if self._error is not None and not found:
                raise self._error from None
        return found

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(timeout=5)


class Filling:
    """Fills a bank from a feed in a thread of its own; use it in a `with` block."""

    def __init__(self, bank: Bank, feed: Feed) -> None:
        self._bank, self._feed = bank, feed
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def _fill(self) -> None:
        device = self._bank.device
        # A stream of its own, or what it copies would wait for the steps that are queued.
        aside = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
        try:
            with aside:
                while not self._stop.is_set() and not self._bank.full:
                    ended, arrived = self._feed.ended, self._feed.take(wait_s=0.2, most=TOGETHER)
                    self._bank.add(arrived)
                    if ended and not arrived:
                        return
                    if arrived and len(arrived) < TOGETHER:
                        self._stop.wait(GATHER_S)
        except Exception as error:
            self._error = error

    def check(self) -> None:
        """Raise what ended the filling, if it was an error."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> "Filling":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
