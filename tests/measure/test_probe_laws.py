"""Laws of all measures: what may not depend on the test set, and on how classes are numbered."""

import math

import pytest
import torch
from synthetic import blobs, codes, generator

from infomin.measure import probe
from infomin.measure.estimator import nats
from infomin.measure.probe import entropy, knn, linear, localisation

PENALTIES = (10.0, 1e-2)


def shifted_test(targets):
    """Training and test sets of other statistics; the penalties predict differently."""
    draws = generator(3)
    y = torch.randint(3, (60,), generator=draws)
    scale, direction = torch.linspace(0.5, 2, 20), torch.linspace(-0.5, 0.5, 20)
    x = y[:, None] * direction + scale * torch.randn(60, 20, generator=draws)
    x[40:] = 2 * x[40:] + 1
    values = y if targets == "classes" else torch.randn(60, 2, generator=draws) + y[:, None]
    return x[:40], values[:40], x[40:], values[40:]


READ = {
    "linear": (linear, "classes", {"penalties": PENALTIES}),
    "knn": (knn, "classes", {}),
    "localisation": (localisation, "places", {"penalties": PENALTIES}),
}


@pytest.mark.parametrize("name", READ)
def test_a_test_image_is_read_alike_alone_and_among_others(name):
    """So neither the columns' scale nor the penalty is chosen on the test set."""
    measure, targets, options = READ[name]
    train, y, test, y_test = shifted_test(targets)

    def read_alone(**options):
        return [measure(train, y, test[i, None], y_test[i, None], **options) for i in range(20)]

    together = measure(train, y, test, y_test, **options)
    assert together == pytest.approx(sum(read_alone(**options)) / 20, rel=1e-5)
    if options:  # a choice on the test would be better for one image than for all
        a, b = [torch.tensor(read_alone(penalties=[penalty])) for penalty in PENALTIES]
        assert (a > b).any() and (a < b).any()


def test_a_block_of_test_pairs_is_read_alike_alone_and_beside_others(quick_critic):
    train, pairs = codes(1024, 0), codes(128, 1)
    moved = [3 * x + 5 for x in codes(128, 2)]
    alone = [nats(train, part, candidates=128).parts for part in (pairs, moved)]
    both = [torch.cat(part) for part in zip(pairs, moved, strict=True)]
    for name, value in nats(train, both, candidates=128).parts.items():
        assert value == pytest.approx((alone[0][name] + alone[1][name]) / 2, abs=1e-5)


@pytest.mark.parametrize("number", [lambda y: 7 * y + 5, lambda y: 2**40 * (y + 1)])
def test_how_classes_are_numbered_makes_no_difference(number):
    """With gaps, and with numbers that no table could be as long as."""
    (x, y), (x_test, y_test) = blobs(200), blobs(200, seed=1)
    for measure in (linear, knn):
        want = measure(x, y, x_test, y_test)
        assert measure(x, number(y), x_test, number(y_test)) == want
        unseen = torch.where(y_test == 0, number(y_test) + 1, number(y_test))
        is_unseen = (y_test == 0).double().mean().item()
        assert measure(x, number(y), x_test, unseen) <= min(want, 1 - is_unseen)
    assert entropy(number(y)) == entropy(y)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_among_equally_frequent_neighbours_the_smallest_class_wins(k):
    labels = torch.randint(4, (300, k), generator=generator()) * 3
    slow = [min(set(row), key=lambda c: (-row.count(c), c)) for row in labels.tolist()]
    assert probe._vote(labels).tolist() == slow


def test_a_single_class_is_read():
    x, _ = blobs(20)
    y = torch.full((20,), 3)
    assert linear(x, y, x, y) == knn(x, y, x, y) == 1.0 and entropy(y) == 0
    assert math.isclose(linear(x, y, x, y + 1), 0)
