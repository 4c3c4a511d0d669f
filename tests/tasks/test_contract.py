import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import ContractError
from orrery.tasks.contract import ActionContract, Camera
from orrery.tasks.normaliser import Normaliser

CONTRACT = ActionContract(
    embodiment="custom",
    domain_id=31,
    action_names=("x", "y", "gripper"),
    units=("m", "m", "1"),
    frame="base",
    mode="relative",
    gripper_index=2,
    gripper_range=(0, 1),
    gripper_open="hi",
    control_rate_hz=15,
    chunk=16,
    cameras=(Camera(name="wrist", height=96, width=128, layout="top", flip="vertical"),),
    normaliser=Normaliser(kind="quantile", lo=(-0.1, -0.2, 0), hi=(0.1, 0.3, 1)),
)

NORMALISERS = [
    Normaliser(),
    Normaliser(kind="quantile", lo=(-0.5, 0.0, 1.0), hi=(0.5, 2.0, 3.0)),
    Normaliser(kind="minmax", lo=(-9.0, -8.0, 0.0), hi=(7.0, 8.0, 0.5)),
    Normaliser(kind="meanstd", mean=(1.0, 2.0, -3.0), std=(0.1, 2.0, 30.0)),
    Normaliser(kind="scale", scale=(1.35, 1.0, 0.5)),
]


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=lambda row: row.kind)
@given(rows=st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 3), min_size=1, max_size=4))
def test_decoding_undoes_encoding(normaliser, rows):
    raw = np.array(rows, np.float32)
    np.testing.assert_allclose(normaliser.decode(normaliser.encode(raw)), raw, atol=1e-4)


@pytest.mark.parametrize("normaliser", NORMALISERS, ids=lambda row: row.kind)
def test_a_normaliser_survives_json_and_keeps_its_hash(normaliser):
    again = Normaliser.from_json(json.loads(json.dumps(normaliser.to_json())))
    assert again == normaliser
    assert again.sha256 == normaliser.sha256
    assert len({row.sha256 for row in NORMALISERS}) == len(NORMALISERS)


def test_quantiles_land_on_the_ends():
    normaliser = NORMALISERS[1]
    ends = np.array([normaliser.lo, normaliser.hi], np.float32)
    np.testing.assert_allclose(normaliser.encode(ends), [[-1] * 3, [1] * 3], atol=1e-6)


def test_a_column_that_never_moves_decodes_to_its_constant():
    normaliser = Normaliser(kind="quantile", lo=(1.0,), hi=(1.0,))
    np.testing.assert_array_equal(normaliser.encode(np.ones((2, 1), np.float32)), -np.ones((2, 1)))
    np.testing.assert_array_equal(normaliser.decode(np.array([[-3.0], [0.7]], np.float32)), np.ones((2, 1)))


def test_clamping_cuts_only_what_lies_outside():
    normaliser = Normaliser(kind="minmax", lo=(0.0,), hi=(1.0,), clamp=True)
    encoded = normaliser.encode(np.array([[-5.0], [0.25], [5.0]], np.float32))
    np.testing.assert_allclose(encoded, [[-1], [-0.5], [1]])


def test_a_contract_survives_json():
    assert ActionContract.from_json(json.loads(json.dumps(CONTRACT.to_json()))) == CONTRACT


def test_a_changed_number_in_the_normaliser_is_noticed():
    document = json.loads(json.dumps(CONTRACT.to_json()))
    document["normaliser"]["hi"][1] = 0.30000001
    with pytest.raises(ContractError, match="numbers were changed"):
        ActionContract.from_json(document)


@pytest.mark.parametrize(
    ("said", "both"),
    [
        ({"embodiment": "umi"}, ("'umi'", "'custom'")),
        ({"action_width": 7}, ("7", "3")),
        ({"state_width": 7}, ("7", "3")),
        ({"actions": 8}, ("8", "16")),
        ({"fps": 30}, ("30", "15")),
        ({"assumed": {"units": ["mm", "mm", "1"]}}, ("'mm'", "'m'")),
        ({"assumed": {"frame": "gripper"}}, ("'gripper'", "'base'")),
        ({"assumed": {"mode": "absolute"}}, ("'absolute'", "'relative'")),
        ({"assumed": {"rotation": "rot6d"}}, ("'rot6d'", "'none'")),
        ({"assumed": {"gripper_open": "lo"}}, ("'lo'", "'hi'")),
        ({"assumed": {"gripper_range": [0, 255]}}, ("255", "[0, 1]")),
        ({"assumed": {"control_rate_hz": 30}}, ("30", "15")),
        ({"assumed": {"chunk": 32}}, ("32", "16")),
        ({"assumed": {"domain_id": 8}}, ("8", "31")),
        ({"assumed": {"cameras": []}}, ("[]", "wrist")),
        ({"assumed": {"normaliser": {"sha256": "0" * 64}}}, ("0" * 64, CONTRACT.normaliser.sha256)),
        ({"assumed": {"colour": "red"}}, ("'colour'", "Known")),
    ],
)
def test_a_request_that_disagrees_is_told_both_values(said, both):
    with pytest.raises(ContractError) as caught:
        CONTRACT.check_request(**said)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in both)


def test_values_too_long_for_a_line_are_shown_where_they_differ():
    cameras = [{**camera, "flip": "horizontal"} for camera in CONTRACT.to_json()["cameras"]]
    with pytest.raises(ContractError, match=r"cameras\[0\]\.flip of the request is 'horizontal'.* 'vertical'"):
        CONTRACT.check_request(assumed={"cameras": cameras})


def test_a_request_that_agrees_passes():
    CONTRACT.check_request(
        embodiment="custom", assumed=CONTRACT.to_json(), action_width=3, actions=16, state_width=3, fps=15.0
    )


@pytest.mark.parametrize(
    "change",
    [
        {"frame": "moon"},
        {"mode": "both"},
        {"rotation": "rpy"},
        {"units": ("m",)},
        {"action_names": ("x", "x", "y")},
        {"domain_id": 32},
        {"chunk": 0},
        {"control_rate_hz": float("nan")},
        {"gripper_index": 3},
        {"gripper_range": (1, 0)},
        {"gripper_open": None},
        {"normaliser": Normaliser(kind="scale", scale=(1.0, 1.0))},
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(change):
    with pytest.raises(ContractError):
        replace(CONTRACT, **change)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.pop("units"),
        lambda document: document.update(colour="red"),
        lambda document: document.update(version=1),
        lambda document: document.update(cameras=[{"name": "wrist"}]),
        lambda document: document.update(cameras="wrist"),
        lambda document: document.update(normaliser="none"),
        lambda document: document["normaliser"].pop("sha256"),
        lambda document: document["normaliser"].update(kind="magic"),
        lambda document: document["normaliser"].update(lo=["a", "b", "c"]),
        lambda document: document["normaliser"].update(lo=[9, 9, 9]),
    ],
)
def test_a_spoilt_document_is_refused(spoil):
    document = json.loads(json.dumps(CONTRACT.to_json()))
    spoil(document)
    with pytest.raises(ContractError):
        ActionContract.from_json(document)


STATED = replace(
    CONTRACT,
    state_names=("x_m", "y_m", "aperture"),
    state_normaliser=Normaliser(kind="minmax", lo=(-0.4, -0.3, 0.0), hi=(0.4, 0.3, 1.0)),
)


def test_a_state_of_its_own_survives_json_and_its_numbers_are_guarded():
    document = json.loads(json.dumps(STATED.to_json()))
    assert ActionContract.from_json(document) == STATED
    document["state_normaliser"]["lo"][0] = -0.5
    with pytest.raises(ContractError, match="numbers were changed"):
        ActionContract.from_json(document)


@pytest.mark.parametrize(
    "change",
    [
        {"state_names": ("x", "y")},
        {"state_names": ("x", "x", "y")},
        {"state_names": ["x", "y", "z"]},
        {"state_normaliser": Normaliser(kind="scale", scale=(1.0, 1.0))},
    ],
)
def test_a_state_of_another_width_is_refused(change):
    with pytest.raises(ContractError, match="state"):
        replace(STATED, **change)


def test_cameras_are_views_of_their_own_only_where_they_fill_their_pictures():
    front, wrist = Camera(name="front", height=8, width=8), Camera(name="wrist", height=4, width=4)
    assert replace(CONTRACT, cameras=(front, wrist)).views == ("front", "wrist")
    assert replace(CONTRACT, cameras=(front,)).views == ()
    assert replace(CONTRACT, cameras=(front, replace(wrist, layout="bottom"))).views == ()


@pytest.mark.parametrize("name", ["../up", "a\\b", "new\nline", "x" * 81])
def test_a_camera_that_cannot_name_a_file_is_refused(name):
    with pytest.raises(ContractError, match="file name"):
        Camera(name=name, height=8, width=8)


def test_two_cameras_of_one_name_are_refused():
    with pytest.raises(ContractError, match="different names"):
        replace(CONTRACT, cameras=(Camera(name="front", height=8, width=8),) * 2)
