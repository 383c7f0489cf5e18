"""What a representation is worth, measured on frozen features.

A linear probe, nearest neighbours, a ridge regression for coordinates, and the nats that the views
share. All are computed without autocast; float32 products are rounded as the caller's
`torch.set_float32_matmul_precision` says, and in a run not at all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from types import MappingProxyType
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..common import checks
from ..common.files import Row
from ..common.precision import autocast, no_autocast
from ..common.seeds import seeded_draws
from ..training.step import Learner
from .critics import unit_rows
from .estimator import nats
from .regression import fit_logistic, predict, ridge_distance, standardise

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # weight decays that the probes choose from
NEIGHBOURS = 10
PROTOCOL = (
    "linear: LBFGS, converged, standardised, penalty chosen on 1/5 of train; "
    f"knn: cosine, {NEIGHBOURS}; "
    "nats: two Gaussian critics and a network, weighed on held-out pairs, "
    "augmentations drawn anew for test"
)


class Inputs(Protocol):
    """The inputs of a view: anything with `len` and slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> object: ...


# (inputs of the view `[N]`, labels `[N]` by task)
Labelled: TypeAlias = tuple[Inputs, Mapping[str, Tensor]]


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
        seed: seed of the views' random draws, with or without the generator; use the same one for
            all runs you compare.
        precision: `fp32` or `bf16`, as in training.
        batch: images per forward pass.
        draw: True augments the images as in training; False shows them whole.

    Returns:
        one float32 `[N, D]` per view.

    Raises:
        FloatingPointError: a feature is NaN or Inf, for example after too large a last step.
        TypeError: the method returns something else than one `[B, ...]` for each view.
        ValueError: no image, or an unknown precision.
    """
    checks.check_choice(precision, ("fp32", "bf16"), "features: precision")
    if not len(inputs):
        raise ValueError("features: need at least one image, got none; skip empty sets")
    device = next((parameter.device for parameter in method.parameters()), "cpu")
    modes = [(module, module.training) for module in (*method.modules(), *view.modules())]
    method.eval()
    view.train(draw)
    batches: list[list[Tensor]] = []
    try:
        for start in range(0, len(inputs), batch):
            with seeded_draws(device, seed, "probe", start) as generator:
                views = view(inputs[start : start + batch], generator)
            views = [v.contiguous(memory_format=torch.channels_last) for v in views]
            with autocast(views[0].device.type, precision):
                features = _check_features_of(views, method.features(views))
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


def _check_features_of(views: Sequence[Tensor], features: object) -> Sequence[Tensor]:
    """Return what a method made of views: features of each image, for each view."""
    wanted = [len(view) for view in views]
    got: object = type(features).__name__
    if isinstance(features, tuple | list):
        got = [list(h.shape) if isinstance(h, Tensor) else type(h).__name__ for h in features]
        rows = [h.shape[0] for h in features if isinstance(h, Tensor) and h.dim() > 1]
        floats = all(isinstance(h, Tensor) and h.is_floating_point() for h in features)
        if rows == wanted and floats:
            return features
    raise TypeError(
        f"features: got {got} of {len(views)} views, wanted a tuple of floats [B, D], one for "
        "each view; return what the encoders return"
    )


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
        labels: training classes `[N]`, whole numbers of 0 or more, with gaps or without.
        test: test features `[M, D]`.
        test_labels: test classes `[M]`; a class without training images always counts as an error.
        penalties: candidate factors, above 0, on half the sum of squared weights, added to the mean
            loss.

    Raises:
        TypeError, ValueError: features or labels of the wrong type, shape, range or number.
    """
    train, labels, test, test_labels = checks.check_probe_inputs(
        "probe.linear", checks.check_classes, train, labels, test, test_labels, least=5
    )
    penalties = _strong_to_weak(penalties, "probe.linear(penalties)")
    with torch.inference_mode(False):  # autograd saves what is made here
        train, test = standardise(train, test)
        classes, targets = labels.unique(return_inverse=True)
        weights = train.new_zeros(len(classes), train.shape[1] + 1)
    cut = len(train) * 4 // 5
    fits = []
    # Each fit starts from the weights of the one before.
    for penalty in penalties:
        weights = fit_logistic(train[:cut], targets[:cut], penalty, weights)
        held_out = _accuracy(predict(weights, train[cut:]), targets[cut:])
        fits.append((held_out, penalty, weights))
    _, penalty, weights = max(fits, key=itemgetter(0))
    weights = fit_logistic(train, targets, penalty, weights)
    return _accuracy(classes[predict(weights, test)], test_labels)


def _strong_to_weak(penalties: Sequence[float], what: str) -> list[float]:
    values = list(penalties) if isinstance(penalties, Iterable) else []
    if not values:
        raise ValueError(f"{what}: got {penalties!r}, wanted one or more numbers above 0")
    return sorted((checks.check_positive(value, what) for value in values), reverse=True)


def _accuracy(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels).double().mean().item()


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
    checks.check_type(neighbours, int, "probe.knn(neighbours)")
    checks.check_positive(neighbours, "probe.knn(neighbours)")
    train, labels, test, test_labels = checks.check_probe_inputs(
        "probe.knn", checks.check_classes, train, labels, test, test_labels
    )
    return _accuracy(_vote(labels[nearest_rows(train, test, neighbours)]), test_labels)


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
    train, test = unit_rows(train), unit_rows(test)
    k = min(neighbours, len(train))
    with no_autocast(train.device.type):
        nearest = [(block @ train.T).topk(k).indices for block in test.split(1024)]
    return torch.cat(nearest)


def _vote(labels: Tensor) -> Tensor:
    """The most frequent label of each row, `[M, k]` -> `[M]`; of several, the smallest."""
    return labels.cpu().mode(1).values.to(labels.device)  # on a GPU, any of several


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
        penalties: candidate factors on the squared weights, in units of the features' variance,
            above 0.

    Raises:
        TypeError, ValueError: features or positions of the wrong type, shape or number.
    """
    train, places, test, test_places = checks.check_probe_inputs(
        "probe.localisation", checks.check_features, train, places, test, test_places, least=5
    )
    penalties = _strong_to_weak(penalties, "probe.localisation(penalties)")
    train, test = standardise(train, test)
    cut = len(train) * 4 // 5

    def held_out_distance(penalty: float) -> float:
        return ridge_distance(train[:cut], places[:cut], train[cut:], places[cut:], penalty)

    penalty = min(penalties, key=held_out_distance)
    return ridge_distance(train, places, test, test_places, penalty)


def entropy(labels: Tensor) -> float:
    """H(y) in nats of classes `[N]`, whole numbers of 0 or more, from their frequencies.

    Raises:
        TypeError, ValueError: labels of another type, shape or range, or none.

    >>> round(entropy(torch.arange(10)), 3)
    2.303
    """
    labels = checks.check_classes(labels, "probe.entropy", "labels")
    if not len(labels):
        raise ValueError("probe.entropy: need at least one label, got none; skip empty sets")
    share = labels.unique(return_counts=True)[1].double() / len(labels)
    return float(-torch.xlogy(share, share).sum())


def evaluate(
    method: Learner,
    view: nn.Module,
    train: Labelled,
    test: Labelled,
    *,
    readout: Sequence[int],
    beside: Mapping[str, Sequence[int]] = MappingProxyType({}),
    augments: bool = False,
    candidates: int,
    precision: str = "fp32",
    bar: bool = False,
) -> Row:
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
        `i_nce` (nats) of held-out pairs, by critics fitted on features, which is another number
        than the `i_nce` that training logs of its batches; `i_nce_low` and `i_nce_high`, its
        interval of 95 %; `i_nce_doubt`, in words, where that value says little; `candidates` and
        `ceiling` (nats). For each task with classes `acc_TASK`,
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

        # Another seed for the test: the critic would recognise draws of its training.
        plain, plain_test = extract(train[0], seed=0), extract(test[0], seed=1)
        drawn, drawn_test = plain, plain_test
        if augments:
            drawn = extract(train[0], seed=0, draw=True)
            drawn_test = extract(test[0], seed=1, draw=True)
        i_nce = nats(drawn, drawn_test, candidates=candidates)
        row: Row = {"i_nce": i_nce.value, "i_nce_low": i_nce.low, "i_nce_high": i_nce.high}
        row |= {"candidates": candidates, "ceiling": i_nce.ceiling}
        if i_nce.doubt:
            row["i_nce_doubt"] = i_nce.doubt
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
        "knn": _accuracy(_vote(labels[neighbours()]), labels_test),
        "entropy": entropy(labels),
    }
