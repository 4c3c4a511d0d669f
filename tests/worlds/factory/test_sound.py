import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from orrery.errors import SettingsError
from orrery.worlds.factory.contacts import Impact, Rubbing
from orrery.worlds.factory.materials import MATERIALS
from orrery.worlds.factory.sound import (
    FLOOR,
    LIMIT,
    MICROPHONES,
    RATE_HZ,
    Beep,
    Body,
    Motor,
    Scrape,
    Strike,
    contact_time_s,
    labels,
    mirrored,
    modes_hz,
    motor_after,
    mute,
    scrape_of,
    shifted,
    still_sounding,
    strike_of,
    synthesise,
    with_material,
)

BENCH = Body(name="bench", material="wood", mass_kg=14.8, length_m=0.88, width_m=0.6, thickness_m=0.04)
TRAY = Body(name="tray", material="sheet_steel", mass_kg=0.9, length_m=0.28, width_m=0.2, thickness_m=0.0015)


def cube(material="steel"):
    mass_kg = MATERIALS[material].density_kg_m3 * 0.032**3
    return Body(name="cube", material=material, mass_kg=mass_kg, length_m=0.032, width_m=0.032, thickness_m=0.032)


def strike(time_s=0.1, material="steel", on=TRAY, impulse_Ns=0.1, point_m=(0.0, 0.0, 0.02), seed=0):
    return Strike(time_s=time_s, bodies=(cube(material), on), impulse_Ns=impulse_Ns, point_m=point_m, seed=seed)


def busy(seconds=2.0, seed=0):
    """Ten strikes a second, two things sliding, six motors and a beep."""
    rng = np.random.default_rng(seed)
    history = []
    for count in range(round(10 * seconds)):
        place = (float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.25, 0.25)), 0.02)
        material, on = ("steel", "brass", "plastic")[count % 3], (BENCH, TRAY)[count % 2]
        when, impulse = 0.1 * count + float(rng.uniform(0, 0.09)), float(rng.uniform(0.01, 0.4))
        history.append(strike(when, material, on, impulse, place, seed=count))
    kinds = ["servo", "servo", "servo", "turn", "belt", "hiss"]
    motors = [
        Motor(
            name=f"{kind} {i}",
            kind=kind,
            start_s=0.0,
            stop_s=0.05,
            speed_from=0.0,
            speed_to=0.1,
            point_m=(0.0, 0.1, 0.4),
        )
        for i, kind in enumerate(kinds)
    ]
    for step in range(round(20 * seconds)):
        history += motors
        motors = [motor_after(motor, 0.05 * (step + 2), float(rng.uniform(0, 0.3))) for motor in motors]
        for count, on in enumerate((BENCH, TRAY)):
            start_s, point = 0.05 * step, (0.1, 0.1 * count, 0.0)
            history.append(
                Scrape(
                    start_s=start_s,
                    stop_s=start_s + 0.05,
                    bodies=(cube(), on),
                    force_N=3.0,
                    speed_m_s=0.1,
                    point_m=point,
                )
            )
    history.append(Beep(time_s=0.5, duration_s=0.3, frequency_Hz=1500.0, point_m=(0.3, -0.2, 0.05)))
    return history


def travel_s(point_m, channel):
    return float(np.linalg.norm(np.subtract(point_m, MICROPHONES[channel]))) / 343.0


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def centroid_hz(samples):
    power = np.abs(np.fft.rfft(samples[:, 0].astype(np.float64))) ** 2
    return float((np.fft.rfftfreq(len(samples), 1 / RATE_HZ) * power).sum() / power.sum())


def without_noise(history, start_s, stop_s):
    return synthesise(history, start_s, stop_s) - synthesise([], start_s, stop_s)


def ring_s(samples, drop_db=20.0):
    """Time until what is still to come has lost `drop_db` of the energy (Schroeder)."""
    left = np.cumsum(samples[::-1, 0].astype(np.float64) ** 2)[::-1]
    return int(np.argmax(left < left[0] * 10 ** (-drop_db / 10))) / RATE_HZ


def test_windows_sound_like_the_whole():
    history = busy()
    whole = synthesise(history, 0.0, 2.0)
    pieces = [synthesise(history, 0.05 * k, 0.05 * (k + 1)) for k in range(40)]
    assert whole.shape == (96_000, 2)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-6, rtol=0)


def test_the_past_that_cannot_be_heard_may_be_forgotten():
    history = busy()
    kept = still_sounding(history, 1.5)
    assert len(kept) < len(history) / 2
    np.testing.assert_allclose(synthesise(kept, 1.5, 2.0), synthesise(history, 1.5, 2.0), atol=1e-7, rtol=0)


def test_nothing_ever_reaches_full_scale_and_silence_is_only_noise():
    silence = synthesise([], 0.0, 1.0)
    assert rms(silence) == pytest.approx(FLOOR, rel=0.02)
    assert np.abs(silence).max() < 0.02
    left, right = silence.T
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.02
    absurd = synthesise([strike(impulse_Ns=50.0)], 0.0, 0.5)
    assert LIMIT < np.abs(absurd).max() < 1


def test_the_hardest_drop_of_the_cell_is_not_bent_by_the_limiter():
    impulse = cube().mass_kg * 1.1 * (2 * 9.81 * 0.32) ** 0.5
    assert np.abs(synthesise([strike(impulse_Ns=impulse, point_m=(0.2, -0.2, 0.03))], 0.0, 0.5)).max() < LIMIT


@pytest.mark.parametrize("on", [TRAY, BENCH])
@pytest.mark.parametrize("point_m", [(0.0, 0.0, 0.0), (0.3, 0.2, 0.1), (-0.4, -0.2, 0.0)])
def test_a_strike_is_heard_when_sound_has_travelled(on, point_m):
    heard = without_noise([strike(0.123, on=on, point_m=point_m)], 0.0, 0.3)
    for channel in range(2):
        onset_s = int(np.argmax(np.abs(heard[:, channel]) > 0.1 * np.abs(heard[:, channel]).max())) / RATE_HZ
        assert onset_s == pytest.approx(0.123 + travel_s(point_m, channel), abs=0.002)
        assert not heard[: int((0.123 + travel_s(point_m, channel)) * RATE_HZ), channel].any()


def test_the_nearer_side_is_louder_and_earlier_in_every_one_of_200_strikes():
    rng = np.random.default_rng(7)
    for seed in range(200):
        x = float(rng.choice([-1, 1]) * rng.uniform(0.03, 0.4))
        point = (x, float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0, 0.1)))
        material, on = rng.choice(["steel", "brass", "plastic"]), (BENCH, TRAY)[seed % 2]
        blow = strike(0.02, str(material), on, float(rng.uniform(0.02, 0.5)), point, seed)
        heard = synthesise([blow], 0.0, 0.25)
        near, far = heard[:, int(x > 0)], heard[:, int(x < 0)]
        assert rms(near) > rms(far)
        clear = without_noise([blow], 0.0, 0.04)
        first = [int(np.argmax(np.abs(clear[:, c]) > 0.05 * np.abs(clear[:, c]).max())) for c in range(2)]
        assert first[int(x > 0)] < first[int(x < 0)]


@pytest.mark.parametrize("on", [TRAY, BENCH])
@pytest.mark.parametrize("material", ["steel", "brass", "plastic"])
def test_a_harder_blow_is_louder(material, on):
    found = [rms(synthesise([strike(0.0, material, on, j)], 0.0, 0.5)) for j in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)]
    assert found == sorted(found)


def test_on_the_tray_steel_is_brighter_than_brass_and_brass_than_plastic():
    heard = [without_noise([strike(0.0, m)], 0.0, 1.5) for m in ("steel", "brass", "plastic")]
    steel, brass, plastic = (centroid_hz(samples) for samples in heard)
    assert steel > 1.1 * brass
    assert brass > 1.1 * plastic


def test_on_the_bench_metals_sound_alike_and_plastic_brighter():
    """The soft bench, and not the part, sets how long a heavy part touches; a light one jumps off sooner (Hertz)."""
    heard = [without_noise([strike(0.0, m, BENCH)], 0.0, 1.0) for m in ("steel", "brass", "plastic")]
    steel, brass, plastic = (centroid_hz(samples) for samples in heard)
    assert brass < steel < 1.1 * brass
    assert plastic > 1.2 * steel


def test_a_tray_rings_longer_and_brighter_than_the_bench():
    tray, bench = (without_noise([strike(0.0, on=on)], 0.0, 1.5) for on in (TRAY, BENCH))
    assert centroid_hz(tray) > 2 * centroid_hz(bench)
    assert ring_s(tray) > 2 * ring_s(bench)


def test_a_long_steel_bar_rings_and_a_plastic_one_does_not():
    def bar(material):
        mass_kg = MATERIALS[material].density_kg_m3 * 0.25 * 0.02 * 0.006
        return Body(
            name="bar", material=material, mass_kg=mass_kg, length_m=0.25, width_m=0.02, thickness_m=0.006
        )  # fmt: skip

    # Free bar, 4.730^2 / (2 pi L^2) sqrt(E / rho) h / sqrt(12) = 509 Hz in steel.
    assert modes_hz(bar("steel"))[0] == pytest.approx(510, rel=0.01)
    steel, plastic = (
        without_noise([replace(strike(0.0), bodies=(bar(material), BENCH))], 0.0, 2.0)
        for material in ("steel", "plastic")
    )
    assert ring_s(steel) > 3 * ring_s(plastic)


def test_a_compact_part_has_no_mode_that_can_be_heard_and_hard_things_touch_shortly():
    assert len(modes_hz(cube("steel"))) == 0
    assert contact_time_s(strike()) < contact_time_s(strike(material="plastic")) < contact_time_s(strike(on=BENCH))


def test_a_louder_scrape_is_heard_for_force_and_speed_and_only_while_it_lasts():
    scrape = Scrape(
        start_s=0.1, stop_s=0.15, bodies=(cube(), TRAY), force_N=2.0, speed_m_s=0.1, point_m=(0.0, 0.0, 0.0)
    )
    one, two = (without_noise([row], 0.0, 0.4) for row in (scrape, replace(scrape, force_N=4.0)))
    # What was added to the noise is known to the last bit of a float32.
    np.testing.assert_allclose(two, 2 * one, atol=1e-7)
    assert not one[: int(0.1 * RATE_HZ)].any()
    assert not one[int((0.2 + 0.0237 + 0.003) * RATE_HZ) :].any()
    faster = without_noise([replace(scrape, speed_m_s=0.3)], 0.0, 0.4)
    assert centroid_hz(faster) > centroid_hz(one)


def test_a_tone_goes_on_without_a_step_and_rises_with_speed():
    motor = Motor(
        name="x", kind="servo", start_s=0.0, stop_s=0.05, speed_from=0.2, speed_to=0.25, point_m=(0.0, 0.0, 0.3)
    )  # fmt: skip
    motors = [motor]
    for step in range(10):
        motors.append(motor_after(motors[-1], 0.05 * (step + 2), 0.25 + 0.02 * step))
    assert [later.start_s for later in motors[1:]] == [earlier.stop_s for earlier in motors[:-1]]
    heard = without_noise(motors, 0.05, 0.5)[:, 0]
    jumps = np.abs(np.diff(heard))
    seams = [round((0.05 * k + travel_s(motor.point_m, 0)) * RATE_HZ) - round(0.05 * RATE_HZ) for k in range(2, 9)]
    at_seams = max(jumps[seam - 2 : seam + 3].max() for seam in seams)
    assert at_seams <= jumps.max()
    assert at_seams < 2 * np.quantile(jumps, 0.95)
    slow, fast = (without_noise([replace(motor, stop_s=0.5, speed_from=v, speed_to=v)], 0.05, 0.45) for v in (0.1, 0.4))
    assert rms(fast) > 2 * rms(slow)
    assert centroid_hz(fast) > centroid_hz(slow)


def test_every_kind_of_motor_and_a_beep_stand_out_of_the_noise():
    for kind, speed in (("servo", 0.5), ("turn", 3.0), ("belt", 0.1), ("hiss", 0.1)):
        motor = Motor(
            name=kind, kind=kind, start_s=0.0, stop_s=0.5, speed_from=speed, speed_to=speed, point_m=(0.0, 0.0, 0.3)
        )  # fmt: skip
        assert rms(synthesise([motor], 0.1, 0.4)) > 2 * FLOOR
    beep = Beep(time_s=0.0, duration_s=0.5, frequency_Hz=1000.0, point_m=(0.0, 0.0, 0.0))
    heard = without_noise([beep], 0.05, 0.45)
    assert centroid_hz(heard) == pytest.approx(1000, abs=20)


def test_muting_takes_out_one_event_and_nothing_else():
    history = busy(1.0)
    index = next(i for i, entry in enumerate(history) if isinstance(entry, Strike))
    difference = synthesise(history, 0.0, 1.0) - synthesise(mute(history, index), 0.0, 1.0)
    np.testing.assert_allclose(difference, without_noise([history[index]], 0.0, 1.0), atol=1e-6)
    assert len(mute(history, index)) == len(history) - 1


def test_shifting_moves_every_blow():
    history = [strike(0.1), strike(0.2, "plastic", BENCH)]
    later = without_noise(shifted(history, 0.1), 0.1, 0.5)
    np.testing.assert_allclose(later, without_noise(history, 0.0, 0.4), atol=1e-6)


def test_mirroring_swaps_the_channels():
    history = [strike(0.1, point_m=(0.2, 0.1, 0.0)), *busy(0.3)]
    np.testing.assert_allclose(
        without_noise(mirrored(history), 0.0, 0.5), without_noise(history, 0.0, 0.5)[:, ::-1], atol=1e-6
    )


def test_another_material_sounds_different_and_nothing_else_changes():
    history = [strike(0.1), strike(0.3)]
    edited = with_material(history, 1, "cube", "plastic")
    assert edited[0] == history[0]
    assert edited[1].bodies[0].material == "plastic"
    assert edited[1].bodies[0].mass_kg == pytest.approx(cube("plastic").mass_kg)
    np.testing.assert_array_equal(synthesise(edited, 0.0, 0.3), synthesise(history, 0.0, 0.3))
    assert np.abs(synthesise(edited, 0.3, 0.5) - synthesise(history, 0.3, 0.5)).max() > 0.005
    with pytest.raises(SettingsError, match="no strike or scrape"):
        with_material(history, 0, "ball", "plastic")


def test_everything_that_sounds_has_a_label_with_its_cause():
    rows = labels([*busy(1.0), strike(0.95, "plastic", BENCH, 0.05)])
    assert [row.time_s for row in rows] == sorted(row.time_s for row in rows)
    kinds = [row.kind for row in rows]
    assert kinds.count("strike") == 11
    # Twenty steps each are one row.
    assert {kind: kinds.count(kind) for kind in ("scrape", "servo", "turn", "belt", "hiss", "beep")} == {
        "scrape": 2, "servo": 3, "turn": 1, "belt": 1, "hiss": 1, "beep": 1,
    }  # fmt: skip
    (last,) = [row for row in rows if row.time_s == 0.95 and row.kind == "strike"]
    assert last.subjects == ("cube", "bench")
    assert last.materials == ("plastic", "wood")
    assert last.cause == "cube (plastic) hits bench (wood) with 0.05 Ns"
    assert all(row.stop_s > row.time_s for row in rows)
    pause = [
        Motor(name="x", kind="servo", start_s=t, stop_s=t + 0.05, speed_from=0.1, speed_to=0.1, point_m=(0.0, 0.0, 0.0))
        for t in (0.0, 0.05, 0.4)
    ]
    assert [(row.time_s, row.stop_s) for row in labels(pause)] == [(0.0, 0.1), (0.4, pytest.approx(0.45))]


def test_contacts_become_sounds():
    bodies = {"cube": cube(), "tray": TRAY}
    impact = Impact(time_s=0.2, bodies=("cube", "tray"), impulse_Ns=0.1, speed_m_s=0.4, point_m=(0.1, 0.0, 0.0))
    assert strike_of(impact, bodies, seed=3) == strike(0.2, point_m=(0.1, 0.0, 0.0), seed=3)
    rubbing = Rubbing(
        start_s=0.1, stop_s=0.15, bodies=("cube", "tray"), force_N=2.0, speed_m_s=0.1, point_m=(0.0, 0.0, 0.0)
    )  # fmt: skip
    assert scrape_of(rubbing, bodies).bodies == (cube(), TRAY)


def test_a_fresh_process_makes_the_same_sound():
    code = (
        "import hashlib, importlib.util as util;"
        f"spec = util.spec_from_file_location('t', {__file__!r});"
        "t = util.module_from_spec(spec); spec.loader.exec_module(t);"
        "print(hashlib.sha256(t.synthesise(t.busy(0.3), 0.0, 0.4).tobytes()).hexdigest())"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1


def test_mistakes_say_what_to_do():
    with pytest.raises(SettingsError, match="Known materials"):
        Body(name="x", material="glass", mass_kg=1.0, length_m=1.0, width_m=1.0, thickness_m=1.0)
    with pytest.raises(SettingsError, match="longest first"):
        Body(name="x", material="steel", mass_kg=1.0, length_m=0.1, width_m=0.2, thickness_m=0.1)
    with pytest.raises(SettingsError, match="Known kinds"):
        Motor(name="x", kind="steam", start_s=0.0, stop_s=1.0, speed_from=0.0, speed_to=1.0, point_m=(0.0, 0.0, 0.0))
    with pytest.raises(SettingsError, match="ends before"):
        synthesise([], 1.0, 0.0)
