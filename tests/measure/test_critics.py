"""The cosine critic against numpy; the separable critic against the cosine."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from infomin.measure.critics import SeparableCritic, cosine_scores
from infomin.networks.heads import HEADS, Projection


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tau", [0.07, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("b", "k", "d"), [(1, 1, 1), (3, 5, 4), (8, 2, 128)])
def test_cosine_equals_the_loop(b: int, k: int, d: int, tau: float) -> None:
    z1, z2 = draw(b, d), draw(k, d, seed=1)
    a, c = z1.double().numpy(), z2.double().numpy()
    slow = [
        [np.sum(p * q) / math.sqrt(np.sum(p**2)) / math.sqrt(np.sum(q**2)) / tau for q in c]
        for p in a
    ]
    np.testing.assert_allclose(cosine_scores(z1, z2, tau).numpy(), slow, rtol=1e-4, atol=1e-5)


def test_cosine_is_invariant_to_scale_and_rotation_and_symmetric() -> None:
    z1, z2 = draw(6, 8), draw(9, 8, seed=1)
    rotation = torch.linalg.qr(draw(8, 8, seed=2)).Q
    scores = cosine_scores(z1, z2, 0.1)
    rotated = cosine_scores(z1 @ rotation, z2 @ rotation, 0.1)
    torch.testing.assert_close(cosine_scores(z1 * 37, z2 * 0.01, 0.1), scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rotated, scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cosine_scores(z2, z1, 0.1), scores.T, rtol=1e-4, atol=1e-5)
    assert scores.abs().max() <= 10 * (1 + 1e-6)
    torch.testing.assert_close(cosine_scores(z1, z1, 0.1).diagonal(), torch.full((6,), 10.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosine_is_the_same_at_any_length(dtype: torch.dtype) -> None:
    z1, z2 = draw(6, 8).to(dtype), draw(9, 8, seed=1).to(dtype)
    want = cosine_scores(z1, z2, 0.1)
    for scale in (1e-30, 1e-13, 1e19, 1e37):
        assert torch.allclose(cosine_scores(z1 * scale, z2, 0.1), want, atol=1e-4)
    assert not cosine_scores(0 * z1, z2, 0.1).any()


def test_cosine_has_the_right_gradient_and_a_finite_one_at_zero() -> None:
    z1, z2 = draw(3, 4).double().requires_grad_(), draw(2, 4, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cosine_scores(a, b, 0.2), (z1, z2))
    zero = torch.zeros(2, 4, requires_grad=True)
    cosine_scores(zero, zero, 0.2).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosine_scores_are_float32_inside_autocast_and_outside(dtype: torch.dtype) -> None:
    z = draw(16, 32)
    rounded = z.to(dtype)
    with torch.autocast("cpu", dtype):
        inside = cosine_scores(z, z, 0.07)
        rounded_inside = cosine_scores(rounded, rounded, 0.07)
    assert inside.dtype == torch.float32 and torch.equal(inside, cosine_scores(z, z, 0.07))
    want = cosine_scores(rounded.float(), rounded.float(), 0.07)
    for scores in (rounded_inside, cosine_scores(rounded, rounded, 0.07)):
        assert scores.dtype == torch.float32 and torch.equal(scores, want)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_cosine_needs_a_temperature_above_zero(tau: float) -> None:
    with pytest.raises(ValueError, match=r"cosine\(tau\): got .*, wanted a finite number above 0"):
        cosine_scores(draw(2, 3), draw(2, 3), tau)


def test_cosine_needs_embeddings_of_one_size() -> None:
    message = r"cosine: embeddings must be \[B, D\] and \[K, D\], got"
    for z1, z2 in ((draw(2, 3), draw(2, 4)), (draw(2, 3, 1), draw(2, 3)), (draw(3), draw(2, 3))):
        with pytest.raises(ValueError, match=message):
            cosine_scores(z1, z2, 0.1)


@pytest.mark.parametrize("head", HEADS)
def test_projections_have_the_given_size_and_gradients_everywhere(head: str) -> None:
    dim = 12 if head == "none" else 5
    project = Projection(12, dim, head)
    z = project(draw(4, 12))
    assert z.shape == (4, dim) and project.features == dim
    assert project(draw(1, 12)).shape == (1, dim)
    if head != "none":
        z.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in project.parameters())


def test_projections_are_what_their_names_say() -> None:
    """No head is the identity, a linear one keeps midpoints, an mlp does not."""
    x, y = draw(4, 12), draw(4, 12, seed=1)
    assert Projection(12, 12, "none")(x) is x
    gap = {}
    for name in ("linear", "mlp"):
        project = Projection(12, 12, name)
        gap[name] = ((project(x) + project(y)) / 2 - project((x + y) / 2)).abs().max().item()
    assert gap["linear"] < 1e-5 < 1e-2 < gap["mlp"]
    linear, mlp = Projection(12, 5, "linear"), Projection(12, 5, "mlp")
    assert sum(p.numel() for p in linear.parameters()) == 12 * 5 + 5
    assert sum(p.numel() for p in mlp.parameters()) == 12 * 12 + 12 + 12 * 5 + 5
    default = Projection(12)
    assert [tuple(p.shape) for p in default.parameters()] == [(128, 12), (128,)]


def test_unknown_heads_and_sizes_are_errors() -> None:
    message = r"Projection\(head\): got 'deep', wanted one of none, linear, mlp"
    with pytest.raises(ValueError, match=message):
        Projection(12, 5, "deep")
    for dim in (5, 13):  # without a head, the size cannot change
        message = f"dim must equal the features, got dim={dim} and features=12; use dim=12"
        with pytest.raises(ValueError, match=message):
            Projection(12, dim, "none")


def test_separable_scores_each_pair_independently() -> None:
    critic = SeparableCritic(6, 9, dim=4, hidden=16)
    x, y = draw(5, 6), draw(7, 9, seed=1)
    scores = critic(x, y)
    alone = torch.cat([critic(a[None], b[None]) for a in x for b in y]).reshape(5, 7)
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores, 10 * cosine_scores(critic.g(x), critic.h(y), tau=1.0))
    with torch.no_grad():
        critic.log_scale.add_(math.log(2))
    torch.testing.assert_close(critic(x, y), 2 * scores)


def test_separable_trains_every_parameter() -> None:
    critic = SeparableCritic(6, 2048)
    critic(draw(64, 6), draw(64, 2048, seed=1)).diagonal().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in critic.parameters())


def test_similarities_are_not_rounded_by_autocast() -> None:
    z1, z2 = torch.rand(4, 3), torch.rand(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        scores = cosine_scores(z1, z2, 0.2)
    assert scores.dtype == torch.float32 and torch.equal(scores, cosine_scores(z1, z2, 0.2))
