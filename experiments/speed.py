"""Speed as ratios: the loop against its encoders, the pipeline and the views against peers.

    python experiments/speed.py                # 4 minutes on 2 cores
    python experiments/speed.py --only lab     # 20 seconds

It needs `pip install 'infomin[bench]'`, but no GPU and no download. Both sides of a ratio are timed
in turn, A B A B …, in one process, so that other load on the machine affects both. A row has the
median, minimum and maximum of the ratios of neighbouring times, and the median time of each side.

loop: a step of `fit` (batch, views, encoders, loss, backward, optimiser, averages) over a bare step
(encoders, loss, backward, optimiser) on precomputed views, so the cost of everything but the
encoders. Goal: at most 1.15.

pipeline: a batch from stored images to updated weights, lightly's SimCLR with two DataLoader
workers over ours. Images, encoder, batch and optimiser are the same, the views are not: theirs
crop, jitter and blur each image twice, ours split the colours of a batch. This compares pipelines,
not equal work. Goal: at least 4. Then the encoders' share of our time, and both again with SimCLR's
views on our side too.

lab: RGB to Lab of 64 images of 64 px. Scikit-image, one uint8 image at a time, over ours on the
uint8 batch, goal at least 8; kornia over ours, both on the float batch, goal at least 2. With all
threads, and with one.

augment: SimCLR's views of 256 stored uint8 images of 64 px (crop, flip, jitter with hue at p 0.8,
grey 0.2, blur at p 0.5 with kernel 7). Torchvision v2, one image at a time, over ours on the batch,
goal at least 5; kornia on the batch, goal at least 2.5; lightly's SimCLRTransform in a DataLoader
with two workers, from PIL images, goal at least 3. Lightly makes and normalises two views of an
image, so ours runs twice.

Missed on 2 cores (figures/speed.jsonl): Lab against scikit-image, 7.0 instead of 8 (4.9 on one
thread), because the table look-up of uint8 runs on one thread and the rest is bound by
exponentials. Also missed: the pipeline (3.8), the views of kornia (2.3) and, by little, those of
lightly (2.97).
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
from tqdm import tqdm

from infomin import Recipe
from infomin.common import files
from infomin.data.batches import batches_by_step
from infomin.data.datasets import load
from infomin.experiment import run_script
from infomin.networks.encoders import build_encoder
from infomin.networks.heads import Projection
from infomin.runs.provenance import fast_bf16
from infomin.runs.single import build_context, build_seeded_method
from infomin.training.loop import fit
from infomin.training.optim import build_optimizer
from infomin.training.step import make_batch
from infomin.views import parse
from infomin.views.color import rgb_to_lab

CPU, CHANNELS_LAST = torch.device("cpu"), torch.channels_last
BF16 = fast_bf16(CPU)
SMALL, LARGE = Recipe(view="color:lab"), Recipe(view="color:lab", size=64)
SIMCLR = replace(LARGE, view="aug:simclr", share_encoder=True)
SHARED = replace(SMALL, view="shared:digit", share_encoder=True)
RESNET = replace(LARGE, encoder="resnet18", width=0.5, batch=64)
MACHINE = {
    "cpu": torch.cpu.get_capabilities().get("cpu_name"),
    "cores": os.cpu_count(),
    "torch": torch.__version__,
}
Row: TypeAlias = dict[str, Any]
Clock: TypeAlias = Callable[[], float]  # does the work and returns its milliseconds


def time_calls(work: Callable[[], object], calls: int) -> float:
    """Milliseconds per call, over that many calls."""
    start = perf_counter()
    for _ in range(calls):
        work()
    return 1e3 * (perf_counter() - start) / calls


def compare(
    name: str, above: Clock, below: Clock, repeats: int, least: float = 0, most: float = inf
) -> Row:
    """Time both sides in turn, print their ratio and whether it reaches the goal, return the row.

    Args:
        name: what is compared, as `above / below`.
        above: the numerator.
        below: the denominator.
        repeats: how often both sides are timed.
        least: the goal, if the ratio should be high.
        most: the goal, if the ratio should be low.
    """
    above(), below()  # warm up
    times = [(above(), below()) for _ in tqdm(range(repeats), name, leave=False)]
    ratios = [a / b for a, b in times]
    ratio, low, high = median(ratios), min(ratios), max(ratios)
    ms_above, ms_below = median(a for a, _ in times), median(b for _, b in times)
    goal = None
    if least:
        goal = f">= {least:g}"
    elif most < inf:
        goal = f"<= {most:g}"
    verdict = f"goal {goal}: {'reached' if least <= ratio <= most else 'MISSED'}" if goal else ""
    print(
        f"{name:57} {ratio:6.2f} ({low:.2f} to {high:.2f})  {ms_above:.4g} / {ms_below:.4g} ms  "
        f"{verdict}",
        flush=True,
    )
    row: Row = {"name": name, "ratio": ratio, "min": low, "max": high, "goal": goal}
    row |= {"repeats": repeats, "ms_above": ms_above, "ms_below": ms_below}
    return row | {"threads": torch.get_num_threads(), **MACHINE}


def _update(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
        value = loss()
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()


def _our_clocks(recipe: Recipe, steps: int) -> tuple[Clock, Clock]:
    """Clocks of a step of `fit`, as `run` calls it without checkpoints, and of a bare step."""
    view = parse(recipe.view)
    train, _ = load(recipe.data, recipe.size)
    part = (train.scenes if view.takes == "scenes" else train.images, train.labels)
    batches = batches_by_step(part, recipe.batch, steps=recipe.steps, seed=recipe.seed)
    inputs, _, labels = batches(0)
    views = [v.contiguous(memory_format=CHANNELS_LAST) for v in view(inputs, torch.Generator())]
    shapes = tuple(v.shape[1:] for v in views)
    context = build_context(recipe, view, shapes, train)
    methods = [build_seeded_method(recipe, context) for _ in range(2)]
    optimizers = [
        build_optimizer(recipe.optimizer, method, recipe.lr, recipe.weight_decay)
        for method in methods
    ]
    options: Row = {
        "steps": 10**9,
        "optimizer": optimizers[0],
        "rate": lambda step: 1.0,
        "precision": "bf16" if BF16 else "fp32",
        "log_every": 1,
    }
    log = fit(methods[0], view, batches, **options)
    batch = make_batch(recipe.batch, labels)
    bare_step = partial(_update, optimizers[1], lambda: methods[1](views, batch).loss)
    return partial(time_calls, lambda: next(log), steps), partial(time_calls, bare_step, steps)


def _pil_images(images: Tensor) -> Any:
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in images.permute(0, 2, 3, 1).numpy()]


def _simclr_loader(images: Tensor, size: int, batch: int) -> DataLoader:
    """Lightly's SimCLR views of stored images, made by two workers."""
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=size)
    return DataLoader(
        _pil_images(images),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        collate_fn=partial(_two_views, transform),
    )


def _two_views(transform: Callable[[Any], Any], images: list[Any]) -> list[Tensor]:
    return [torch.stack(view) for view in zip(*map(transform, images), strict=True)]


def _time_batches(loader: DataLoader, step: Callable[[Iterator[Any]], object], steps: int) -> float:
    """Milliseconds per step that takes a batch."""
    batches = iter(loader)  # its workers end with this call, so our side runs without them
    work = partial(step, batches)
    time_calls(work, 4)  # batches that workers prepared in advance are not counted
    return time_calls(work, steps)


def _lightly_clock(recipe: Recipe, steps: int) -> Clock:
    from lightly.loss import NTXentLoss

    train, _ = load(recipe.data, recipe.size)
    loader = _simclr_loader(train.images, recipe.size, recipe.batch)
    encoder = build_encoder(recipe.encoder, 3, recipe.width)
    contrast = NTXentLoss(recipe.tau)
    head = Projection(encoder.features, recipe.dim, recipe.head)
    network = nn.Sequential(encoder, head).to(memory_format=CHANNELS_LAST)
    optimizer = build_optimizer(recipe.optimizer, network, recipe.lr, recipe.weight_decay)

    def step(batches: Iterator[list[Tensor]]) -> None:
        both = torch.cat(next(batches)).contiguous(memory_format=CHANNELS_LAST)
        _update(optimizer, lambda: contrast(*network(both).chunk(2)))

    return partial(_time_batches, loader, step, steps)


def _loop(repeats: int) -> list[Row]:
    recipes = {
        "color:lab, tiny 32 px": SMALL,
        "shared:digit, tiny 32 px": SHARED,
        "color:lab, resnet18 64 px": RESNET,
    }
    clocks = {
        name: _our_clocks(recipe, 2 if recipe is RESNET else 20) for name, recipe in recipes.items()
    }
    return [
        compare(f"loop, {name}: fit / bare step", *sides, repeats, most=1.15)
        for name, sides in clocks.items()
    ]


def _pipeline(repeats: int) -> list[Row]:
    lightly = f"lightly {version('lightly')}"
    fitting, bare_step = _our_clocks(LARGE, 20)
    theirs = _lightly_clock(LARGE, 10)
    row = compare(f"pipeline: {lightly} / ours", theirs, fitting, repeats, least=4)
    row["images_per_s_lightly"] = 1e3 * LARGE.batch / row["ms_above"]
    row["images_per_s_ours"] = 1e3 * LARGE.batch / row["ms_below"]
    print(
        "  not equal work: lightly crops, jitters and blurs each image twice, ours splits colours"
    )
    for side in ("lightly", "ours"):
        print(f"  {side}: {row[f'images_per_s_{side}']:.0f} images/s")
    name = "pipeline, encoders' share of ours: bare step / fit"
    rows = [row, compare(name, bare_step, fitting, repeats)]

    fitting, bare_step = _our_clocks(SIMCLR, 10)
    theirs = _lightly_clock(SIMCLR, 10)
    rows.append(compare(f"pipeline, equal views: {lightly} / ours", theirs, fitting, repeats))
    name = "pipeline, equal views, encoders' share of ours: bare step / fit"
    return [*rows, compare(name, bare_step, fitting, repeats)]


def _lab(repeats: int) -> list[Row]:
    from kornia.color import rgb_to_lab as kornia
    from skimage.color import rgb2lab as skimage

    train, _ = load("digits", 64)
    images, threads = train.images[:64].clone(), torch.get_num_threads()
    floats, pictures = images / 255, [image.permute(1, 2, 0).numpy().copy() for image in images]
    skimage_uint8 = partial(time_calls, lambda: [skimage(picture) for picture in pictures], 2)
    kornia_float = partial(time_calls, partial(kornia, floats), 2)
    our_uint8 = partial(time_calls, partial(rgb_to_lab, images), 20)
    our_float = partial(time_calls, partial(rgb_to_lab, floats), 20)
    rows = []
    for n in sorted({1, threads}, reverse=True):
        torch.set_num_threads(n)
        name = f"lab, threads {n}, uint8: scikit-image {version('scikit-image')} / ours"
        rows.append(compare(name, skimage_uint8, our_uint8, repeats, least=8))
        name = f"lab, threads {n}, float: kornia {version('kornia')} / ours"
        rows.append(compare(name, kornia_float, our_float, repeats, least=2))
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
    train, _ = load("digits", 64)
    images = train.images[:256].clone()
    torchvision, kornia = _peers()
    one_view, two_views = parse("aug:simclr/1"), parse("aug:simclr")
    ours = partial(time_calls, lambda: one_view(images), 10)
    theirs = partial(time_calls, lambda: torch.stack([torchvision(x) for x in images]), 1)
    name = f"augment: torchvision {version('torchvision')} / ours"
    rows = [compare(name, theirs, ours, repeats, least=5)]
    theirs = partial(time_calls, lambda: kornia(images / 255), 3)
    name = f"augment: kornia {version('kornia')} / ours"
    rows.append(compare(name, theirs, ours, repeats, least=2.5))
    theirs = partial(_time_batches, _simclr_loader(train.images, 64, 256), next, 10)
    ours = partial(time_calls, lambda: two_views(images), 10)
    name = f"augment: lightly {version('lightly')}, two views / ours"
    return [*rows, compare(name, theirs, ours, repeats, least=3)]


BENCHMARKS = {"loop": _loop, "pipeline": _pipeline, "lab": _lab, "augment": _augment}


def main(
    only: Literal["all", "loop", "pipeline", "lab", "augment"] = "all",
    repeats: PositiveInt = 7,
    out: str = "",
) -> None:
    """Measure speed as ratios and print which goals are reached.

    Args:
        only: What to measure.
        repeats: How often both sides of a ratio are timed; use at least 5 for a stable median.
        out: File for the rows. By default figures/speed.jsonl beside this script if everything is
            measured, otherwise none.
    """
    names = list(BENCHMARKS) if only == "all" else [only]
    settings = {**MACHINE, "threads": torch.get_num_threads()}
    print(", ".join(f"{name} {value}" for name, value in settings.items()))
    rows = [row for name in names for row in BENCHMARKS[name](repeats)]
    if out or only == "all":
        files.write_jsonl(out or Path(__file__).parent / "figures" / "speed.jsonl", rows)


if __name__ == "__main__":
    run_script(main, __doc__, keeps_memory=False)  # as a process begins
