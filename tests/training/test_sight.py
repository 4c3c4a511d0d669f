"""What pictures show, token by token, against the simulator and the pictures themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from makers.world_run import INDICES, new_bank, records

from orrery.errors import DatasetError
from orrery.training.ground import EMPHASIS, views_of, weights_of
from orrery.training.sight import GRIPPER, NAMES, NOWHERE, RARE, SIDE, SLOTS, Marks, SightHead, marks_of, slots_of
from orrery.worlds.factory.episode import perform
from orrery.worlds.factory.mixture import CLEARANCES_M, spec_of
from orrery.worlds.factory.parts import FINISHES
from orrery.worlds.factory.render import Renderer
from orrery.worlds.factory.rollout import film
from orrery.worlds.factory.stream import AFTER_STEPS, Record


def marks_for(record: Record) -> Marks:
    slots = slots_of(record)
    whole = (torch.from_numpy(values).long() for values in (slots.token, slots.first, slots.second))
    return marks_of(*whole, torch.from_numpy(slots.place))


@pytest.mark.parametrize("record", records())
def test_marks_say_what_is_in_view_and_where(record: Record) -> None:
    marks = marks_for(record)
    for thing in range(record.view.shape[1]):
        last = thing == record.view.shape[1] - 1
        names = ["gripper"] if last else list(record.looks[thing])
        for frame in range(len(record.view)):
            right, down = record.view[frame, thing]
            if not (0 <= right < 1 and 0 <= down < 1):
                continue
            token = int(down * SIDE) * SIDE + int(right * SIDE)
            assert all(marks.shown[frame, token, NAMES.index(name)] == 1 for name in names)
            if last:
                place = marks.place[frame, token, 2:].numpy()
                again = (np.array([token % SIDE, token // SIDE]) + (place + 1) / 2) / SIDE
                assert again == pytest.approx(record.view[frame, thing], abs=1e-5)
    things = np.isfinite(record.view).all(axis=2) & ((record.view >= 0) & (record.view < 1)).all(axis=2)
    # A gripper has one name, a part two; two things in one token may share a name.
    most = 2 * things[:, :-1].sum() + things[:, -1].sum()
    assert 0.8 * most <= float(marks.shown.sum()) <= most


def test_where_a_coloured_part_is_marked_the_picture_has_its_colour() -> None:
    right = []
    for index, record in zip(INDICES, records(), strict=True):
        spec = spec_of(index, "train")
        played = perform(
            spec.episode, pairs=spec.pairs, clearances_m=CLEARANCES_M, random_look=spec.random_look,
            after_steps=AFTER_STEPS, keeps=True, listens=False,
        )  # fmt: skip
        state = played.attempt.moments[0].state
        (picture,) = film(played.cell, [state], "front", 128, 128, Renderer(played.cell.model))
        for (finish, _), (across, down) in zip(record.looks, record.view[0], strict=False):
            if FINISHES[finish][0] != "plastic" or not (0.02 < across < 0.98 and 0.02 < down < 0.98):
                continue
            seen = picture[int(down * 128), int(across * 128)].astype(float)
            wanted = {name: np.array(FINISHES[name][1]) for name in FINISHES if FINISHES[name][0] == "plastic"}
            nearest = max(wanted, key=lambda name: seen @ wanted[name] / np.linalg.norm(wanted[name]))
            right.append(nearest == finish)
    assert len(right) >= 3
    assert np.mean(right) >= 0.7


def test_the_bank_keeps_what_records_show() -> None:
    bank, at = new_bank(), 0
    for record in records():
        here = torch.arange(at, at + len(record.state))
        kept, own = bank.marks(here), marks_for(record)
        assert torch.equal(kept.shown, own.shown)
        assert torch.equal(kept.place, own.place)
        at += len(record.state)


def test_too_many_things_are_refused() -> None:
    record = records()[0]
    crowded = replace(record, view=np.zeros((len(record.state), SLOTS + 1, 2), np.float32))
    with pytest.raises(DatasetError, match=f"at most {SLOTS - 1} parts"):
        slots_of(crowded)


def test_a_head_begins_at_nothing_and_learns_marks_by_heart() -> None:
    marks = marks_for(records()[0])
    marks = Marks(shown=marks.shown[:4], place=marks.place[:4])
    torch.manual_seed(0)
    tokens = torch.randn(4, NOWHERE, 128)
    head = SightHead(128)
    quiet = Marks(shown=torch.zeros_like(marks.shown), place=marks.place)
    nothing = len(NAMES) * np.log1p(np.exp(RARE))
    assert head.loss(tokens, quiet).item() == pytest.approx(nothing, rel=1e-5)
    first = head.loss(tokens, marks).item()
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-2)
    for _ in range(150):
        optimiser.zero_grad()
        loss = head.loss(tokens, marks)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 * first


def test_names_end_with_the_gripper() -> None:
    assert NAMES[GRIPPER] == "gripper"
    assert len(set(NAMES)) == len(NAMES)


def test_pixels_of_things_count_more_in_the_codecs_loss() -> None:
    views = torch.from_numpy(views_of(records()[:2]))[:1]
    weights = weights_of(views, 128, 128)[0]
    for right, down in views[0].nan_to_num(nan=-1).tolist():
        if 0 <= right < 1 and 0 <= down < 1:
            assert weights[int(down * 128), int(right * 128)] > 1 + 0.9 * EMPHASIS
    assert weights.median() < 1.1
    nobody = torch.full_like(views, torch.nan)
    assert torch.equal(weights_of(nobody, 128, 128), torch.ones(1, 128, 128))
