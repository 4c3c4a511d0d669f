"""How samples are dealt to processes; what processes find together is in `runtime/test_several`."""

import pytest

from orrery.model.branch_parallel import deal


@pytest.mark.parametrize(
    ("lengths", "processes", "expected"),
    [
        ((100, 100), 2, [[0], [1]]),
        ((100, 0, 100), 2, [[0], [2]]),
        ((100,), 2, [[0], []]),
        ((10, 90, 50, 40), 2, [[0, 1], [2, 3]]),
        ((1, 2, 3), 1, [[0, 1, 2]]),
    ],
)
def test_samples_are_dealt_by_their_tokens(lengths, processes, expected):
    assert deal(lengths, processes) == expected
