"""Grids against the published reference tables, and the rules for what may be asked."""

import numpy as np
import pytest
import torch

from orrery.errors import SettingsError
from orrery.flow.schedule import distilled, flow, grid, karras, native, shift_sigma

# Integer timesteps of the released schedulers, by (steps, shift).
NATIVE_CLOCKS = {
    (
        35,
        10.0,
    ): "999 996 993 990 987 983 979 975 971 966 961 956 950 944 937 930 922 913 904 893 882 869 855 838 820 799 775"
    " 747 714 673 624 563 483 377 227",
    (
        35,
        5.0,
    ): "999 993 987 981 974 967 960 952 943 935 925 915 905 894 882 869 855 840 824 807 789 768 746 722 695 666 633"
    " 596 555 508 454 391 318 232 128",
    (
        30,
        10.0,
    ): "999 996 992 988 984 980 975 970 964 958 952 945 937 928 919 908 897 884 869 852 833 810 784 752 714 666 605"
    " 526 416 256",
    (4, 5.0): "999 937 833 624",
}
KARRAS_CLOCKS = (
    "995 994 993 992 991 990 988 986 984 981 978 975 970 965 958 950 941 929 915 898 877 852 822 785 742 693 636 572"
    " 504 432 361 292 229 174 128"
)


def clocks(sigmas: torch.Tensor) -> str:
    return " ".join(str(int(1000 * sigma)) for sigma in sigmas[:-1].tolist())


@pytest.mark.parametrize(("steps", "shift"), NATIVE_CLOCKS)
def test_native_grid_gives_the_published_timesteps(steps, shift):
    assert clocks(native(steps, shift)) == NATIVE_CLOCKS[steps, shift]


@pytest.mark.parametrize(
    ("sigmas", "first", "last"),
    [
        (native(35, 10.0), [0.999900, 0.996965, 0.993871], [0.377109, 0.227092]),
        (native(35, 5.0), [0.999800], [0.232369, 0.128090]),
        (native(50, 3.0), [0.999666], [0.111008, 0.057637]),
        (native(30, 10.0), [0.999900], [0.416406, 0.256213]),
        (native(4, 5.0), [0.999800, 0.937265, 0.833055, 0.624687], []),
        (flow(35, 10.0), [0.999999], [0.233377]),
        (karras(35), [0.995025, 0.994317, 0.993493], [0.229422, 0.174284, 0.128160]),
    ],
)
def test_grids_give_the_published_sigmas(sigmas, first, last):
    assert sigmas[: len(first)].tolist() == pytest.approx(first, abs=1e-6)
    assert sigmas[len(sigmas) - 1 - len(last) :].tolist() == pytest.approx([*last, 0], abs=1e-6)


def test_fifty_native_steps_begin_and_end_as_published():
    told = clocks(native(50, 3.0))
    assert told.startswith("999 992 985 978 971 963 ")
    assert told.endswith(" 290 249 206 160 111 57")


def test_karras_grid_gives_the_published_timesteps_and_repeats_some_at_fifty_steps():
    assert clocks(karras(35)) == KARRAS_CLOCKS
    assert "994 994" in clocks(karras(50))
    assert "992 992" in clocks(karras(50))


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 200])
@pytest.mark.parametrize("kind", ["native", "flow", "karras"])
def test_every_grid_falls_strictly_to_zero(kind, steps):
    sigmas = grid(kind, steps, None if kind == "karras" else 10.0)
    assert sigmas.dtype == torch.float32
    assert len(sigmas) == steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert sigmas[0] < 1


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 10.0])
def test_shift_keeps_the_ends_the_order_and_undoes_itself(shift):
    sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
    shifted = shift_sigma(sigma, shift)
    assert shifted[0] == 0
    assert shifted[-1] == pytest.approx(1)
    assert (shifted.diff() > 0).all()
    torch.testing.assert_close(shift_sigma(shifted, 1 / shift), sigma)


def test_distilled_levels_are_a_shift_of_quarters():
    sigmas = distilled([1.0, 0.9375, 0.8333333333333334, 0.625])
    torch.testing.assert_close(sigmas[:-1], shift_sigma(torch.tensor([1.0, 0.75, 0.5, 0.25]), 5.0))
    assert sigmas[-1] == 0


def test_karras_and_a_shift_together_are_refused():
    with pytest.raises(SettingsError, match=r"no shift, got shift 10\.0.*native"):
        grid("karras", 35, 10.0)


@pytest.mark.parametrize("kind", ["native", "flow"])
def test_a_shifted_grid_without_a_shift_is_refused(kind):
    with pytest.raises(SettingsError, match="needs a shift"):
        grid(kind, 35, None)


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shift_out_of_range_is_refused(shift):
    with pytest.raises(SettingsError, match="positive finite"):
        native(35, shift)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_a_step_count_out_of_range_is_refused(steps):
    with pytest.raises(SettingsError, match=f"got {steps}"):
        grid("native", steps, 5.0)


@pytest.mark.parametrize("levels", [[], [0.5, 0.5], [0.25, 0.5], [1.5, 0.5], [0.5, 0.0]])
def test_distilled_levels_that_do_not_fall_within_range_are_refused(levels):
    with pytest.raises(SettingsError, match="fall strictly"):
        distilled(levels)


@pytest.mark.oracle
@pytest.mark.parametrize("steps", [1, 4, 30, 35, 50])
@pytest.mark.parametrize("shift", [3.0, 5.0, 10.0])
def test_shifted_grids_equal_diffusers_to_the_bit(steps, shift):
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps, sigmas=np.linspace(0.999, 0, steps + 1)[:-1])
    assert torch.equal(native(steps, shift), scheduler.sigmas)
    assert clocks(native(steps, shift)) == " ".join(str(t) for t in scheduler.timesteps.tolist())
    scheduler.set_timesteps(steps)
    assert torch.equal(flow(steps, shift), scheduler.sigmas)
    assert clocks(flow(steps, shift)) == " ".join(str(t) for t in scheduler.timesteps.tolist())
