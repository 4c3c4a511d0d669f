"""The cell: what an action does, what is limited, and that it can be saved and forked exactly."""

import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest

from orrery.errors import SettingsError, TaskError
from orrery.tasks.embodiment import embodiment
from orrery.worlds.factory.cell import ACTION_COLUMNS, ACTION_LIMITS, CONTROL_HZ, EMBODIMENT, Cell
from orrery.worlds.factory.layout import CellParameters, Layout, Panel, Placed
from orrery.worlds.factory.parts import HELD_OUT, Part
from orrery.worlds.factory.scene import HOME, WORKSPACE
from orrery.worlds.factory.tasks import draw_job

PANEL = Panel(x_m=0.29, y_m=0.01, start_left=True)
CUBE = Part(finish="red", kind="cube")


def one_cube(x_m: float = 0.0, y_m: float = 0.0, z_m: float = 0.022) -> Layout:
    return Layout(parts=(Placed(part=CUBE, position_m=(x_m, y_m, z_m)),), panel=PANEL)


def playing(steps: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(-1, 1, (steps, 4)) * ACTION_LIMITS, rng.uniform(0, 1, (steps, 1))], axis=1)


def futures(cell: Cell, actions: np.ndarray) -> list[tuple]:
    found = []
    for action in actions:
        report, memory = cell.step(action), cell.memory
        said = (repr(report.impacts), repr(report.motion), repr(report.events))
        known = (sorted(memory.touching), memory.held, memory.setpoint, memory.belt_travel_m)
        found.append((cell.snapshot().physics.tobytes(), report.executed.tobytes(), said, known))
    return found


def test_an_action_moves_the_gripper_by_as_much():
    cell = Cell(Layout(parts=(), panel=PANEL), CellParameters())
    for _ in range(5):
        report = cell.step(np.array([0.02, -0.01, -0.015, 0.1, 1.0]))
        assert not report.limited
    for _ in range(8):
        cell.step(np.array([0.0, 0.0, 0.0, 0.0, 1.0]))
    assert cell.gripper_m == pytest.approx([0.1, -0.05, HOME[2] - 0.075], abs=5e-4)
    assert cell.yaw_rad == pytest.approx(0.5, abs=5e-3)
    assert cell.time_s == pytest.approx(13 / CONTROL_HZ)


def test_one_is_an_open_gripper_and_zero_a_closed_one():
    cell = Cell(Layout(parts=(), panel=PANEL), CellParameters())
    assert cell.aperture == pytest.approx(1, abs=0.02)
    for _ in range(8):
        cell.step(np.array([0, 0, 0, 0, 0.0]))
    assert cell.aperture == pytest.approx(0, abs=0.02)
    for _ in range(8):
        cell.step(np.array([0, 0, 0, 0, 0.5]))
    assert cell.aperture == pytest.approx(0.5, abs=0.03)


def test_what_exceeds_a_limit_is_limited_and_said():
    cell = Cell(Layout(parts=(), panel=PANEL), CellParameters())
    report = cell.step(np.array([0.5, 0, 0, 0, 2.0]))
    assert report.limited
    assert report.executed == pytest.approx([ACTION_LIMITS[0], 0, 0, 0, 1])
    for _ in range(30):
        report = cell.step(np.array([0, 0, -0.03, 0, 1.0]))
    assert cell.memory.setpoint[2] == WORKSPACE["z"][0]
    assert report.limited
    assert report.executed[2] == 0


@pytest.mark.parametrize("action", [[0, 0, 0, 0], [0, 0, 0, 0, np.nan], [[0] * 5]])
def test_an_action_of_another_form_is_refused(action):
    cell = Cell(Layout(parts=(), panel=PANEL), CellParameters())
    with pytest.raises(TaskError, match="5 finite numbers"):
        cell.step(np.array(action, dtype=float))


def test_a_part_that_lies_still_stays_where_it_is():
    cell = Cell(one_cube(), CellParameters())
    for _ in range(40):
        cell.step(np.array([0, 0, 0, 0, 1.0]))
    assert cell.part_m(0) == pytest.approx([0, 0, 0.022], abs=3e-4)


@pytest.mark.parametrize("speed", [0.08, -0.06])
def test_the_belt_carries_a_part_at_its_speed_and_its_pattern_too(speed):
    cell = Cell(replace(one_cube(0.0, 0.17, 0.042), running=True), CellParameters(belt_speed_m_s=speed))
    for _ in range(10):
        cell.step(np.array([0, 0, 0, 0, 1.0]))
    start, travel = cell.part_m(0)[0], cell.memory.belt_travel_m
    for _ in range(20):
        cell.step(np.array([0, 0, 0, 0, 1.0]))
    assert cell.part_m(0)[0] - start == pytest.approx(speed, rel=0.02)
    assert cell.memory.belt_travel_m - travel == pytest.approx(speed, rel=1e-6)


def test_start_lights_the_lamp_then_moves_the_belt_and_stop_ends_both():
    cell = Cell(Layout(parts=(), panel=PANEL), CellParameters())
    seen = []
    for button in ("start", "stop"):
        x, y = PANEL.button_m(button)
        for z in (0.10, 0.05, 0.10):
            for _ in range(22):
                step = np.array([x, y, z, 0]) - cell.memory.setpoint
                seen += cell.step([*np.clip(step, np.negative(ACTION_LIMITS), ACTION_LIMITS), 0.0]).events
    kinds = [event.kind for event in seen]
    assert kinds == ["pressed", "lamp_on", "belt_started", "pressed", "lamp_off", "belt_stopped"]
    delay = seen[2].time_s - seen[1].time_s
    assert 0.3 <= delay <= 0.4


def test_a_delayed_drive_moves_later_and_a_softer_one_lags():
    def reached(**knobs: float) -> float:
        cell = Cell(Layout(parts=(), panel=PANEL), CellParameters(**knobs))
        for _ in range(6):
            cell.step(np.array([0.03, 0, 0, 0, 1.0]))
        return float(cell.gripper_m[0])

    prompt, late = reached(), reached(actuator_delay_s=0.05)
    assert prompt - late == pytest.approx(0.03, abs=0.002)
    assert reached(actuator_gain=0.4) < prompt - 0.004


def test_overlapping_bodies_are_named():
    layout = Layout(
        parts=(Placed(part=CUBE, position_m=(0.0, 0.0, 0.022)), Placed(part=CUBE, position_m=(0.02, 0.0, 0.022))),
        panel=PANEL,
    )
    with pytest.raises(TaskError, match=r"part_0 and part_1 overlap by"):
        Cell(layout, CellParameters())


@pytest.mark.parametrize(
    "knob",
    [
        {"friction": 9.0},
        {"clearance_m": 0.0},
        {"timestep_s": 0.1},
        {"light_m": (0.0, 0.0, 0.0)},
        {"camera_shift_m": (1.0, 0.0, 0.0)},
    ],
)
def test_a_knob_outside_its_range_is_refused(knob):
    with pytest.raises(SettingsError, match=next(iter(knob))):
        CellParameters(**knob)


def test_a_restored_cell_has_the_same_future_bit_for_bit():
    job = draw_job("belt_sort", np.random.default_rng(5))
    cell = Cell(job.layout, job.parameters)
    futures(cell, playing(30))
    state = cell.snapshot()
    first = futures(cell, playing(60, seed=1))
    cell.restore(state)
    assert futures(cell, playing(60, seed=1)) == first
    assert futures(cell, playing(5, seed=2)) != first[:5]


def in_another_process(job, state, actions):
    cell = Cell(job.layout, job.parameters)
    cell.restore(state)
    return futures(cell, actions)


def test_another_process_goes_on_from_a_snapshot_in_the_same_way():
    job = draw_job("kit_fill", np.random.default_rng(5))
    cell = Cell(job.layout, job.parameters)
    futures(cell, playing(20))
    state = pickle.loads(pickle.dumps(cell.snapshot()))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(in_another_process, (job, state, playing(30, seed=3)))
    assert there == futures(cell, playing(30, seed=3))


def test_a_snapshot_of_another_cell_is_refused():
    one, other = Cell(one_cube(), CellParameters()), Cell(Layout(parts=(), panel=PANEL), CellParameters())
    with pytest.raises(TaskError, match="does not fit"):
        other.restore(one.snapshot())


def test_the_contract_of_the_gantry_is_that_of_the_cell():
    row = embodiment("factory_gantry")
    named = zip(row.action_names, row.units, strict=True)
    columns = [name if unit == "1" else f"{name}_{unit}" for name, unit in named]
    assert (tuple(columns), row.fps) == (ACTION_COLUMNS, CONTROL_HZ)
    assert row.statistics.hi == (*ACTION_LIMITS, 1.0)
    assert row.statistics.lo == (*(-limit for limit in ACTION_LIMITS), 0.0)
    assert row.name == EMBODIMENT


def test_held_out_pairs_leave_every_finish_and_kind_to_training():
    assert len({finish for finish, _ in HELD_OUT}) == 6
    assert all(sum(kind == other for _, other in HELD_OUT) < 6 for _, kind in HELD_OUT)
