"""The `orrery` command. It picks the subcommand and turns a caller's mistake into one line and an exit code.

A subcommand is a frozen dataclass with `__call__`, in a module of its own that imports torch only when it is called.
Exit codes: 0 done, 1 a fault of ours (with its traceback) or an error that `data check` found in a dataset, 2 a mistake
of the caller's, 130 interrupted.
"""

import importlib.metadata
import sys
from collections.abc import Callable

import tyro

from orrery.cli.bench import Bench
from orrery.cli.data import data
from orrery.cli.episodes import Episodes
from orrery.cli.eval import Eval
from orrery.cli.gate import Gate
from orrery.cli.inspect import Inspect
from orrery.cli.record import Record
from orrery.cli.reproduce import Reproduce
from orrery.cli.run import Run
from orrery.cli.train import Train
from orrery.cli.trials import Trials
from orrery.cli.verify import Verify
from orrery.errors import OrreryError

COMMANDS: dict[str, Callable[..., Callable[[], None]]] = {
    "run": Run,
    "inspect": Inspect,
    "reproduce": Reproduce,
    "bench": Bench,
    "record": Record,
    "eval": Eval,
    "gate": Gate,
    "data": data,
    "episodes": Episodes,
    "train": Train,
    "trials": Trials,
    "verify": Verify,
}


def main() -> None:
    """Entry point of the console script; reads `sys.argv`."""
    if sys.argv[1:] == ["--version"]:
        print(f"orrery {importlib.metadata.version('orrery')}")
        return
    # From the dict, not `Run | Inspect`: tyro checks that form with typeguard, whose import costs 0.1 s of `--help`.
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="orrery", description="One world model for language, images, video, sound and robot actions."
    )
    try:
        command()
    except OrreryError as error:
        print(f"orrery: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    # As torchrun starts it: torchrun --nproc-per-node 8 -m orrery.cli.main train ...
    main()
