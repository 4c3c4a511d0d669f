"""A progress bar on stderr that leaves no trace, for everything that may take longer than two seconds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar named `what` inside the block, on a terminal only.

    Yields:
        A function to call with how much is done and how much there is, in any unit.
    """
    from rich.console import Console  # not above: `orrery --help` would wait for it
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
