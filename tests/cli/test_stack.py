"""The path of the reading tour, measured: from the command to the network in few frames and few files."""

import json
import sys
from pathlib import Path

from makers.own_checkpoint import write_own

import orrery
from orrery.cli.main import main
from orrery.model.mot import MoT

SOURCE = Path(orrery.__file__).parent
PATH = ["cli/main.py", "cli/run.py", "runtime/run.py", "runtime/generate.py", "runtime/generate.py"]
PATH += ["model/mot.py", "model/mot.py"]


def frames_of_ours() -> list[tuple[str, str]]:
    """File and function of every frame of the package below the caller, outermost first."""
    frame, found = sys._getframe(1), []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE):
            found.append((path.relative_to(SOURCE).as_posix(), frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]


def test_the_command_reaches_the_network_in_seven_frames_and_five_files(tmp_path, monkeypatch, capsys):
    write_own(tmp_path / "own")
    request = {"task": "text_to_image", "prompt": "a block", "size": [24, 40], "steps": 2}
    (tmp_path / "request.json").write_text(json.dumps(request))
    seen = []
    forward = MoT.forward

    def watched(self, *arguments):
        seen.append([*frames_of_ours(), ("model/mot.py", "forward")])
        return forward(self, *arguments)

    monkeypatch.setattr(MoT, "forward", watched)
    arguments = ["run", tmp_path / "request.json", "--model", tmp_path / "own", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["orrery", *map(str, arguments)])
    main()
    # The self-test of the load runs a network of its own, on another path.
    sampling = [stack for stack in seen if ("runtime/generate.py", "generate") in stack]
    assert len(sampling) == 2
    for stack in sampling:
        files = [file for file, _ in stack]
        assert files == PATH, stack
        assert (len(files), len(set(files))) == (7, 5)
    capsys.readouterr()
