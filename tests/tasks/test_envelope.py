"""Laws of the envelope, what lies inside passes and what lies outside is named, and of the watchdog."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import ContractError, RequestError
from orrery.tasks.contract import ActionContract
from orrery.tasks.embodiment import embodiment
from orrery.tasks.envelope import MARGINS, Envelope, Watchdog, read_envelope
from orrery.tasks.normaliser import Normaliser

GANTRY = embodiment("factory_gantry").contract()
NAMES = GANTRY.action_names
EXACT = Envelope.of(GANTRY, margin=0)
LIMITS = np.array(EXACT.limits)
BOX = replace(EXACT, workspace=((-0.36, 0.36), (-0.24, 0.24), (0.012, 0.3), None, None))
HOME = [0.0, 0.0, 0.22, 0.0, 1.0]


def still(steps: int = 4) -> np.ndarray:
    return np.tile(np.array([0, 0, 0, 0, 1], np.float32), (steps, 1))


def with_normaliser(normaliser: Normaliser) -> ActionContract:
    return replace(GANTRY, normaliser=normaliser)


def columns(low: np.ndarray, high: np.ndarray) -> st.SearchStrategy[list[tuple[float, ...]]]:
    row = st.tuples(*[st.floats(float(a), float(b)) for a, b in zip(low, high, strict=True)])
    return st.lists(row, min_size=1, max_size=5)


@given(rows=columns(LIMITS[:, 0], LIMITS[:, 1]), dtype=st.sampled_from([np.float32, np.float64]))
def test_what_lies_inside_passes_unchanged(rows, dtype):
    actions = np.array(rows, dtype)
    before = actions.copy()
    assert EXACT.check(actions) is actions
    assert np.array_equal(actions, before)


@given(
    rows=columns(LIMITS[:, 0], LIMITS[:, 1]),
    data=st.data(),
    beyond=st.floats(1e-4, 1e30),
    upwards=st.booleans(),
)
def test_what_lies_outside_is_refused_with_its_step_and_column(rows, data, beyond, upwards):
    actions = np.array(rows, np.float32)
    step = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, len(NAMES) - 1))
    actions[step, column] = LIMITS[column, 1] + beyond if upwards else LIMITS[column, 0] - beyond
    actions[step + 1 :] = 99.0  # later faults are not the first
    with pytest.raises(ContractError) as caught:
        EXACT.check(actions)
    said = str(caught.value)
    assert said.startswith(
        f"Step {step} of {len(rows)} actions, column {NAMES[column]!r} in {GANTRY.units[column]!r}: "
    )
    low, high = (np.float32(x) for x in LIMITS[column])
    assert f"{actions[step, column]!s} lies outside {low!s} to {high!s}" in said
    assert "look again and ask anew" in said
    assert "\n" not in said


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("limits", [EXACT.limits, ()])
def test_numbers_that_are_not_finite_are_refused_whatever_the_limits(bad, limits):
    actions = still()
    actions[2, 3] = bad
    with pytest.raises(ContractError, match=r"Step 2 of 4, column 'dyaw': .* is not a finite number"):
        replace(EXACT, limits=limits).check(actions)


@pytest.mark.parametrize(
    ("normaliser", "margin", "first"),
    [
        (GANTRY.normaliser, None, (-0.03 - 0.06 * MARGINS["minmax"], 0.03 + 0.06 * MARGINS["minmax"])),
        (Normaliser(kind="quantile", lo=(1, 0, 0, 0, 0), hi=(3, 1, 1, 1, 1)), 0.5, (0.0, 4.0)),
        (Normaliser(kind="meanstd", mean=(1,) * 5, std=(2,) * 5), 0, (1 - 4.652, 1 + 4.652)),
        (Normaliser(kind="quantile", lo=(1, 0, 0, 0, 0), hi=(1, 1, 1, 1, 1)), None, (1.0, 1.0)),
        (Normaliser(), None, None),
        (Normaliser(kind="scale", scale=(2,) * 5), None, None),
    ],
)
def test_limits_are_the_range_that_the_normaliser_holds(normaliser, margin, first):
    envelope = Envelope.of(with_normaliser(normaliser), margin=margin)
    assert envelope.limits[0] == (None if first is None else pytest.approx(first))
    share = MARGINS.get(normaliser.kind, MARGINS["minmax"]) if margin is None else margin
    assert envelope.limits[4] == pytest.approx((-share, 1 + share))
    assert (repr(normaliser.kind) in envelope.source) == (first is None)


def test_the_estimated_margins_reach_as_far_as_one_value_in_a_million():
    from scipy.stats import norm

    low, high = Envelope.of(with_normaliser(Normaliser(kind="meanstd", mean=(0,) * 5, std=(1,) * 5))).limits[0]
    assert norm.cdf(low) + norm.sf(high) == pytest.approx(1e-6, rel=0.1)
    ends = norm.ppf([0.01, 0.99])
    quantiles = Normaliser(kind="quantile", lo=(ends[0],) * 5, hi=(ends[1],) * 5)
    assert Envelope.of(with_normaliser(quantiles)).limits[0] == pytest.approx((low, high), abs=1e-3)


@given(st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_what_the_contract_decodes_from_its_range_lies_inside(encoded):
    EXACT.check(GANTRY.decode(np.array([encoded], np.float32)))


@pytest.mark.parametrize(
    ("open_end", "value", "end"),
    [("hi", 1.2, "open"), ("hi", -0.2, "closed"), ("lo", 1.2, "closed"), ("lo", -0.2, "open")],
)
def test_the_end_that_a_gripper_is_past_depends_on_its_polarity(open_end, value, end):
    actions = still()
    actions[1, 4] = value
    with pytest.raises(ContractError, match=f"column 'gripper' in '1': .* past its {end} end"):
        Envelope.of(replace(GANTRY, gripper_open=open_end), margin=0).check(actions)


@pytest.mark.parametrize(
    "change",
    [
        {"gripper_open": "lo"},
        {"units": ("mm", "mm", "mm", "rad", "1")},
        {"mode": "absolute"},
        {"action_names": ("dy", "dx", "dz", "dyaw", "gripper")},
        {"state_names": ()},
    ],
)
def test_a_contract_of_other_actions_is_refused(change):
    EXACT.check_contract(GANTRY)
    with pytest.raises(ContractError, match=f"{next(iter(change))} of the envelope is .*, of the checkpoint "):
        EXACT.check_contract(replace(GANTRY, **change))


def test_a_change_is_measured_within_the_chunk_and_from_the_action_before_it():
    envelope = replace(EXACT, change=(0.02, None, None, None, None))
    actions = still()
    actions[:, 0] = [0.01, -0.01, 0.0, 0.03]
    with pytest.raises(ContractError, match=r"Step 3 of 4 actions, column 'dx' in 'm': a change of 0.03 .* above 0.02"):
        envelope.check(actions)
    assert envelope.check(actions[:3]) is not None
    with pytest.raises(ContractError, match="Step 0 of 3 actions, column 'dx'"):
        envelope.check(actions[:3], previous=[-0.03, 0, 0, 0, 1])
    assert envelope.check(actions[:3], previous=np.array([0.0, 0.03, 0, 0, 0])) is not None


@given(rows=columns(LIMITS[:, 0], LIMITS[:, 1]), start=st.tuples(*[st.floats(-0.4, 0.4)] * 3))
def test_the_workspace_holds_the_sum_of_the_actions_from_the_state_on(rows, start):
    actions, state = np.array(rows), [*start, 0.0, 1.0]
    low, high = np.array(BOX.workspace[:3]).T
    first, position = None, np.array(start)
    for step, action in enumerate(actions):
        position = position + action[:3]
        if first is None and not ((low <= position) & (position <= high)).all():
            first = step, int(np.argmin((low <= position) & (position <= high)))
        if np.isclose(position, low, atol=1e-9).any() or np.isclose(position, high, atol=1e-9).any():
            return  # which side such a sum lies on depends on the order of adding
    if first is None:
        assert BOX.check(actions, state=state) is actions
    else:
        with pytest.raises(ContractError, match=f"Step {first[0]} .* column {NAMES[first[1]]!r} .* leads to"):
            BOX.check(actions, state=state)


def test_the_workspace_of_absolute_actions_is_about_themselves():
    envelope = replace(BOX, mode="absolute", limits=())
    assert not envelope.needs_state
    actions = still()
    actions[:, 2] = [0.1, 0.2, 0.3, 0.4]
    with pytest.raises(ContractError, match=r"Step 3 of 4 actions, column 'dz' in 'm': leads to 0\.4, outside"):
        envelope.check(actions)


@pytest.mark.parametrize("state", [None, [0.0] * 4, [math.nan, 0, 0, 0, 0]])
def test_a_workspace_of_relative_actions_needs_the_state(state):
    assert BOX.check(still(), state=HOME) is not None
    with pytest.raises(ContractError, match="state"):
        BOX.check(still(), state=state)


@pytest.mark.parametrize("change", [{"frame": "gripper"}, {"state_names": ()}])
def test_a_workspace_that_actions_do_not_add_up_in_is_refused(change):
    with pytest.raises(ContractError, match="do not add up to positions"):
        replace(BOX, **change)


def test_the_earliest_fault_is_named_of_whatever_kind():
    actions = still()
    actions[3, 0], actions[1:, 2] = 5.0, 0.03
    with pytest.raises(ContractError, match=r"Step 1 of 4 actions, column 'dz' in 'm': leads to 0\.31"):
        BOX.check(actions, state=[0.0, 0.0, 0.28, 0.0, 1.0])


@pytest.mark.parametrize("actions", [np.zeros((0, 5)), np.zeros((3, 4)), np.zeros(5), np.zeros((1, 5), bool)])
def test_actions_of_another_form_are_refused(actions):
    with pytest.raises(ContractError, match=r"do not fit the 5 columns|Give \(T, A\)"):
        EXACT.check(actions)


def test_an_envelope_survives_json_and_a_file(tmp_path):
    envelope = replace(BOX, change=(0.02, None, 0.01, None, None))
    path = tmp_path / "envelope.json"
    path.write_text(json.dumps(envelope.to_json()))
    assert read_envelope(path) == envelope
    with pytest.raises(RequestError, match=r"There is no file .*none\.json"):
        read_envelope(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, "version 1, got 2"),
        ({"colour": "red"}, "colour"),
        ({"limits": [[0, 1]]}, "each of 5 columns"),
        ({"limits": [[1, 0], None, None, None, None]}, "limits of 'dx'"),
        ({"limits": [[0, "1"], None, None, None, None]}, "limits of 'dx'"),
        ({"change": [None, -1, None, None, None]}, "change of 'dy'"),
        ({"workspace": [[0, math.nan], None, None, None, None]}, "workspace of 'dx'"),
        ({"mode": "relatively"}, "mode"),
        ({"frame": ["world"]}, "frame"),
        ({"gripper_index": 5}, "column 5"),
        ({"gripper_index": True}, "column True"),
        ({"gripper_open": None}, "both or none"),
        ({"units": ["m"]}, "1 units"),
        ({"action_names": "dx"}, "action_names"),
        ({"embodiment": 3}, "embodiment"),
    ],
)
def test_a_document_that_is_wrong_is_refused(change, named):
    with pytest.raises(ContractError, match=named):
        Envelope.from_json({**BOX.to_json(), **change})


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf, True, "0.1"])
def test_a_margin_is_a_share_of_the_width(margin):
    with pytest.raises(ContractError, match="margin must be 0 or more"):
        Envelope.of(GANTRY, margin=margin)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_too_old_after_the_time_that_its_actions_take():
    clock = Clock()
    watchdog = Watchdog(control_rate_hz=GANTRY.control_rate_hz, chunk=GANTRY.chunk, executed=8, clock=clock)
    assert watchdog.allowed_s == 8 / 20
    clock.now = 100.375
    assert watchdog.check(observed_s=100.0, answered_s=100.25) == 0.375
    clock.now = 100.5
    with pytest.raises(ContractError, match=r"0\.500 s old, 0\.250 s of them in the making; at most 0\.400 s"):
        watchdog.check(observed_s=100.0, answered_s=100.25)
    assert watchdog.check(observed_s=100.25, answered_s=100.5) == 0.25


@given(age=st.floats(0, 10), executed=st.integers(1, 16), rate=st.floats(1, 100))
def test_the_watchdog_passes_exactly_the_ages_that_are_allowed(age, executed, rate):
    watchdog = Watchdog(control_rate_hz=rate, chunk=16, executed=executed, clock=lambda: age)
    if age <= executed / rate:
        assert watchdog.check(observed_s=0.0, answered_s=0.0) == age
    else:
        with pytest.raises(ContractError, match="s old"):
            watchdog.check(observed_s=0.0, answered_s=0.0)


def test_the_whole_chunk_counts_unless_said_otherwise():
    assert Watchdog(control_rate_hz=20, chunk=16).allowed_s == 0.8
    assert Watchdog(control_rate_hz=20, chunk=16, executed=8, max_age_s=0.1).allowed_s == 0.1


@pytest.mark.parametrize(("observed", "answered"), [(2.0, 1.0), (1.0, 101.0), (math.nan, 1.0), (1.0, math.nan)])
def test_times_of_another_clock_are_refused(observed, answered):
    with pytest.raises(ContractError, match="cannot be of the clock"):
        Watchdog(control_rate_hz=20, chunk=16, clock=Clock()).check(observed_s=observed, answered_s=answered)


@pytest.mark.parametrize(
    "change",
    [{"control_rate_hz": 0}, {"control_rate_hz": math.nan}, {"chunk": 0}, {"executed": 17}, {"max_age_s": 0.9}],
)
def test_a_watchdog_that_could_not_bark_is_refused(change):
    with pytest.raises(ContractError, match=next(iter(change))):
        Watchdog(**{"control_rate_hz": 20, "chunk": 16, **change})
