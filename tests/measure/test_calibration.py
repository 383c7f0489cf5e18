"""Pairs have the information that they say, by densities or enumeration of their own."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t, norm

from infomin.measure import calibration
from infomin.measure.calibration import FAMILIES, channel_error, pairs

N = 40_000


def gaussian_nats(x, y):
    """Of the sample's covariance."""
    both = torch.cat([x, y], 1).double().T.cov()
    d = x.shape[1]
    return (both[:d, :d].logdet() + both[d:, d:].logdet() - both.logdet()).item() / 2


def no_spiral(x):
    """Turn back: the angle depends on the length, which turning keeps."""
    angle = -2 * x.norm(dim=1)
    cos, sin = angle.cos(), angle.sin()
    a, b = x[:, 0], x[:, 1]
    return torch.stack([cos * a - sin * b, sin * a + cos * b, x[:, 2]], 1)


BACK = {  # to the Gaussians that a family is made of
    "gaussian": lambda x, y: (x, y),
    "dense": lambda x, y: (x, y),
    "sparse": lambda x, y: (x, y),
    "cubed": lambda x, y: tuple(z.sign() * z.abs() ** (1 / 3) for z in (x, y)),
    "half-cubed": lambda x, y: tuple(z.sign() * z.abs() ** (2 / 3) for z in (x, y)),
    "signed": lambda x, y: (x[:, :4] * x[:, 4:], y),
    "spiral": lambda x, y: (no_spiral(x), no_spiral(y)),
}


@pytest.mark.parametrize("nats", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("family", BACK)
def test_what_can_be_undone_is_gaussian_and_shares_its_nats(family, nats):
    x, y = BACK[family](*pairs(family, N, nats))
    excess = x.shape[1] * y.shape[1] / (2 * N)  # by which a sample's covariance reads too much
    assert gaussian_nats(x, y) - excess == pytest.approx(nats, abs=0.04)


@pytest.mark.parametrize("nats", [0.5, 2.0])
def test_the_density_of_student_s_t_has_the_nats(nats):
    x, y = (part.double().numpy() for part in pairs("student", N, nats))
    f = calibration.FREEDOM
    of_scale = 0.05076  # where neither correlates, see below
    r = math.sqrt(1 - math.exp(-(nats - of_scale)))
    joint = np.block([[np.eye(2), r * np.eye(2)], [r * np.eye(2), np.eye(2)]])
    both = multivariate_t(np.zeros(4), joint, df=f).logpdf(np.concatenate([x, y], 1))
    alone = [multivariate_t(np.zeros(2), np.eye(2), df=f).logpdf(part) for part in (x, y)]
    ratio = both - alone[0] - alone[1]
    assert ratio.mean() == pytest.approx(nats, abs=4 * ratio.std() / math.sqrt(N))
    with pytest.raises(ValueError, match=r"shares 0\.051 nats or more, got 0\.05"):
        pairs("student", 10, 0.05)


@pytest.mark.parametrize("noise", [0.8, 0.4, 0.05])
def test_the_density_of_a_mixture_has_the_nats(noise):
    draws = np.random.default_rng(0)
    x, e = draws.standard_normal((2, 200_000))
    slope = math.sqrt(1 - noise**2)
    y = draws.choice([-slope, slope], len(x)) * x + noise * e
    density = (norm.pdf(y, slope * x, noise) + norm.pdf(y, -slope * x, noise)) / 2
    ratio = np.log(density) - norm.logpdf(y)
    error = 4 * ratio.std() / math.sqrt(len(x))
    assert calibration._mixture_nats(noise) == pytest.approx(ratio.mean(), abs=error)


@pytest.mark.parametrize("nats", [0.5, 2.0, 4.0])
def test_pairs_without_correlation_have_the_noise_of_their_nats(nats):
    x, y = (part.double() for part in pairs("square", N, nats))
    noise = (y - (x.square() - 1) / math.sqrt(2)).std().item()
    assert 2 * calibration._square_nats(noise) == pytest.approx(nats, abs=0.03)
    assert torch.cat([x, y], 1).T.corrcoef()[:2, 2:].abs().max() < 0.03
    x, y = (part.double() for part in pairs("mixture", N, nats))
    noise = calibration._noise(calibration._mixture_nats, nats)
    assert calibration._mixture_nats(noise) == pytest.approx(nats, abs=1e-4)
    left = (y.abs() - math.sqrt(1 - noise**2) * x.abs()).abs()  # the noise where |r x| is larger
    inside = x.abs() > 1
    assert left[inside].square().mean().sqrt().item() == pytest.approx(noise, rel=0.15)
    assert y.std().item() == pytest.approx(1, abs=0.02) and abs((x * y).mean()) < 0.03


def test_the_density_of_a_square_is_that_of_simulation():
    noise, draws = 0.4, np.random.default_rng(0)
    x, others = draws.standard_normal((2, 4000))
    y = (x**2 - 1) / math.sqrt(2) + noise * draws.standard_normal(4000)
    given_all = norm.pdf(y[:, None], (others**2 - 1) / math.sqrt(2), noise).mean(1)
    ratio = norm.logpdf(y, (x**2 - 1) / math.sqrt(2), noise) - np.log(given_all)
    error = 4 * ratio.std() / math.sqrt(4000) + 0.01
    assert calibration._square_nats(noise) == pytest.approx(ratio.mean(), abs=error)


@pytest.mark.parametrize("nats", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize("family", ["codes", "network"])
def test_codes_show_classes_that_went_through_the_channel(family, nats):
    classes, error = calibration.CLASSES, channel_error(nats, calibration.CLASSES)
    joint = np.full((classes, classes), error / (classes - 1) / classes)
    np.fill_diagonal(joint, (1 - error) / classes)
    assert (joint * np.log(joint * classes**2)).sum() == pytest.approx(nats, abs=1e-9)
    # the nearest code of each row: x and y show the classes of codes without noise
    labels = []
    for i, view in enumerate(pairs(family, 2000, nats)):
        table = calibration._fixed(i, classes, calibration.CODE)
        if family == "network":
            first = calibration._fixed(10 + i, calibration.CODE, calibration.CODE)
            second = calibration._fixed(20 + i, calibration.CODE, calibration.CODE)
            table = torch.tanh(table @ first / 8) @ second / 8
        distance = torch.cdist(view.double(), table).sort(1)
        assert (distance.values[:, 0] < distance.values[:, 1]).all()
        labels.append(distance.indices[:, 0])
    wrong = (labels[0] != labels[1]).double().mean().item()
    assert wrong == pytest.approx(error, abs=4 * math.sqrt(0.25 / 2000))


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_those_of_the_seed_and_have_finite_float32_columns(family):
    x, y = pairs(family, 50, 1.0)
    again, other = pairs(family, 50, 1.0), pairs(family, 50, 1.0, seed=1)
    assert x.dtype == y.dtype == torch.float32 and len(x) == len(y) == 50
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert not torch.equal(x, other[0]) and x.isfinite().all() and y.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gauss", 10, 1.0), r"pairs\(family\): got 'gauss', wanted one of gaussian, dense"),
        (("gaussian", 0, 1.0), r"pairs\(n\): got 0"),
        (("gaussian", 10, -1.0), r"pairs\(nats\): got -1.0, wanted a finite number of 0 or more"),
        (("codes", 10, 5.0), "100 classes share 4.605 nats at most"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        pairs(*arguments)
