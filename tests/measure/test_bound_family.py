"""All bounds against slow loops, their gradients, and the side of the truth that they keep."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from infomin.measure import bounds
from infomin.measure.bounds import BOUNDS, average_for_mine, interpolated, mine, smile, tuba

K = 6
G = torch.Generator().manual_seed(0)
SCORES = 2 * torch.randn(K, K, dtype=torch.float64, generator=G)
BASELINE = torch.randn(K, dtype=torch.float64, generator=G)
every_bound = pytest.mark.parametrize("name", BOUNDS)


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def off(s: Tensor, of: Callable[[Tensor], Tensor] = lambda f: f) -> Tensor:
    """E_q of a function of the score, entry by entry."""
    return mean([of(s[i, j]) for i in range(len(s)) for j in range(len(s)) if i != j])


def on(s: Tensor, of: Callable[[Tensor], Tensor] = lambda f: f) -> Tensor:
    return mean([of(s[i, i]) for i in range(len(s))])


def slow_tuba(s: Tensor, a: Tensor) -> Tensor:
    shifted = torch.stack([s[:, j] - a[j].log() for j in range(len(s))], 1)
    return 1 + on(shifted) - off(shifted, torch.exp)


def slow_interpolated(s: Tensor, alpha: float, q: Tensor) -> Tensor:
    """Each set of K - 1 items x, with and without the partner of y_j."""
    joint, product = [], []
    for j in range(len(s)):
        for left_out in range(len(s)):
            rows = [i for i in range(len(s)) if i != left_out]
            m = mean([s[i, j].exp() for i in rows])
            a = alpha * m + (1 - alpha) * q[j]
            if left_out == j:  # y_j comes from the marginal
                product += [s[i, j].exp() / a for i in rows]
            else:
                joint.append((s[j, j].exp() / a).log())
    return 1 + mean(joint) - mean(product)


def slow_leave_one_out(s: Tensor) -> Tensor:
    terms = []
    for j in range(len(s)):
        others = mean([s[i, j].exp() for i in range(len(s)) if i != j])
        terms.append(s[j, j] - others.log())
    return mean(terms)


def slow_infonce(s: Tensor) -> Tensor:
    rows = [(s[i, i].exp() / mean([f.exp() for f in s[i]])).log() for i in range(len(s))]
    return mean(rows)


def softplus(f: Tensor) -> Tensor:
    return (1 + f.exp()).log()


def slow_js(s: Tensor) -> Tensor:
    return -on(s, lambda f: softplus(-f)) - off(s, softplus)


def slow_smile(s: Tensor, clip: float) -> Tensor:
    return on(s) - off(s, lambda f: f.exp().clamp(math.exp(-clip), math.exp(clip))).log()


ONE = torch.ones(K, dtype=torch.float64)
AVERAGE = torch.tensor(0.7, dtype=torch.float64)
# value, and the expression that has the gradient
SLOW: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "infonce": (slow_infonce, slow_infonce),
    "tuba": (lambda s: slow_tuba(s, ONE),) * 2,
    "nwj": (lambda s: on(s) - off(s, torch.exp) / math.e,) * 2,
    "jensen_shannon": (lambda s: slow_tuba(s, ONE), slow_js),
    "interpolated": (lambda s: slow_interpolated(s, 0.5, math.e * ONE),) * 2,
    "donsker_varadhan": (lambda s: on(s) - off(s, torch.exp).log(),) * 2,
    "mine": (lambda s: on(s) - off(s, torch.exp).log(),) * 2,
    "smile": (lambda s: slow_smile(s, 5), slow_js),
    "smile, 0.5": (lambda s: slow_smile(s, 0.5), slow_js),
    "leave_one_out": (slow_leave_one_out,) * 2,
    "club": (lambda s: on(s) - off(s),) * 2,
    "tuba with a baseline": (lambda s: slow_tuba(s, BASELINE.exp()),) * 2,
    "interpolated, 0.2": (lambda s: slow_interpolated(s, 0.2, BASELINE.exp()),) * 2,
    "mine with an average": (
        lambda s: on(s) - off(s, torch.exp).log(),
        lambda s: on(s) - off(s, torch.exp) / AVERAGE.exp(),
    ),
}
OPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tuba with a baseline": lambda s: tuba(s, log_baseline=BASELINE),
    "interpolated, 0.2": lambda s: interpolated(s, alpha=0.2, log_baseline=BASELINE),
    "smile, 0.5": lambda s: smile(s, clip=0.5),
    "mine with an average": lambda s: mine(s, log_average=AVERAGE),
}


def bound(name: str) -> Callable[[Tensor], Tensor]:
    return OPTIONS[name] if name in OPTIONS else BOUNDS[name].of


@pytest.mark.parametrize("name", SLOW)
def test_value_and_gradient_are_those_of_the_loop(name: str) -> None:
    scores, twin = SCORES.clone().requires_grad_(), SCORES.clone().requires_grad_()
    value, has_gradient = SLOW[name]
    result = bound(name)(scores)
    assert result.item() == pytest.approx(value(SCORES).item(), abs=1e-9)
    result.backward()
    has_gradient(twin).backward()
    torch.testing.assert_close(scores.grad, twin.grad, rtol=0, atol=1e-9)
    assert bound(name)(SCORES.float()).item() == pytest.approx(result.item(), abs=1e-4)
    half = bound(name)(SCORES.half())
    assert half.dtype == torch.float32 and half.item() == pytest.approx(result.item(), abs=0.05)


def test_each_bound_has_an_oracle() -> None:
    assert set(BOUNDS) <= set(SLOW)


@every_bound
def test_large_scores_do_not_overflow_where_the_bound_is_finite(name: str) -> None:
    """Of scores with 1,000 added; those that subtract exp(f) are at minus infinity there."""
    value = BOUNDS[name].of(SCORES.float() + 1000)
    shift = BOUNDS[name].of(SCORES.float())
    diverges = name in ("tuba", "nwj", "jensen_shannon", "interpolated", "smile")
    assert value.isfinite() or (diverges and value == -math.inf)
    if not diverges:
        assert value.item() == pytest.approx(shift.item(), abs=1e-3)


@every_bound
@pytest.mark.parametrize("entry", [(0, 0), (1, 4), (5, 0), (5, 5)])
def test_one_score_that_is_nan_shows_in_the_result(name: str, entry: tuple[int, int]) -> None:
    scores = SCORES.clone()
    scores[entry] = math.nan
    assert BOUNDS[name].of(scores).isnan()


@pytest.mark.parametrize("name", [name for name in BOUNDS if name != "infonce"])
@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (SCORES[:3], ValueError, r"scores must be \[K, K\], got \[3, 6\]; pass the same"),
        (SCORES[:1, :1], ValueError, "needs other pairs to compare with, got one; pass 2 or more"),
        (SCORES.long(), TypeError, "scores must be a floating-point tensor"),
        (SCORES.tolist(), TypeError, "got list"),
    ],
)
def test_wrong_scores_are_errors_in_the_whole_family(
    name: str, scores: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{name}: .*{message}"):
        BOUNDS[name].of(scores)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tuba(SCORES, log_baseline=BASELINE[:, None]),
            r"tuba: log_baseline .* got \[6, 1\]",
        ),
        (lambda: interpolated(SCORES, log_baseline=BASELINE[:5]), r"interpolated: .* got \[5\]"),
        (lambda: interpolated(SCORES, alpha=1.1), r"interpolated\(alpha\): got 1.1, wanted"),
        (lambda: smile(SCORES, clip=-1.0), r"smile\(clip\): got -1.0, wanted"),
        (
            lambda: average_for_mine(SCORES, decay=2.0),
            r"average_for_mine\(decay\): got 2.0, wanted",
        ),
    ],
)
def test_wrong_options_are_errors(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


BATCHES = [(correlation, 64, 200) for correlation in (0.1, 0.2, 0.4, 0.6, 0.8)] + [(0.6, 4, 1000)]


@pytest.mark.parametrize(("correlation", "k", "batches"), BATCHES)
def test_with_exact_scores_each_bound_keeps_its_side(
    correlation: float, k: int, batches: int
) -> None:
    """Gaussians of 8 columns, up to 4.1 nats; within 4 standard errors."""
    draws = torch.Generator().manual_seed(round(10 * correlation))
    truth, noise = -4 * math.log(1 - correlation**2), math.sqrt(1 - correlation**2)
    values: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for _ in range(batches):
        x, e = torch.randn(2, k, 8, dtype=torch.float64, generator=draws)
        y = correlation * x + noise * e
        distance = (y - correlation * x[:, None]).square().sum(2)  # of y_j from the mean given x_i
        given_x = -distance / (2 * noise**2) - 8 * math.log(noise)
        ratio = given_x + y.square().sum(1) / 2  # log p(y|x) / p(y); constants cancel in given_x
        for name, (of, _, scores) in BOUNDS.items():
            shift = 1 if name in ("nwj", "interpolated") else 0
            values[name].append(of(ratio + shift if scores == "any" else given_x).item())
    for name, (_, side, _) in BOUNDS.items():
        some = torch.tensor(values[name])
        slack = 4 * some.std().item() / math.sqrt(batches)
        if side == "lower":
            assert some.mean() <= truth + slack, name
        if side == "upper":
            assert some.mean() >= truth - slack, name
        if side == "neither" and k == 4:  # of scores that are all 0 they read 0
            assert some.mean() > truth + slack, name
        if name in ("tuba", "nwj", "jensen_shannon"):
            assert some.mean() == pytest.approx(truth, abs=slack), name


def test_infonce_and_its_kin_stay_below_their_ceilings() -> None:
    perfect = 100 * torch.eye(K)
    assert bounds.infonce(perfect).item() == pytest.approx(math.log(K))
    assert interpolated(perfect, alpha=1).item() <= math.log(K - 1) + 1e-4


def test_the_average_for_mine_moves_towards_the_newest_batch() -> None:
    first = average_for_mine(SCORES)
    assert first.exp().item() == pytest.approx(off(SCORES, torch.exp).item())
    second = average_for_mine(2 * SCORES, first, decay=0.9)
    expected = 0.9 * off(SCORES, torch.exp) + 0.1 * off(2 * SCORES, torch.exp)
    assert second.exp().item() == pytest.approx(expected.item())
    assert mine(SCORES) == mine(SCORES, log_average=first)
    far = (SCORES.float() + 200).requires_grad_()  # exp(200) is no float32
    value = mine(far, log_average=first)
    assert value.item() == pytest.approx(mine(SCORES).item(), abs=1e-3)
    value.backward()
    assert far.grad is not None and far.grad.isfinite().all()
