"""Logistic regression against scikit-learn, and standardised columns."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from synthetic import blobs, generator

from infomin.measure.probe import PENALTIES, linear
from infomin.measure.regression import fit_logistic, standardise


def objective(weights, x, y, penalty):
    """What the linear probe minimises, in numpy."""
    x, weights, y = x.double().numpy(), weights.double().numpy(), y.numpy()
    scores = x @ weights[:, :-1].T + weights[:, -1]
    partition = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    cross_entropy = (partition - scores[np.arange(len(y)), y]).mean()
    return cross_entropy + penalty / 2 * (weights[:, :-1] ** 2).sum()


def reference(x, y, penalty):
    """scikit-learn's optimum: its C weighs the sum over images against half the squared weights."""
    model = LogisticRegression(C=1 / (len(x) * penalty), tol=1e-8, max_iter=2000)
    return model.fit(x.double().numpy(), y.numpy())


@pytest.mark.parametrize(("classes", "d", "n"), [(3, 4, 60), (4, 8, 300), (10, 20, 400)])
def test_the_linear_probe_reaches_the_optimum_of_scikit_learn(classes, d, n):
    x, y = blobs(n, classes, d)
    (x,) = standardise(x)
    ours = torch.zeros(classes, d + 1)
    for penalty in sorted(PENALTIES, reverse=True):  # each fit starts from the last, as in `linear`
        ours, theirs = fit_logistic(x, y, penalty, ours), reference(x, y, penalty)
        weights = torch.from_numpy(np.hstack([theirs.coef_, theirs.intercept_[:, None]]))
        best = objective(weights, x, y, penalty)
        assert objective(ours, x, y, penalty) == pytest.approx(best, abs=1e-4)
        predicted = torch.nn.functional.linear(x, ours[:, :-1], ours[:, -1]).argmax(1).numpy()
        assert (predicted == theirs.predict(x.double().numpy())).mean() > 0.98


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_linear_accuracy_equals_that_of_scikit_learn(penalty):
    (x, y), (x_test, y_test) = blobs(400), blobs(300, seed=1)
    ours = linear(x, y, x_test, y_test, penalties=[penalty])
    theirs = reference(standardise(x)[0], y, penalty)
    standardised = standardise(x, x_test)[1].double().numpy()
    assert ours == pytest.approx(theirs.score(standardised, y_test.numpy()), abs=0.5 / 300)
    predicted = torch.from_numpy(theirs.predict(standardised))
    assert linear(x, y, x_test, predicted, penalties=[penalty]) == 1.0
    assert 0.4 < ours < 0.95  # neither hopeless nor trivial


def test_standardised_columns_have_mean_0_and_deviation_1():
    x, other = 7 + 30 * torch.randn(200, 5), torch.randn(50, 5)
    a, b = standardise(x, other)
    np.testing.assert_allclose(a.mean(0), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(a.std(0), np.ones(5), atol=1e-5)
    # the test set is scaled by the training set alone
    np.testing.assert_allclose(b, (other - x.mean(0)) / x.std(0), atol=1e-5)
    assert torch.equal(standardise(x)[0], a)


@pytest.mark.parametrize(("deviation", "kept"), [(1e-6, False), (1e-5, False), (1e-3, True)])
def test_a_column_that_varies_by_rounding_errors_is_constant(deviation, kept):
    x = torch.randn(100, 3, generator=generator())
    x[:, 1] = 3.7 + deviation * x[:, 1]
    (a,) = standardise(x)
    assert a[:, 1].any() == kept and a[:, [0, 2]].all()


@pytest.mark.parametrize("value", [0.0, 3.7, -1e4])
def test_a_column_that_is_constant_in_training_becomes_zero_everywhere(value):
    x = torch.randn(100, 3)
    x[:, 1] = value
    for part in standardise(x, torch.randn(20, 3)):
        assert not part[:, 1].any() and part[:, [0, 2]].all()
    for part in standardise(torch.full((100, 3), value), torch.randn(20, 3)):
        assert not part.any()
