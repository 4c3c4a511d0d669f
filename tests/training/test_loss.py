"""Laws of the two losses: what is averaged, what is left out, and where gradients go."""

import math
from dataclasses import replace

import pytest
import torch
from makers.samples import action, mixed, normal, tokens, vision

from orrery.model.config import TINY
from orrery.model.mot import MoT, Prediction
from orrery.packing.segment import Sample, Segment
from orrery.training.batch import Batch, Example, pack_batch
from orrery.training.loop import batch_losses
from orrery.training.loss import flow_loss, text_loss
from orrery.training.recipe import LossWeights
from orrery.training.start import start_weights

CPU = torch.device("cpu")
EVEN = LossWeights(text=1.0)


def example(*segments: Segment, length: int = 5, written: int = 0, seed: int = 0) -> Example:
    """A sample whose last `written` tokens are supervised."""
    return Example(
        sample=Sample(token_ids=tokens(length, TINY.vocab, seed=seed), segments=segments),
        supervised=torch.arange(length) >= length - written,
    )


def batch(*examples: Example, sigma: float = 0.5) -> Batch:
    segments = [segment for e in examples for segment in e.sample.segments]
    noise = [normal(*segment.clean.shape, seed=int(segment.clean.sum() * 1000) % 1000) for segment in segments]
    return pack_batch(list(examples), noise, torch.full((len(segments),), sigma), TINY, CPU)


def prediction(given: Batch, error: float) -> Prediction:
    """A velocity that is off by `error` everywhere, also where nothing is generated."""
    velocity = [n - s.clean + error for n, s in zip(given.noise, given.pack.segments, strict=True)]
    return Prediction(velocity=velocity, data=velocity)


def flow(given: Batch, error: float = 2.0) -> dict[str, float]:
    losses = flow_loss(prediction(given, error), given.pack, given.noise, given.sigmas, EVEN)
    return {kind: loss.item() for kind, loss in losses.parts.items()}


def random_mot(prediction: str = "velocity") -> MoT:
    mot = MoT(replace(TINY, prediction=prediction))
    torch.manual_seed(0)
    for parameter in mot.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return mot


@pytest.mark.parametrize("given", [(), (0,), (0, 1), (0, 1, 2)])
def test_how_many_frames_are_given_does_not_scale_the_loss(given):
    assert flow(batch(example(vision(TINY, 4, 4, 4, given=given)))) == {"vision": pytest.approx(4, rel=1e-4)}


@pytest.mark.parametrize("columns", [1, 7, 16])
def test_columns_that_the_robot_lacks_are_not_scored(columns):
    assert flow(batch(example(action(TINY, 6, columns)))) == {"action": pytest.approx(4, rel=1e-4)}


def test_a_sample_with_everything_given_adds_nothing():
    alone = batch(example(vision(TINY, 2, 4, 4, seed=1)))
    every = vision(TINY, 3, 4, 4, given=(0, 1, 2), seed=2)
    together = batch(example(vision(TINY, 2, 4, 4, seed=1)), example(every))
    assert flow(together) == flow(alone)
    losses = flow_loss(
        prediction(batch(example(every)), 2.0), batch(example(every)).pack, [every.clean], torch.ones(1), EVEN
    )
    assert losses.total == 0
    assert losses.parts == {}


def test_every_active_value_of_a_pack_weighs_the_same():
    mot, samples = (
        random_mot(),
        [Example(sample=s, supervised=torch.zeros_like(s.token_ids).bool()) for s in mixed(TINY)],
    )
    with torch.no_grad():
        together = batch_losses(mot, batch(*samples), EVEN).parts
        alone = [batch_losses(mot, batch(sample), EVEN).parts for sample in samples]
    for kind, loss in together.items():
        counts = [sum(int(s.active.sum()) for s in e.sample.segments if s.kind == kind) for e in samples]
        singles = sum(n * part[kind].item() for n, part in zip(counts, alone, strict=True) if n)
        assert loss.item() == pytest.approx(singles / sum(counts), rel=1e-5)


def test_written_tokens_of_a_pack_weigh_the_same():
    mot = random_mot()
    examples = [
        example(length=4, written=1, seed=1),
        example(vision(TINY, 1, 2, 2)),
        example(length=9, written=5, seed=2),
    ]
    with torch.no_grad():
        together = batch_losses(mot, batch(*examples), EVEN).parts["text"].item()
        first, last = (batch_losses(mot, batch(examples[i]), EVEN).parts["text"].item() for i in (0, 2))
    assert together == pytest.approx((first + 5 * last) / 6, rel=1e-5)


def test_the_weights_act_on_the_means():
    mot = random_mot()
    both = batch(example(vision(TINY, 1, 2, 2), action(TINY, 3, 2)), example(written=2))
    weights = LossWeights(vision=3.0, action=0.5, text=0.25)
    with torch.no_grad():
        losses = batch_losses(mot, both, weights)
    parts = losses.parts
    torch.testing.assert_close(losses.total, 3 * parts["vision"] + 0.5 * parts["action"] + 0.25 * parts["text"])


def test_text_loss_is_the_mean_log_probability_of_the_next_token_in_float32():
    logits = normal(3, 7, seed=0).to(torch.bfloat16)
    labels = torch.tensor([1, 6, 2])
    expected = -logits.double().log_softmax(-1)[torch.arange(3), labels].mean().item()
    loss = text_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_supervised_tokens_are_predicted_from_the_tokens_before_them():
    examples = [example(length=4, seed=1), example(length=6, written=2, seed=2), example(length=3, written=1, seed=3)]
    given = batch(*examples)
    assert given.before_labels.tolist() == [7, 8, 11]
    ids = given.pack.text.token_ids
    assert torch.equal(given.labels, ids[torch.tensor([8, 9, 12])])
    mot = random_mot()
    with torch.no_grad():
        hidden = mot.read(given.pack.text).hidden
        expected = text_loss(mot.logits(hidden[given.before_labels]), given.labels)
        assert torch.equal(batch_losses(mot, given, EVEN).parts["text"], expected)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.3, 1.0])
def test_a_data_model_is_scored_by_its_data_over_the_floored_noise_level(sigma):
    mot, given = random_mot("data"), batch(example(vision(TINY, 2, 4, 4, given=(0,))), sigma=sigma)
    segment = given.pack.segments[0]
    floored = max(sigma, TINY.sigma_floor)
    with torch.no_grad():
        velocity = mot(given.pack, given.sigmas).velocity[0]
        data = given.pack.latents[0] - floored * velocity  # what the head put out
        expected = ((data - segment.clean)[segment.active] / floored).square().mean()
        loss = batch_losses(mot, given, EVEN).parts["vision"]
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["velocity", "data"])
def test_a_new_model_scores_tokens_alike_and_predicts_nothing(kind):
    mot = MoT(replace(TINY, prediction=kind))
    start_weights(mot, 0)
    given = batch(example(vision(TINY, 3, 4, 4)), example(written=2), sigma=1.0)
    segment, noise = given.pack.segments[0], given.noise[0]
    target = noise - segment.clean if kind == "velocity" else segment.clean
    with torch.no_grad():
        parts = batch_losses(mot, given, EVEN).parts
    assert parts["text"].item() == pytest.approx(math.log(TINY.vocab))
    torch.testing.assert_close(parts["vision"], target[segment.active].square().mean())


def gradients(mot: MoT, given: Batch) -> set[str]:
    """The parts of the model that a batch pulls at."""
    batch_losses(mot, given, EVEN).total.backward()
    pulled = {name for name, p in mot.named_parameters() if p.grad is not None and p.grad.any()}
    return {
        part
        for part in (".text.", ".generation.", "embed.", "lm_head", "vision_", "action_", "time_")
        if any(part in f".{n}" for n in pulled)
    }


def test_the_flow_loss_reaches_the_text_tower():
    pulled = gradients(random_mot(), batch(example(vision(TINY, 2, 4, 4))))
    assert pulled == {".text.", ".generation.", "embed.", "vision_", "time_"}


def test_the_text_loss_does_not_reach_the_generation_tower():
    assert gradients(random_mot(), batch(example(written=2))) == {".text.", "embed.", "lm_head"}
