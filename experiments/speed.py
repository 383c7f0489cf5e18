"""Speed, as ratios: the loop against its encoders, the pipeline against lightly's, Lab against scikit-image and kornia.

    python experiments/speed.py                # 4 minutes on 2 cores, no GPU, no download; needs pip install 'infomin[bench]'
    python experiments/speed.py --only lab     # 20 seconds

Both sides of a ratio are timed in turn, A B A B …, in one process, so that whatever else the machine does falls on both. A row is
the median of the ratios of neighbours, the least and the greatest of them, and the median times of both sides.

loop      A step of `fit` (batch, views, encoders, loss, backward, optimiser, averages) over a bare step (encoders, loss,
          backward, optimiser) on views made beforehand: what all but the encoders costs. Goal: 1.15 or less.
pipeline  A batch from stored images to updated weights: lightly's SimCLR, its DataLoader with two workers, over ours. Images,
          encoder, batch and optimiser are the same, the views are not: they crop, jitter and blur each image twice, we split the
          colours of a batch. So pipelines are compared, not equal work. Goal: 4 or more. Then the encoders' share of our time,
          and both again with SimCLR's views on our side too.
lab       RGB to Lab of 64 images of 64 px: scikit-image, one uint8 image at a time, over ours on the uint8 batch, goal 8 or more;
          kornia over ours, both on the float batch, goal 2 or more. On all threads, and on one.
augment   SimCLR's views of 256 stored uint8 images of 64 px (crop, flip, jitter with hue p .8, grey .2, blur p .5, kernel 7):
          torchvision v2, one image at a time, over ours on the batch, goal 5 or more; kornia's, batch-wise, goal 2.5 or more;
          lightly's SimCLRTransform in a DataLoader with two workers, from PIL images, goal 3 or more. Lightly makes two views
          of an image and normalises them, so ours runs twice.

Missed on 2 cores (figures/speed.jsonl): Lab against scikit-image, 6.1 instead of 8 (5.0 on one thread), because the table
look-up of uint8 runs on one thread and the rest is bound by exponentials; two matrix products in chunks came to about 8, but a
user's TF32 setting would then round the colours. And three that another processor, with AMX, has reached: the loop on Lab (1.17),
kornia's views (2.1) and lightly's (2.6).
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal, TypeAlias

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn
from torch.utils.data import DataLoader

from infomin import Recipe
from infomin.common import files
from infomin.data.datasets import load
from infomin.experiment import run_script
from infomin.networks.encoders import build_encoder
from infomin.networks.heads import Projection
from infomin.runs.provenance import fast_bf16
from infomin.runs.single import _batches, _inputs, method_of
from infomin.training.loop import fit
from infomin.training.optim import build_optimizer
from infomin.views import parse
from infomin.views.color import rgb_to_lab

CPU, CHANNELS_LAST = torch.device("cpu"), torch.channels_last
BF16 = fast_bf16(CPU)
SMALL, LARGE = Recipe(view="color:lab"), Recipe(view="color:lab", size=64)
EQUAL = replace(LARGE, view="aug:simclr", share_encoder=True)
SHARED, RESNET = (
    replace(SMALL, view="shared:digit", share_encoder=True),
    replace(LARGE, encoder="resnet18", width=0.5, batch=64),
)
MACHINE = {
    "cpu": torch.cpu.get_capabilities().get("cpu_name"),
    "cores": os.cpu_count(),
    "torch": torch.__version__,
}
Row: TypeAlias = dict[str, Any]
Clock: TypeAlias = Callable[[], float]


def _timed(work: Callable[[], object], calls: int) -> float:
    """Do the work so many times; the milliseconds of one."""
    start = perf_counter()
    for _ in range(calls):
        work()
    return 1e3 * (perf_counter() - start) / calls


def _compare(
    name: str, above: Clock, below: Clock, repeats: int, least: float = 0, most: float = inf
) -> Row:
    above(), below()  # warm up
    times = [(above(), below()) for _ in range(repeats)]
    ratios = [a / b for a, b in times]
    ratio, (a, b) = median(ratios), (median(side) for side in zip(*times, strict=True))
    goal = f">= {least:g}" if least else f"<= {most:g}" if most < inf else None
    verdict = f"goal {goal}: {'reached' if least <= ratio <= most else 'MISSED'}" if goal else ""
    print(
        f"{name:57} {ratio:6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {a:.4g} / {b:.4g} ms  {verdict}",
        flush=True,
    )
    row = {
        "name": name,
        "ratio": ratio,
        "min": min(ratios),
        "max": max(ratios),
        "goal": goal,
        "repeats": repeats,
    }
    return row | {"ms_above": a, "ms_below": b, "threads": torch.get_num_threads(), **MACHINE}


def _update(weights: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
        value = loss()
    weights.zero_grad(set_to_none=True)
    value.backward()
    weights.step()


def _ours(recipe: Recipe, steps: int) -> tuple[Clock, Clock]:
    """A step of `fit`, as run() has it but without checkpoints; a bare step of a copy of its method."""
    view: Any = parse(recipe.view)
    batches = _batches(_inputs(load(recipe.data, recipe.size)[0], view, recipe, CPU), recipe, CPU)
    methods = [
        method_of(recipe, view.channels, {}).to(memory_format=CHANNELS_LAST) for _ in range(2)
    ]
    weights, copy = (
        build_optimizer(recipe.optimizer, method, recipe.lr, recipe.weight_decay)
        for method in methods
    )
    how: Row = {"rate": lambda step: 1.0, "precision": "bf16" if BF16 else "fp32", "log_every": 1}
    log = fit(methods[0], view, batches, steps=10**9, optimizer=weights, **how)
    inputs, *rest = batches(0)
    views = [v.contiguous(memory_format=CHANNELS_LAST) for v in view(inputs, torch.Generator())]
    bare = partial(_update, copy, lambda: methods[1](views, *rest).loss)
    return partial(_timed, lambda: next(log), steps), partial(_timed, bare, steps)


def _two_views(transform: Callable[[Any], Any], images: list[Any]) -> list[Tensor]:
    return [torch.stack(view) for view in zip(*map(transform, images), strict=True)]


def _lightly(recipe: Recipe, steps: int) -> Clock:
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    pictures: Any = [
        Image.fromarray(x)
        for x in load(recipe.data, recipe.size)[0].images.permute(0, 2, 3, 1).numpy()
    ]
    collate = partial(_two_views, SimCLRTransform(input_size=recipe.size))
    loader = DataLoader(
        pictures, recipe.batch, shuffle=True, drop_last=True, num_workers=2, collate_fn=collate
    )
    encoder, contrast = build_encoder(recipe.encoder, 3, recipe.width), NTXentLoss(recipe.tau)
    net = nn.Sequential(encoder, Projection(encoder.features, recipe.dim, recipe.head)).to(
        memory_format=CHANNELS_LAST
    )
    weights = build_optimizer(recipe.optimizer, net, recipe.lr, recipe.weight_decay)

    def step(batches: Iterator[list[Tensor]]) -> None:
        both = torch.cat(next(batches)).contiguous(memory_format=CHANNELS_LAST)
        _update(weights, lambda: contrast(*net(both).chunk(2)))

    def clock() -> float:
        work = partial(
            step, iter(loader)
        )  # the workers end with the clock, so ours runs without them
        _timed(work, 4)  # what they make in advance is not counted
        return _timed(work, steps)

    return clock


def _loop(repeats: int) -> list[Row]:
    named = {
        "color:lab, tiny 32 px": SMALL,
        "shared:digit, tiny 32 px": SHARED,
        "color:lab, resnet18 64 px": RESNET,
    }
    sides = {name: _ours(recipe, 2 if recipe is RESNET else 20) for name, recipe in named.items()}
    return [
        _compare(f"loop, {name}: fit / bare step", *clocks, repeats, most=1.15)
        for name, clocks in sides.items()
    ]


def _pipeline(repeats: int) -> list[Row]:
    fitting, bare = _ours(LARGE, 20)
    row = _compare(
        f"pipeline: lightly {version('lightly')} / ours",
        _lightly(LARGE, 10),
        fitting,
        repeats,
        least=4,
    )
    speed = {
        f"images_per_s_{who}": 1e3 * LARGE.batch / row[f"ms_{side}"]
        for who, side in (("lightly", "above"), ("ours", "below"))
    }
    print(
        "  not equal work: theirs crops, jitters and blurs each image twice, ours splits the colours of a batch;"
    )
    print("  " + ", ".join(f"{name} {value:.0f}" for name, value in speed.items()))
    rows = [
        row | speed,
        _compare("pipeline, encoders' share of ours: bare step / fit", bare, fitting, repeats),
    ]
    fitting, bare = _ours(EQUAL, 10)
    rows.append(
        _compare(
            f"pipeline, equal views: lightly {version('lightly')} / ours",
            _lightly(EQUAL, 10),
            fitting,
            repeats,
        )
    )
    return [
        *rows,
        _compare(
            "pipeline, equal views, encoders' share of ours: bare step / fit",
            bare,
            fitting,
            repeats,
        ),
    ]


def _lab(repeats: int) -> list[Row]:
    from kornia.color import rgb_to_lab as kornia
    from skimage.color import rgb2lab as skimage

    images, threads = load("digits", 64)[0].images[:64].clone(), torch.get_num_threads()
    floats, pictures = images / 255, [image.permute(1, 2, 0).numpy().copy() for image in images]
    one_by_one = partial(_timed, lambda: [skimage(picture) for picture in pictures], 2)
    uint8, float32 = (partial(_timed, partial(rgb_to_lab, x), 20) for x in (images, floats))
    rows = []
    for n in sorted({1, threads}, reverse=True):
        torch.set_num_threads(n)
        name = f"lab, threads {n}, uint8: scikit-image {version('scikit-image')} / ours"
        rows.append(_compare(name, one_by_one, uint8, repeats, least=8))
        name = f"lab, threads {n}, float: kornia {version('kornia')} / ours"
        rows.append(
            _compare(name, partial(_timed, partial(kornia, floats), 2), float32, repeats, least=2)
        )
    torch.set_num_threads(threads)
    return rows


def _peers() -> tuple[nn.Module, nn.Module]:
    """The same augmentation by torchvision, for one image, and by kornia, for a batch."""
    import kornia.augmentation as kornia
    from torchvision.transforms import v2

    one_by_one = v2.Compose(
        [
            v2.RandomResizedCrop(64, (0.08, 1)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(7, (0.1, 2))], 0.5),
            v2.ToDtype(torch.float32, scale=True),  # last, because bytes are processed faster
        ]
    )
    batchwise = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((64, 64), (0.08, 1)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        kornia.RandomGaussianBlur((7, 7), (0.1, 2.0), p=0.5),
    )
    return one_by_one, batchwise


def _augment(repeats: int) -> list[Row]:
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    stored, one, two = load("digits", 64)[0].images, parse("aug:simclr/1"), parse("aug:simclr")
    images = stored[:256].clone()
    torchvision, kornia = _peers()
    ours = partial(_timed, lambda: one(images), 10)
    sides = {
        f"torchvision {version('torchvision')}": (
            partial(_timed, lambda: torch.stack([torchvision(x) for x in images]), 1),
            5,
        ),
        f"kornia {version('kornia')}": (partial(_timed, lambda: kornia(images / 255), 3), 2.5),
    }
    rows = [
        _compare(f"augment: {name} / ours", theirs, ours, repeats, least=goal)
        for name, (theirs, goal) in sides.items()
    ]

    pictures: Any = [Image.fromarray(x) for x in stored.permute(0, 2, 3, 1).numpy()]
    collate = partial(_two_views, SimCLRTransform(input_size=64))
    loader = DataLoader(
        pictures, 256, shuffle=True, drop_last=True, num_workers=2, collate_fn=collate
    )

    def lightly() -> float:
        batches = iter(loader)  # the workers end with the clock, so ours runs without them
        _timed(lambda: next(batches), 4)  # what they make in advance is not counted
        return _timed(lambda: next(batches), 10)

    twice = partial(_timed, lambda: two(images), 10)
    return [
        *rows,
        _compare(
            f"augment: lightly {version('lightly')}, two views / ours",
            lightly,
            twice,
            repeats,
            least=3,
        ),
    ]


BENCHMARKS = {"loop": _loop, "pipeline": _pipeline, "lab": _lab, "augment": _augment}


def main(
    only: Literal["all", "loop", "pipeline", "lab", "augment"] = "all",
    repeats: PositiveInt = 7,
    out: str = "",
) -> None:
    """Measure speed as ratios, and say which goals are reached.

    Args:
        only: What to measure.
        repeats: How often both sides of a ratio are timed; 5 or more for a median worth its name.
        out: File for the rows; by default figures/speed.jsonl beside this script if all are measured, none if one is.
    """
    names = list(BENCHMARKS) if only == "all" else [only]
    print(
        ", ".join(
            f"{name} {value}"
            for name, value in {**MACHINE, "threads": torch.get_num_threads()}.items()
        )
    )
    rows = [row for name in names for row in BENCHMARKS[name](repeats)]
    if out or only == "all":
        files.write_jsonl(out or Path(__file__).parent / "figures" / "speed.jsonl", rows)


if __name__ == "__main__":
    run_script(main, __doc__)
