"""The probes against scikit-learn and closed forms; the nats against codes whose information is known."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from infomin.measure import critics, estimator, probe
from infomin.measure.estimator import nats
from infomin.measure.probe import (
    PENALTIES,
    entropy,
    evaluate,
    extract_features,
    fit_logistic,
    knn,
    linear,
)
from infomin.measure.regression import standardise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n, classes=4, d=8, noise=1.5, seed=0):
    """Noisy codes of classes; the codes depend on nothing but their number and size."""
    centres, draw = torch.randn(classes, d, generator=generator(99)), generator(seed)
    y = torch.randint(classes, (n,), generator=draw)
    return 3 + 5 * (centres[y] + noise * torch.randn(n, d, generator=draw)), y


def objective(weights, x, y, penalty):
    """The linear probe's, in numpy."""
    x, weights, y = x.double().numpy(), weights.double().numpy(), y.numpy()
    scores = x @ weights[:, :-1].T + weights[:, -1]
    partition = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    return (partition - scores[np.arange(len(y)), y]).mean() + penalty / 2 * (
        weights[:, :-1] ** 2
    ).sum()


def reference(x, y, penalty):
    """scikit-learn's optimum: it weighs the sum over images by C against half of the squared weights."""
    return LogisticRegression(C=1 / (len(x) * penalty), tol=1e-8, max_iter=2000).fit(
        x.double().numpy(), y.numpy()
    )


# Linear


@pytest.mark.parametrize(("classes", "d", "n"), [(3, 4, 60), (4, 8, 300), (10, 20, 400)])
def test_the_linear_probe_reaches_scikit_learn_s_optimum(classes, d, n):
    x, y = blobs(n, classes, d)
    (x,) = standardise(x)
    ours = torch.zeros(classes, d + 1)
    for penalty in sorted(PENALTIES, reverse=True):  # each from the one before, as the probe does
        ours, theirs = fit_logistic(x, y, penalty, ours), reference(x, y, penalty)
        best = objective(
            torch.from_numpy(np.hstack([theirs.coef_, theirs.intercept_[:, None]])), x, y, penalty
        )
        assert objective(ours, x, y, penalty) == pytest.approx(best, abs=1e-4)
        agree = torch.nn.functional.linear(x, ours[:, :-1], ours[:, -1]).argmax(
            1
        ).numpy() == theirs.predict(x.double().numpy())
        assert agree.mean() > 0.98


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_linear_accuracy_is_scikit_learn_s(penalty):
    (x, y), (x_test, y_test) = blobs(400), blobs(300, seed=1)
    ours, theirs = (
        linear(x, y, x_test, y_test, penalties=[penalty]),
        reference(standardise(x)[0], y, penalty),
    )
    seen = standardise(x, x_test)[1].double().numpy()
    assert ours == pytest.approx(theirs.score(seen, y_test.numpy()), abs=0.5 / 300)
    assert linear(x, y, x_test, torch.from_numpy(theirs.predict(seen)), penalties=[penalty]) == 1.0
    assert 0.4 < ours < 0.95  # neither hopeless nor trivial


def faint(seed, n=400):
    """Every column says a little, and there are nearly as many as images: loose weights learn the noise."""
    draw = generator(seed)
    y = torch.randint(2, (n,), generator=draw)
    return 0.06 * (2 * y - 1)[:, None] + torch.randn(n, 300, generator=draw), y


def far_off(seed, n=400):
    """Rare classes at the ends of a line: only large weights get past the common one between them."""
    x = torch.randn(n, 1, generator=generator(seed))
    return x, (x[:, 0] > -1.2).long() + (x[:, 0] > 1.2).long()


@pytest.mark.parametrize(("data", "winner"), [(faint, 1.0), (far_off, 1e-4)])
@pytest.mark.parametrize("order", [(1.0, 1e-4), (1e-4, 1.0)])
def test_the_penalty_is_the_one_that_does_best_on_the_last_fifth(monkeypatch, data, winner, order):
    fits = []

    def spy(x, y, penalty, start):
        fits.append((len(x), penalty))
        return fit_logistic(x, y, penalty, start)

    monkeypatch.setattr(probe, "fit_logistic", spy)
    train, test = data(0), data(1, 1000)
    accuracy = linear(*train, *test, penalties=order)
    assert fits == [(320, 1.0), (320, 1e-4), (400, winner)]
    each = {penalty: linear(*train, *test, penalties=[penalty]) for penalty in order}
    assert (
        accuracy == pytest.approx(each[winner], abs=0.01)
        and each[winner] > min(each.values()) + 0.05
    )


def test_labels_that_mean_nothing_are_not_predicted():
    (x, _), (x_test, _) = blobs(400), blobs(400, seed=1)
    y, y_test = (torch.randint(4, (400,), generator=generator(seed)) for seed in (2, 3))
    assert linear(x, y, x_test, y_test) == pytest.approx(0.25, abs=0.08)
    assert knn(x, y, x_test, y_test) == pytest.approx(0.25, abs=0.08)
    clear, y = blobs(400, noise=0.01)
    assert linear(clear, y, clear, y) == knn(clear, y, clear, y) == 1.0


# Standardise


def test_standardised_columns_have_mean_0_and_deviation_1():
    x, other = 7 + 30 * torch.randn(200, 5), torch.randn(50, 5)
    a, b = standardise(x, other)
    np.testing.assert_allclose(a.mean(0), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(a.std(0), np.ones(5), atol=1e-5)
    np.testing.assert_allclose(
        b, (other - x.mean(0)) / x.std(0), atol=1e-5
    )  # nothing of the test set's own
    assert torch.equal(standardise(x)[0], a)


@pytest.mark.parametrize(("deviation", "kept"), [(1e-6, False), (1e-5, False), (1e-3, True)])
def test_a_column_that_only_trembles_is_constant(deviation, kept):
    x = torch.randn(100, 3, generator=generator())
    x[:, 1] = 3.7 + deviation * x[:, 1]
    (a,) = standardise(x)
    assert a[:, 1].any() == kept and a[:, [0, 2]].all()


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_a_column_that_is_constant_in_training_becomes_zero_everywhere(value):
    x = torch.randn(100, 3)
    x[:, 1] = value
    a, b = standardise(x, torch.randn(20, 3))
    assert not a[:, 1].any() and not b[:, 1].any() and a[:, [0, 2]].all() and b[:, [0, 2]].all()
    whole = torch.full((100, 3), value)
    assert not any(part.any() for part in standardise(whole, torch.randn(20, 3)))


def test_the_probes_do_not_see_the_scale_of_a_column(brief):
    (x, y), (x_test, y_test) = blobs(400), blobs(300, seed=1)
    scale, shift = torch.tensor([2.0**k for k in range(-4, 4)]), torch.arange(8.0)
    moved = x * scale + shift, y, x_test * scale + shift, y_test
    for measure in (linear, knn):
        assert measure(*moved) == pytest.approx(measure(x, y, x_test, y_test), abs=0.01)
    want, found = (
        nats([a, x], [b, x_test], candidates=300)
        for a, b in ((x, x_test), (x * scale, x_test * scale))
    )
    assert found == pytest.approx(want, abs=1e-3)


# Neighbours


@pytest.mark.parametrize("neighbours", [1, 2, 10])
def test_neighbours_vote_as_in_scikit_learn(neighbours):
    (x, y), (x_test, _) = blobs(300), blobs(1500, seed=1)  # more than are looked at together
    seen, asked = (part.double().numpy() for part in standardise(x, x_test))
    theirs = (
        KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
        .fit(seen, y.numpy())
        .predict(asked)
    )
    assert knn(x, y, x_test, torch.from_numpy(theirs), neighbours) == 1.0
    wrong = (torch.from_numpy(theirs) + (torch.arange(1500) < 300)) % 4
    assert knn(x, y, x_test, wrong, neighbours) == pytest.approx(0.8)


# Entropy


def test_entropy_has_its_closed_forms():
    for n in (1, 2, 10):
        assert entropy(torch.arange(n).repeat(7)) == pytest.approx(math.log(n), abs=1e-12)
    assert entropy(torch.tensor([0, 1, 1, 1])) == pytest.approx(
        0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    )
    assert entropy(torch.tensor([2, 7])) == pytest.approx(
        math.log(2)
    )  # classes in between are empty
    labels = torch.randint(9, (500,), generator=generator())
    share = np.unique(labels, return_counts=True)[1] / 500
    assert entropy(labels) == pytest.approx(-(share * np.log(share)).sum())


# Nats


def codes(n, seed, noise=0.5, sizes=(16, 24)):
    """Views that share one of ten classes and nothing else: log 10 nats, as far as the noise lets it through."""
    draw = generator(seed)
    y = torch.randint(10, (n,), generator=draw)
    tables = [torch.randn(10, d, generator=generator(90 + i)) for i, d in enumerate(sizes)]
    return [table[y] + noise * torch.randn(n, table.shape[1], generator=draw) for table in tables]


def strangers(n, seed):
    return [torch.randn(n, d, generator=generator(10 * seed + d)) for d in (16, 24)]


def twins(n, seed):
    x = torch.randn(n, 16, generator=generator(seed))
    return [x, x]


@pytest.fixture
def brief(monkeypatch):
    """A critic that is hardly trained, where it is of no account how good it is."""
    monkeypatch.setattr(probe, "CRITIC_STEPS", 120)
    monkeypatch.setattr(probe, "CRITIC_BATCH", 64)


@pytest.mark.parametrize("k", [256, 1024])
def test_ten_equal_classes_that_are_shared_are_worth_log_10(k):
    assert nats(codes(1024, 0), codes(1024, 1), candidates=k) == pytest.approx(
        math.log(10), rel=0.1
    )


def test_features_that_share_nothing_are_worth_nothing():
    assert -0.1 < nats(strangers(1024, 0), strangers(1024, 1), candidates=512) < 0.05


def test_equal_features_come_near_the_ceiling():
    assert 0.9 * math.log(64) < nats(twins(1024, 0), twins(1024, 1), candidates=64) < math.log(64)


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
    ("rho", "noise", "read"), [(0.9, 0, 0.82), (0.999, 0, 2.13), (0.9, 31, 0.33)]
)
def test_the_bound_is_as_loose_as_the_readme_says(rho, noise, read):
    def pair(seed):
        draws = generator(seed)
        x = torch.randn(4096, 1, generator=draws)
        y = rho * x + math.sqrt(1 - rho**2) * torch.randn(4096, 1, generator=draws)
        return [
            torch.cat([column, torch.randn(4096, noise, generator=draws)], 1) for column in (x, y)
        ]

    found = nats(pair(0), pair(1))
    assert found == pytest.approx(read, abs=0.1) and found < -math.log(1 - rho**2) / 2 + 0.05


@pytest.mark.parametrize("views", [codes, strangers, twins])
@pytest.mark.parametrize("k", [1, 2, 16, 200])
def test_nats_never_exceed_their_ceiling(brief, views, k):
    assert nats(views(256, 0), views(200, 1), candidates=k) <= math.log(k) + 1e-6


def test_nats_are_a_function_of_features_and_seed_and_leave_the_caller_s_draws_alone(brief):
    train, test = codes(1024, 0), codes(200, 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    want = nats(train, test, candidates=100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert nats(train, test, candidates=100) == want != nats(train, test, candidates=100, seed=1)


def test_nats_are_read_on_all_blocks_of_held_out_pairs(brief):
    train, (x, y) = codes(1024, 0, noise=0.1), codes(128, 1, noise=0.1)
    apart = [x, y.roll(1, 0)]
    together = [torch.cat(part) for part in zip((x, y), apart, strict=True)]
    good, bad = (nats(train, part, candidates=128) for part in ((x, y), apart))
    assert good > bad + 0.5
    assert nats(train, together, candidates=128) == pytest.approx((good + bad) / 2, abs=1e-5)
    over = [
        torch.cat([part, torch.full_like(part[:50], 9.0)]) for part in together
    ]  # less than a block is left out
    assert nats(train, over, candidates=128) == pytest.approx((good + bad) / 2, abs=1e-5)


def test_three_views_give_the_mean_over_their_pairs(brief):
    train, test = (codes(1024, seed, sizes=(16, 24, 8)) for seed in (0, 1))
    each = [
        nats([train[i], train[j]], [test[i], test[j]], candidates=512)
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert (
        nats(train, test, candidates=512) == pytest.approx(sum(each) / 3, abs=1e-6)
        and len(set(each)) == 3
    )


@pytest.mark.parametrize("n", [8, 100, 256])
def test_few_pairs_are_enough_to_say_something(n):
    assert math.isfinite(nats(codes(n, 0), codes(64, 1), candidates=64))


def test_views_of_different_numbers_of_images_are_no_pairs():
    train, (x, y) = codes(64, 0), codes(32, 1)
    with pytest.raises(
        ValueError,
        match=r"probe.nats: got \[\[.*\[32, 16\], \[31, 24\]\]\] to train and test, wanted rows and columns",
    ):
        nats(train, [x, y[1:]], candidates=16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_nats_of_other_dtypes_are_those_of_float32(brief, dtype):
    train, test = ([x.half().to(dtype) for x in codes(n, seed)] for n, seed in ((128, 0), (64, 1)))
    assert nats(train, test, candidates=64) == nats(
        [x.float() for x in train], [x.float() for x in test], candidates=64
    )


def test_more_candidates_than_there_are_is_an_error():
    with pytest.raises(
        ValueError,
        match=r"probe\.nats: got 65 candidates, wanted 1 to the 64 test images; change them",
    ):
        nats(codes(64, 0), codes(64, 1), candidates=65)


# Features


class Method(nn.Module):
    """A network with all that training mode changes, and one part that is frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AvgPool2d(3)
        )
        self.frozen = nn.BatchNorm2d(3).eval()

    def features(self, views):
        return tuple(self.net(self.frozen(view)) for view in views)


class View(nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.noise, self.dropout = noise, nn.Dropout(0.5)

    def forward(self, batch, generator):
        return self.dropout(batch), 1 - batch + self.noise * torch.randn(
            batch.shape, generator=generator
        )


def pictures(n=23):
    return torch.rand(n, 3, 8, 8, generator=generator())


@pytest.mark.parametrize("training", [True, False])
def test_features_are_read_in_eval_mode_and_leave_everything_as_it_was(training):
    method, view = Method(), View(0.0)
    method.net.train(training), view.train(training)
    modes = [module.training for module in (*method.modules(), *view.modules())]
    state = {name: value.clone() for name, value in method.state_dict().items()}
    found = extract_features(method, view, pictures())
    assert [module.training for module in (*method.modules(), *view.modules())] == modes
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    with torch.no_grad():
        want = method.eval().features((pictures(), 1 - pictures()))
    for h, w in zip(found, want, strict=True):
        assert h.shape == (23, 16) and h.dtype == torch.float32 and not h.requires_grad
        torch.testing.assert_close(h, w.flatten(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 22, 23, 100])
def test_the_size_of_a_batch_is_of_no_account(batch):
    want = extract_features(Method(), View(0.0), pictures())
    for a, b in zip(
        extract_features(Method(), View(0.0), pictures(), batch=batch), want, strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_view_s_draws_are_those_of_the_seed():
    def read(seed):
        torch.manual_seed(torch.seed())  # whatever the global generator says
        return extract_features(Method(), View(1.0), pictures(), seed=seed, batch=10)

    a, b, c = read(0), read(0), read(1)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert torch.equal(a[0], c[0]) and not torch.isclose(a[1], c[1]).all(1).any()
    noise = extract_features(Method(), View(1.0), torch.zeros(20, 3, 8, 8), batch=10)[1]
    assert not torch.isclose(noise[:10], noise[10:]).all(1).any()  # every batch draws anew


def test_bf16_is_that_of_training_and_features_are_float32_all_the_same():
    exact, rough = (
        extract_features(Method(), View(0.0), pictures(), precision=p) for p in ("fp32", "bf16")
    )
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32 and not torch.equal(a, b)
        torch.testing.assert_close(a, b, atol=0.05, rtol=0)


# All of it


class Bare(nn.Module):
    def features(self, views):
        return tuple(views)


class Codes(nn.Module):
    """An augmentation that shows of every image what it has drawn for its place in the batch; in eval mode it draws nought."""

    augments = True

    def forward(self, batch, generator):
        code = self.training * torch.randn(len(batch), 8, 1, 1, generator=generator)
        return code, code


class Halves(nn.Module):
    def forward(self, batch, generator):
        return batch[:, :8, None, None], batch[:, 8:, None, None]


def test_test_views_are_drawn_anew_so_that_the_critic_cannot_know_them_and_what_is_read_out_is_not_drawn(
    monkeypatch,
):
    seen, read = [], []
    monkeypatch.setattr(probe, "nats", lambda *parts, candidates: seen.append(parts) or 0.0)
    monkeypatch.setattr(
        probe, "_read", lambda x, labels, x_test, *_: read.append((x, x_test)) or {}
    )
    part, view = (torch.zeros(300, 3, 8, 8), {"class": torch.arange(300) % 2}), Codes().eval()
    evaluate(Bare(), view, part, part, readout=(0,), candidates=50)
    ((first, second), (first_test, second_test)) = seen[0]
    assert torch.equal(first, second) and torch.equal(first_test, second_test)
    assert not torch.isclose(first, first_test).all(1).any()
    assert not any(x.any() for x in read[0]) and not view.training


def test_views_that_are_equal_are_read_once(brief, monkeypatch):
    """Two crops, not drawn, are one image twice, and a probe of both would differ from that of one by its penalty alone."""
    seen = []
    monkeypatch.setattr(probe, "_read", lambda x, *_: seen.append(x.shape[1]) or {})
    part = torch.zeros(60, 3, 8, 8), {"class": torch.arange(60) % 2}
    evaluate(Bare(), Codes(), part, part, readout=(0, 1), candidates=50)
    x, y = blobs(60, noise=0.3, seed=0)
    evaluate(
        Bare(),
        Halves(),
        *[(torch.cat([x, 2 * x], 1), {"class": y})] * 2,
        readout=(0, 1),
        candidates=50,
    )
    assert seen == [8, 16]


def test_the_critic_passes_over_few_pairs_as_often_as_over_many(monkeypatch):
    steps, act = [], estimator.rate_factor
    monkeypatch.setattr(
        estimator,
        "rate_factor",
        lambda name, step, most, **how: steps.append(most) or act(name, step, most, **how),
    )
    for n in (128, 512):
        nats([torch.randn(n, 4)] * 2, [torch.randn(16, 4)] * 2, candidates=16)
    assert steps == 9 * [9] + 37 * [37]  # of 300 for 4096


def test_the_protocol_says_what_is_done():
    assert f"cosine, {probe.NEIGHBOURS};" in probe.PROTOCOL
    assert f"{probe.CRITIC_STEPS} steps of {probe.CRITIC_BATCH} for 4096 pairs" in probe.PROTOCOL


def test_the_critic_s_weights_follow_the_schedule_and_its_scale_goes_on(monkeypatch):
    made, act = [], estimator.build_optimizer
    monkeypatch.setattr(
        estimator,
        "build_optimizer",
        lambda name, critic, *rest, **how: made.append(critic) or act(name, critic, *rest, **how),
    )
    monkeypatch.setattr(estimator, "rate_factor", lambda *_, **__: 0.0)
    monkeypatch.setattr(
        estimator,
        "SeparableCritic",
        lambda *sizes: made.append(copy.deepcopy(new := critics.SeparableCritic(*sizes))) or new,
    )
    nats(codes(64, 0), codes(16, 1), candidates=16)
    first, trained = made
    for before, after in zip(first.parameters(), trained.parameters(), strict=True):
        assert torch.equal(before, after) == (before.dim() > 1)


def test_a_crash_in_a_view_leaves_the_modes_as_they_were():
    class Broken(View):
        def forward(self, batch, generator):
            raise OSError("power")

    method, view = Method().train(), Broken(0.0).train()
    with pytest.raises(OSError, match="power"):
        extract_features(method, view, pictures())
    assert all(module.training for module in (*method.modules(), *view.modules()))


def test_fewer_images_than_neighbours_all_vote():
    x, y = blobs(4, noise=0.1, seed=0)
    assert knn(x, y, x, y) == (y == y.mode().values).double().mean()


def test_features_that_are_no_numbers_are_told():
    class Broken(nn.Module):
        def features(self, views):
            return views[0].log(), views[1]

    with pytest.raises(
        FloatingPointError,
        match="features: got NaN or Inf from the encoders, wanted numbers; lower",
    ):
        extract_features(Broken(), View(0.0), -pictures())


def test_a_row_says_what_each_probe_says_of_the_views_that_are_read_out(brief):
    def part(seed):
        x, y = blobs(300, noise=0.3, seed=seed)
        z, t = blobs(300, classes=3, noise=0.3, seed=seed + 10)
        return torch.cat([x, z[:, :6]], 1), {"here": y, "there": t}

    (x, labels), (x_test, test_labels) = train, test = part(0), part(1)
    for readout, columns in (((0,), slice(8)), ((1,), slice(8, 14)), ((0, 1), slice(14))):
        row = evaluate(Bare(), Halves(), train, test, readout=readout, candidates=50)
        want = {
            "candidates": 50,
            "ceiling": math.log(50),
            "i_nce": nats(*([p[:, :8], p[:, 8:]] for p in (x, x_test)), candidates=50),
        }
        for task in ("here", "there"):
            data = x[:, columns], labels[task], x_test[:, columns], test_labels[task]
            want |= {
                f"acc_{task}": linear(*data),
                f"knn_{task}": knn(*data),
                f"entropy_{task}": entropy(labels[task]),
            }
        assert row == pytest.approx(want, abs=1e-6) and list(row)[:3] == [
            "i_nce",
            "candidates",
            "ceiling",
        ]
        assert (row["acc_here"] > 0.95) == (0 in readout) and (row["acc_there"] > 0.95) == (
            1 in readout
        )


# What a stranger may pass


def of(name, **other):
    """A call of a probe on few numbers, some replaced."""
    x, y = blobs(20)
    given = {"train": x, "labels": y, "test": x[:8], "test_labels": y[:8]} | other
    return getattr(probe, name)(*given.values())


@pytest.mark.parametrize("name", ["linear", "knn"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_whole_type_are_the_same_labels(name, dtype):
    _, y = blobs(20)
    assert of(name, labels=y.to(dtype), test_labels=y[:8].to(dtype)) == of(name)


@pytest.mark.parametrize("name", ["linear", "knn", "localisation"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_any_floating_type_are_read(name, dtype):
    x = blobs(20)[0]
    there = {"labels": x[:, :2], "test_labels": x[:8, :2]} if name == "localisation" else {}
    rounded = x.to(dtype)
    found = of(name, train=rounded, test=rounded[:8], **there)
    assert found == pytest.approx(
        of(name, train=rounded.float(), test=rounded[:8].float(), **there), abs=1e-3
    )


@pytest.mark.parametrize("name", ["linear", "localisation", "nats"])
def test_a_probe_learns_from_features_with_a_history_and_where_no_gradients_are_kept(name):
    x, y = blobs(40)
    if name == "nats":
        call = lambda x: nats([x, x], [x, x], candidates=20)  # noqa: E731
    else:
        call = lambda x: getattr(probe, name)(
            x, *([y, x, y] if name == "linear" else [x[:, :2].detach(), x, x[:, :2]])
        )  # noqa: E731
    wanted = call(x)
    with torch.no_grad():
        assert call(x) == wanted
    history = x.clone().requires_grad_()
    assert call(history) == wanted and history.grad is None


NAN, NUMPY = torch.full((20, 8), torch.nan), np.zeros((20, 8), np.float32)


@pytest.mark.parametrize("name", ["linear", "knn", "localisation"])
@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (
            {"labels": torch.zeros(19).long()},
            ValueError,
            "20 features and 19 labels to train, 8 and 8 to test",
        ),
        (
            {"test_labels": torch.zeros(7).long()},
            ValueError,
            "20 features and 20 labels to train, 8 and 7 to test",
        ),
        (
            {"test": torch.zeros(8, 7)},
            ValueError,
            r"features \[20, 8\] and .* \[8, 7\] and .* as many columns in both",
        ),
        (
            {"test": torch.zeros(0, 8)},
            ValueError,
            r"features to test on must have the shape \[N, D\], got \[0, 8\]",
        ),
        (
            {"train": torch.zeros(20)},
            ValueError,
            r"features to train on must have the shape \[N, D\], got \[20\]",
        ),
        (
            {"train": torch.zeros(20, 2, 4)},
            ValueError,
            r"features to train on must have the shape \[N, D\], got \[20, 2, 4\]",
        ),
        ({"train": NAN}, ValueError, "features to train on must be finite, got 160 NaN or Inf"),
        (
            {"train": torch.zeros(20, 8).long()},
            TypeError,
            r"must be a floating-point tensor \[N, D\], got torch.int64",
        ),
        ({"train": NUMPY}, TypeError, r"must be a floating-point tensor \[N, D\], got ndarray"),
    ],
)
def test_a_probe_says_what_is_wrong_with_what_it_was_given(name, other, error, words):
    if name == "localisation":
        answers = {"labels": torch.zeros(20), "test_labels": torch.zeros(8)}
        other = {**answers, **other}
        other |= {which: other[which].float()[:, None].expand(-1, 2) for which in answers}
    with pytest.raises(error, match=rf"probe\.{name}: .*{words}"):
        of(name, **other)


@pytest.mark.parametrize("name", ["linear", "knn"])
@pytest.mark.parametrize("which", ["labels", "test_labels"])
@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (
            lambda y: y[:, None],
            ValueError,
            r"must have the shape \[N\], got \[\d+, 1\]; pass one class an image",
        ),
        (lambda y: y - 4, ValueError, "must be 0 or more, got -4; leave out images of no class"),
        (
            lambda y: y.float(),
            TypeError,
            r"must be a tensor \[N\] of whole numbers, got torch.float32",
        ),
        (lambda y: y.tolist(), TypeError, r"must be a tensor \[N\] of whole numbers, got list"),
    ],
)
def test_labels_are_one_whole_number_an_image(name, which, made, error, words):
    """Of shape [M, 1] they would be compared with every image's answer."""
    y = torch.arange(20) % 4
    with pytest.raises(
        error,
        match=rf"probe\.{name}: labels to {'test' if which == 'test_labels' else 'train'} on {words}",
    ):
        of(
            name,
            **{
                "labels": y,
                "test_labels": y[:8],
                which: made(y[:8] if which == "test_labels" else y),
            },
        )


@pytest.mark.parametrize("name", ["linear", "localisation"])
def test_fewer_images_than_a_fifth_can_be_held_out_of_are_told(name):
    x, y = blobs(4)
    answers = x[:, :2] if name == "localisation" else y
    with pytest.raises(
        ValueError, match=rf"probe\.{name}: got 4 images to train on, wanted 5 or more"
    ):
        getattr(probe, name)(x, answers, x, answers)


@pytest.mark.parametrize(
    ("train", "test", "k", "error", "words"),
    [
        (
            [(9, 2)] * 2,
            [(9, 2)] * 3,
            8,
            ValueError,
            "to train and test, wanted rows and columns that agree",
        ),
        (
            [(9, 2)] * 2,
            [(9, 2), (9, 3)],
            8,
            ValueError,
            "to train and test, wanted rows and columns that agree",
        ),
        (
            [(9,)] * 2,
            [(9,)] * 2,
            8,
            ValueError,
            r"features of a view must have the shape \[N, D\], got \[9\]",
        ),
        (
            [(9, 2)] * 2,
            [(9, 2)] * 2,
            0,
            ValueError,
            "got 0 candidates, wanted 1 to the 9 test images",
        ),
        (
            [(9, 2)] * 2,
            [(9, 2)] * 2,
            10,
            ValueError,
            "got 10 candidates, wanted 1 to the 9 test images",
        ),
    ],
)
def test_nats_say_what_is_wrong_with_what_they_were_given(train, test, k, error, words):
    with pytest.raises(error, match=rf"probe\.nats: .*{words}"):
        nats(
            [torch.rand(shape) for shape in train],
            [torch.rand(shape) for shape in test],
            candidates=k,
        )


@pytest.mark.parametrize("name", ["linear", "knn", "localisation", "nats"])
def test_what_surrounds_a_probe_changes_no_bit_of_it(name):
    x, y = blobs(64)
    given = {
        "knn": [x, y, x, y],
        "linear": [x, y, x, y],
        "localisation": [x, x[:, :2], x, x[:, :2]],
        "nats": [[x, x], [x, x]],
    }
    call = partial(
        getattr(probe, name), *given[name], **({"candidates": 32} if name == "nats" else {})
    )
    wanted = call()
    with torch.autocast("cpu", torch.bfloat16):
        assert call() == wanted


@pytest.mark.parametrize("name", ["linear", "knn", "localisation", "nats"])
def test_features_and_labels_of_inference_mode_are_read(name):
    with torch.inference_mode():
        x, y = blobs(64)
        x = x + 0
    given = {
        "knn": [x, y, x, y],
        "linear": [x, y, x, y],
        "localisation": [x, x[:, :2], x, x[:, :2]],
        "nats": [[x, x], [x, x]],
    }
    assert math.isfinite(
        getattr(probe, name)(*given[name], **({"candidates": 32} if name == "nats" else {}))
    )


def test_no_neighbours_have_no_majority():
    with pytest.raises(
        ValueError, match=r"probe\.knn\(neighbours\): got 0, wanted a finite number above 0"
    ):
        knn(*blobs(8), *blobs(8), neighbours=0)
