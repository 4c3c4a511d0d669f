"""The stacks of a step follow from seed and step alone, show what the task says, and cost what their pack costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from makers.world_run import CPU, MIXTURE, MODEL, RECIPE, RUN, full_bank, new_bank, records

from orrery.errors import DatasetError, SettingsError
from orrery.model.mot import MoT
from orrery.training.loss import flow_loss
from orrery.training.recipe import LossWeights, Recipe, Share
from orrery.training.stacks import (
    PLAIN,
    Asking,
    Emphasis,
    Flowing,
    asking,
    asking_loss,
    draw_flow,
    draw_stacks,
    flowing_loss,
    motion_weights,
    padded_empty,
    samples_of,
    token_weights,
)
from orrery.training.start import start_weights
from orrery.training.world_model import WorldModel

SHARES = (
    Share(task="forward_dynamics", caption_dropout=0.5),
    Share(task="forward_dynamics", sound="none", caption_dropout=0.5),
    Share(task="inverse_dynamics", caption_dropout=1.0),
    Share(task="policy", caption_dropout=0.0),
    Share(task="policy_no_video", caption_dropout=0.0),
    Share(task="text_to_image", caption_dropout=0.5),
    Share(task="text_to_video", sound="none", caption_dropout=0.5),
    Share(task="image_to_video", sound="none", caption_dropout=0.5),
)


def drawn(share: Share, count: int = 3, *, recipe: Recipe = RUN, emphasis: Emphasis = PLAIN, **given) -> Flowing:
    choice, rng = np.random.default_rng(3), torch.Generator().manual_seed(4)
    return draw_flow(full_bank(), share, count, recipe, emphasis, choice, rng, **given)


def tensors_of(stacks: list[Flowing | Asking]) -> list[torch.Tensor]:
    found = []
    for one in stacks:
        if isinstance(one, Flowing):
            found += [one.stack.token_ids, one.sigmas, *one.stack.latents, *(t.clean for t in one.stack.tracks)]
            found += [weight for weight in one.weights if weight is not None]
        else:
            found += [one.text.token_ids, one.labels, one.patches]
    return found


def same(one: list[Flowing | Asking], other: list[Flowing | Asking]) -> bool:
    pairs = zip(tensors_of(one), tensors_of(other), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def random_mot(prediction: str = "data") -> MoT:
    """Weights that are 0 nowhere."""
    mot = MoT(replace(MODEL, prediction=prediction))
    start_weights(mot, 0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in mot.named_parameters():
            if name.split(".")[0].endswith(("_out", "_head", "_embed")):
                parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.1)
    return mot


def test_the_stacks_of_a_step_depend_on_seed_and_step_alone():
    bank = full_bank()
    first = draw_stacks(bank, RUN, RECIPE.emphasis, 7)
    torch.manual_seed(99)
    np.random.seed(99)
    draw_stacks(bank, RUN, RECIPE.emphasis, 8)
    assert same(first, draw_stacks(bank, RUN, RECIPE.emphasis, 7))
    assert not same(first[:2], draw_stacks(bank, RUN, RECIPE.emphasis, 8)[:2])
    assert not same(first[:2], draw_stacks(bank, replace(RUN, seed=6), RECIPE.emphasis, 7)[:2])


def test_shares_get_their_part_of_the_samples():
    counts = [count for _, count in samples_of(RUN)]
    assert counts == [2, 2, 1, 1, 3]
    stacks = draw_stacks(full_bank(), RUN, RECIPE.emphasis, 0)
    flowing = [len(one.stack.token_ids) for one in stacks if isinstance(one, Flowing)]
    assert flowing == counts[:4]
    assert sum(one.count for one in stacks if isinstance(one, Asking)) == 3
    # In multiples of 8 where there are enough.
    assert [count for _, count in samples_of(replace(RUN, batch=9 * 13))] == [24, 24, 16, 16, 40]


def test_a_rare_share_takes_part_now_and_then_and_counts_as_much_more():
    rare = tuple(replace(share, every=2) if place in (1, 2) else share for place, share in enumerate(MIXTURE[:3]))
    recipe = replace(RUN, mixture=rare, batch=5)
    assert [count for _, count in samples_of(recipe)] == [2, 4, 2]
    tasks = [[one.task for one in draw_stacks(full_bank(), recipe, RECIPE.emphasis, step)] for step in range(4)]
    assert tasks == 2 * [["forward_dynamics", "policy_no_video"], ["forward_dynamics", "text_to_image"]]
    always, other = draw_stacks(full_bank(), recipe, RECIPE.emphasis, 0)
    assert (always.factor, other.factor) == (1.0, 2.0)
    mot = random_mot().requires_grad_(False)
    once, twice = (flowing_loss(mot, replace(other, factor=factor), LossWeights()) for factor in (1.0, 2.0))
    assert float(twice.total) == pytest.approx(2 * float(once.total))
    assert twice.parts == once.parts
    with pytest.raises(SettingsError, match="every 2"):
        replace(MIXTURE[4], every=2)


@pytest.mark.parametrize("prediction", ["data", "velocity"])
@pytest.mark.parametrize("share", SHARES, ids=lambda share: f"{share.task}-{share.sound}")
@torch.no_grad()
def test_a_stack_costs_what_its_pack_costs(share, prediction):
    mot, flowing = random_mot(prediction), drawn(share)
    weights = LossWeights(vision=0.7, sound=0.4, action=1.3)
    found = flowing_loss(mot, flowing, weights)
    pack = flowing.stack.unstack(mot.config.clock)
    sigmas = flowing.sigmas.reshape(-1)
    noise = [
        (latents - (1 - sigma) * segment.clean) / sigma
        for segment, latents, sigma in zip(pack.segments, pack.latents, sigmas, strict=True)
    ]
    floor = mot.config.sigma_floor if prediction == "data" else 0.0
    expected = flow_loss(mot(pack, sigmas), pack, noise, sigmas, weights, sigma_floor=floor)
    torch.testing.assert_close(found.total, expected.total, rtol=2e-5, atol=0)
    for kind, part in expected.parts.items():
        torch.testing.assert_close(found.parts[f"{share.task} {kind}"], part, rtol=2e-5, atol=0)


@pytest.mark.parametrize("share", SHARES, ids=lambda share: f"{share.task}-{share.sound}")
def test_what_is_given_is_clean_and_the_rest_is_mixed_with_noise(share):
    flowing = drawn(share, level=0.25)
    task, kinds = share.row(), [track.kind for track in flowing.stack.tracks]
    assert set(kinds) == {"vision"} | ({"sound"} if share.sound else set()) | ({"action"} if task.action else set())
    assert kinds.count("vision") == (2 if task.action else 1)
    for track, latents in zip(flowing.stack.tracks, flowing.stack.latents, strict=True):
        given = {"vision": task.vision, "sound": task.sound, "action": task.action}[track.kind]
        steers = track.kind == "action" and task.name.startswith("policy")
        frames = track.clean.shape[1]
        expected = {"none": 0, "first": 1, "all": frames}[given] if not steers else 1
        assert track.given.sum(dim=1).tolist() == [expected] * 3
        assert torch.equal(latents[~track.active], torch.where(track.valid, track.clean, 0.0)[~track.active])
        noise = ((latents - 0.75 * track.clean) / 0.25)[track.active]
        if noise.numel() > 200:
            assert noise.mean().abs() < 0.2
            assert 0.8 < noise.std() < 1.2


def test_actions_of_a_policy_stand_behind_the_state_they_start_from():
    bank = full_bank()
    (action,) = [track for track in drawn(SHARES[4]).stack.tracks if track.kind == "action"]
    assert action.clean.shape == (3, 17, 1, MODEL.action_width)
    assert not action.clean[..., bank.contract.width :].any()
    assert action.valid.sum() == bank.contract.width
    rows = bank.action[torch.tensor(bank.policy)[:, None] + torch.arange(16)]
    for sample in action.clean[:, :, 0, : bank.contract.width]:
        (number,) = torch.nonzero((rows == sample[1:]).all(dim=(1, 2)))[:, 0]
        assert torch.equal(bank.state[bank.policy[int(number)]], sample[0])


def test_captions_are_left_out_as_often_as_the_share_says():
    bank = full_bank()
    for dropout, least, most in ((0.0, 0, 0), (1.0, 64, 64), (0.5, 20, 44)):
        for share in (SHARES[0], SHARES[6]):
            ids = drawn(replace(share, caption_dropout=dropout), 64).stack.token_ids
            # Longer prompts are emptied without changing their length.
            empty = torch.from_numpy(padded_empty(bank, ids.shape[1]))
            assert least <= int((ids == empty).all(dim=1).sum()) <= most
    assert bank.text.decode(padded_empty(bank, 64).tolist()) == bank.text.decode(bank.empty.tolist())
    for dropout, left_out in ((0.9, False), (1.0, True)):
        validated = drawn(replace(SHARES[0], caption_dropout=dropout), level=0.5).stack.token_ids
        assert bool((validated == torch.from_numpy(bank.empty)).all(dim=1).any()) == left_out


def test_history_is_disturbed_in_half_of_the_examples_of_forward_dynamics():
    flowing = drawn(SHARES[0], 64, emphasis=Emphasis(motion=0.0, history_noise=0.2))
    for track, latents in zip(flowing.stack.tracks, flowing.stack.latents, strict=True):
        change = (latents - track.clean)[:, 0].square().mean(dim=(1, 2)).sqrt()
        if track.kind == "vision":
            assert 16 <= int((change > 0).sum()) <= 48
            # Noise of up to a fifth, and as much of the data less.
            assert change.max() < 0.2 * (1 + track.clean.abs().max())
        else:
            assert not change.any()
    for share in (SHARES[3], SHARES[7]):
        other = drawn(share, 8, emphasis=Emphasis(motion=0.0, history_noise=0.2))
        assert torch.equal(other.stack.latents[0][:, 0], other.stack.tracks[0].clean[:, 0])


def test_noise_levels_are_shared_by_cameras_and_by_all_where_they_are_not_independent():
    sigmas = drawn(SHARES[3], 16).sigmas
    assert torch.equal(sigmas[:, 0], sigmas[:, 1])
    assert not torch.equal(sigmas[:, 0], sigmas[:, 2])
    sigmas = drawn(SHARES[3], 16, recipe=replace(RUN, independent_noise=False)).sigmas
    assert torch.equal(sigmas[:, 0], sigmas[:, 2])


@pytest.mark.parametrize("differences", [False, True])
def test_what_moves_weighs_more(differences):
    (front, *_) = drawn(SHARES[0], 8).stack.tracks
    weights = motion_weights(front, 3.0, differences=differences)
    assert weights.shape == (*front.clean.shape[:3], 1)
    assert torch.equal(weights[:, 0], torch.ones_like(weights[:, 0]))
    before = 0 if differences else front.clean[:, :-1]
    change = (front.clean[:, 1:] - before).square().mean(dim=3, keepdim=True)
    assert (weights[:, 1:][change == 0] == 1).all()
    assert 3.9 < weights.max() <= 4
    order = change.flatten().argsort()
    assert (weights[:, 1:].flatten()[order].diff() >= -1e-6).all()
    mot = random_mot().requires_grad_(False)
    heavy, plain = (replace(drawn(SHARES[0]), weights=w) for w in ((weights[:3], None, None), (None, None, None)))
    costs = [float(flowing_loss(mot, one, LossWeights()).total) for one in (heavy, plain)]
    assert costs[0] > costs[1]


def test_further_cameras_weigh_less():
    front, wrist, action = (track for track in drawn(SHARES[0], 8).stack.tracks if track.kind != "sound")
    for motion in (0.0, 3.0):
        moving = [motion_weights(track, motion, differences=True) for track in (front, wrist)]
        weighed = [
            token_weights(t, Emphasis(motion=motion, further_cameras=0.25), differences=True) for t in (front, wrist)
        ]
        whole = torch.ones_like(wrist.clean[..., :1]) if moving[1] is None else moving[1]
        assert (weighed[0] is None) if motion == 0 else torch.equal(weighed[0], moving[0])
        assert torch.equal(weighed[1], 0.25 * whole)
    assert token_weights(action, Emphasis(), differences=True) is None
    assert token_weights(wrist, Emphasis(motion=0.0, further_cameras=1.0), differences=True) is None


def test_questions_cost_the_cross_entropy_of_their_answers():
    bank, mot, eyes = full_bank(), random_mot(), WorldModel(MODEL, RECIPE.eyes, 0).eyes
    rows = [row for family in bank.questions["image"].values() for row in family][:5]
    stack = asking(bank, bank.forms["image"], rows)
    with torch.no_grad():
        found = asking_loss(mot, eyes, stack, LossWeights(text=0.3))
        total, count = 0.0, 0
        for row in rows:
            alone = asking(bank, bank.forms["image"], [row])
            memory = mot.read(alone.text, eyes(alone.patches, list(alone.grids)))
            scores = mot.logits(memory.hidden).log_softmax(-1)
            for place in range(row.answer.start, row.answer.stop):
                total -= float(scores[place - 1, row.ids[place]])
                count += 1
    assert float(found.parts["reason still"]) == pytest.approx(total / count, rel=1e-5)
    assert float(found.total) == pytest.approx(0.3 * total / count, rel=1e-5)


def test_what_the_bank_does_not_hold_is_named():
    silent = new_bank(some=[replace(records()[3], sound=None, scenes=())])
    for share, text in (
        (SHARES[1], "no windows for task 'forward_dynamics'"),
        (SHARES[5], "no captions for task 'text_to_image'"),
        (Share(task="reason"), "no questions about"),
    ):
        with pytest.raises(DatasetError, match=text):
            draw_stacks(silent, replace(RUN, mixture=(share,)), PLAIN, 0)
    assert silent.device == CPU
