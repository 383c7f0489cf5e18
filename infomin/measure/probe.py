"""What a representation is worth: linear probe, nearest neighbours, and the nats its views share, all on frozen features."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from operator import itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..common import checks
from ..common.precision import autocast, full_precision
from ..common.seeds import seeded_generator
from .estimator import CRITIC_BATCH, CRITIC_STEPS, nats
from .regression import accuracy, fit_logistic, ridge_distance, standardise

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # weight decays that the linear probe chooses from
NEIGHBOURS = 10
PROTOCOL = (
    f"linear: LBFGS, standardised, penalty chosen on 1/5 of train; knn: cosine, {NEIGHBOURS}; nats: separable critic, "
    f"{CRITIC_STEPS} steps of {CRITIC_BATCH} for 4096 pairs, augmentations drawn anew for test"
)


@torch.no_grad()
def extract_features(
    method: Any,
    view: Any,
    inputs: Any,
    *,
    seed: int = 0,
    precision: str = "fp32",
    batch: int = 512,
    draw: bool = False,
) -> list[Tensor]:
    """Features of every view, with the method in eval mode.

    Args:
        method: with `features(views) -> tuple`; its mode is put back afterwards.
        view: `(batch, generator) -> (v1, v2, …)`.
        inputs: `[N]` of what the view takes, sliceable.
        seed: of the views' random draws; equal for all runs that are to be compared.
        precision: `fp32` or `bf16`, as in training.
        batch: images at a time.
        draw: whether augmentations are drawn, as in training; otherwise they leave images as they are.

    Returns:
        one float32 `[N, D]` a view.

    Raises:
        FloatingPointError: a feature is NaN or Inf, as after a last step that was too large.
    """
    modes = [(module, module.training) for module in (*method.modules(), *view.modules())]
    method.eval(), view.train(draw)
    parts = []
    try:
        for i in range(0, len(inputs), batch):
            drawn = view(inputs[i : i + batch], seeded_generator(seed, "probe", i))
            views = [v.contiguous(memory_format=torch.channels_last) for v in drawn]
            with autocast(views[0].device.type, precision):
                parts.append([h.flatten(1).float() for h in method.features(views)])
    finally:
        for module, mode in modes:
            module.training = mode
    found = [torch.cat(column) for column in zip(*parts, strict=True)]
    if not all(column.isfinite().all() for column in found):
        raise FloatingPointError(
            "features: got NaN or Inf from the encoders, wanted numbers; lower the learning rate"
        )
    return found


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


def evaluate(
    method: Any,
    view: Any,
    train: tuple[Any, Mapping[str, Tensor]],
    test: tuple[Any, Mapping[str, Tensor]],
    *,
    readout: Sequence[int],
    beside: Mapping[str, Sequence[int]] | None = None,
    candidates: int,
    precision: str = "fp32",
    bar: bool = False,
) -> dict[str, float]:
    """Everything a row says of a trained method.

    I_NCE is measured on views as they are drawn in training, accuracy on features of images that are not augmented.

    Args:
        train, test: (inputs of the view, task -> labels).
        readout: the views whose features the linear probe and the neighbours read, concatenated.
        beside: name -> other views to read as well; the name is put behind that of the task, as in `acc_digit_past`.
        candidates: K of the held-out I_NCE.
        bar: show progress and the time left.

    Returns:
        `i_nce` (nats), `candidates`, `ceiling` (nats), and by task `acc_TASK`, `knn_TASK` (0..1; not of a single class, which
        tells nothing), `entropy_TASK` (H(y), nats);
        of a task whose labels are floating-point places, `px_TASK` (pixels) instead.
    """
    augments = any(getattr(module, "augments", False) for module in view.modules())
    reads = {"": readout, **(beside or {})}
    with tqdm(
        total=(5 if augments else 3) + len(reads) * len(train[1]),
        desc="probe",
        unit="part",
        disable=not bar,
    ) as line:

        def of(inputs: Any, seed: int = 0, draw: bool = False) -> list[Tensor]:
            found = extract_features(
                method, view, inputs, seed=seed, precision=precision, draw=draw
            )
            line.update()
            return found

        plain = [of(part[0]) for part in (train, test)]
        # Other draws for each part: of equal ones the critic would know those that it is read on.
        drawn = (
            [of(part[0], seed, draw=True) for seed, part in enumerate((train, test))]
            if augments
            else plain
        )
        row: dict[str, float] = {
            "i_nce": nats(*drawn, candidates=candidates),
            "candidates": candidates,
        }
        row["ceiling"] = math.log(candidates)
        line.update()
        for name, views in reads.items():
            # two crops, not drawn, are one image twice; it is read once
            told = [
                i
                for n, i in enumerate(views)
                if not any(torch.equal(plain[0][i], plain[0][j]) for j in views[:n])
            ]
            x, x_test = (torch.cat([part[i] for i in told], 1) for part in plain)
            end = f"_{name}" if name else ""
            near = cache(partial(nearest_rows, x, x_test))  # the same whatever the task
            for task, labels in train[1].items():
                row |= {
                    f"{what}_{task}{end}": value
                    for what, value in _read(x, labels, x_test, test[1][task], near).items()
                }
                line.update()
    return row


def _read(
    x: Tensor, labels: Tensor, x_test: Tensor, labels_test: Tensor, near: Callable[[], Tensor]
) -> dict[str, float]:
    """What features tell about one task; `near` gives each test image's neighbours."""
    if labels.is_floating_point():
        return {"px": localisation(x, labels, x_test, labels_test)}
    if (labels == labels[0]).all():
        return {"entropy": 0.0}
    found = {
        "acc": linear(x, labels, x_test, labels_test),
        "knn": _majority(labels[near()], labels_test),
    }
    return found | {"entropy": entropy(labels)}
