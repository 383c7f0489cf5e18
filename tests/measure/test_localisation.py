"""Where something is, read off features: ridge regression against scikit-learn's, and what a row says of it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from infomin.measure import probe, regression
from infomin.views import ColorSplit

torch.set_num_threads(1)


def features(n=300, d=12, noise=0.0, seed=0):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=draws) * torch.linspace(0.1, 10, d) + 3
    places = x @ torch.randn(d, 2, generator=draws) + 5 + noise * torch.randn(n, 2, generator=draws)
    return x[: n // 2], places[: n // 2], x[n // 2 :], places[n // 2 :]


def test_places_that_are_linear_in_the_features_are_found():
    assert probe.localisation(*features(), penalties=[1e-9]) < 1e-3


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_the_regression_is_scikit_learn_s(penalty):
    x, y, x_test, y_test = features(noise=2.0)
    a, b = probe.standardise(x, x_test)
    twin = Ridge(alpha=penalty * len(x)).fit(a.double().numpy(), y.double().numpy())
    want = np.linalg.norm(twin.predict(b.double().numpy()) - y_test.double().numpy(), axis=1).mean()
    assert probe.localisation(x, y, x_test, y_test, penalties=[penalty]) == pytest.approx(
        want, rel=1e-6
    )


def test_the_penalty_is_chosen_on_the_last_fifth_of_training_and_not_on_the_test():
    x, y, x_test, y_test = features(noise=2.0)
    y = y.clone()
    y[: len(y) * 4 // 5] = torch.randn(
        len(y) * 4 // 5, 2, generator=torch.Generator().manual_seed(1)
    )  # nothing to learn there
    each = {p: probe.localisation(x, y, x_test, y_test, penalties=[p]) for p in (1e-6, 1e3)}
    cut = len(x) * 4 // 5
    a = probe.standardise(x)[0]
    held = {p: regression.ridge_distance(a[:cut], y[:cut], a[cut:], y[cut:], p) for p in each}
    assert each[1e-6] != each[1e3]
    assert (
        probe.localisation(x, y, x_test, y_test, penalties=list(each))
        == each[min(held, key=held.get)]
    )


def test_features_that_say_nothing_give_the_distance_to_the_mean():
    x, y, x_test, y_test = features()
    want = (y_test - y.mean(0)).norm(dim=1).mean().item()
    assert probe.localisation(
        torch.ones_like(x), y, torch.ones_like(x_test), y_test
    ) == pytest.approx(want, rel=1e-5)


class Means(torch.nn.Module):
    """A method whose features are what it is given, averaged."""

    def features(self, views):
        return tuple(v.mean((2, 3)) for v in views)


def test_a_row_has_pixels_for_places_and_accuracy_for_classes():
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(200, 3, 8, 8, generator=draws)
    labels = {"class": torch.arange(200) % 2, "place": inputs.mean((2, 3))[:, :2] * 100}
    half = ({k: v[:100] for k, v in labels.items()}, {k: v[100:] for k, v in labels.items()})
    train, test = (inputs[:100], half[0]), (inputs[100:], half[1])
    row = probe.evaluate(
        Means(), ColorSplit("rgb", "0-12"), train, test, readout=(0, 1), candidates=50
    )
    assert (
        row["px_place"] < 0.5
        and "acc_place" not in row
        and "knn_place" not in row
        and {"acc_class", "knn_class"} <= set(row)
    )
