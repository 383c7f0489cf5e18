"""Held-out nats between features whose information is known."""

import copy
import math
from itertools import chain

import pytest
import torch
from synthetic import codes, generator, identical, independent

from infomin.measure import critics, estimator
from infomin.measure.estimator import doubt, held_out_nats, nats


@pytest.mark.parametrize("k", [256, 1024])
def test_ten_shared_classes_of_equal_size_are_worth_log_10(k):
    read = nats(codes(1024, 0), codes(1024, 1), candidates=k)
    assert read == pytest.approx(math.log(10), rel=0.1)


def test_independent_features_are_worth_nothing():
    assert -0.1 < nats(independent(1024, 0), independent(1024, 1), candidates=512) < 0.05


def test_identical_features_approach_the_ceiling():
    read = nats(identical(1024, 0), identical(1024, 1), candidates=64)
    assert 0.9 * math.log(64) < read < math.log(64)


@pytest.mark.parametrize(
    ("columns", "rho", "least"),
    [(1, 0.9, 0.9), (2, 0.9, 0.9), (4, 0.9, 0.8), (4, 0.0, 0), (16, 0.0, 0)],
)
def test_few_columns_are_read_in_full(columns, rho, least):
    """Gaussians correlated column by column share -log(1 - rho^2) / 2 nats each."""

    def pair(seed):
        x, noise = torch.randn(2, 2048, columns, generator=generator(seed))
        return [x, rho * x + math.sqrt(1 - rho**2) * noise]

    truth = -columns / 2 * math.log(1 - rho**2)
    assert least * truth - 0.03 <= nats(pair(0), pair(1)) <= truth + 0.03


@pytest.mark.parametrize(
    ("rho", "noise", "expected"), [(0.9, 0, 0.82), (0.999, 0, 2.13), (0.9, 31, 0.33)]
)
def test_the_bound_is_as_loose_as_the_readme_says(rho, noise, expected):
    def pair(seed):
        draws = generator(seed)
        x = torch.randn(4096, 1, generator=draws)
        y = rho * x + math.sqrt(1 - rho**2) * torch.randn(4096, 1, generator=draws)
        return [
            torch.cat([column, torch.randn(4096, noise, generator=draws)], 1) for column in (x, y)
        ]

    read = nats(pair(0), pair(1))
    assert read == pytest.approx(expected, abs=0.1) and read < -math.log(1 - rho**2) / 2 + 0.05


@pytest.mark.parametrize("views", [codes, independent, identical])
@pytest.mark.parametrize("k", [1, 2, 16, 200])
def test_nats_never_exceed_their_ceiling(quick_critic, views, k):
    assert nats(views(256, 0), views(200, 1), candidates=k) <= math.log(k) + 1e-6


def test_nats_depend_on_features_and_seed_only_and_leave_the_global_generator_alone(quick_critic):
    train, test = codes(1024, 0), codes(200, 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    want = nats(train, test, candidates=100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert nats(train, test, candidates=100) == want != nats(train, test, candidates=100, seed=1)


def test_nats_are_the_mean_over_all_full_blocks_of_held_out_pairs(quick_critic):
    train, (x, y) = codes(1024, 0, noise=0.1), codes(128, 1, noise=0.1)
    pairs, shuffled = [x, y], [x, y.roll(1, 0)]
    good = nats(train, pairs, candidates=128)
    bad = nats(train, shuffled, candidates=128)
    assert good > bad + 0.5
    both = [torch.cat(part) for part in zip(pairs, shuffled, strict=True)]
    assert nats(train, both, candidates=128) == pytest.approx((good + bad) / 2, abs=1e-5)
    # an incomplete block is left out
    more = [torch.cat([part, torch.full_like(part[:50], 9.0)]) for part in both]
    assert nats(train, more, candidates=128) == pytest.approx((good + bad) / 2, abs=1e-5)


def test_three_views_give_the_mean_over_their_pairs(quick_critic):
    train, test = codes(1024, 0, sizes=(16, 24, 8)), codes(1024, 1, sizes=(16, 24, 8))
    of_pairs = [
        nats([train[i], train[j]], [test[i], test[j]], candidates=512)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert nats(train, test, candidates=512) == pytest.approx(sum(of_pairs) / 3, abs=1e-6)
    assert len(set(of_pairs)) == 3


@pytest.mark.parametrize("n", [8, 100, 256])
def test_few_pairs_give_a_finite_number(n):
    assert math.isfinite(nats(codes(n, 0), codes(64, 1), candidates=64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_nats_of_other_dtypes_equal_those_of_float32(quick_critic, dtype):
    train = [x.half().to(dtype) for x in codes(128, 0)]
    test = [x.half().to(dtype) for x in codes(64, 1)]
    expected = nats([x.float() for x in train], [x.float() for x in test], candidates=64)
    assert nats(train, test, candidates=64) == expected


@pytest.mark.parametrize("n", [1, 100, 512, 700, 2048])
def test_no_pair_is_twice_in_a_batch_and_all_sizes_have_the_same_number_of_passes(n, monkeypatch):
    batches, random_batches = [], estimator._random_batches

    def record(*arguments):
        for rows in random_batches(*arguments):
            batches.append(rows.tolist())
            yield rows

    monkeypatch.setattr(estimator, "_random_batches", record)
    held_out_nats([torch.randn(n, 4)] * 2, [torch.randn(16, 4)] * 2, candidates=16)
    assert {len(rows) for rows in batches} == {len(set(rows)) for rows in batches} == {min(n, 512)}
    assert sum(map(len, batches)) / n == pytest.approx(300 * 512 / 4096, abs=1)  # passes
    epoch = n // min(n, 512)
    starts = range(0, len(batches) - epoch + 1, epoch)
    epochs = [list(chain(*batches[start : start + epoch])) for start in starts]
    assert all(len(set(rows)) == len(rows) for rows in epochs)
    assert n == 1 or epochs[0] != epochs[1]


@pytest.mark.parametrize(("train", "test"), [(160, 160), (160, 1024), (1024, 160)])
def test_few_pairs_are_read_as_too_little_and_with_a_warning(train, test):
    message = rf"nats: got {train} training and {test} held-out pairs, wanted 256 or more of each"
    with pytest.warns(UserWarning, match=message):
        assert nats(codes(train, 0), codes(test, 1), candidates=160) < math.log(10)


def test_a_value_below_0_is_not_returned_without_a_warning():
    for seed in range(3):
        data = independent(300, seed), independent(300, seed + 5)
        value = held_out_nats(*data, candidates=300)
        assert bool(doubt(value, *data)) == (value < 0)
        if value < 0:
            with pytest.warns(UserWarning, match=r"nats: read -0\.\d+, below 0"):
                assert nats(*data, candidates=300) == value


def test_the_critic_s_weights_follow_the_schedule_and_its_scale_does_not(monkeypatch):
    initial, trained = [], []
    build_optimizer = estimator.build_optimizer

    def record_initial(*sizes):
        critic = critics.SeparableCritic(*sizes)
        initial.append(copy.deepcopy(critic))
        return critic

    def record_trained(name, critic, *arguments, **options):
        trained.append(critic)
        return build_optimizer(name, critic, *arguments, **options)

    monkeypatch.setattr(estimator, "SeparableCritic", record_initial)
    monkeypatch.setattr(estimator, "build_optimizer", record_trained)
    monkeypatch.setattr(estimator, "rate_factor", lambda *_, **__: 0.0)
    nats(codes(64, 0), codes(16, 1), candidates=16)
    (before,), (after,) = initial, trained
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new) == (old.dim() > 1)


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
