import pytest
import torch

from orrery.errors import SettingsError
from orrery.flow.guidance import applies, combine, guided


def velocities(seed: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 5, generator=rng), torch.randn(7, 1, 2, generator=rng)]


def test_each_segment_is_guided_by_its_own_scale():
    with_prompt, without = velocities(0), velocities(1)
    vision, action = combine(with_prompt, without, [6.0, 1.0])
    torch.testing.assert_close(vision, without[0] + 6 * (with_prompt[0] - without[0]))
    assert torch.equal(action, with_prompt[1])


def test_scale_zero_is_the_unconditional_velocity():
    for got, want in zip(combine(velocities(0), velocities(1), [0.0, 0.0]), velocities(1), strict=True):
        assert torch.equal(got, want)


def test_zero_velocity_in_both_stays_zero():
    given = [torch.zeros(1, 2, 3)]
    assert torch.equal(combine(given, given, [6.0])[0], given[0])


def test_one_scale_per_segment_is_required():
    with pytest.raises(ValueError, match="zip"):
        combine(velocities(0), velocities(1), [6.0])


@pytest.mark.parametrize(
    ("clock", "interval", "expected"),
    [
        (0.5, None, True),
        (0.999, (960.0, 1001.0), True),
        (0.937, (960.0, 1001.0), False),
        (0.4, (400.0, 1000.0), False),
        (0.401, (400.0, 1000.0), True),
        (0.57, (570.0, 1000.0), False),
        (0.999, (0.0, 999.0), False),
    ],
)
def test_the_interval_is_open_and_counts_in_thousandths(clock, interval, expected):
    assert applies(clock, interval) is expected


def test_four_shifted_steps_are_guided_only_at_the_first():
    assert [applies(clock, (960.0, 1001.0)) for clock in (0.999, 0.937, 0.833, 0.624)] == [True, False, False, False]


def test_no_unconditional_pass_where_it_would_change_nothing():
    assert not guided([1.0, 1.0], 0.5, None)
    assert guided([6.0, 1.0], 0.5, None)
    assert not guided([6.0], 0.3, (400.0, 1000.0))


def test_an_empty_interval_is_refused():
    with pytest.raises(SettingsError, match=r"\(800\.0, 400\.0\)"):
        applies(0.5, (800.0, 400.0))
