"""I_NCE against a slow loop, its laws, its gradient, and a shared factor whose information is known."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infomin.measure.bounds import infonce, infonce_symmetric

SHAPES = [(1, 1), (1, 6), (5, 5), (4, 9), (32, 33)]
every_shape = pytest.mark.parametrize(("b", "k"), SHAPES)


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def columns(b: int, k: int, seed: int = 1) -> Tensor:
    return torch.randint(k, (b,), generator=torch.Generator().manual_seed(seed))


def slow(scores: np.ndarray, partner: list[int]) -> float:
    """log K plus the mean log-probability of the partner, one exponential at a time."""
    b, k = scores.shape
    total = 0.0
    for i in range(b):
        whole = sum(math.exp(scores[i, j]) for j in range(k))
        total += math.log(k) + math.log(math.exp(scores[i, partner[i]]) / whole)
    return total / b


@every_shape
def test_infonce_equals_the_loop(b: int, k: int) -> None:
    scores, partner = draw(b, k), columns(b, k)
    assert infonce(scores).item() == pytest.approx(slow(scores.numpy(), list(range(b))), abs=1e-9)
    assert infonce(scores, partner).item() == pytest.approx(
        slow(scores.numpy(), partner.tolist()), abs=1e-9
    )
    assert infonce(scores.float(), partner).item() == pytest.approx(
        slow(scores.numpy(), partner.tolist()), abs=1e-5
    )


def test_given_partners_may_be_fewer_than_rows() -> None:
    scores, partner = draw(7, 3), columns(7, 3)
    assert infonce(scores, partner).item() == pytest.approx(
        slow(scores.numpy(), partner.tolist()), abs=1e-9
    )


@pytest.mark.parametrize("k", [1, 2, 5, 33])
def test_both_ways_is_the_mean_over_rows_and_columns(k: int) -> None:
    scores = draw(k, k)
    own = list(range(k))
    rows, cols = slow(scores.numpy(), own), slow(scores.numpy().T, own)
    assert k == 1 or abs(rows - cols) > 1e-3  # else the mean could not be told from one of them
    assert infonce_symmetric(scores).item() == pytest.approx((rows + cols) / 2, abs=1e-9)
    assert torch.equal(infonce_symmetric(scores), infonce_symmetric(scores.T))


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    st.integers(1, 12),
    st.integers(0, 12),
    st.integers(0, 2**31),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]),
)
def test_never_above_the_ceiling(b: int, more: int, seed: int, scale: float) -> None:
    k = b + more
    scores = draw(b, k, seed=seed, scale=scale).float()
    assert infonce(scores).item() <= math.log(k) + 1e-6
    assert infonce(scores, columns(b, k, seed)).item() <= math.log(k) + 1e-6
    assert (
        infonce_symmetric(draw(k, k, seed=seed, scale=scale).float()).item() <= math.log(k) + 1e-6
    )


@pytest.mark.parametrize("k", [1, 2, 10, 1024])
def test_exact_values(k: int) -> None:
    assert infonce(torch.zeros(k, k)).item() == pytest.approx(0, abs=1e-6)
    assert infonce(1e4 * torch.eye(k)).item() == pytest.approx(math.log(k), abs=1e-6)
    assert infonce(-1e4 * torch.eye(k)).item() == pytest.approx(
        math.log(k) - (1e4 + math.log(k - 1) if k > 1 else 0), rel=1e-5
    )
    # a positive that is s above the rest: log K - log(1 + (K - 1) exp(-s))
    for s in (0.5, 2.0, 7.0):
        assert infonce(s * torch.eye(k).double()).item() == pytest.approx(
            math.log(k / (1 + (k - 1) * math.exp(-s))), abs=1e-9
        )
    blocks = (
        torch.block_diag(*[torch.ones(2, 2)] * k).double() * 1e4
    )  # only the pair of classes can be told: log(2k) - log 2
    assert infonce(blocks).item() == pytest.approx(math.log(k), abs=1e-9)


@every_shape
def test_order_means_nothing(b: int, k: int) -> None:
    scores, partner = draw(b, k), columns(b, k)
    turn, mix = (torch.randperm(n, generator=torch.Generator().manual_seed(3)) for n in (k, b))
    whole = infonce(scores, partner)
    torch.testing.assert_close(
        infonce(scores[:, turn], turn.argsort()[partner]), whole, rtol=0, atol=1e-12
    )  # candidates
    torch.testing.assert_close(
        infonce(scores[mix], partner[mix]), whole, rtol=0, atol=1e-12
    )  # rows
    square = draw(k, k)
    torch.testing.assert_close(
        infonce_symmetric(square[turn][:, turn]), infonce_symmetric(square), rtol=0, atol=1e-12
    )


def test_moving_candidates_without_their_partners_changes_it() -> None:
    scores = draw(5, 5) + 5 * torch.eye(5)
    assert infonce(scores.roll(1, 1)) < infonce(scores) - 1
    torch.testing.assert_close(infonce(scores.roll(1, 1), torch.arange(1, 6) % 5), infonce(scores))


@every_shape
def test_a_constant_for_each_row_changes_nothing_and_one_for_each_column_does(
    b: int, k: int
) -> None:
    scores, shift = draw(b, k), draw(b, 1, seed=5, scale=50.0)
    torch.testing.assert_close(infonce(scores + shift), infonce(scores), rtol=0, atol=1e-10)
    if k > 1:
        assert abs(infonce(scores + draw(1, k, seed=6)) - infonce(scores)) > 1e-3
    square = draw(k, k)
    torch.testing.assert_close(
        infonce_symmetric(square + 7), infonce_symmetric(square), rtol=0, atol=1e-10
    )


def test_a_better_score_of_the_partner_never_lowers_it_and_of_another_never_raises_it() -> None:
    scores = draw(6, 9)
    for i, j in itertools.product(range(6), range(9)):
        more = scores.clone()
        more[i, j] += 1
        assert (infonce(more) > infonce(scores)) == (i == j)


@every_shape
def test_gradient_is_one_hot_minus_softmax_over_rows(b: int, k: int) -> None:
    scores, partner = draw(b, k).requires_grad_(), columns(b, k)
    infonce(scores, partner).backward()
    hot = torch.eye(k, dtype=torch.float64)[partner]
    power = (scores - scores.amax(1, keepdim=True)).exp().detach()
    torch.testing.assert_close(
        scores.grad, (hot - power / power.sum(1, keepdim=True)) / b, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    scores = draw(64, 2048).to(dtype).requires_grad_()
    value = infonce(scores)
    assert value.dtype == torch.float32 and torch.equal(value, infonce(scores.detach().float()))
    value.backward()
    assert scores.grad is not None and scores.grad.dtype == dtype and scores.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    assert (
        infonce(draw(3, 4).to(dtype)).dtype == dtype
        and infonce_symmetric(draw(3, 3).to(dtype)).dtype == dtype
    )


def test_partners_are_counted_on_the_device_of_the_scores() -> None:
    scores = torch.zeros(4, 4, device="meta")  # which takes no numbers of another device
    assert infonce(scores).device == infonce_symmetric(scores).device == scores.device


@pytest.mark.parametrize("shape", [(5, 4), (4,), (), (2, 3, 3), (0, 4)])
def test_wrong_shapes_say_what_is_wanted(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError,
        match=r"infonce: scores must be \[B, K\] with K >= B >= 1, got .*; or give each row's partner",
    ):
        infonce(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (4,), (), (3, 3, 3)])
def test_both_ways_wants_a_square(shape: tuple[int, ...]) -> None:
    got = re.escape(str(list(shape)))
    with pytest.raises(
        ValueError, match=rf"infonce_both_ways: scores must be \[K, K\], got {got}; give"
    ):
        infonce_symmetric(torch.zeros(shape))


# --- a shared factor whose information is known: y is x, or with probability 1 - KEEP anything ---

VALUES, KEEP = 5, 0.8
JOINT = (KEEP * torch.eye(VALUES, dtype=torch.float64) + (1 - KEEP) / VALUES) / VALUES
BEST = (JOINT * VALUES**2).log()  # log p(x, y) / p(x) p(y); both margins are uniform
NATS = float((JOINT * BEST).sum())


def pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.multinomial(
        JOINT.flatten(), n, replacement=True, generator=torch.Generator().manual_seed(seed)
    )
    return drawn // VALUES, drawn % VALUES


def estimate(critic: Tensor, k: int, blocks: int) -> tuple[float, float]:
    """Mean over blocks of K independent pairs, and its standard error."""
    x, y = pairs(k * blocks, seed=k)
    values = torch.stack(
        [infonce_symmetric(critic[a][:, b]) for a, b in zip(x.split(k), y.split(k), strict=True)]
    )
    return values.mean().item(), values.std().item() / blocks**0.5


@pytest.mark.parametrize(
    "critic", [BEST, 0.3 * BEST, torch.eye(VALUES).double()], ids=["best", "lukewarm", "equality"]
)
def test_expectation_with_two_candidates_is_the_exact_sum(critic: Tensor) -> None:
    exact = 0.0
    for (x, y), other in itertools.product(
        itertools.product(range(VALUES), repeat=2), range(VALUES)
    ):
        right = 1 / (1 + math.exp(critic[x, other] - critic[x, y]))
        exact += float(JOINT[x, y]) / VALUES * (math.log(2) + math.log(right))
    mean, error = estimate(critic, 2, 4000)
    assert mean == pytest.approx(exact, abs=4 * error) and error < 0.01


def test_the_best_critic_is_below_the_truth_and_near_it_with_many_candidates() -> None:
    assert pytest.approx(0.84 * math.log(4.2) + 0.16 * math.log(0.2)) == NATS
    found = [
        estimate(BEST, k, blocks) for k, blocks in ((2, 4000), (8, 1000), (64, 200), (1024, 12))
    ]
    means = [mean for mean, _ in found]
    assert (
        means[0] + 0.1 < means[1] and means[1] + 0.03 < means[2]
    )  # more candidates, a tighter bound
    assert all(mean < NATS + 3 * error for mean, error in found)
    assert means[0] < math.log(2) and means[-1] == pytest.approx(NATS, abs=0.03)


def test_other_critics_are_lower() -> None:
    best, _ = estimate(BEST, 64, 200)
    for other in (0.3 * BEST, 3 * BEST, torch.zeros_like(BEST), BEST.roll(1, 1)):
        assert estimate(other, 64, 200)[0] < best - 0.05
