"""One function turns a recipe into a row."""

import copy
import inspect
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from ..common.checks import check_positive
from ..common.distributed import (
    is_main_process,
    setup_device,
    share_buffers,
    sync_batch_norm,
    world_size,
)
from ..common.files import PathLike, Row
from ..common.seeds import seeded_generator, torch_seeded
from ..data.batches import (
    Part,
    batch_rows,
    batches_by_step,
    count_unreadable,
    first_rows,
)
from ..data.datasets import Split, load
from ..data.moving_mnist import Clips
from ..data.scenes import Scenes
from ..measure.probe import PROTOCOL, evaluate, extract_features
from ..methods import Context, Group, Method, Task, build_method
from ..networks.encoders import Encoders
from ..training.loop import BatchesByStep, Diverged, fit
from ..training.optim import build_training
from ..views import View, try_parts
from .folder import RunFolder, default_torch_state, run_training
from .provenance import describe_provenance
from .recipe import LOG_EVERY, FileDigests, Recipe, recipe_key

Shapes: TypeAlias = tuple[tuple[int, int, int], ...]
RANGE_TOLERANCE = 1e-3  # by which rounding may leave [0, 1]


class Inputs(NamedTuple):
    """What a recipe's data and view are, before there is a method.

    Attributes:
        splits: the training and the test part of the data.
        train, test: what the view takes of them, on the device, and the labels.
        shapes: C, H, W of each view in training.
        sizes: how many images are probed and how many are candidates, by the recipe's field.
    """

    splits: tuple[Split, Split]
    train: Part
    test: Part
    shapes: Shapes
    sizes: dict[str, int]


def run(
    recipe: Recipe,
    out: PathLike | None = None,
    *,
    bar: bool = False,
    tensorboard: bool = False,
) -> Row:
    """Train, probe, and return a row.

    Args:
        recipe: what to do.
        out: folder of runs; this one writes into `out/<key>`. If its row is there already it is
            returned; if the run was cut, it resumes from its last checkpoint, with the same result.
            None writes nothing.
        bar: show progress and the time left.
        tensorboard: also log TensorBoard events (needs `pip install infomin[tensorboard]`).

    Returns:
        the recipe's fields, with `probe_images` and `candidates` as they were used; `files` and
        `learned`, digests of data on disk and of learned views; `status` (`done` or `diverged`);
        `i_nce`, `i_nce_low`, `i_nce_high`, `ceiling`, `true_nats` (nats; the last where it is
        known), `candidates`;
        `i_nce_doubt`, a sentence where that number says little; `acc_TASK`, `knn_TASK` (0..1) and
        `entropy_TASK` (nats), or `px_TASK` (pixels); `unreadable_train` and
        `unreadable_test`, how many image files the probe passed over, where there are any; where
        the row comes from: versions, commit, host, threads, processes, seconds (since it was
        resumed, if it was cut); and `row_digest`, by which an edited row.json is noticed.

    Raises:
        TypeError: not a Recipe, or an `out` that is no path.
        ValueError: a field does not fit the others, or the run's files are damaged.
        files.Locked: another process is at this very run.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"run: got {type(recipe).__name__}, wanted a Recipe, for example "
            "Recipe(view='color:lab'); play view games by infomin.learn"
        )
    with default_torch_state("run"):
        view = recipe.build_view()
        digests = FileDigests.of(recipe, view)
        key = recipe_key(recipe, digests)
        folder = RunFolder(out, key, recipe)
        device = setup_device(None if recipe.device == "auto" else recipe.device)
        if (finished := folder.finished_row()) is not None:
            return finished
        began = time.perf_counter()
        splits, train, test, shapes, sizes = load_inputs(recipe, view, device)
        context = build_context(recipe, view, shapes, splits[0])
        method = build_seeded_method(recipe, context).to(device)
        sync_batch_norm(method, device)
        batches = _batches(train, recipe, method, device)
        precision = recipe.precision_on(device)
        _try_probe(method, view, train, device, precision)
        row: Row = {"key": key, **asdict(recipe), **sizes, "status": "done", **digests.columns()}
        if (nats := view.nats(test[0])) is not None:  # of the images that I_NCE is read on
            row["true_nats"] = check_positive(nats, f"view {recipe.view!r}: nats", zero=True)
        optimizer, rates = build_training(
            [*method.groups(), *_view_groups(view)],
            recipe.optimizer,
            recipe.lr,
            recipe.weight_decay,
            recipe.schedule,
            recipe.steps,
            recipe.warmup_steps,
        )
        with folder.held():  # everything that can be known before the first step is known
            folder.save_context(context, device=device.type, precision=precision)
            training = fit(
                method,
                view,
                batches,
                steps=recipe.steps,
                optimizer=optimizer,
                rate=rates,
                seed=recipe.seed,
                precision=precision,
                checkpoint=folder.path and folder.path / "checkpoint.pt",
                log_every=LOG_EVERY,
            )
            try:
                run_training(
                    training,
                    folder.path,
                    total=recipe.steps,
                    name=recipe.view,
                    bar=bar,
                    tensorboard=tensorboard,
                )
                share_buffers(method)
                probed = [first_rows(part, sizes["probe_images"]) for part in (train, test)]
                unreadable = {
                    f"unreadable_{name}": count
                    for name, part in (("train", train), ("test", test))
                    if (count := count_unreadable(part, sizes["probe_images"]))
                }
                readable = min(len(inputs) for inputs, _ in probed)
                sizes = {name: min(size, readable) for name, size in sizes.items()}
                row |= sizes | unreadable
                row |= evaluate(
                    method,
                    view,
                    *(first_rows(part, sizes["probe_images"]) for part in probed),
                    readout=view.readout,
                    beside=view.beside,
                    augments=view.augments,
                    candidates=sizes["candidates"],
                    precision=precision,
                    bar=bar and is_main_process(),
                )
            except (Diverged, FloatingPointError) as reason:
                row |= {"status": "diverged", "reason": str(reason)}
            if FileDigests.of(recipe, view) != digests:
                raise ValueError(
                    f"run: the files of {recipe.data!r} changed during the run, so it has no row; "
                    "run the same command again, which is another run"
                )
            row |= {"protocol": PROTOCOL, "precision_used": precision}
            row |= describe_provenance(device) | {"seconds": time.perf_counter() - began}
            return folder.save_row(row)


def load_inputs(recipe: Recipe, view: View, device: torch.device) -> Inputs:
    """Load a recipe's data and try its view, which is moved to the device, on two images.

    Raises:
        TypeError, ValueError: data, view, batch and probe do not fit each other.
    """
    splits = load(recipe.data, recipe.size)
    sizes = recipe.probe_sizes(min(split.labelled for split in splits))
    batch_rows(len(splits[0]), recipe.batch, 0, seed=recipe.seed)
    view.to(device)
    train, test = (_view_inputs(split, view, recipe, device) for split in splits)
    return Inputs(splits, train, test, _try_view(view, recipe.view, train, device), sizes)


def build_context(recipe: Recipe, view: View, shapes: Shapes, train: Split) -> Context:
    """What the recipe's method is built from, for views of these shapes."""
    return Context(
        shapes=shapes,
        tiles=view.tiles or (1,) * len(shapes),
        encoders=encoder_factory(recipe, view),
        dim=recipe.dim,
        head=recipe.head,
        tau=recipe.tau,
        images=len(train),
        batch=recipe.batch,
        steps=recipe.steps,
        processes=world_size(),
        tasks={name: _describe_task(labels) for name, labels in train.labels.items()},
    )


def encoder_factory(recipe: Recipe, view: View) -> Callable[[], Encoders]:
    """Makes new encoders for the views, as the recipe has them."""
    return partial(
        Encoders, view.channels, recipe.encoder, recipe.width, recipe.share_encoder, view.tiles
    )


def build_seeded_method(recipe: Recipe, context: Context) -> Method:
    """The recipe's method, with the weights of its seed."""
    with torch_seeded(recipe.seed):
        method = build_method(recipe.method, context)
    return method.to(memory_format=torch.channels_last)


def _describe_task(labels: Tensor) -> Task:
    if not labels.is_floating_point():
        return Task(int(labels.max()) + 1)
    mean, deviation = labels.mean(0), labels.std(0).clamp_min(1e-6)
    return Task(labels.shape[1], tuple(mean.tolist()), tuple(deviation.tolist()))


def _view_inputs(split: Split, view: View, recipe: Recipe, device: torch.device) -> Part:
    """What the view takes, on the device, and the labels."""
    kinds: dict[str, type] = {"scenes": Scenes, "clips": Clips}
    inputs: Any = split.images
    if view.takes in kinds:
        if not isinstance(split.scenes, kinds[view.takes]):
            have = (
                "no known factors" if split.scenes is None else f"not the factors of {view.takes}"
            )
            use = {"scenes": "digits", "clips": "clips"}[view.takes]
            raise ValueError(
                f"view {recipe.view!r}: takes {view.takes}, got data {recipe.data!r}, whose images "
                f"have {have}; use data={use!r}"
            )
        inputs = split.scenes
    return inputs.to(device), {task: labels.to(device) for task, labels in split.labels.items()}


def _try_view(view: View, word: str, part: Part, device: torch.device) -> Shapes:
    """C, H, W of each view of two images in training.

    A copy is tried, for a view may have a state; in eval mode as well, as the probe does.

    Raises:
        TypeError, ValueError: the view does other than it declares, which would come to light after
            hours only.
    """
    trial = copy.deepcopy(view)
    try:
        inspect.signature(trial.forward).bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"view {word!r}: {error}; its forward takes images and a torch.Generator"
        ) from error
    tried, images = [], first_rows(part, 2)[0]
    kept = copy.deepcopy(images)
    for mode in (True, False):
        who = f"view {word!r}" + ("" if mode else " in eval mode")
        with torch_seeded(0, device), torch.no_grad():
            views = trial.train(mode)(images, seeded_generator(0, "try"))
            tried.append(_checked_shapes(views, view, who))
            try_parts(trial, images, seeded_generator(0, "try"))
        if isinstance(images, Tensor) and not images.equal(cast(Tensor, kept)):
            raise ValueError(f"{who}: wrote into its images; compute with a copy, images.clone()")
    return tried[0]


def _checked_shapes(views: object, view: View, who: str) -> Shapes:
    """C, H, W of each view of two images, which are what the view declares.

    Raises:
        ValueError: other shapes, dtypes or values.
    """
    given = list(views) if isinstance(views, tuple | list) else []
    tensors = [v for v in given if isinstance(v, Tensor) and v.dim() == 4]
    shapes = [list(v.shape[:2]) for v in tensors]
    if len(tensors) != len(given) or shapes != [[2, channels] for channels in view.channels]:
        got = [list(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in given]
        wanted = ", ".join(f"[2, {channels}, H, W]" for channels in view.channels)
        raise ValueError(
            f"{who}: got {got or type(views).__name__} of two images, wanted a tuple of {wanted}, "
            "as its channels declare"
        )
    for v in tensors:
        if v.dtype not in (torch.float32, torch.uint8):
            raise ValueError(f"{who}: got {v.dtype}, wanted float32 or uint8; use view.float()")
        if not v.isfinite().all():
            raise ValueError(f"{who}: got NaN or Inf, wanted finite views of finite images")
        low, high = float(v.min()), float(v.max())
        in_range = low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE
        if view.bounded and v.dtype != torch.uint8 and not in_range:
            raise ValueError(
                f"{who}: got values from {low:.4g} to {high:.4g}, wanted [0, 1], as it is bounded; "
                "scale them, or declare bounded = False"
            )
    return tuple((v.shape[1], v.shape[2], v.shape[3]) for v in tensors)


def _try_probe(
    method: Method, view: View, part: Part, device: torch.device, precision: str
) -> None:
    """Extract the features of two images, so that what a probe cannot read is known now."""
    with torch_seeded(0, device):
        extract_features(method, copy.deepcopy(view), first_rows(part, 2)[0], precision=precision)


def _view_groups(view: View) -> list[Group]:
    parameters = [p for p in view.parameters() if p.requires_grad]
    return [Group("view", parameters)] if parameters else []


def _batches(part: Part, recipe: Recipe, method: Method, device: torch.device) -> BatchesByStep:
    rows = None
    if method.needs_labels:
        known = [(labels >= 0).view(len(labels), -1).all(1) for labels in part[1].values()]
        labelled = torch.stack(known).any(0)
        rows = None if labelled.all() else labelled.nonzero()[:, 0].cpu()
    return batches_by_step(
        part, recipe.batch, steps=recipe.steps, seed=recipe.seed, device=device, rows=rows
    )
