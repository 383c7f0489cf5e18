"""Logistic regression against scikit-learn, and standardised columns."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synthetic import blobs, generator

from infomin.measure import probe
from infomin.measure.probe import PENALTIES, linear, localisation
from infomin.measure.regression import fit_logistic, predict, standardise


def objective(weights, x, y, penalty):
    """What the linear probe minimises, in numpy."""
    x, weights, y = x.double().numpy(), weights.double().numpy(), y.numpy()
    scores = x @ weights[:, :-1].T + weights[:, -1]
    partition = np.log(np.exp(scores - scores.max(1, keepdims=True)).sum(1)) + scores.max(1)
    cross_entropy = (partition - scores[np.arange(len(y)), y]).mean()
    return cross_entropy + penalty / 2 * (weights[:, :-1] ** 2).sum()


def reference(x, y, penalty):
    """scikit-learn's optimum: its C weighs the sum over images against half the squared weights."""
    model = LogisticRegression(C=1 / (len(x) * penalty), tol=1e-8, solver="newton-cholesky")
    return model.fit(x.double().numpy(), y.numpy())


def correlated(n, classes=4, d=30):
    """Eight directions in many columns: L-BFGS needs hundreds of iterations."""
    z, y = blobs(n, classes, 8, noise=1.0)
    draws = generator(1)
    return z @ torch.randn(8, d, generator=draws) + 0.1 * torch.randn(n, d, generator=draws), y


FEATURES = {
    "3 classes": blobs(60, 3, 4),
    "4 classes": blobs(300, 4, 8),
    "10 classes": blobs(400, 10, 20),
    "separated": blobs(300, 4, 8, noise=0.01),
    "correlated": correlated(200),
}


@pytest.mark.parametrize(("x", "y"), FEATURES.values(), ids=FEATURES)
def test_the_linear_probe_reaches_the_optimum_of_scikit_learn(x, y):
    (x,) = standardise(x)
    ours = torch.zeros(int(y.max()) + 1, x.shape[1] + 1)
    for penalty in sorted(PENALTIES, reverse=True):  # each fit starts from the last, as in `linear`
        ours, theirs = fit_logistic(x, y, penalty, ours), reference(x, y, penalty)
        weights = torch.from_numpy(np.hstack([theirs.coef_, theirs.intercept_[:, None]]))
        best = objective(weights, x, y, penalty)
        assert objective(ours, x, y, penalty) == pytest.approx(best, rel=1e-3)
        agree = predict(ours, x).numpy() == theirs.predict(x.double().numpy())
        assert agree.mean() > 0.98


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


# Standardised columns


def with_column(x, column):
    """Features with one column replaced."""
    return torch.cat([column[:, None].to(x.dtype), x[:, 1:]], 1)


def with_cell(x, value):
    x = x.clone()
    x[3, 0] = value
    return x


ODD = {
    "ordinary": lambda x: x,
    "float64": lambda x: x.double() + 1e9,
    "one cell of 1e7": lambda x: with_cell(x, 1e7),
    "one cell of 1e30": lambda x: with_cell(x, 1e30),
    "a column in other units": lambda x: with_column(x, 1e8 * x[:, 0]),
    "a column of tiny numbers": lambda x: with_column(x, 1e-30 * x[:, 0]),
    "a block at another scale": lambda x: torch.cat([x, 1e4 * x.flip(1)], 1),
    "a column far from 0": lambda x: with_column(x, 1e6 + x[:, 0]),
    "a constant column": lambda x: with_column(x, torch.full((len(x),), 3.7)),
    "a constant column of 1e7": lambda x: with_column(x, torch.full((len(x),), 1e7)),
}
each_oddity = pytest.mark.parametrize("change", ODD.values(), ids=ODD)


@each_oddity
def test_standardised_columns_are_those_of_scikit_learn(change):
    """Each column for itself: none is dropped because of another one."""
    x = change(7 + 30 * torch.randn(200, 5, generator=generator()))
    train, test = x[:150], x[150:]
    scaler = StandardScaler().fit(train.double().numpy())
    for ours, part in zip(standardise(train, test), (train, test), strict=True):
        theirs = scaler.transform(part.double().numpy())
        assert ours.dtype == x.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(standardise(train)[0], standardise(train, test)[0])


@pytest.mark.parametrize("unit", [1e-250, 1e-150, 1e150, 1e250])
def test_the_unit_of_a_column_does_not_matter(unit):
    x = torch.randn(150, 5, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(standardise(unit * x)[0], standardise(x)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [0.0, 3.7, -1e6])
def test_a_column_that_varies_by_rounding_errors_is_constant_and_no_other_is(mean, dtype):
    """In units of the distance between floating-point numbers of that size."""
    spacing = abs(mean) * torch.finfo(dtype).eps
    for steps, kept in ((0, False), (0.1, False), (100, True)):
        x = torch.randn(100, 3, generator=generator(), dtype=dtype)
        x[:, 1] = mean + steps * (spacing or 1e-30) * x[:, 1]
        a, b = standardise(x, torch.randn(20, 3, dtype=dtype))
        is_kept = kept or (mean == 0 and steps > 0)
        assert a[:, 1].any() == b[:, 1].any() == is_kept and a[:, [0, 2]].all()


def test_a_single_row_has_no_deviation():
    assert not standardise(torch.randn(1, 3))[0].any()


@each_oddity
@pytest.mark.parametrize("name", ["linear", "knn", "localisation"])
def test_probes_read_what_those_of_scikit_learn_read(name, change):
    """Also where one number or one column is out of proportion."""
    (x, y), (x_test, y_test) = blobs(200), blobs(500, seed=1)
    both = change(torch.cat([x, x_test]))
    x, x_test = both[:200], both[200:]
    seen, asked = x.double().numpy(), x_test.double().numpy()
    if name == "localisation":
        places, places_test = both[:200, 1:3].float(), both[200:, 1:3].float()
        theirs = make_pipeline(StandardScaler(), Ridge(alpha=200 * 0.1)).fit(seen, places)
        want = np.linalg.norm(theirs.predict(asked) - places_test.numpy(), axis=1).mean()
        got = localisation(x, places, x_test, places_test, penalties=[0.1])
    else:
        model = LogisticRegression(C=1 / (200 * 0.1), tol=1e-6, max_iter=2000)
        if name == "knn":
            model = KNeighborsClassifier(10, metric="cosine", algorithm="brute")
        theirs = make_pipeline(StandardScaler(), model).fit(seen, y.numpy())
        want = theirs.score(asked, y_test.numpy())
        options = {"penalties": [0.1]} if name == "linear" else {}
        got = getattr(probe, name)(x, y, x_test, y_test, **options)
        assert want > 0.4
    assert got == pytest.approx(want, rel=0.01)
