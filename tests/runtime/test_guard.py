"""Actions of a policy are held to an envelope before `run` gives them back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from makers.own_checkpoint import CONTRACT, HEIGHT, WIDTH, tiny_model

from orrery.cli.main import main
from orrery.data.write_media import write_png
from orrery.errors import ContractError, RequestError
from orrery.runtime.guard import guarded
from orrery.runtime.model import Model
from orrery.runtime.result import Result
from orrery.runtime.run import run
from orrery.runtime.save import save
from orrery.tasks.envelope import Envelope
from orrery.tasks.request import Request

PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
CLIP = np.random.default_rng(0).integers(0, 256, (9, HEIGHT, WIDTH, 3), dtype=np.uint8)
ACT = Request(task="policy_no_video", vision=PICTURE, prompt="push it", steps=2, seed=2)
STRICT = replace(CONTRACT, gripper_range=(2.0, 3.0))
"""Of a gripper that no action of the tiny model is meant for."""
WIDE = Envelope.of(CONTRACT, margin=100)


@pytest.fixture
def trained() -> Model:
    """As if its random weights were learned, for a gripper of another range."""
    model = tiny_model()
    return replace(model, contracts={"custom": STRICT}, origin=replace(model.origin, trained=True))


def test_actions_outside_the_training_range_do_not_leave(trained):
    with pytest.raises(
        ContractError,
        match=r"^Step \d of 8 actions, column 'grip' in '1': .* lies outside 1\.85 to 3\.15, past its closed end",
    ):
        run(trained, ACT)
    with pytest.raises(ContractError, match=r"^Request 1: Step"):
        run(trained, [Request(task="reason", prompt="what?", max_new_tokens=1), ACT])


def test_a_caller_may_say_otherwise_and_the_record_says_so(trained):
    free, wide = run(trained, ACT, envelope=None), run(trained, ACT, envelope=WIDE)
    assert np.array_equal(free.actions, wide.actions)
    assert free.manifest["envelope"] is None
    assert Envelope.from_json(wide.manifest["envelope"]) == WIDE
    with pytest.raises(ContractError, match="lies outside"):
        run(tiny_model(), ACT, envelope=Envelope.of(STRICT))


def test_random_weights_have_no_training_range():
    assert run(tiny_model(), ACT).manifest["envelope"] is None


def test_actions_that_were_executed_already_are_not_held(trained):
    result = run(trained, Request(task="inverse_dynamics", vision=CLIP, steps=2))
    assert "envelope" not in result.manifest
    with pytest.raises(ContractError, match="lies outside"):
        Envelope.of(STRICT).check(result.actions)


def test_what_is_wrong_with_an_envelope_is_found_before_sampling(trained, monkeypatch):
    monkeypatch.setattr("orrery.runtime.run.generate", lambda *_: pytest.fail("sampled"))
    with pytest.raises(ContractError, match="gripper_open"):
        run(trained, ACT, envelope=replace(WIDE, gripper_open="lo"))
    with pytest.raises(RequestError, match="only inverse_dynamics"):
        run(trained, Request(task="inverse_dynamics", vision=CLIP), envelope=WIDE)


@pytest.mark.parametrize("task", ["policy_no_video", "inverse_dynamics"])
def test_numbers_that_are_not_finite_never_leave(task):
    actions = np.zeros((8, 3), np.float32)
    actions[4, 1] = np.nan
    request = replace(ACT, task=task, vision=PICTURE if task == ACT.task else CLIP)
    with pytest.raises(ContractError, match="Step 4 of 8, column 'dy'"):
        guarded([Result(actions=actions)], [(request, CONTRACT)], [None])


def test_the_workspace_is_summed_from_the_state_of_the_request():
    box = replace(WIDE, state_names=("x", "y", "grip"), workspace=((-1, 1), None, None))
    moving = np.full((8, 3), 0.1, np.float32)
    for start, fits in ((0.1, True), (0.3, False)):
        asked = [(replace(ACT, state=[start, 0.0, 1.0]), CONTRACT)]
        if fits:
            assert guarded([Result(actions=moving)], asked, [box])[0].actions is moving
        else:
            with pytest.raises(ContractError, match=r"Step 7 of 8 actions, column 'dx' in 'm': leads to 1\.1, outside"):
                guarded([Result(actions=moving)], asked, [box])


def test_the_command_takes_an_envelope_from_a_file(trained, tmp_path, monkeypatch, capsys):
    save(trained, tmp_path / "own", trained=True, licence="Apache-2.0")
    write_png(tmp_path / "a.png", PICTURE, metadata={})
    document = {"task": "policy_no_video", "vision": "a.png", "prompt": "push it", "steps": 2}
    (tmp_path / "request.json").write_text(json.dumps(document))
    (tmp_path / "wide.json").write_text(json.dumps(WIDE.to_json()))

    def command(out: str, *more: str) -> dict[str, object]:
        words = ["run", str(tmp_path / "request.json"), "--model", str(tmp_path / "own"), "--out", str(tmp_path / out)]
        monkeypatch.setattr("sys.argv", ["orrery", *words, *more])
        main()
        return json.loads((tmp_path / out / "run.json").read_text())

    with pytest.raises(SystemExit) as refused:
        command("refused")
    assert refused.value.code == 2
    assert "lies outside" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert command("free", "--envelope", "none")["envelope"] is None
    assert command("wide", "--envelope", str(tmp_path / "wide.json"))["envelope"] == WIDE.to_json()
