"""Measure a generator on held-out images: I_NCE by freshly trained critics, and accuracy.

The generator is frozen, and no player of the game has seen the images.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.precision import autocast
from ..common.seeds import seeded_draws, seeded_generator, torch_seeded
from ..data.batches import Part, batches_by_step, readable_rows
from ..data.datasets import Split
from ..methods import Game, Method
from ..training.loop import BatchesByStep, fit
from ..training.optim import build_optimizer, rate_factor
from ..training.step import make_batch
from ..views import Then, View

AT_A_TIME = 256  # images per forward pass of the classifiers


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a training set by their use, long `[N]` each.

    Args:
        labelled: images to learn from with their labels.
        judged: held-out images with labels, on which classifiers are scored.
        held: all held-out images, the judged ones first, on which I_NCE is measured.
        pool: all images that are not held out, the labelled ones first; their labels are not used.
    """

    labelled: Tensor
    judged: Tensor
    held: Tensor
    pool: Tensor


def divide_rows(split: Split, task: str, labels: int, candidates: int) -> Rows:
    """Divide a training set into images to learn from and held-out ones, equally for all seeds.

    Args:
        split: the training set.
        task: the task whose labels are used.
        labels: the number of labels that may be used; 20 % of these images are held out.
        candidates: the minimum number of held-out images.

    Raises:
        ValueError: fewer than 10 labelled images, fewer than `labels`, or too few images left to
            learn from.
    """
    known = torch.nonzero(split.labels[task] >= 0)[:, 0]
    if labels > len(known) >= 10:
        raise ValueError(
            f"learn: labels: got {labels}, wanted at most the {len(known)} labelled images; use "
            "fewer"
        )
    order = torch.randperm(len(known), generator=seeded_generator(0, "labelled"))
    chosen = known[order[:labels]]
    is_other = torch.ones(len(split), dtype=torch.bool)
    is_other[chosen] = False
    others = torch.nonzero(is_other)[:, 0]
    others = others[torch.randperm(len(others), generator=seeded_generator(0, "held"))]
    n_labelled = len(chosen) * 4 // 5
    part: Part = split.images, split.labels
    labelled = chosen[:n_labelled]
    judged = readable_rows(part, len(chosen), chosen[n_labelled:])
    n_held_others = max(0, candidates - len(judged))
    if len(chosen) < 10 or len(others) < 2 * n_held_others:
        raise ValueError(
            "learn: need at least 10 labelled images and no more candidates than half of the other "
            f"images, got {len(split)} images, {len(known)} of them labelled, for {labels} labels "
            f"and {candidates} candidates; use smaller numbers or more images"
        )
    held_others = readable_rows(part, n_held_others, others)
    held = torch.cat([judged, held_others])
    pool = torch.cat([labelled, others[~torch.isin(others, held_others)]])
    return Rows(labelled, judged, held, pool)


def mixed_batches(
    part: Part, rows: Rows, batch: int, labelled: int, *, plays: bool, steps: int, seed: int
) -> BatchesByStep:
    """Batches of a game, for `fit`: first images with hidden labels, then labelled images.

    No image appears twice in a batch, where it would be its own negative, unless classifiers play
    and fewer than `batch` unlabelled images are left.

    Args:
        part: images of the training set, and labels of the task `label`.
        rows: rows of the training set by their use.
        batch: number of images with hidden labels.
        labelled: number of labelled images.
        plays: whether classifiers play; without them, all `batch + labelled` images have hidden
            labels.
        steps: number of training steps.
        seed: of the order.
    """
    device = part[1]["label"].device
    unlabelled = rows.pool[len(rows.labelled) :]
    enough_unlabelled = plays and len(unlabelled) >= batch
    hidden_at = batches_by_step(
        part,
        batch if plays else batch + labelled,
        steps=steps,
        seed=seed,
        device=device,
        rows=unlabelled if enough_unlabelled else rows.pool,
    )
    labelled_at = batches_by_step(
        part, labelled, steps=steps, seed=seed, device=device, rows=rows.labelled
    )

    def batch_at(step: int) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        images, index, labels = hidden_at(step)
        assert isinstance(images, Tensor)  # a game takes images
        hidden = torch.full_like(labels["label"], -1)
        if not plays:
            return images, index, {"label": hidden}
        labelled_images, labelled_index, known = labelled_at(step)
        assert isinstance(labelled_images, Tensor)
        return (
            torch.cat([images, labelled_images]),
            torch.cat([index, labelled_index]),
            {"label": torch.cat([hidden, known["label"]])},
        )

    return batch_at


@dataclass(frozen=True, eq=False)
class Evaluator:
    """What generators are measured with.

    All random draws depend on one seed, so two measurements differ only if the generators do.

    Args:
        part: images and labels of the training set.
        pool: rows that fresh critics learn from.
        crops: draws two views of an image, the inputs of the generator.
        held: held-out images `[M, C, H, W]` for I_NCE; M is `candidates` or more.
        labels: labels of the first held-out images, long `[N]`.
        critics: builds untrained critics for views with these numbers of channels.
        steps: training steps of fresh critics.
        batch: batch size of fresh critics.
        lr: learning rate of fresh critics.
        candidates: K of I_NCE.
        precision: `fp32` or `bf16`.
        seed: seed of the critics' first weights, of batches and of views.
    """

    part: Part
    pool: Tensor
    crops: View
    held: Tensor
    labels: Tensor
    critics: Callable[[Sequence[int]], Method]
    steps: int
    batch: int
    lr: float
    candidates: int
    precision: str
    seed: int


def fresh_i_nce(generator: View, evaluator: Evaluator) -> float:
    """I_NCE in nats on held-out images, by new critics trained on the frozen generator's views.

    The trained critics are read directly; the probe of a run, in contrast, trains another critic
    on features.
    """
    seed, device = evaluator.seed, evaluator.held.device
    frozen = copy.deepcopy(generator).requires_grad_(False).eval()
    view = Then(evaluator.crops, frozen)
    with torch_seeded(seeded_generator(seed, "fresh").initial_seed()):
        critics = evaluator.critics(view.channels).to(device)
    critics = critics.to(memory_format=torch.channels_last)
    batches = batches_by_step(
        evaluator.part,
        evaluator.batch,
        steps=evaluator.steps,
        seed=seed,
        device=device,
        rows=evaluator.pool,
    )
    warmup = evaluator.steps // 20
    training = fit(
        critics,
        view,
        batches,
        steps=evaluator.steps,
        seed=seed,
        precision=evaluator.precision,
        optimizer=build_optimizer("adamw", critics, evaluator.lr),
        rate=lambda step: rate_factor("cosine", step, evaluator.steps, warmup),
    )
    for _ in training:
        pass  # only the trained critics are needed
    critics.eval()
    candidates = evaluator.candidates
    nats = []
    with torch.no_grad(), autocast(device.type, evaluator.precision):
        for start in range(0, len(evaluator.held) - candidates + 1, candidates):
            images = evaluator.held[start : start + candidates]
            with seeded_draws(device, seed, "held", start) as draws:
                views = view(images, draws)
            nats.append(critics(views, make_batch(candidates)).stats["i_nce"])
    return float(torch.stack(nats).mean())


@torch.no_grad()
def classifier_scores(game: Game, evaluator: Evaluator) -> dict[str, float]:
    """Scores of a game's classifiers on held-out images.

    Returns:
        `cross_entropy_held`, in nats, summed over both views, and `right_held`, the accuracy in
        0..1; empty if the game has no classifiers.
    """
    if not game.classifiers:
        return {}
    was_training = game.training
    game.eval()
    scores = {"cross_entropy": 0.0, "right": 0.0}
    count = len(evaluator.labels)
    for start in range(0, count, AT_A_TIME):
        labels = evaluator.labels[start : start + AT_A_TIME]
        images = evaluator.held[start : start + len(labels)]
        with seeded_draws(labels.device, evaluator.seed, "judged", start) as generator:
            views = evaluator.crops(images, generator)
        with autocast(labels.device.type, evaluator.precision):
            stats = game(views, make_batch(len(labels), {game.task: labels})).stats
        for name in scores:
            scores[name] += float(stats[name]) * len(labels) / count
    game.train(was_training)
    return {f"{name}_held": value for name, value in scores.items()}
