"""What a representation is worth, measured on frozen features.

A linear probe, nearest neighbours, a ridge regression for coordinates, and the nats that the views
share.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from types import MappingProxyType
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..common import checks
from ..common.precision import autocast, no_autocast
from ..common.seeds import seeded_generator
from ..training.step import Learner
from .estimator import CRITIC_BATCH, CRITIC_STEPS, nats
from .regression import accuracy, fit_logistic, ridge_distance, standardise

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # weight decays that the probes choose from
NEIGHBOURS = 10
PROTOCOL = (
    "linear: LBFGS, standardised, penalty chosen on 1/5 of train; "
    f"knn: cosine, {NEIGHBOURS}; "
    f"nats: separable critic, {CRITIC_STEPS} steps of {CRITIC_BATCH} for 4096 pairs, "
    "augmentations drawn anew for test"
)


class Inputs(Protocol):
    """The inputs of a view: anything with `len` and slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> object: ...


# (inputs of the view `[N]`, labels `[N]` by task)
Part: TypeAlias = tuple[Inputs, Mapping[str, Tensor]]


@torch.no_grad()
def extract_features(
    method: Learner,
    view: nn.Module,
    inputs: Inputs,
    *,
    seed: int = 0,
    precision: str = "fp32",
    batch: int = 512,
    draw: bool = False,
) -> list[Tensor]:
    """Extract the features of every view, with the method in eval mode.

    Args:
        method: run in eval mode; its mode is restored afterwards.
        view: `(batch, generator) -> (v1, v2, …)`.
        inputs: the view's inputs, N of them.
        seed: seed of the views' random draws; use the same one for all runs you compare.
        precision: `fp32` or `bf16`, as in training.
        batch: images per forward pass.
        draw: True augments the images as in training; False shows them whole.

    Returns:
        one float32 `[N, D]` per view.

    Raises:
        FloatingPointError: a feature is NaN or Inf, for example after too large a last step.
    """
    modes = [(module, module.training) for module in (*method.modules(), *view.modules())]
    method.eval()
    view.train(draw)
    batches: list[list[Tensor]] = []
    try:
        for start in range(0, len(inputs), batch):
            views = view(inputs[start : start + batch], seeded_generator(seed, "probe", start))
            views = [v.contiguous(memory_format=torch.channels_last) for v in views]
            with autocast(views[0].device.type, precision):
                features = method.features(views)
                batches.append([h.flatten(1).float() for h in features])
    finally:
        for module, mode in modes:
            module.training = mode
    columns = [torch.cat(parts) for parts in zip(*batches, strict=True)]
    if not all(column.isfinite().all() for column in columns):
        raise FloatingPointError(
            "features: got NaN or Inf from the encoders, wanted finite numbers; "
            "lower the learning rate"
        )
    return columns


def linear(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Accuracy (0..1) of a linear probe.

    Multinomial logistic regression by L-BFGS on standardised features. The penalty is chosen on the
    last fifth of the training set; the probe is then fitted to the whole training set.

    Args:
        train: training features `[N, D]` in random order; N is 5 or more.
        labels: training classes `[N]`, whole numbers of 0 or more.
        test: test features `[M, D]`.
        test_labels: test classes `[M]`; a class without training images always counts as an error.
        penalties: candidate factors on half the sum of squared weights, added to the mean loss.

    Raises:
        TypeError, ValueError: features or labels of the wrong type, shape, range or number.
    """
    train, labels, test, test_labels = checks.check_probe_inputs(
        "probe.linear", checks.check_classes, train, labels, test, test_labels, least=5
    )
    train, test = standardise(train, test)
    classes, cut = int(labels.max()) + 1, len(train) * 4 // 5
    weights = train.new_zeros(classes, train.shape[1] + 1)
    fits = []
    # From strong to weak, each fit starting from the weights of the one before.
    for penalty in sorted(penalties, reverse=True):
        weights = fit_logistic(train[:cut], labels[:cut], penalty, weights)
        fits.append((accuracy(weights, train[cut:], labels[cut:]), penalty, weights))
    _, penalty, weights = max(fits, key=itemgetter(0))
    return accuracy(fit_logistic(train, labels, penalty, weights), test, test_labels)


def knn(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, neighbours: int = NEIGHBOURS
) -> float:
    """Accuracy (0..1) of k-nearest-neighbour classification by cosine similarity.

    Args:
        train: training features `[N, D]`.
        labels: training classes `[N]`, whole numbers of 0 or more.
        test: test features `[M, D]`.
        test_labels: test classes `[M]`.
        neighbours: k; all N vote if there are fewer.

    Raises:
        TypeError, ValueError: features or labels of the wrong type, shape, range or number.
    """
    checks.check_positive(neighbours, "probe.knn(neighbours)")
    train, labels, test, test_labels = checks.check_probe_inputs(
        "probe.knn", checks.check_classes, train, labels, test, test_labels
    )
    return _majority_accuracy(labels[nearest_rows(train, test, neighbours)], test_labels)


def nearest_rows(train: Tensor, test: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """The training rows nearest to each test row, by cosine similarity of standardised features.

    Args:
        train: training features `[N, D]`.
        test: test features `[M, D]`.
        neighbours: k.

    Returns:
        long `[M, min(k, N)]`.
    """
    train, test = standardise(train, test)
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    k = min(neighbours, len(train))
    with no_autocast(train.device.type):
        nearest = [(block @ train.T).topk(k).indices for block in test.split(1024)]
    return torch.cat(nearest)


def _majority_accuracy(neighbour_labels: Tensor, test_labels: Tensor) -> float:
    """Accuracy of majority votes: labels of the neighbours `[M, k]`, test labels `[M]`."""
    votes = neighbour_labels.new_zeros(len(neighbour_labels), int(neighbour_labels.max()) + 1)
    votes.scatter_add_(1, neighbour_labels, torch.ones_like(neighbour_labels))
    return (votes.argmax(1) == test_labels).double().mean().item()


def localisation(
    train: Tensor,
    places: Tensor,
    test: Tensor,
    test_places: Tensor,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Mean distance in pixels between true positions and those predicted from features.

    Ridge regression on standardised features. The penalty is chosen on the last fifth of the
    training set; the regression is then fitted to the whole training set.

    Args:
        train: training features `[N, D]` in random order; N is 5 or more.
        places: training positions `[N, P]`, in pixels along each axis.
        test: test features `[M, D]`.
        test_places: test positions `[M, P]`, in pixels.
        penalties: candidate factors on the squared weights, in units of the features' variance.

    Raises:
        TypeError, ValueError: features or positions of the wrong type, shape or number.
    """
    train, places, test, test_places = checks.check_probe_inputs(
        "probe.localisation", checks.check_features, train, places, test, test_places, least=5
    )
    train, test = standardise(train, test)
    cut = len(train) * 4 // 5

    def held_out_distance(penalty: float) -> float:
        return ridge_distance(train[:cut], places[:cut], train[cut:], places[cut:], penalty)

    penalty = min(penalties, key=held_out_distance)
    return ridge_distance(train, places, test, test_places, penalty)


def entropy(labels: Tensor) -> float:
    """H(y) in nats of labels, long `[N]`, from their frequencies.

    >>> round(entropy(torch.arange(10)), 3)
    2.303
    """
    share = labels.bincount().double() / len(labels)
    return float(-torch.xlogy(share, share).sum())


def evaluate(
    method: Learner,
    view: nn.Module,
    train: Part,
    test: Part,
    *,
    readout: Sequence[int],
    beside: Mapping[str, Sequence[int]] = MappingProxyType({}),
    augments: bool = False,
    candidates: int,
    precision: str = "fp32",
    bar: bool = False,
) -> dict[str, float]:
    """Every number that a row reports about a trained method.

    I_NCE is measured on views as in training; the probes read features of unaugmented images.

    Args:
        method: the trained method.
        view: `(batch, generator) -> (v1, v2, …)`.
        train: training set: (inputs of the view, labels by task).
        test: test set, likewise.
        readout: indices of the views whose features, concatenated, the probes read.
        beside: further views to probe, by the name appended to the task's, as in `acc_digit_past`.
        augments: whether the view is drawn at random in training and shows the whole input in eval
            mode.
        candidates: K of the held-out I_NCE.
        precision: `fp32` or `bf16`, as in training.
        bar: show progress and the time left.

    Returns:
        `i_nce` (nats), `candidates` and `ceiling` (nats). For each task with classes `acc_TASK`,
        `knn_TASK` (0..1; left out if there is a single class) and `entropy_TASK` (H(y), nats); for
        each task with coordinates `px_TASK` (pixels).
    """
    readouts = {"": readout, **beside}
    parts = (5 if augments else 3) + len(readouts) * len(train[1])
    with tqdm(total=parts, desc="probe", unit="part", disable=not bar) as progress:

        def extract(inputs: Inputs, seed: int = 0, draw: bool = False) -> list[Tensor]:
            features = extract_features(
                method, view, inputs, seed=seed, precision=precision, draw=draw
            )
            progress.update()
            return features

        plain, plain_test = extract(train[0]), extract(test[0])
        drawn, drawn_test = plain, plain_test
        if augments:
            # Another seed for the test views: the critic would recognise draws of its training.
            drawn = extract(train[0], seed=0, draw=True)
            drawn_test = extract(test[0], seed=1, draw=True)
        row: dict[str, float] = {
            "i_nce": nats(drawn, drawn_test, candidates=candidates),
            "candidates": candidates,
            "ceiling": math.log(candidates),
        }
        progress.update()
        for name, views in readouts.items():
            distinct = _distinct(views, plain)
            x = torch.cat([plain[i] for i in distinct], 1)
            x_test = torch.cat([plain_test[i] for i in distinct], 1)
            neighbours = cache(partial(nearest_rows, x, x_test))  # found once, for all tasks
            for task, labels in train[1].items():
                scores = _score(x, labels, x_test, test[1][task], neighbours)
                suffix = f"{task}_{name}" if name else task
                row |= {f"{measure}_{suffix}": value for measure, value in scores.items()}
                progress.update()
    return row


def _distinct(views: Sequence[int], features: Sequence[Tensor]) -> list[int]:
    """The views whose features differ: unaugmented, two crops are the same image twice."""
    distinct: list[int] = []
    for i in views:
        if not any(torch.equal(features[i], features[j]) for j in distinct):
            distinct.append(i)
    return distinct


def _score(
    x: Tensor,
    labels: Tensor,
    x_test: Tensor,
    labels_test: Tensor,
    neighbours: Callable[[], Tensor],
) -> dict[str, float]:
    """The scores of one task; `neighbours()` returns the nearest training rows of each test row."""
    if labels.is_floating_point():
        return {"px": localisation(x, labels, x_test, labels_test)}
    if (labels == labels[0]).all():
        return {"entropy": 0.0}
    return {
        "acc": linear(x, labels, x_test, labels_test),
        "knn": _majority_accuracy(labels[neighbours()], labels_test),
        "entropy": entropy(labels),
    }
