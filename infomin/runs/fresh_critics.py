"""A generator that stands still, measured on images that nobody has played with: by critics that start anew, and by labels."""

import copy
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..common.precision import autocast
from ..common.seeds import seeded_generator as seeded
from ..common.seeds import torch_seeded
from ..data.batches import Part, batches_by_step
from ..data.datasets import Split
from ..training.loop import fit
from ..training.optim import build_optimizer, rate_factor
from ..views import Then

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
    chosen = known[torch.randperm(len(known), generator=seeded(0, "labelled"))[:labels]]
    rest = torch.ones(len(split), dtype=torch.bool)
    rest[chosen] = False
    others = torch.nonzero(rest)[:, 0]
    others = others[torch.randperm(len(others), generator=seeded(0, "held"))]
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
) -> Callable[[int], tuple[Any, Tensor, dict[str, Tensor]]]:
    """What `fit` asks for: images whose `label` is hidden, and behind them some with theirs; as many more without if none plays.

    No image is there twice, for it would be its own negative, unless fewer than a batch are without a label.
    """
    others = rows.pool[len(rows.labelled) :]
    pool = others if plays and len(others) >= batch else rows.pool
    ask: Any = {"steps": steps, "seed": seed, "device": part[1]["label"].device}
    many = batches_by_step(part, batch + (0 if plays else labelled), rows=pool, **ask)
    few = batches_by_step(part, labelled, rows=rows.labelled, **ask) if plays else None

    def at(step: int) -> tuple[Any, Tensor, dict[str, Tensor]]:
        images, index, labels = many(step)
        unknown = torch.full_like(labels["label"], -1)
        if few is None:
            return images, index, {"label": unknown}
        more, indices, labels = few(step)
        return (
            torch.cat([images, more]),
            torch.cat([index, indices]),
            {"label": torch.cat([unknown, labels["label"]])},
        )

    return at


@dataclass(frozen=True, eq=False)
class Evaluator:
    """What generators are measured with; everything is drawn from one seed, so that two of them differ in themselves alone.

    Args:
        part: images and labels of the training set.
        pool: rows that fresh critics learn from.
        crops: what is drawn of an image before the generator: two views.
        held: `[M, C, H, W]`, held out: where I_NCE is read, M candidates or more.
        labels: long, of the first held images.
        critics: number of channels of each view -> critics that know nothing.
        steps, batch, lr: of their training.
        candidates: K of I_NCE.
        precision: `fp32` or `bf16`.
        seed: of the critics' first weights, of batches and of draws.
    """

    part: Part
    pool: Tensor
    crops: Any
    held: Tensor
    labels: Tensor
    critics: Callable[[Sequence[int]], nn.Module]
    steps: int
    batch: int
    lr: float
    candidates: int
    precision: str
    seed: int


def fresh_i_nce(generator: nn.Module, stand: Evaluator) -> float:
    """I_NCE (nats) on held-out images by critics that start anew and meet a generator that stands still.

    They are read as they are: no further critic learns from their features, as the probe's does for a row.
    """
    view: Any = Then(stand.crops, copy.deepcopy(generator).requires_grad_(False).eval())
    with torch_seeded(seeded(stand.seed, "fresh").initial_seed()):
        critics = (
            stand.critics(view.channels).to(stand.held.device).to(memory_format=torch.channels_last)
        )
    steps = fit(
        critics,
        view,
        batches_by_step(
            stand.part,
            stand.batch,
            rows=stand.pool,
            steps=stand.steps,
            seed=stand.seed,
            device=stand.held.device,
        ),
        steps=stand.steps,
        seed=stand.seed,
        precision=stand.precision,
        optimizer=build_optimizer("adamw", critics, stand.lr),
        rate=lambda step: rate_factor("cosine", step, stand.steps, stand.steps // 20),
    )
    deque(steps, maxlen=0)  # the statistics are not needed
    critics.eval()
    blocks = range(0, len(stand.held) - stand.candidates + 1, stand.candidates)
    with torch.no_grad(), autocast(stand.held.device.type, stand.precision):
        found = [
            critics(
                view(stand.held[i : i + stand.candidates], seeded(stand.seed, "held", i))
            ).stats["i_nce"]
            for i in blocks
        ]
    return float(torch.stack(found).mean())


@torch.no_grad()
def classifier_scores(game: Any, stand: Evaluator) -> dict[str, float]:
    """How well a game's classifiers do on held-out images: `cross_entropy_held` (nats, over both views), `right_held` (0..1)."""
    if not game.classifiers:
        return {}
    training = game.training
    game.eval()
    found = {"cross_entropy": 0.0, "right": 0.0}
    for i in range(0, len(stand.labels), AT_A_TIME):
        labels = stand.labels[i : i + AT_A_TIME]
        views = stand.crops(stand.held[i : i + len(labels)], seeded(stand.seed, "judged", i))
        with autocast(labels.device.type, stand.precision):
            stats = game(views, None, {game.task: labels}).stats
        found = {
            name: total + float(stats[name]) * len(labels) / len(stand.labels)
            for name, total in found.items()
        }
    game.train(training)
    return {f"{name}_held": value for name, value in found.items()}
