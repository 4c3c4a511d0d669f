import pytest
from hypothesis import given
from hypothesis import strategies as st

from orrery.errors import RequestError
from orrery.tasks.alignment import action_rows, latent_frames


@given(latents=st.integers(1, 75))
def test_latent_frames_divide_the_pixel_frames_without_rest(latents):
    assert latent_frames(1 + 4 * (latents - 1)) == latents


@pytest.mark.parametrize("frames", [-3, 0, 2, 3, 4, 16, 190])
def test_frames_are_never_rounded(frames):
    with pytest.raises(RequestError, match=f"got {frames}"):
        latent_frames(frames)


@given(chunk=st.integers(1, 64), state=st.booleans(), actions_given=st.booleans())
def test_the_last_row_stands_at_the_last_frame(chunk, state, actions_given):
    aligned = action_rows(chunk, state=state, actions_given=actions_given)
    times = [row + aligned.start for row in range(aligned.rows)]
    assert times[-1] == chunk
    assert times[-chunk:] == list(range(1, chunk + 1))
    assert times[0] == (0 if state else 1)
    assert aligned.given == (aligned.rows if actions_given else int(state))
