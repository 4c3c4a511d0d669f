import math
import pickle

import mujoco
import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.worlds.factory.contacts import ContactTracker, Impact, Rubbing, TrackerState

FLOOR = '<geom type="plane" size="2 2 .1"/>'
CUBE = ("box", ".016 .016 .016", 0.016)
ROD = ("cylinder", ".012 .035", 0.035)
DISC = ("cylinder", ".02 .003", 0.003)
SLAB = ("box", ".03 .02 .01", 0.01)
STEEL, BRASS, PLASTIC = 7850, 8500, 1050


def compiled(world, timestep_s=0.001, rest=""):
    return mujoco.MjModel.from_xml_string(
        f'<mujoco><option timestep="{timestep_s}" cone="elliptic" integrator="implicitfast" impratio="5" '
        'noslip_iterations="2"/><default><geom solref=".004 1"/></default>'
        f"<worldbody>{world}</worldbody>{rest}</mujoco>"
    )


def part(shape, height_m, density=STEEL, name="part", place="0 0", euler="0 0 0", friction=1.0):
    kind, size, half = shape
    return (
        f'<body name="{name}" pos="{place} {half + height_m}" euler="{euler}"><freejoint/>'
        f'<geom type="{kind}" size="{size}" density="{density}" friction="{friction}"/></body>'
    )


def listen(model, seconds, *, step_s=0.05, velocity=None, act=None, ignored=()):
    """Impacts, rubbings, and the vertical speed of the last body at the beginning of each step."""
    data, tracker = mujoco.MjData(model), ContactTracker(model, ignored_pairs=ignored)
    if velocity is not None:
        data.qvel[: len(velocity)] = velocity
    impacts, rubbings, speeds = [], [], []
    each = round(step_s / model.opt.timestep)
    for count in range(1, round(seconds / model.opt.timestep) + 1):
        if act is not None:
            act(data)
        speeds.append(data.qvel[2])
        mujoco.mj_step(model, data)
        tracker.sample(data)
        if count % each == 0:
            hits, slides = tracker.collect(data)
            impacts += hits
            rubbings += slides
    return impacts, rubbings, np.array(speeds)


def drop(shape, height_m, density, timestep_s=0.001):
    """The first impact, the momentum that the part really exchanged, and by how much its onset is late."""
    model = compiled(FLOOR + part(shape, height_m, density), timestep_s)
    impacts, _, speeds = listen(model, 0.35)
    step = round(impacts[0].time_s / timestep_s)
    after = speeds[step : step + round(0.012 / timestep_s) + 1].max()
    exchanged = float(model.body_mass[1] * (after - speeds[step]))
    return impacts[0], exchanged, impacts[0].time_s - math.sqrt(2 * height_m / 9.81)


@pytest.mark.parametrize("height_m", [0.01, 0.02, 0.04, 0.08, 0.16, 0.32])
@pytest.mark.parametrize(
    ("shape", "density"), [(CUBE, STEEL), (CUBE, PLASTIC), (ROD, BRASS), (DISC, STEEL), (SLAB, PLASTIC)]
)
def test_impulse_is_the_momentum_exchanged_at_either_timestep_and_begins_on_time(shape, density, height_m):
    impact, exchanged, late_s = drop(shape, height_m, density)
    finer, finer_exchanged, finer_late_s = drop(shape, height_m, density, 0.0005)
    assert impact.bodies == ("part", "world")
    # Measured: to 0.1 %.
    assert impact.impulse_Ns == pytest.approx(exchanged, rel=0.01)
    assert finer.impulse_Ns == pytest.approx(finer_exchanged, rel=0.01)
    # What differs between the timesteps is how high the simulated part rebounds: 4.9 % at most at these heights.
    assert impact.impulse_Ns == pytest.approx(finer.impulse_Ns, rel=0.05)
    assert abs(late_s) < 0.001
    assert abs(finer_late_s) < 0.001
    assert impact.speed_m_s == pytest.approx(math.sqrt(2 * 9.81 * height_m), rel=0.03)
    assert np.abs(impact.point_m).max() < 0.001


def test_a_higher_drop_hits_harder():
    found = [drop(CUBE, height, STEEL)[0].impulse_Ns for height in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)]
    assert found == sorted(found)


def test_what_lies_still_is_silent():
    impacts, rubbings, _ = listen(compiled(FLOOR + part(CUBE, -0.00001)), 0.5)
    assert impacts == []
    assert rubbings == []


def test_a_box_that_lands_on_an_edge_and_falls_over_is_heard_again():
    impacts, _, _ = listen(compiled(FLOOR + part(SLAB, 0.08, euler="45 35 0")), 0.6)
    assert len(impacts) >= 3
    assert impacts[1].time_s - impacts[0].time_s > 0.012
    # Here its corner stays on the floor while the other one comes down.
    assert np.linalg.norm(np.subtract(impacts[0].point_m, impacts[1].point_m)) > 0.03


def test_a_squeeze_counts_as_its_blow_and_not_as_its_force():
    jaw = '<body name="{0}" pos="{1} 0 .016"><joint name="{0}" type="slide" axis="{2} 0 0" damping="5"/>'
    jaw += '<geom type="box" size=".005 .01 .012" mass=".1"/></body>'
    drives = "".join(f'<position joint="{name}" kp="400" forcerange="-20 20"/>' for name in "ab")
    model = compiled(
        FLOOR + jaw.format("a", -0.05, 1) + jaw.format("b", 0.05, -1) + part(CUBE, 0),
        rest=f"<actuator>{drives}</actuator>",
    )

    def close(data):
        data.ctrl[:] = min(0.05, 0.1 * data.time)

    impacts, _, _ = listen(model, 1.0, act=close)
    heard = [impact for impact in impacts if impact.bodies != ("part", "world")]
    assert [impact.bodies for impact in heard] == [("a", "part"), ("b", "part")]
    # 0.1 kg at 0.1 m/s against a loose cube. Twenty newtons over 12 ms would be 0.24.
    assert all(0.004 < impact.impulse_Ns < 0.016 for impact in heard)


def test_sliding_is_rubbing_with_its_force_and_speed():
    model = compiled(FLOOR.replace("/>", ' friction=".1"/>') + part(SLAB, -0.00001, friction=0.1))
    impacts, rubbings, _ = listen(model, 0.2, velocity=(0.5,))
    assert [rubbing.bodies for rubbing in rubbings] == [("part", "world")] * 4
    weight_N = float(model.body_mass[1] * 9.81)
    assert impacts == []
    pressed_Ns = sum(rubbing.force_N * (rubbing.stop_s - rubbing.start_s) for rubbing in rubbings)
    assert pressed_Ns == pytest.approx(weight_N * 0.2, rel=0.1)
    # Friction 0.1 slows it by 0.981 m/s^2.
    for count, rubbing in enumerate(rubbings):
        assert rubbing.speed_m_s == pytest.approx(0.5 - 0.981 * 0.05 * (count + 0.5), abs=0.03)
        assert 0.05 * count <= rubbing.start_s < rubbing.stop_s <= 0.05 * (count + 1) + 1e-9


def test_a_wheel_that_rolls_does_not_rub():
    wheel = '<body name="wheel" pos="0 0 .02"><freejoint/><geom type="sphere" size=".02" density="7850"/></body>'
    _, rubbings, _ = listen(compiled(FLOOR + wheel), 0.3, velocity=(0.3, 0, 0, 0, 15, 0))
    assert rubbings == []


def test_ignored_pairs_are_not_reported():
    model = compiled(FLOOR + part(CUBE, 0.05))
    impacts, rubbings, _ = listen(model, 0.3, ignored=[frozenset({"world", "part"})])
    assert impacts == []
    assert rubbings == []


def test_an_impact_at_the_end_of_a_step_comes_with_the_next():
    height_m = 0.5 * 9.81 * 0.195**2  # falls for 195 ms: 5 ms before a step ends
    model = compiled(FLOOR + part(CUBE, height_m))
    assert listen(model, 0.2)[0] == []
    assert listen(model, 0.25)[0][0].time_s == pytest.approx(0.195, abs=0.001)


def test_events_do_not_depend_on_how_often_they_are_collected():
    model = compiled(FLOOR + part(SLAB, 0.08, euler="45 35 0"))
    often, _, _ = listen(model, 0.6, step_s=0.01)
    rarely, _, _ = listen(model, 0.6, step_s=0.1)
    assert often == rarely


def test_after_a_restore_the_same_events_follow():
    model = compiled(FLOOR + part(SLAB, 0.08, euler="45 35 0") + part(CUBE, 0.15, name="cube", place=".2 0"))
    data, tracker = mujoco.MjData(model), ContactTracker(model)
    size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION)

    def go_on(data, tracker, steps):
        events = []
        for count in range(steps):
            mujoco.mj_step(model, data)
            tracker.sample(data)
            if (count + 1) % 50 == 0:
                events.append(tracker.collect(data))
        return events

    go_on(data, tracker, 150)
    # In the middle of things: the slab has hit 10 ms ago and slides.
    go_on(data, tracker, 7)
    physics = np.empty(size)
    mujoco.mj_getState(model, data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
    frozen = pickle.dumps(tracker.snapshot())
    expected = go_on(data, tracker, 300)
    other, again = mujoco.MjData(model), ContactTracker(model)
    mujoco.mj_setState(model, other, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
    again.restore(pickle.loads(frozen))
    assert go_on(other, again, 300) == expected
    assert any(isinstance(event, Impact) for impacts, _ in expected for event in impacts)
    assert any(isinstance(event, Rubbing) for _, rubbings in expected for event in rubbings)


def test_mistakes_say_what_to_do():
    model = compiled(FLOOR + part(CUBE, 0.05))
    with pytest.raises(SettingsError, match="two bodies"):
        ContactTracker(model, ignored_pairs=[frozenset({"part", "belt"})])
    data, tracker = mujoco.MjData(model), ContactTracker(model)
    assert tracker.collect(data) == ([], [])
    mujoco.mj_step(model, data)
    tracker.sample(data)
    mujoco.mj_step(model, data)
    with pytest.raises(SettingsError, match="after every mj_step"):
        tracker.collect(data)
    tracker.restore(TrackerState())
    assert tracker.collect(data) == ([], [])
    model.opt.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    with pytest.raises(SettingsError, match="elliptic"):
        ContactTracker(model)
    model.opt.cone, model.geom_condim[0] = mujoco.mjtCone.mjCONE_ELLIPTIC, 1
    with pytest.raises(SettingsError, match="condim"):
        ContactTracker(model)
