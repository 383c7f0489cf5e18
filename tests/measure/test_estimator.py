"""Held-out nats between features whose information is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from sklearn.cross_decomposition import CCA
from synthetic import codes, generator, identical, independent

from infomin.measure import estimator
from infomin.measure.bounds import infonce_symmetric
from infomin.measure.estimator import nats
from infomin.measure.gaussian import GaussianCritic, normal_scores
from infomin.measure.regression import standardise


def gaussians(n, columns, truth, seed, active=0, change=lambda x: x):
    """Views whose first columns correlate, and share `truth` nats in all."""
    rho = math.sqrt(1 - math.exp(-2 * truth / (active or columns)))
    x, y = torch.randn(2, n, columns, generator=generator(seed))
    y[:, : active or columns] *= math.sqrt(1 - rho**2)
    y[:, : active or columns] += rho * x[:, : active or columns]
    rotation = torch.linalg.qr(torch.randn(columns, columns, generator=generator(99))).Q
    return [change(x) @ rotation, change(y)] if change(x) is x else [change(x), change(y)]


def flipped(n, truth, seed):
    """Correlated Gaussians of 4 columns, one side times a random sign: no correlation is left.

    The sign is lost, at most log 2 nats: so the truth is between `truth` - log 2 and `truth`.
    """
    x, y = gaussians(n, 4, truth, seed)
    return [x, y * torch.randn(n, 1, generator=generator(seed + 1000)).sign()]


CASES = {
    "Gaussians, 2 columns": (lambda n, truth, seed: gaussians(n, 2, truth, seed), 0.1, 0),
    "Gaussians, 32 columns": (lambda n, truth, seed: gaussians(n, 32, truth, seed), 0.1, 0),
    "4 of 128 columns": (lambda n, truth, seed: gaussians(n, 128, truth, seed, 4), 0.15, 0),
    "cubed": (lambda n, truth, seed: gaussians(n, 8, truth, seed, 0, lambda x: x**3), 0.1, 0),
    "flipped": (flipped, 0.2, math.log(2)),
}


@pytest.mark.parametrize("truth", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_known_information_is_read_and_not_more(name, truth):
    draw, loose, lost = CASES[name]
    estimate = nats(draw(4096, truth, 0), draw(4096, truth, 1))
    assert (1 - loose) * (truth - lost) <= estimate.value
    assert estimate.low <= estimate.value <= estimate.high and estimate.low <= truth
    assert estimate.value <= max(estimate.parts.values()) + 0.3 and not estimate.saturated


@pytest.mark.parametrize("error", [0, 0.4])
def test_shared_classes_are_read_through_columns_of_noise(error):
    def draw(seed):
        draws = generator(seed)
        y = torch.randint(10, (4096,), generator=draws)
        other = torch.where(
            torch.rand(4096, generator=draws) < error / 0.9,
            torch.randint(10, (4096,), generator=draws),
            y,
        )
        tables = [torch.randn(10, 24, generator=generator(90 + i)) for i in (0, 1)]
        return [
            torch.tanh(table[c] + 0.3 * torch.randn(4096, 24, generator=draws))
            for table, c in zip(tables, (y, other), strict=True)
        ]

    entropy = error * math.log(error / 9) + (1 - error) * math.log(1 - error) if error else 0
    truth = math.log(10) + entropy
    assert 0.85 * truth <= nats(draw(0), draw(1)).value <= truth + 0.05


@pytest.mark.parametrize("columns", [1, 32, 512])
def test_equal_features_read_the_ceiling(columns):
    x = torch.randn(2048, columns, generator=generator())
    estimate = nats([x[:1024]] * 2, [x[1024:]] * 2)
    assert estimate.value == pytest.approx(math.log(1024), abs=0.1 if columns == 1 else 0.01)
    assert estimate.saturated and estimate.converged and not estimate.doubt


@pytest.mark.parametrize("columns", [2, 32, 256])
@pytest.mark.parametrize("n", [64, 1024])
def test_where_nothing_is_shared_nothing_is_read(n, columns):
    draws = generator(columns)
    parts = [[torch.randn(n, columns, generator=draws) for _ in range(2)] for _ in range(2)]
    estimate = nats(*parts, candidates=n)
    assert 0 <= estimate.value < 0.03 and estimate.low == 0


def test_fewer_pairs_give_a_wider_interval_and_no_larger_value():
    values = []
    for n in (16, 64, 512, 4096):
        test = gaussians(max(n, 64), 4, 1, 1)
        values.append(nats(gaussians(n, 4, 1, 0), test, candidates=64))
    widths = [estimate.high - estimate.low for estimate in values]
    assert widths == sorted(widths, reverse=True)
    assert [bool(estimate.doubt) for estimate in values] == [True, True, False, False]
    assert all(0 <= estimate.value < 1.2 for estimate in values) and values[-1].value > 0.85


def test_the_interval_covers_what_other_test_pairs_read(quick_critic):
    """Of critics fitted on the same pairs: 19 of 20 in the long run."""
    train = gaussians(1024, 2, 1, 0)
    estimates = [nats(train, gaussians(512, 2, 1, seed), candidates=256) for seed in range(1, 13)]
    expected = sum(estimate.value for estimate in estimates) / len(estimates)
    assert sum(estimate.low <= expected <= estimate.high for estimate in estimates) >= 10
    mean_width = sum(estimate.high - estimate.low for estimate in estimates) / len(estimates)
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert 2 * spread < mean_width < 12 * spread


def test_half_of_the_pairs_tell_whether_more_would_read_more():
    few = nats(gaussians(300, 64, 4, 0, 4), gaussians(512, 64, 4, 1, 4), candidates=512)
    many = nats(gaussians(4096, 4, 1, 0), gaussians(512, 4, 1, 1), candidates=512)
    assert many.converged and not few.converged and "more pairs" in few.doubt


@pytest.mark.parametrize(
    ("rho", "noise", "expected"), [(0.9, 0, 0.84), (0.999, 0, 3.09), (0.9, 31, 0.83)]
)
def test_the_bound_reads_what_the_readme_says(rho, noise, expected):
    def pair(seed):
        draws = generator(seed)
        x = torch.randn(4096, 1, generator=draws)
        y = rho * x + math.sqrt(1 - rho**2) * torch.randn(4096, 1, generator=draws)
        return [torch.cat([z, torch.randn(4096, noise, generator=draws)], 1) for z in (x, y)]

    assert nats(pair(0), pair(1)).value == pytest.approx(expected, abs=0.02)


# The pieces


def test_gaussian_scores_are_the_log_density_ratio():
    x, y = gaussians(200_000, 3, 1.5, 0)
    x, y = standardise(x)[0], standardise(y)[0]
    critic = GaussianCritic(x, y, x, y)
    a, b = critic.embed(x[:50], y[:50])
    joint = torch.cat([x, y], 1).double().T.cov()
    both = torch.distributions.MultivariateNormal(torch.zeros(6).double(), joint)
    first = torch.distributions.MultivariateNormal(torch.zeros(3).double(), joint[:3, :3])
    second = torch.distributions.MultivariateNormal(torch.zeros(3).double(), joint[3:, 3:])
    for i in range(50):
        rows = torch.cat([x[i].expand(50, 3), y[:50]], 1).double()
        exact = both.log_prob(rows) - first.log_prob(rows[:, :3]) - second.log_prob(rows[:, 3:])
        torch.testing.assert_close(a[i] @ b.T, exact, rtol=0, atol=0.02)


def test_canonical_correlations_are_those_of_scikit_learn():
    x, y = (standardise(part)[0] for part in gaussians(2000, 3, 1, 0))
    theirs = CCA(3, scale=False).fit(x.numpy(), y.numpy()).transform(x.numpy(), y.numpy())
    correlations = [
        np.corrcoef(u, v)[0, 1] for u, v in zip(*(part.T for part in theirs), strict=True)
    ]
    ours = GaussianCritic(x, y, x, y).r
    np.testing.assert_allclose(ours.numpy(), correlations, atol=1e-3)


@pytest.mark.parametrize("levels", [0, 7])
def test_normal_scores_are_quantiles_of_mean_ranks(levels):
    x = torch.randn(100, 3, generator=generator())
    x = (levels * x).round() if levels else x
    ours, others = normal_scores(x, x[:10] + 0.5)
    theirs = norm.ppf(rankdata(x.numpy(), axis=0) / 101)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
    assert others.isfinite().all() and (normal_scores(x, 1e9 + x)[1] > 2.3).all()
    between = torch.linspace(-2, 2, 500)[:, None].expand(500, 3)
    assert (normal_scores(x, between)[1].diff(dim=0) >= 0).all()
    if not levels:  # no two values of a test become one
        inside = torch.linspace(-1, 1, 500)[:, None].expand(500, 3)
        assert (normal_scores(x, inside)[1].diff(dim=0) > 0).all()


@pytest.mark.parametrize("chunk", [1, 5 * 32, 64 * 32])
def test_reading_in_chunks_equals_the_whole_score_matrix(chunk, monkeypatch):
    monkeypatch.setattr(estimator, "CHUNK", chunk)
    a, b = torch.randn(2, 100, 6, generator=generator(), dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    rows = estimator._read({"first": (a, b), "second": (b, b)}, weights, 32)
    assert rows.shape == (2, 96)  # an incomplete block is left out
    for w, read in zip(weights, rows, strict=True):
        for start in (0, 32, 64):
            block = slice(start, start + 32)
            scores = w[0] * a[block] @ b[block].T + w[1] * b[block] @ b[block].T
            want = infonce_symmetric(scores)
            assert read[block].mean().item() == pytest.approx(want.item(), abs=1e-9)


def test_weights_read_at_least_as_much_as_each_critic_alone():
    a, b = torch.randn(2, 200, 6, generator=generator(), dtype=torch.float64)
    x = a + 0.5 * b
    parts = {"good": (3 * a, x), "noise": (1e9 * b, a.flip(0)), "bad": (-a, x)}
    weights = estimator._weigh([parts])
    read = estimator._read(parts, torch.cat([weights[None], torch.eye(3).double()]), 200).mean(1)
    assert read[0] >= read[1:].max() - 1e-6 and weights.isfinite().all()


# Laws


@pytest.mark.parametrize("views", [codes, independent, identical])
@pytest.mark.parametrize("k", [1, 2, 16, 200])
def test_nats_never_exceed_their_ceiling(quick_critic, views, k):
    estimate = nats(views(256, 0), views(200, 1), candidates=k)
    assert estimate.value <= estimate.ceiling + 1e-6 and estimate.ceiling == math.log(k)


def test_nats_depend_on_features_and_seed_only_and_leave_the_global_generator_alone(quick_critic):
    train, test = codes(1024, 0), codes(200, 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    want = nats(train, test, candidates=100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert nats(train, test, candidates=100) == want != nats(train, test, candidates=100, seed=1)


def test_three_views_give_the_mean_over_their_pairs(quick_critic):
    train, test = codes(1024, 0, sizes=(16, 24, 8)), codes(1024, 1, sizes=(16, 24, 8))
    of_pairs = [
        nats([train[i], train[j]], [test[i], test[j]], candidates=512)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    estimate = nats(train, test, candidates=512)
    for name in estimate.parts:
        mean = sum(pair.parts[name] for pair in of_pairs) / 3
        assert estimate.parts[name] == pytest.approx(mean, abs=1e-6)
    assert len({pair.value for pair in of_pairs}) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_nats_of_other_dtypes_equal_those_of_float32(quick_critic, dtype):
    train = [x.half().to(dtype) for x in codes(128, 0)]
    test = [x.half().to(dtype) for x in codes(64, 1)]
    expected = nats([x.float() for x in train], [x.float() for x in test], candidates=64)
    assert nats(train, test, candidates=64) == expected


# Errors


def test_views_with_different_numbers_of_images_are_an_error():
    train, (x, y) = codes(64, 0), codes(32, 1)
    message = (
        r"nats: views must have equal rows, training and test data equal columns, "
        r"got .* and \[\[32, 16\], \[31, 24\]\] to test"
    )
    with pytest.raises(ValueError, match=message):
        nats(train, [x, y[1:]], candidates=16)


AGREE = "views must have equal rows, training and test data equal columns"


@pytest.mark.parametrize(
    ("train", "test", "k", "message"),
    [
        ([(9, 2)] * 2, [(9, 2)] * 3, 8, AGREE),
        ([(9, 2)] * 2, [(9, 2), (9, 3)], 8, AGREE),
        ([(9,)] * 2, [(9,)] * 2, 8, r"features of a view must have the shape \[N, D\], got \[9\]"),
        ([(9, 2)] * 2, [(9, 2)] * 2, 0, "got 0 candidates, wanted 1 to 9, the number of test"),
        ([(9, 2)] * 2, [(9, 2)] * 2, 2.5, r"\(candidates\): got 2.5, wanted int"),
        ([(9, 2)] * 2, [(9, 2)] * 2, 10, "got 10 candidates, wanted 1 to 9, the number of test"),
    ],
)
def test_wrong_features_and_candidates_are_errors(train, test, k, message):
    train, test = [torch.rand(shape) for shape in train], [torch.rand(shape) for shape in test]
    with pytest.raises(ValueError, match=rf"nats.*{message}"):
        nats(train, test, candidates=k)


def test_more_candidates_than_test_images_are_an_error():
    message = r"nats: got 65 candidates, wanted 1 to 64, the number of test images"
    with pytest.raises(ValueError, match=message):
        nats(codes(64, 0), codes(64, 1), candidates=65)
