import pytest

from orrery.errors import ContractError, RequestError, TaskError
from orrery.tasks.embodiment import embodiment
from orrery.tasks.fit import check_against, lacking, needed
from orrery.tasks.request import Request
from orrery.tasks.task import TASKS, with_sound

ALL = frozenset({"write", "see", "vision", "sound", "action"})
FD = {"task": "forward_dynamics", "vision": "a.png", "actions": [[0.0] * 10] * 16}


def check(capabilities, own, **fields):
    request = Request(**fields)
    check_against(request, request.row, capabilities=capabilities, contract=own, multiple=16)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_task_lacks_exactly_what_is_taken_away(task):
    for capability in needed(task):
        assert lacking(task, ALL - {capability}) == (capability,)
    assert lacking(task, ALL) == ()


def test_sound_and_sight_are_needed_only_when_asked_for():
    assert lacking(with_sound(TASKS["text_to_video"], "none"), ALL - {"sound"}) == ("sound",)
    assert lacking(TASKS["text_to_video"], ALL - {"sound"}) == ()
    assert lacking(TASKS["reason"], {"write"}) == ()
    assert lacking(TASKS["reason"], {"write"}, sees=True) == ("see",)


@pytest.mark.parametrize(
    ("error", "fields", "named"),
    [
        (TaskError, {"task": "text_to_video", "prompt": "a", "sound": "make"}, "needs sound"),
        (TaskError, {"task": "reason", "prompt": "why?", "vision": "a.png"}, "needs write and see"),
        (RequestError, {"task": "text_to_video", "prompt": "a", "size": (200, 320)}, "got 200. Give 192 or 208"),
        (RequestError, {"task": "text_to_video", "prompt": "a", "size": (192, 8)}, "got 8. Give 16"),
        (ContractError, {**FD, "embodiment": "umi"}, "'umi', of the checkpoint 'droid_lerobot'"),
        (ContractError, {**FD, "actions": [[0.0] * 9] * 16}, "is 9, of the checkpoint 10"),
        (ContractError, {**FD, "actions": [[0.0] * 10] * 8}, "is 8, of the checkpoint 16"),
        (ContractError, {**FD, "fps": 30}, "is 30, of the checkpoint 15"),
        (ContractError, {**FD, "contract": {"gripper_open": "lo"}}, "is 'lo', of the checkpoint 'hi'"),
        (ContractError, {"task": "inverse_dynamics", "vision": "a.mp4", "frames": 33}, "is 32, of the checkpoint 16"),
        (ContractError, {"task": "policy", "vision": "a.png", "state": [0.0] * 8}, "is 8, of the checkpoint 10"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_on_one_line(error, fields, named):
    with pytest.raises(error, match=named) as caught:
        check({"vision", "action"}, embodiment("droid_lerobot").contract(), **fields)
    assert "\n" not in str(caught.value)


def test_a_request_cannot_assume_a_contract_that_is_not_there():
    with pytest.raises(ContractError, match="has no contract"):
        check(ALL, None, **FD, contract={"chunk": 16})


def test_a_request_that_fits_passes():
    check(ALL, embodiment("droid_lerobot").contract(), **FD, fps=15.0, embodiment="droid_lerobot", size=(192, 320))
