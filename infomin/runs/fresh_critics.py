"""A generator that stands still, measured on images that nobody has played with: by critics that start anew, and by labels."""

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.precision import autocast
from ..common.seeds import seeded_generator, torch_seeded
from ..data.batches import Part, batches_by_step
from ..data.datasets import Split
from ..methods import Game, Method
from ..training.loop import BatchesByStep, fit
from ..training.optim import build_optimizer, rate_factor
from ..training.step import make_batch
from ..views import Then, View

AT_A_TIME = 256  # images


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a training set, each long `[N]`: who may see which images.

    Args:
        labelled: with known labels, to learn from.
        judged: with known labels, held out.
        held: held out, the judged ones first; I_NCE is read on them.
        pool: all others, labelled ones first; drawn without their labels.
    """

    labelled: Tensor
    judged: Tensor
    held: Tensor
    pool: Tensor


def divide_rows(split: Split, task: str, labels: int, candidates: int) -> Rows:
    """Choose rows, the same for all seeds.

    Args:
        split: of the data.
        task: whose labels.
        labels: how many are to be known; a fifth of these images is held out.
        candidates: how many images to hold out at least.

    Raises:
        ValueError: fewer than 10 images with labels, or hardly any would be left to learn from.
    """
    known = torch.nonzero(split.labels[task] >= 0)[:, 0]
    chosen = known[torch.randperm(len(known), generator=seeded_generator(0, "labelled"))[:labels]]
    rest = torch.ones(len(split), dtype=torch.bool)
    rest[chosen] = False
    others = torch.nonzero(rest)[:, 0]
    others = others[torch.randperm(len(others), generator=seeded_generator(0, "held"))]
    labelled, judged = chosen[: len(chosen) * 4 // 5], chosen[len(chosen) * 4 // 5 :]
    more = max(0, candidates - len(judged))
    if len(chosen) < 10 or len(others) < 2 * more:
        raise ValueError(
            f"learn: got {len(split)} images, {len(known)} of them with labels, for {labels} labels and {candidates} candidates, "
            "wanted 10 with labels or more, and no more candidates than half of the others; use smaller numbers or more images"
        )
    return Rows(
        labelled, judged, torch.cat([judged, others[:more]]), torch.cat([labelled, others[more:]])
    )


def mixed_batches(
    part: Part, rows: Rows, batch: int, labelled: int, *, plays: bool, steps: int, seed: int
) -> BatchesByStep:
    """Batches for `fit`: images whose `label` is hidden, then `labelled` images that show theirs.

    No image is there twice, where it would be its own negative, unless fewer than a batch have no
    label.

    Args:
        plays: whether classifiers play; without them the batch has as many more images without
            labels.
    """
    unlabelled = rows.pool[len(rows.labelled) :]
    pool = unlabelled if plays and len(unlabelled) >= batch else rows.pool
    device = part[1]["label"].device
    hidden = batches_by_step(
        part,
        batch if plays else batch + labelled,
        steps=steps,
        seed=seed,
        device=device,
        rows=pool,
    )
    shown = batches_by_step(
        part, labelled, steps=steps, seed=seed, device=device, rows=rows.labelled
    )

    def batch_at(step: int) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
        images, index, labels = hidden(step)
        unknown = torch.full_like(labels["label"], -1)
        if not plays:
            return images, index, {"label": unknown}
        more, more_index, more_labels = shown(step)
        return (
            torch.cat([images, more]),
            torch.cat([index, more_index]),
            {"label": torch.cat([unknown, more_labels["label"]])},
        )

    return batch_at


@dataclass(frozen=True, eq=False)
class Evaluator:
    """What generators are measured with. All is drawn from one seed: two of them differ in themselves alone.

    Args:
        part: images and labels of the training set.
        pool: rows that fresh critics learn from.
        crops: draws two views of an image before the generator.
        held: held-out images `[M, C, H, W]`, on which I_NCE is read; M is `candidates` or more.
        labels: long, of the first held-out images.
        critics: makes untrained critics for views of these channels.
        steps, batch, lr: of their training.
        candidates: K of I_NCE.
        precision: `fp32` or `bf16`.
        seed: of the critics' first weights, of batches and of draws.
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
    """I_NCE in nats on held-out images, by untrained critics that learn from a fixed generator.

    The critics are read themselves: no further critic learns from their features, as the probe's
    does for a row.
    """
    seed, device = evaluator.seed, evaluator.held.device
    frozen = copy.deepcopy(generator).requires_grad_(False).eval()
    view = Then(evaluator.crops, frozen)
    with torch_seeded(seeded_generator(seed, "fresh").initial_seed()):
        critics = evaluator.critics(view.channels).to(device)
    critics = critics.to(memory_format=torch.channels_last)
    steps = fit(
        critics,
        view,
        batches_by_step(
            evaluator.part,
            evaluator.batch,
            steps=evaluator.steps,
            seed=seed,
            device=device,
            rows=evaluator.pool,
        ),
        steps=evaluator.steps,
        seed=seed,
        precision=evaluator.precision,
        optimizer=build_optimizer("adamw", critics, evaluator.lr),
        rate=lambda step: rate_factor("cosine", step, evaluator.steps, evaluator.steps // 20),
    )
    deque(steps, maxlen=0)  # run to the end; the stats are not needed
    critics.eval()
    candidates = evaluator.candidates
    values = []
    with torch.no_grad(), autocast(device.type, evaluator.precision):
        for start in range(0, len(evaluator.held) - candidates + 1, candidates):
            images = evaluator.held[start : start + candidates]
            views = view(images, seeded_generator(seed, "held", start))
            step = critics(views, make_batch(candidates))
            values.append(step.stats["i_nce"])
    return float(torch.stack(values).mean())


@torch.no_grad()
def classifier_scores(game: Game, evaluator: Evaluator) -> dict[str, float]:
    """How well a game's classifiers do on held-out images.

    Returns:
        `cross_entropy_held` (nats, over both views) and `right_held` (0..1); nothing without
        classifiers.
    """
    if not game.classifiers:
        return {}
    training = game.training
    game.eval()
    scores = {"cross_entropy": 0.0, "right": 0.0}
    count = len(evaluator.labels)
    for start in range(0, count, AT_A_TIME):
        labels = evaluator.labels[start : start + AT_A_TIME]
        images = evaluator.held[start : start + len(labels)]
        views = evaluator.crops(images, seeded_generator(evaluator.seed, "judged", start))
        with autocast(labels.device.type, evaluator.precision):
            stats = game(views, make_batch(len(labels), {game.task: labels})).stats
        for name in scores:
            scores[name] += float(stats[name]) * len(labels) / count
    game.train(training)
    return {f"{name}_held": value for name, value in scores.items()}
