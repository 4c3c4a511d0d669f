import numpy as np
import pytest

from orrery.errors import TaskError
from orrery.tasks.contract import ActionContract
from orrery.tasks.embodiment import EMBODIMENTS, embodiment

PUBLISHED_DOMAINS = {
    "no_action": 0,
    "av": 1,
    "camera_pose": 2,
    "hand_pose": 3,
    "pusht": 4,
    "libero": 5,
    "umi": 6,
    "bridge_orig_lerobot": 7,
    "droid_lerobot": 8,
    "robomind-franka": 8,
    "embodiment_b": 9,
    "galbot": 9,
    "robomind-franka-dual": 12,
    "robomind-ur": 13,
    "agibotworld": 15,
    "embodiment_c_gripper": 15,
    "embodiment_c_gripper_ext": 15,
    "agibot_gear_gripper": 15,
    "agibot_gear_gripper_ext": 15,
    "xdof_yam": 16,
    "molmoact2_yam": 16,
    "abc_yam": 16,
    "robotwin": 17,
    "fractal": 20,
    "drawanything": 21,
    "behavior1k_lerobot": 22,
    "maniparena": 23,
}


def test_domains_are_the_published_ones():
    own = {"droid_joints", "umi_left", "factory_gantry", "custom"}
    assert {name: row.domain_id for name, row in EMBODIMENTS.items() if name not in own} == PUBLISHED_DOMAINS
    assert embodiment("factory_gantry").domain_id not in {*PUBLISHED_DOMAINS.values(), embodiment("custom").domain_id}


@pytest.mark.parametrize("row", EMBODIMENTS.values(), ids=EMBODIMENTS)
def test_a_row_agrees_with_itself(row):
    assert EMBODIMENTS[row.name] is row
    if row.action_names:
        assert len(row.action_names) == len(set(row.action_names)) == len(row.units) == row.width
    if row.statistics.width is not None:
        assert row.statistics.width in (row.width, *row.widths)


@pytest.mark.parametrize("name", [name for name, row in EMBODIMENTS.items() if row.fps and row.chunk])
def test_a_complete_row_makes_a_contract(name):
    contract = embodiment(name).contract()
    assert ActionContract.from_json(contract.to_json()) == contract
    identity = np.zeros((2, contract.width), np.float32)
    np.testing.assert_allclose(contract.decode(contract.encode(identity))[:, :3], identity[:, :3], atol=1e-6)


def test_ego_motion_is_scaled_and_comes_back():
    contract = embodiment("av").contract()
    raw = np.array([[1, 2, 3, 1, 0, 0, 0, 1, 0]], np.float32)
    np.testing.assert_allclose(contract.encode(raw), [[1.35, 2.7, 4.05, 1, 0, 0, 0, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(contract.decode(contract.encode(raw)), raw, rtol=1e-6)


def test_the_right_hand_of_agibot_comes_before_the_left():
    names = embodiment("agibotworld").action_names
    assert (names[0], names[9], names[18], names[19], names[28]) == (
        *("head_x", "right_x", "right_gripper", "left_x", "left_gripper"),
    )


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(TaskError, match="Did you mean 'droid_lerobot'"):
        embodiment("droid_lerobt")


def test_the_state_of_the_gantry_spans_the_workspace_of_the_cell():
    from orrery.worlds.factory.cell import STATE_COLUMNS
    from orrery.worlds.factory.scene import WORKSPACE

    row = embodiment("factory_gantry")
    assert row.state_names == STATE_COLUMNS
    spans = [*(WORKSPACE[axis] for axis in ("x", "y", "z", "yaw")), (0.0, 1.0)]
    assert list(zip(row.state_normaliser.lo, row.state_normaliser.hi, strict=True)) == spans
    assert row.contract().state_normaliser == row.state_normaliser
