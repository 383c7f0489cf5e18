"""Probes against scikit-learn and closed forms, feature extraction, and the numbers of a row."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from synthetic import blobs, generator
from torch import nn

from infomin.measure import probe
from infomin.measure.estimator import nats
from infomin.measure.probe import entropy, evaluate, extract_features, fit_logistic, knn, linear
from infomin.measure.regression import standardise
from infomin.training.step import Learner

# Linear probe


def many_weak_columns(seed, n=400):
    """Nearly as many weak columns as images: with a small penalty the weights fit the noise."""
    draws = generator(seed)
    y = torch.randint(2, (n,), generator=draws)
    return 0.06 * (2 * y - 1)[:, None] + torch.randn(n, 300, generator=draws), y


def rare_extremes(seed, n=400):
    """Rare classes at both ends of a line: only large weights separate them from the common one."""
    x = torch.randn(n, 1, generator=generator(seed))
    return x, (x[:, 0] > -1.2).long() + (x[:, 0] > 1.2).long()


@pytest.mark.parametrize(("data", "best"), [(many_weak_columns, 1.0), (rare_extremes, 1e-4)])
@pytest.mark.parametrize("order", [(1.0, 1e-4), (1e-4, 1.0)])
def test_the_penalty_is_the_one_that_does_best_on_the_last_fifth(monkeypatch, data, best, order):
    fits = []

    def record(x, y, penalty, start):
        fits.append((len(x), penalty))
        return fit_logistic(x, y, penalty, start)

    monkeypatch.setattr(probe, "fit_logistic", record)
    train, test = data(0), data(1, 1000)
    accuracy = linear(*train, *test, penalties=order)
    assert fits == [(320, 1.0), (320, 1e-4), (400, best)]
    by_penalty = {penalty: linear(*train, *test, penalties=[penalty]) for penalty in order}
    assert accuracy == pytest.approx(by_penalty[best], abs=0.01)
    assert by_penalty[best] > min(by_penalty.values()) + 0.05


def test_random_labels_are_not_predicted():
    (x, _), (x_test, _) = blobs(400), blobs(400, seed=1)
    y, y_test = (torch.randint(4, (400,), generator=generator(seed)) for seed in (2, 3))
    assert linear(x, y, x_test, y_test) == pytest.approx(0.25, abs=0.08)
    assert knn(x, y, x_test, y_test) == pytest.approx(0.25, abs=0.08)
    separated, y = blobs(400, noise=0.01)
    assert linear(separated, y, separated, y) == knn(separated, y, separated, y) == 1.0


def test_the_probes_do_not_depend_on_the_scale_of_a_column(quick_critic):
    (x, y), (x_test, y_test) = blobs(400), blobs(300, seed=1)
    scale, shift = torch.tensor([2.0**k for k in range(-4, 4)]), torch.arange(8.0)
    moved = x * scale + shift, y, x_test * scale + shift, y_test
    for measure in (linear, knn):
        assert measure(*moved) == pytest.approx(measure(x, y, x_test, y_test), abs=0.01)
    want = nats([x, x], [x_test, x_test], candidates=300)
    scaled = nats([x * scale, x], [x_test * scale, x_test], candidates=300)
    assert scaled.value == pytest.approx(want.value, abs=1e-3)


# Nearest neighbours


@pytest.mark.parametrize("neighbours", [1, 2, 10])
def test_neighbours_vote_as_in_scikit_learn(neighbours):
    (x, y), (x_test, _) = blobs(300), blobs(1500, seed=1)  # 1500 is more than one block of queries
    seen, asked = (part.double().numpy() for part in standardise(x, x_test))
    classifier = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
    theirs = torch.from_numpy(classifier.fit(seen, y.numpy()).predict(asked))
    assert knn(x, y, x_test, theirs, neighbours) == 1.0
    wrong = (theirs + (torch.arange(1500) < 300)) % 4
    assert knn(x, y, x_test, wrong, neighbours) == pytest.approx(0.8)


def test_with_fewer_images_than_neighbours_all_vote():
    x, y = blobs(4, noise=0.1, seed=0)
    assert knn(x, y, x, y) == (y == y.mode().values).double().mean()


# Entropy


def test_entropy_has_its_closed_forms():
    for n in (1, 2, 10):
        assert entropy(torch.arange(n).repeat(7)) == pytest.approx(math.log(n), abs=1e-12)
    want = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert entropy(torch.tensor([0, 1, 1, 1])) == pytest.approx(want)
    assert entropy(torch.tensor([2, 7])) == pytest.approx(math.log(2))  # with empty classes between
    labels = torch.randint(9, (500,), generator=generator())
    share = np.unique(labels, return_counts=True)[1] / 500
    assert entropy(labels) == pytest.approx(-(share * np.log(share)).sum())


# Features


class Method(Learner):
    """A network with everything that training mode changes, and one frozen part."""

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
        noise = torch.randn(batch.shape, generator=generator)
        return self.dropout(batch), 1 - batch + self.noise * noise


def make_images(n=23):
    return torch.rand(n, 3, 8, 8, generator=generator())


def modes_of(*modules):
    return [part.training for module in modules for part in module.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_features_are_extracted_in_eval_mode_and_nothing_changes(training):
    method, view = Method(), View(0.0)
    method.net.train(training), view.train(training)
    modes = modes_of(method, view)
    state = {name: value.clone() for name, value in method.state_dict().items()}
    features = extract_features(method, view, make_images())
    assert modes_of(method, view) == modes
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    with torch.no_grad():
        want = method.eval().features((make_images(), 1 - make_images()))
    for h, w in zip(features, want, strict=True):
        assert h.shape == (23, 16) and h.dtype == torch.float32 and not h.requires_grad
        torch.testing.assert_close(h, w.flatten(1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 22, 23, 100])
def test_features_do_not_depend_on_the_batch_size(batch):
    want = extract_features(Method(), View(0.0), make_images())
    features = extract_features(Method(), View(0.0), make_images(), batch=batch)
    for a, b in zip(features, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


class Careless(View):
    """Draws from torch's global generator."""

    def forward(self, batch, generator):
        return super().forward(batch, None)


@pytest.mark.parametrize("view", [View, Careless])
def test_the_draws_of_a_view_depend_on_the_seed_only(view):
    def extract(seed):
        method = Method()
        torch.seed()  # the global generator makes no difference
        return extract_features(method, view(1.0), make_images(), seed=seed, batch=10)

    a, b, c = extract(0), extract(0), extract(1)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert torch.equal(a[0], c[0]) and not torch.isclose(a[1], c[1]).all(1).any()
    noise = extract_features(Method(), view(1.0), torch.zeros(20, 3, 8, 8), batch=10)[1]
    assert not torch.isclose(noise[:10], noise[10:]).all(1).any()  # batches have their own draws


def test_bf16_features_are_rounded_but_returned_as_float32():
    exact = extract_features(Method(), View(0.0), make_images(), precision="fp32")
    rounded = extract_features(Method(), View(0.0), make_images(), precision="bf16")
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32 and not torch.equal(a, b)
        torch.testing.assert_close(a, b, atol=0.05, rtol=0)


def test_an_error_in_a_view_restores_the_modes():
    class Broken(View):
        def forward(self, batch, generator):
            raise OSError("power")

    method, view = Method().train(), Broken(0.0).train()
    with pytest.raises(OSError, match="power"):
        extract_features(method, view, make_images())
    assert all(modes_of(method, view))


def test_features_that_are_nan_are_an_error():
    class Broken(Learner):
        def features(self, views):
            return views[0].log(), views[1]

    message = "features: got NaN or Inf from the encoders, wanted finite numbers; lower"
    with pytest.raises(FloatingPointError, match=message):
        extract_features(Broken(), View(0.0), -make_images())


# Rows


class Identity(Learner):
    """A method whose features are the views."""

    def features(self, views):
        return tuple(views)


class Codes(nn.Module):
    """An augmentation whose two views are what it draws for each image; zeros in eval mode."""

    def forward(self, batch, generator):
        code = self.training * torch.randn(len(batch), 8, 1, 1, generator=generator)
        return code, code


class Halves(nn.Module):
    """The first eight columns as one view, the others as the second."""

    def forward(self, batch, generator):
        return batch[:, :8, None, None], batch[:, 8:, None, None]


def test_nats_see_different_draws_for_the_test_and_probes_see_none(quick_critic, monkeypatch):
    nats_inputs, probe_inputs = [], []

    def record_nats(train, test, *, candidates):
        nats_inputs.append((train, test))
        return nats(train, test, candidates=candidates)

    def record_score(x, labels, x_test, *_):
        probe_inputs.append((x, x_test))
        return {}

    monkeypatch.setattr(probe, "nats", record_nats)
    monkeypatch.setattr(probe, "_score", record_score)
    part, view = (torch.zeros(300, 3, 8, 8), {"class": torch.arange(300) % 2}), Codes().eval()
    evaluate(Identity(), view, part, part, readout=(0,), augments=True, candidates=50)
    ((first, second), (first_test, second_test)) = nats_inputs[0]
    assert torch.equal(first, second) and torch.equal(first_test, second_test)
    assert not torch.isclose(first, first_test).all(1).any()
    assert not any(x.any() for x in probe_inputs[0]) and not view.training


def test_views_that_are_equal_are_read_once(quick_critic, monkeypatch):
    """Two crops without draws are the same image: reading both would only change the penalty."""
    widths = []

    def record_score(x, *_):
        widths.append(x.shape[1])
        return {}

    monkeypatch.setattr(probe, "_score", record_score)
    part = torch.zeros(60, 3, 8, 8), {"class": torch.arange(60) % 2}
    evaluate(Identity(), Codes(), part, part, readout=(0, 1), augments=True, candidates=50)
    x, y = blobs(60, noise=0.3, seed=0)
    part = torch.cat([x, 2 * x], 1), {"class": y}
    evaluate(Identity(), Halves(), part, part, readout=(0, 1), candidates=50)
    assert widths == [8, 16]


def test_the_protocol_names_the_constants():
    assert f"cosine, {probe.NEIGHBOURS};" in probe.PROTOCOL


def test_a_row_has_every_probe_of_the_views_that_are_read_out(quick_critic):
    def part(seed):
        x, y = blobs(300, noise=0.3, seed=seed)
        z, t = blobs(300, classes=3, noise=0.3, seed=seed + 10)
        return torch.cat([x, z[:, :6]], 1), {"in_first": y, "in_second": t}

    (x, labels), (x_test, test_labels) = train, test = part(0), part(1)
    views, views_test = [x[:, :8], x[:, 8:]], [x_test[:, :8], x_test[:, 8:]]
    for readout, columns in (((0,), slice(8)), ((1,), slice(8, 14)), ((0, 1), slice(14))):
        row = evaluate(Identity(), Halves(), train, test, readout=readout, candidates=50)
        read = nats(views, views_test, candidates=50)
        want = {"candidates": 50, "ceiling": math.log(50), "i_nce": read.value}
        want |= {"i_nce_low": read.low, "i_nce_high": read.high}
        for task in ("in_first", "in_second"):
            data = x[:, columns], labels[task], x_test[:, columns], test_labels[task]
            want[f"acc_{task}"] = linear(*data)
            want[f"knn_{task}"] = knn(*data)
            want[f"entropy_{task}"] = entropy(labels[task])
        assert row.pop("i_nce_doubt", "") == read.doubt
        assert row == pytest.approx(want, abs=1e-6)
        assert list(row)[:3] == ["i_nce", "i_nce_low", "i_nce_high"]
        assert (row["acc_in_first"] > 0.95) == (0 in readout)
        assert (row["acc_in_second"] > 0.95) == (1 in readout)
