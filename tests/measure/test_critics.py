"""The cosine critic against numpy; the separable critic against factors whose information is known."""

import math
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from infomin.common.precision import full_precision
from infomin.measure import critics
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


def test_cosine_ignores_lengths_turns_with_both_and_swaps() -> None:
    z1, z2 = draw(6, 8), draw(9, 8, seed=1)
    turn = torch.linalg.qr(draw(8, 8, seed=2)).Q
    scores = cosine_scores(z1, z2, 0.1)
    torch.testing.assert_close(cosine_scores(z1 * 37, z2 * 0.01, 0.1), scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        cosine_scores(z1 @ turn, z2 @ turn, 0.1), scores, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(cosine_scores(z2, z1, 0.1), scores.T, rtol=1e-4, atol=1e-5)
    assert scores.abs().max() <= 10 * (1 + 1e-6)
    torch.testing.assert_close(cosine_scores(z1, z1, 0.1).diagonal(), torch.full((6,), 10.0))


def test_cosine_has_the_right_gradient_and_survives_a_zero() -> None:
    z1, z2 = draw(3, 4).double().requires_grad_(), draw(2, 4, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: cosine_scores(a, b, 0.2), (z1, z2))
    zero = torch.zeros(2, 4, requires_grad=True)
    cosine_scores(zero, zero, 0.2).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cosine_scores_are_float32_inside_autocast_and_outside(dtype: torch.dtype) -> None:
    z = draw(16, 32)
    rough = z.to(dtype)
    with torch.autocast("cpu", dtype):
        inside = cosine_scores(z, z, 0.07)
        half = cosine_scores(rough, rough, 0.07)
    assert inside.dtype == torch.float32 and torch.equal(inside, cosine_scores(z, z, 0.07))
    for scores in (half, cosine_scores(rough, rough, 0.07)):
        assert scores.dtype == torch.float32 and torch.equal(
            scores, cosine_scores(rough.float(), rough.float(), 0.07)
        )


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_cosine_wants_a_temperature_above_zero(tau: float) -> None:
    with pytest.raises(ValueError, match=r"cosine\(tau\): got .*, wanted a finite number above 0"):
        cosine_scores(draw(2, 3), draw(2, 3), tau)


def test_cosine_wants_embeddings_of_one_size() -> None:
    for z1, z2 in ((draw(2, 3), draw(2, 4)), (draw(2, 3, 1), draw(2, 3)), (draw(3), draw(2, 3))):
        with pytest.raises(
            ValueError, match=r"cosine: embeddings must be \[B, D\] and \[K, D\], got"
        ):
            cosine_scores(z1, z2, 0.1)


@pytest.mark.parametrize("head", HEADS)
def test_projection_has_the_announced_size_and_every_parameter_a_gradient(head: str) -> None:
    dim = 12 if head == "none" else 5
    project = Projection(12, dim, head)
    z = project(draw(4, 12))
    assert (
        z.shape == (4, dim) and project.features == dim and project(draw(1, 12)).shape == (1, dim)
    )
    if head != "none":
        z.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in project.parameters())


def test_projections_differ_as_their_names_say() -> None:
    """No head is the identity, a linear one keeps midpoints, an mlp does not."""
    x, y = draw(4, 12), draw(4, 12, seed=1)
    assert Projection(12, 12, "none")(x) is x
    gap = {}
    for name in ("linear", "mlp"):
        project = Projection(12, 12, name)
        gap[name] = ((project(x) + project(y)) / 2 - project((x + y) / 2)).abs().max().item()
    assert gap["linear"] < 1e-5 < 1e-2 < gap["mlp"]
    assert sum(p.numel() for p in Projection(12, 5, "linear").parameters()) == 12 * 5 + 5
    assert (
        sum(p.numel() for p in Projection(12, 5, "mlp").parameters()) == 12 * 12 + 12 + 12 * 5 + 5
    )
    assert [tuple(p.shape) for p in Projection(12).parameters()] == [
        (128, 12),
        (128,),
    ]  # unless more is said


def test_projection_errors_say_what_is_wanted() -> None:
    with pytest.raises(
        ValueError, match=r"Projection\(head\): got 'deep', wanted one of none, linear, mlp"
    ):
        Projection(12, 5, "deep")
    for dim in (5, 13):  # a head that is none can neither take away nor add
        with pytest.raises(
            ValueError,
            match=f"dim must equal the features, got dim={dim} and features=12; use dim=12",
        ):
            Projection(12, dim, "none")


def test_separable_scores_each_pair_by_itself() -> None:
    critic = SeparableCritic(6, 9, dim=4, hidden=16).eval()
    x, y = draw(5, 6), draw(7, 9, seed=1)
    scores = critic(x, y)
    alone = torch.cat([torch.cat([critic(a[None], b[None]) for b in y], 1) for a in x])
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        critic.log_scale.add_(math.log(2))
    torch.testing.assert_close(critic(x, y), 2 * scores)


def test_separable_starts_with_ten_times_the_cosine_of_its_networks_and_learns_the_scale() -> None:
    critic = SeparableCritic(6, 9, dim=4, hidden=16).eval()
    x, y = draw(5, 6), draw(7, 9, seed=1)
    torch.testing.assert_close(critic(x, y), 10 * cosine_scores(critic.g(x), critic.h(y), tau=1.0))
    assert (
        any(p is critic.log_scale for p in critic.parameters())
        and "log_scale" in critic.state_dict()
    )


def test_separable_trains_every_parameter_and_drops_more_of_wide_features() -> None:
    critic = SeparableCritic(6, 2048)
    critic(draw(64, 6), draw(64, 2048, seed=1)).diagonal().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in critic.parameters())
    ones = [torch.ones(1000, d) for d in (1, 16, 32, 128, 512, 2048)]
    kept = [(SeparableCritic(x.shape[1], 1).g[0](x) > 0).double().mean().item() for x in ones]
    assert kept == pytest.approx([63 / 64, 0.75, 0.5, 0.5, 0.25, 0.125], abs=0.02)


def nats(scores: Tensor) -> Tensor:
    """I_NCE of a square score matrix, the mean over both directions."""
    own = torch.arange(len(scores))
    return math.log(len(scores)) - (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2


def factors(classes: int, dim: int, n: int) -> tuple[Tensor, Tensor]:
    """Two views of one uniform class, log(classes) nats: noisy one-hot codes among nuisances, turned at random, standardised."""
    generator = torch.Generator().manual_seed(classes)
    label = torch.randint(classes, (n,), generator=generator)
    views = []
    for _ in range(2):
        code = 3 * torch.eye(classes)[label] * (classes > 1) + 0.3 * torch.randn(
            n, classes, generator=generator
        )
        code = torch.cat([code, torch.randn(n, 16, generator=generator)], 1)
        x = code @ torch.randn(classes + 16, dim, generator=generator) + 0.3 * torch.randn(
            n, dim, generator=generator
        )
        views.append((x - x.mean(0)) / x.std(0))
    return views[0], views[1]


def held_out_nats(
    x: Tensor, y: Tensor, train: int = 2048, steps: int = 150, k: int = 1024
) -> float:
    torch.manual_seed(0)
    critic = SeparableCritic(x.shape[1], y.shape[1])
    optimizer = torch.optim.AdamW(critic.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(
            (step + 1) / 20, 0.5 + 0.5 * math.cos(math.pi * step / steps)
        )
        rows = torch.randint(train, (256,))
        optimizer.zero_grad()
        (-nats(critic(x[rows], y[rows]))).backward()
        optimizer.step()
    with torch.no_grad():
        return nats(critic.eval()(x[train : train + k], y[train : train + k])).item()


def known_nats(classes: int, k: int = 1024) -> float:
    """What the perfect critic reads on k candidates: log k - E log(1 + other candidates of the class), by simulation."""
    others = np.random.default_rng(0).binomial(k - 1, 1 / classes, 100_000)
    return math.log(k) - float(np.log1p(others).mean())


def test_separable_reads_known_nats_and_not_more() -> None:
    """Pairs that differ in one thing: how many classes the two views share."""
    got = {classes: held_out_nats(*factors(classes, 128, 3072)) for classes in (1, 2, 20)}
    assert -0.1 <= got[1] <= 0.02
    for classes in (2, 20):
        assert 0.95 * known_nats(classes) <= got[classes] <= 1.02 * known_nats(classes)


def test_separable_comes_near_the_ceiling_for_equal_views_and_never_above() -> None:
    x, _ = factors(20, 128, 3072)
    got, ceiling = held_out_nats(x, x), math.log(1024)
    assert 0.9 * ceiling <= got <= ceiling


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_similarities_are_not_rounded(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, normalize, found = torch.get_float32_matmul_precision(), critics.F.normalize, []

    def watched(*args: Any, **options: Any) -> Tensor:
        found.extend(
            kind.fp32_precision
            for kind in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
        )
        return normalize(*args, **options)

    monkeypatch.setattr(critics.F, "normalize", watched)
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", torch.bfloat16):
            assert cosine_scores(torch.rand(4, 3), torch.rand(5, 3), 0.2).dtype == torch.float32
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(found) == {"ieee"}


def test_of_threads_that_want_exact_products_the_last_to_leave_lets_them_be_rounded_again() -> None:
    before, kinds = (
        torch.get_float32_matmul_precision(),
        (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul),
    )
    said: list[set[str]] = []

    def settings() -> set[str]:
        return {kind.fp32_precision for kind in kinds}

    try:
        torch.set_float32_matmul_precision("high")
        rounded = settings()
        first, second = full_precision("cpu"), full_precision("cpu")
        with second:
            pass
        second = full_precision("cpu")
        first.__enter__()
        other = Thread(target=lambda: (second.__enter__(), said.append(settings())))
        other.start(), other.join()
        first.__exit__(None, None, None)
        said.append(settings())
        torch.set_float32_matmul_precision("high")  # somebody's, meanwhile
        with full_precision("cpu"):
            said.append(settings())
        second.__exit__(None, None, None)
        assert said == [{"ieee"}] * 3 and settings() == rounded and "ieee" not in rounded
    finally:
        torch.set_float32_matmul_precision(before)
