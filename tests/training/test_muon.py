import torch
from torch.nn import Parameter

from orrery.training.muon import COEFFICIENTS, MOMENTUM, STEPS, Muon, orthogonalised


def test_singular_vectors_stay_and_values_go_to_one():
    rng = torch.Generator().manual_seed(0)
    for shape in ((3, 16, 16), (2, 24, 8), (2, 8, 24)):
        matrices = torch.randn(shape, generator=rng)
        made = orthogonalised(matrices)
        left, values, right = torch.linalg.svd(matrices, full_matrices=False)
        turned = left.mT @ made @ right.mT
        diagonal = turned.diagonal(dim1=1, dim2=2)
        assert (turned - torch.diag_embed(diagonal)).abs().max() < 1e-3
        assert diagonal.max() < 1.3
        assert diagonal[values > 0.1 * values.amax(1, keepdim=True)].min() > 0.4


def test_matrices_go_through_together_as_alone():
    matrices = torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(1))
    together = orthogonalised(matrices)
    for matrix, made in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalised(matrix[None])[0], made, atol=1e-6, rtol=0)


def test_it_moves_as_the_muon_of_torch_does():
    """torch computes in bfloat16, so the paths agree to its precision."""
    rng = torch.Generator().manual_seed(2)
    ours, theirs = (Parameter(torch.full((12, 20), 0.1)) for _ in range(2))
    mine = Muon([{"params": [ours], "lr": 0.02, "weight_decay": 0.1}])
    peer = torch.optim.Muon(
        [theirs],
        lr=0.02,
        weight_decay=0.1,
        momentum=MOMENTUM,
        nesterov=True,
        ns_coefficients=COEFFICIENTS,
        ns_steps=STEPS,
        adjust_lr_fn="match_rms_adamw",
    )
    for _ in range(5):
        ours.grad = torch.randn(12, 20, generator=rng)
        theirs.grad = ours.grad.clone()
        mine.step()
        peer.step()
    moved = (theirs - 0.1).abs().max()
    assert (ours - theirs).abs().max() < 0.03 * moved
