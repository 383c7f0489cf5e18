"""I_NCE against a slow loop, its laws, its gradient, and a factor of known information."""

import itertools
import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from infomin.measure.bounds import infonce, infonce_symmetric

SHAPES = [(1, 1), (1, 6), (5, 5), (4, 9), (32, 33)]
every_shape = pytest.mark.parametrize(("b", "k"), SHAPES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_scores(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def draw_partners(b: int, k: int, seed: int = 1) -> Tensor:
    return torch.randint(k, (b,), generator=seeded(seed))


def slow_infonce(scores: Tensor, partner: Tensor) -> float:
    """log K plus the mean log-probability of the partner, one exponential at a time."""
    total = 0.0
    for row, column in zip(scores.tolist(), partner.tolist(), strict=True):
        denominator = sum(math.exp(score) for score in row)
        total += math.log(len(row)) + math.log(math.exp(row[column]) / denominator)
    return total / len(scores)


def assert_equal(a: Tensor, b: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@every_shape
def test_infonce_equals_the_loop(b: int, k: int) -> None:
    scores, partner = draw_scores(b, k), draw_partners(b, k)
    want = slow_infonce(scores, partner)
    diagonal = slow_infonce(scores, torch.arange(b))
    assert infonce(scores).item() == pytest.approx(diagonal, abs=1e-9)
    assert infonce(scores, partner).item() == pytest.approx(want, abs=1e-9)
    assert infonce(scores.float(), partner).item() == pytest.approx(want, abs=1e-5)


def test_with_given_partners_candidates_may_be_fewer_than_rows() -> None:
    scores, partner = draw_scores(7, 3), draw_partners(7, 3)
    want = slow_infonce(scores, partner)
    assert infonce(scores, partner).item() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5, 33])
def test_symmetric_is_the_mean_over_rows_and_columns(k: int) -> None:
    scores = draw_scores(k, k)
    diagonal = torch.arange(k)
    rows, cols = slow_infonce(scores, diagonal), slow_infonce(scores.T, diagonal)
    assert k == 1 or abs(rows - cols) > 1e-3  # so the mean differs from each of them
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
    ceiling = math.log(k) + 1e-6
    scores = draw_scores(b, k, seed=seed, scale=scale).float()
    assert infonce(scores).item() <= ceiling
    assert infonce(scores, draw_partners(b, k, seed)).item() <= ceiling
    square = draw_scores(k, k, seed=seed, scale=scale).float()
    assert infonce_symmetric(square).item() <= ceiling


@pytest.mark.parametrize("k", [1, 2, 10, 1024])
def test_exact_values(k: int) -> None:
    assert infonce(torch.zeros(k, k)).item() == pytest.approx(0, abs=1e-6)
    assert infonce(1e4 * torch.eye(k)).item() == pytest.approx(math.log(k), abs=1e-6)
    loss = 1e4 + math.log(k - 1) if k > 1 else 0
    assert infonce(-1e4 * torch.eye(k)).item() == pytest.approx(math.log(k) - loss, rel=1e-5)
    # a positive that is s above the rest: log K - log(1 + (K - 1) exp(-s))
    for s in (0.5, 2.0, 7.0):
        want = math.log(k / (1 + (k - 1) * math.exp(-s)))
        assert infonce(s * torch.eye(k).double()).item() == pytest.approx(want, abs=1e-9)
    # items are known up to pairs: log(2k) - log 2
    blocks = torch.block_diag(*[torch.ones(2, 2)] * k).double() * 1e4
    assert infonce(blocks).item() == pytest.approx(math.log(k), abs=1e-9)


@every_shape
def test_the_order_of_candidates_and_rows_makes_no_difference(b: int, k: int) -> None:
    scores, partner = draw_scores(b, k), draw_partners(b, k)
    candidates, rows = (
        torch.randperm(k, generator=seeded(3)),
        torch.randperm(b, generator=seeded(3)),
    )
    want = infonce(scores, partner)
    assert_equal(infonce(scores[:, candidates], candidates.argsort()[partner]), want)
    assert_equal(infonce(scores[rows], partner[rows]), want)
    square = draw_scores(k, k)
    permuted = square[candidates][:, candidates]
    assert_equal(infonce_symmetric(permuted), infonce_symmetric(square))


def test_moving_candidates_without_their_partners_changes_it() -> None:
    scores = draw_scores(5, 5) + 5 * torch.eye(5)
    assert infonce(scores.roll(1, 1)) < infonce(scores) - 1
    torch.testing.assert_close(infonce(scores.roll(1, 1), torch.arange(1, 6) % 5), infonce(scores))


@every_shape
def test_a_constant_per_row_changes_nothing_and_one_per_column_does(b: int, k: int) -> None:
    scores, shift = draw_scores(b, k), draw_scores(b, 1, seed=5, scale=50.0)
    assert_equal(infonce(scores + shift), infonce(scores), atol=1e-10)
    if k > 1:
        assert abs(infonce(scores + draw_scores(1, k, seed=6)) - infonce(scores)) > 1e-3
    square = draw_scores(k, k)
    assert_equal(infonce_symmetric(square + 7), infonce_symmetric(square), atol=1e-10)


def test_a_higher_score_of_the_partner_raises_it_and_of_another_lowers_it() -> None:
    scores = draw_scores(6, 9)
    for i, j in itertools.product(range(6), range(9)):
        more = scores.clone()
        more[i, j] += 1
        assert (infonce(more) > infonce(scores)) == (i == j)


@every_shape
def test_gradient_is_one_hot_minus_softmax_over_rows(b: int, k: int) -> None:
    scores, partner = draw_scores(b, k).requires_grad_(), draw_partners(b, k)
    infonce(scores, partner).backward()
    one_hot = torch.eye(k, dtype=torch.float64)[partner]
    exponentials = (scores - scores.amax(1, keepdim=True)).exp().detach()
    softmax = exponentials / exponentials.sum(1, keepdim=True)
    assert scores.grad is not None
    assert_equal(scores.grad, (one_hot - softmax) / b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    scores = draw_scores(64, 2048).to(dtype).requires_grad_()
    value = infonce(scores)
    assert value.dtype == torch.float32 and torch.equal(value, infonce(scores.detach().float()))
    value.backward()
    assert scores.grad is not None and scores.grad.dtype == dtype and scores.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    assert infonce(draw_scores(3, 4).to(dtype)).dtype == dtype
    assert infonce_symmetric(draw_scores(3, 3).to(dtype)).dtype == dtype


def test_default_partners_are_created_on_the_device_of_the_scores() -> None:
    scores = torch.zeros(4, 4, device="meta")  # does not mix with tensors of another device
    assert infonce(scores).device == infonce_symmetric(scores).device == scores.device


@pytest.mark.parametrize("shape", [(5, 4), (4,), (), (2, 3, 3), (0, 4)])
def test_wrong_shapes_are_errors(shape: tuple[int, ...]) -> None:
    got = re.escape(str(list(shape)))
    message = (
        rf"infonce: scores must be \[B, K\] with K >= B >= 1, got {got}; .* each row's partner"
    )
    with pytest.raises(ValueError, match=message):
        infonce(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (4,), (), (3, 3, 3)])
def test_symmetric_needs_a_square_matrix(shape: tuple[int, ...]) -> None:
    got = re.escape(str(list(shape)))
    message = rf"infonce_symmetric: scores must be \[K, K\], got {got}; pass"
    with pytest.raises(ValueError, match=message):
        infonce_symmetric(torch.zeros(shape))


# A shared factor of known information: y is x, or uniform with probability 1 - KEEP

VALUES, KEEP = 5, 0.8
JOINT = (KEEP * torch.eye(VALUES, dtype=torch.float64) + (1 - KEEP) / VALUES) / VALUES
BEST = (JOINT * VALUES**2).log()  # log p(x, y) / p(x) p(y); both margins are uniform
NATS = float((JOINT * BEST).sum())


def draw_pairs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.multinomial(JOINT.flatten(), n, replacement=True, generator=seeded(seed))
    return drawn // VALUES, drawn % VALUES


def estimate(critic: Tensor, k: int, blocks: int) -> tuple[float, float]:
    """Mean over blocks of K independent pairs, and its standard error."""
    x, y = draw_pairs(k * blocks, seed=k)
    pairs = zip(x.split(k), y.split(k), strict=True)
    values = torch.stack([infonce_symmetric(critic[a][:, b]) for a, b in pairs])
    return values.mean().item(), values.std().item() / blocks**0.5


@pytest.mark.parametrize(
    "critic", [BEST, 0.3 * BEST, torch.eye(VALUES).double()], ids=["best", "lukewarm", "equality"]
)
def test_expectation_with_two_candidates_is_the_exact_sum(critic: Tensor) -> None:
    exact = 0.0
    for x, y, other in itertools.product(range(VALUES), repeat=3):
        probability = 1 / (1 + math.exp(critic[x, other] - critic[x, y]))
        exact += float(JOINT[x, y]) / VALUES * (math.log(2) + math.log(probability))
    mean, error = estimate(critic, 2, 4000)
    assert mean == pytest.approx(exact, abs=4 * error) and error < 0.01


def test_the_best_critic_approaches_the_truth_from_below_with_more_candidates() -> None:
    assert pytest.approx(0.84 * math.log(4.2) + 0.16 * math.log(0.2)) == NATS
    sizes = ((2, 4000), (8, 1000), (64, 200), (1024, 12))
    estimates = [estimate(BEST, k, blocks) for k, blocks in sizes]
    means = [mean for mean, _ in estimates]
    assert means[0] + 0.1 < means[1] and means[1] + 0.03 < means[2]
    assert all(mean < NATS + 3 * error for mean, error in estimates)
    assert means[0] < math.log(2) and means[-1] == pytest.approx(NATS, abs=0.03)


def test_other_critics_read_less() -> None:
    best, _ = estimate(BEST, 64, 200)
    for other in (0.3 * BEST, 3 * BEST, torch.zeros_like(BEST), BEST.roll(1, 1)):
        assert estimate(other, 64, 200)[0] < best - 0.05
