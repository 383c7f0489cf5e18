"""What a representation is worth: linear probe, nearest neighbours, and the nats its views share, all on frozen features."""

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
from ..common.precision import autocast, full_precision
from ..common.seeds import seeded_generator
from ..training.step import Learner
from .estimator import CRITIC_BATCH, CRITIC_STEPS, nats
from .regression import accuracy, fit_logistic, ridge_distance, standardise

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # weight decays that the linear probe chooses from
NEIGHBOURS = 10
PROTOCOL = (
    f"linear: LBFGS, standardised, penalty chosen on 1/5 of train; knn: cosine, {NEIGHBOURS}; nats: separable critic, "
    f"{CRITIC_STEPS} steps of {CRITIC_BATCH} for 4096 pairs, augmentations drawn anew for test"
)


class Inputs(Protocol):
    """A data set of what a view takes: `len` and slices."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> object: ...


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
    """Features of every view, with the method in eval mode.

    Args:
        method: its mode is restored afterwards.
        view: `(batch, generator) -> (v1, v2, …)`.
        inputs: `[N]` of what the view takes.
        seed: of the views' random draws; the same for all runs that are compared.
        precision: `fp32` or `bf16`, as in training.
        batch: images at a time.
        draw: whether augmentations are drawn, as in training; otherwise they leave images as they
            are.

    Returns:
        one float32 `[N, D]` a view.

    Raises:
        FloatingPointError: a feature is NaN or Inf, as after a last step that was too large.
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
            "features: got NaN or Inf from the encoders, wanted numbers; lower the learning rate"
        )
    return columns


def linear(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Accuracy (0..1) of a linear probe: multinomial logistic regression by LBFGS on standardised features.

    The penalty is the one that does best on the last fifth of the training set; the probe is then fitted to all of it.

    Args:
        train: `[N, D]` in random order, at least 5; labels: whole numbers `[N]`, 0 or more.
        test: `[M, D]`; test_labels: whole numbers `[M]`; classes that training lacks count as errors.
        penalties: candidates for the factor on the squared weights, half of it per image as in ridge regression.

    Raises:
        TypeError, ValueError: features or labels are of another type, shape or range, or not as many.
    """
    train, labels, test, test_labels = checks.check_probe_inputs(
        "probe.linear", checks.check_classes, train, labels, test, test_labels, least=5
    )
    train, test = standardise(train, test)
    classes, cut = int(labels.max()) + 1, len(train) * 4 // 5
    weights = train.new_zeros(classes, train.shape[1] + 1)
    fits = []
    for penalty in sorted(
        penalties, reverse=True
    ):  # from stiff to loose, each starting where the last one ended
        weights = fit_logistic(train[:cut], labels[:cut], penalty, weights)
        fits.append((accuracy(weights, train[cut:], labels[cut:]), penalty, weights))
    _, penalty, weights = max(fits, key=itemgetter(0))
    return accuracy(fit_logistic(train, labels, penalty, weights), test, test_labels)


def knn(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, neighbours: int = NEIGHBOURS
) -> float:
    """Accuracy (0..1) of the majority among the nearest neighbours by cosine similarity; arguments and errors as in `linear`."""
    checks.check_positive(neighbours, "probe.knn(neighbours)")
    train, labels, test, test_labels = checks.check_probe_inputs(
        "probe.knn", checks.check_classes, train, labels, test, test_labels
    )
    return _majority(labels[nearest_rows(train, test, neighbours)], test_labels)


def nearest_rows(train: Tensor, test: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Rows of the training set nearest to each test image by cosine of standardised features, long `[M, min(neighbours, N)]`."""
    train, test = (F.normalize(x, dim=1) for x in standardise(train, test))
    with full_precision(train.device.type):
        return torch.cat(
            [
                (part @ train.T).topk(min(neighbours, len(train))).indices
                for part in test.split(1024)
            ]
        )


def _majority(found: Tensor, test_labels: Tensor) -> float:
    votes = found.new_zeros(len(found), int(found.max()) + 1).scatter_add_(
        1, found, torch.ones_like(found)
    )
    return (votes.argmax(1) == test_labels).double().mean().item()


def localisation(
    train: Tensor,
    places: Tensor,
    test: Tensor,
    test_places: Tensor,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Mean distance in pixels between true places and those that ridge regression reads off standardised features.

    The penalty is the one that does best on the last fifth of the training set; the regression is then fitted to all of it.

    Args:
        train: `[N, D]` in random order, at least 5; places: `[N, P]`, pixels along each axis.
        test: `[M, D]`; test_places: `[M, P]`.
        penalties: candidates for the factor on the squared weights, in units of the features' variance.

    Raises:
        TypeError, ValueError: features or places are of another type or shape, or not as many.
    """
    train, places, test, test_places = checks.check_probe_inputs(
        "probe.localisation", checks.check_features, train, places, test, test_places, least=5
    )
    train, test = standardise(train, test)
    cut = len(train) * 4 // 5
    halves = train[:cut], places[:cut], train[cut:], places[cut:]
    return ridge_distance(
        train,
        places,
        test,
        test_places,
        min(penalties, key=lambda penalty: ridge_distance(*halves, penalty)),
    )


def entropy(labels: Tensor) -> float:
    """H(y) in nats of long labels `[N]`, from their frequencies.

    >>> round(entropy(torch.arange(10)), 3)
    2.303
    """
    share = labels.bincount().double() / len(labels)
    return float(-torch.xlogy(share, share).sum())


Part: TypeAlias = tuple[
    Inputs, Mapping[str, Tensor]
]  # inputs `[N]` of the view, task -> labels `[N]`


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
    """Everything that a row says of a trained method.

    I_NCE is measured on views as they are drawn in training, accuracy on features of images that
    are not augmented.

    Args:
        train, test: (inputs of the view, task -> labels).
        readout: the views whose features the linear probe and the neighbours read, concatenated.
        beside: name -> other views to read as well; the name follows that of the task, as in
            `acc_digit_past`.
        augments: whether the view is drawn at random in training and shows the whole input in eval
            mode.
        candidates: K of the held-out I_NCE.
        bar: show progress and the time left.

    Returns:
        `i_nce` (nats), `candidates`, `ceiling` (nats), and by task `acc_TASK`, `knn_TASK` (0..1; not
        where there is a single class) and `entropy_TASK` (H(y), nats); for a task whose labels are
        coordinates `px_TASK` (pixels) instead.
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
        if augments:  # with other draws for the test: the critic would know equal ones
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
            neighbours = cache(partial(nearest_rows, x, x_test))  # the same for all tasks
            for task, labels in train[1].items():
                scores = _score(x, labels, x_test, test[1][task], neighbours)
                ending = f"{task}_{name}" if name else task
                row |= {f"{measure}_{ending}": value for measure, value in scores.items()}
                progress.update()
    return row


def _distinct(views: Sequence[int], features: Sequence[Tensor]) -> list[int]:
    """Views with features of their own: two crops that are not drawn are the same image twice."""
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
    """What features tell about one task; `neighbours` gives each test image's nearest rows."""
    if labels.is_floating_point():
        return {"px": localisation(x, labels, x_test, labels_test)}
    if (labels == labels[0]).all():
        return {"entropy": 0.0}
    return {
        "acc": linear(x, labels, x_test, labels_test),
        "knn": _majority(labels[neighbours()], labels_test),
        "entropy": entropy(labels),
    }
