"""One function turns a recipe into a row."""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from ..common.distributed import (
    is_main_process,
    setup_device,
    share_buffers,
    sync_batch_norm,
    world_size,
)
from ..common.files import Row
from ..common.seeds import seeded_generator, torch_seeded
from ..data.batches import Part, batches_by_step, first_rows
from ..data.datasets import Split, load
from ..data.moving_mnist import Clips
from ..data.scenes import Scenes
from ..measure.probe import PROTOCOL, evaluate
from ..methods import Context, Group, Method, Task, build_method
from ..networks.encoders import Encoders
from ..training.loop import BatchesByStep, Diverged, fit
from ..training.optim import build_training
from ..views import View, parse
from .folder import RunFolder, default_torch_state, run_training
from .provenance import describe_provenance
from .recipe import LOG_EVERY, FileDigests, Recipe, recipe_key

Shapes: TypeAlias = tuple[tuple[int, int, int], ...]


def run(
    recipe: Recipe,
    out: str | Path | None = None,
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
        the recipe's fields; `files` and `learned`, digests of data on disk and of learned views;
        `status` (`done` or `diverged`); `i_nce`, `ceiling`, `true_nats` (nats; the last where it is
        known), `candidates`; `acc_TASK`, `knn_TASK` (0..1) or `px_TASK` (pixels); and where the row
        comes from: versions, commit, host, seconds (since it was resumed, if it was cut).

    Raises:
        TypeError: not a Recipe.
        ValueError: a field does not fit the others, or the run's files are damaged.
        files.Locked: another process is at this very run.
    """
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"run: got a {type(recipe).__name__}, wanted a Recipe, for example "
            "Recipe(view='color:lab'); play view games by infomin.learn"
        )
    with torch_seeded(recipe.seed):  # a view may have weights of its own
        view = parse(recipe.view)
    digests = FileDigests.of(recipe, view)
    key = recipe_key(recipe, digests)
    folder = RunFolder(out, key, recipe)
    device = setup_device(None if recipe.device == "auto" else recipe.device)
    if (finished := folder.finished_row()) is not None:
        return finished
    with folder.held(), default_torch_state("run"):
        began = time.perf_counter()
        view = view.to(device)
        splits = load(recipe.data, recipe.size)
        _check_probe_images(recipe, *splits)
        train, test = (_view_inputs(split, view, recipe, device) for split in splits)
        shapes = _try_view(view, recipe.view, train, device)
        context = build_context(recipe, view, shapes, splits[0])
        folder.save_context(context)
        method = build_seeded_method(recipe, context).to(device)
        method = sync_batch_norm(method, device)
        precision = recipe.precision_on(device)
        row: Row = {"key": key, **asdict(recipe), "status": "done", **digests.columns()}
        if (nats := view.nats(test[0])) is not None:
            row["true_nats"] = nats  # of the images that I_NCE is read on
        optimizer, rates = build_training(
            [*method.groups(), *_view_groups(view)],
            recipe.optimizer,
            recipe.lr,
            recipe.weight_decay,
            recipe.schedule,
            recipe.steps,
            recipe.warmup_steps,
        )
        training = fit(
            method,
            view,
            _batches(train, recipe, method, device),
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
            row |= evaluate(
                method,
                view,
                first_rows(train, recipe.probe_images),
                first_rows(test, recipe.probe_images),
                readout=view.readout,
                beside=view.beside,
                augments=view.augments,
                candidates=recipe.candidates,
                precision=precision,
                bar=bar and is_main_process(),
            )
        except (Diverged, FloatingPointError) as reason:
            row |= {"status": "diverged", "reason": str(reason)}
        row |= {"protocol": PROTOCOL, "precision_used": precision}
        row |= describe_provenance(device) | {"seconds": time.perf_counter() - began}
        folder.save_row(row)
    return row


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


def _check_probe_images(recipe: Recipe, *splits: Split) -> None:
    most = min(split.labelled for split in splits)
    if recipe.probe_images > most:
        raise ValueError(
            f"probe_images: got {recipe.probe_images}, wanted at most the {most} labelled images "
            f"of {recipe.data!r}"
        )


def _view_inputs(split: Split, view: View, recipe: Recipe, device: torch.device) -> Part:
    """What the view takes, on the device, and the labels."""
    kinds: dict[str, type] = {"scenes": Scenes, "clips": Clips}
    inputs = split.images
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
    tried = []
    for mode in (True, False):
        try:
            with torch_seeded(0, device), torch.no_grad():
                views = trial.train(mode)(first_rows(part, 2)[0], seeded_generator(0, "try"))
        except TypeError as error:
            raise TypeError(
                f"view {word!r}: {error}; its forward takes images and a torch.Generator"
            ) from error
        tried.append(
            _checked_shapes(views, view, f"view {word!r}" + ("" if mode else " in eval mode"))
        )
    return tried[0]


def _checked_shapes(views: object, view: View, who: str) -> Shapes:
    shapes: object = type(views).__name__
    if isinstance(views, tuple | list):
        shapes = [list(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in views]
        if [shape[:2] for shape in shapes if len(shape) == 4] == [[2, c] for c in view.channels]:
            if not all(v.isfinite().all() for v in views):
                raise ValueError(f"{who}: got NaN or Inf, wanted finite views of finite images")
            return tuple((v.shape[1], v.shape[2], v.shape[3]) for v in views)
    wanted = ", ".join(f"[2, {channels}, H, W]" for channels in view.channels)
    raise ValueError(
        f"{who}: got {shapes} of two images, wanted a tuple of {wanted}, as its channels declare"
    )


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
