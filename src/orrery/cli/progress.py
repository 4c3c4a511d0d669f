"""A progress bar on stderr for what takes over two seconds; it leaves no trace. Pipes and logs see nothing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

PATIENCE_S = 2.0
"""What is done sooner shows no bar."""


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar named `what` inside the block, on a terminal, from the first news after two seconds on.

    Yields:
        A function to call with how much is done and how much there is, in any unit.
    """
    start = time.monotonic()
    shown: list[tuple[Any, Any]] = []
    with ExitStack() as stack:

        def tell(done: int, total: int) -> None:
            if not shown and (time.monotonic() - start < PATIENCE_S or not sys.stderr.isatty()):
                return
            if not shown:
                shown.append(_begin(stack, what))
            bar, task = shown[0]
            bar.update(task, completed=done, total=total)

        yield tell


def _begin(stack: ExitStack, what: str) -> tuple[Any, Any]:
    from rich.console import Console  # not above: `orrery --help` would wait for it
    from rich.progress import Progress

    bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    return bar, bar.add_task(what, total=None)
