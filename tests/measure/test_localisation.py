"""Positions read off features: ridge regression against scikit-learn, and its number in a row."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from infomin.measure import probe, regression
from infomin.training.step import Learner
from infomin.views import ColorSplit

torch.set_num_threads(1)


def features(n=300, d=12, noise=0.0, seed=0):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=draws) * torch.linspace(0.1, 10, d) + 3
    places = x @ torch.randn(d, 2, generator=draws) + 5 + noise * torch.randn(n, 2, generator=draws)
    return x[: n // 2], places[: n // 2], x[n // 2 :], places[n // 2 :]


def test_positions_that_are_linear_in_the_features_are_found():
    assert probe.localisation(*features(), penalties=[1e-9]) < 1e-3


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_regression_equals_that_of_scikit_learn(penalty):
    x, y, x_test, y_test = features(noise=2.0)
    a, b = regression.standardise(x, x_test)
    theirs = Ridge(alpha=penalty * len(x)).fit(a.double().numpy(), y.double().numpy())
    errors = theirs.predict(b.double().numpy()) - y_test.double().numpy()
    want = np.linalg.norm(errors, axis=1).mean()
    ours = probe.localisation(x, y, x_test, y_test, penalties=[penalty])
    assert ours == pytest.approx(want, rel=1e-6)


def test_the_penalty_is_chosen_on_the_last_fifth_of_training_and_not_on_the_test():
    x, y, x_test, y_test = features(noise=2.0)
    cut = len(x) * 4 // 5
    y = y.clone()
    y[:cut] = torch.randn(cut, 2, generator=torch.Generator().manual_seed(1))  # nothing to learn
    by_penalty = {p: probe.localisation(x, y, x_test, y_test, penalties=[p]) for p in (1e-6, 1e3)}
    assert by_penalty[1e-6] != by_penalty[1e3]
    a = regression.standardise(x)[0]
    held_out = {
        p: regression.ridge_distance(a[:cut], y[:cut], a[cut:], y[cut:], p) for p in by_penalty
    }
    best = min(held_out, key=held_out.get)
    assert probe.localisation(x, y, x_test, y_test, penalties=[1e-6, 1e3]) == by_penalty[best]


def test_constant_features_give_the_distance_to_the_mean():
    x, y, x_test, y_test = features()
    want = (y_test - y.mean(0)).norm(dim=1).mean().item()
    distance = probe.localisation(torch.ones_like(x), y, torch.ones_like(x_test), y_test)
    assert distance == pytest.approx(want, rel=1e-5)


class Means(Learner):
    """A method whose features are the means over pixels."""

    def features(self, views):
        return tuple(v.mean((2, 3)) for v in views)


def test_a_row_has_pixels_for_positions_and_accuracy_for_classes():
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(200, 3, 8, 8, generator=draws)
    labels = {"class": torch.arange(200) % 2, "place": inputs.mean((2, 3))[:, :2] * 100}
    train = inputs[:100], {task: values[:100] for task, values in labels.items()}
    test = inputs[100:], {task: values[100:] for task, values in labels.items()}
    view = ColorSplit("rgb", "0-12")
    row = probe.evaluate(Means(), view, train, test, readout=(0, 1), candidates=50)
    assert row["px_place"] < 0.5 and "acc_place" not in row and "knn_place" not in row
    assert {"acc_class", "knn_class"} <= set(row)
