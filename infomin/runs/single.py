"""One function turns a recipe into a row. The only file that knows every room."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..common.distributed import is_main_process, setup_device, share_buffers, sync_batch_norm
from ..common.seeds import seeded_generator, torch_seeded
from ..data.batches import Part, batches_by_step, first_rows
from ..data.datasets import Split, load
from ..data.moving_mnist import Clips
from ..data.scenes import Scenes
from ..measure.probe import PROTOCOL, evaluate
from ..methods import METHODS
from ..training.loop import Diverged, fit
from ..training.optim import build_optimizer, rate_factor
from ..views import parse
from .folder import load_or_run, log_training
from .provenance import describe_provenance
from .recipe import LOG_EVERY, Recipe, refresh_digests, view_digests


def run(
    recipe: Recipe, out: str | Path | None = None, *, bar: bool = False, tensorboard: bool = False
) -> dict[str, Any]:
    """Train, probe, and return a row.

    Args:
        recipe: what to do.
        out: folder of runs; this one writes into `out/<key>`. If its row is there already it is returned; if the run was cut, it
            goes on from its last checkpoint, with the same result. None writes nothing.
        bar: show progress and the time left.
        tensorboard: also write what is logged as TensorBoard events (needs `pip install infomin[tensorboard]`).

    Returns:
        the recipe's fields; `files` and `learned`, which tell data on disk and learned views from what they were; `status`
        (`done` or `diverged`); `i_nce`, `ceiling`, `true_nats` (nats; the last where it is known), `candidates`; `acc_TASK`,
        `knn_TASK` (0..1) or `px_TASK` (pixels); and where the row comes from: versions, commit, host, seconds (if it was cut,
        since it went on).

    Raises:
        ValueError: a field does not fit the others, or the run's files are damaged.
        files.Locked: another process is carrying out this very run.
    """
    (recipe,) = refresh_digests([recipe])
    if recipe.method not in METHODS:
        raise ValueError(
            f"run: got method {recipe.method!r}, wanted {' or '.join(METHODS)}; play games by infomin.learn(recipe)"
        )
    device = setup_device(None if recipe.device == "auto" else recipe.device)
    return load_or_run(
        recipe.key,
        asdict(recipe),
        out,
        lambda folder: _carry_out(recipe, folder, device, bar, tensorboard),
    )


def _carry_out(
    recipe: Recipe, folder: Path | None, device: torch.device, bar: bool, tensorboard: bool
) -> dict[str, Any]:
    began = time.perf_counter()
    view: Any = view_of(recipe.view).to(device)
    splits = load(recipe.data, recipe.size)
    train, test = (_inputs(split, view, recipe, device) for split in splits)
    if recipe.probe_images > (most := min(split.labelled for split in splits)):
        raise ValueError(
            f"probe_images: got {recipe.probe_images}, wanted at most the {most} of {recipe.data!r}; use fewer"
        )
    _try(recipe.view, train, device)
    method = sync_batch_norm(method_of(recipe, view.channels, splits[0].labels).to(device), device)
    precision = recipe.precision_on(device)
    row: dict[str, Any] = {"key": recipe.key, **asdict(recipe), "status": "done"}
    if recipe.files:
        row["files"] = recipe.files[:12]
    if learned := view_digests(view):
        row["learned"] = "+".join(digest[:12] for digest in learned)
    if hasattr(view, "nats"):
        row["true_nats"] = view.nats(test[0])  # of the pictures that I_NCE is read on
    steps = fit(
        method,
        view,
        _batches(train, recipe, device),
        steps=recipe.steps,
        seed=recipe.seed,
        precision=precision,
        log_every=LOG_EVERY,
        optimizer=build_optimizer(
            recipe.optimizer, nn.ModuleList([method, view]), recipe.lr, recipe.weight_decay
        ),
        rate=lambda step: rate_factor(recipe.schedule, step, recipe.steps, recipe.warmup_steps),
        checkpoint=folder and folder / "checkpoint.pt",
    )
    try:
        log_training(
            steps, folder, total=recipe.steps, name=recipe.view, bar=bar, tensorboard=tensorboard
        )
        share_buffers(method)
        seen, unseen = (first_rows(part, recipe.probe_images) for part in (train, test))
        read = {
            "readout": view.readout,
            "beside": getattr(view, "beside", None),
            "candidates": recipe.candidates,
        }
        row |= evaluate(
            method, view, seen, unseen, **read, precision=precision, bar=bar and is_main_process()
        )
    except (Diverged, FloatingPointError) as reason:
        row |= {"status": "diverged", "reason": str(reason)}
    row |= {"protocol": PROTOCOL, "precision_used": precision}
    return row | describe_provenance(device) | {"seconds": time.perf_counter() - began}


def view_of(word: str) -> Any:
    """The view, if it says what is asked of it hours later; that of a user may not."""
    view = parse(word)
    channels, readout = (tuple(getattr(view, name, ())) for name in ("channels", "readout"))
    if not readout or not set(readout) <= set(range(len(channels))):
        raise ValueError(
            f"view {word!r}: got channels {channels} and readout {readout}, wanted the channels of each view, and which views "
            "a probe reads, counted from 0; give it both"
        )
    return view


def _try(word: str, part: Part, device: torch.device) -> None:
    """Look at two images through such a view, for one that gives other shapes than it says may fail only after the training."""
    view: Any = parse(word).to(device)
    try:
        with torch_seeded(0, device), torch.no_grad():
            views = view(first_rows(part, 2)[0], seeded_generator(0, "try"))
    except TypeError as error:
        raise TypeError(
            f"view {word!r}: {error}; its forward takes images and a torch.Generator"
        ) from error
    found: Any = type(views).__name__
    if isinstance(views, (tuple, list)):
        found = [list(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in views]
        if [shape[:2] for shape in found if len(shape) == 4] == [
            [2, channels] for channels in view.channels
        ]:
            return
    wanted = ", ".join(f"[2, {channels}, H, W]" for channels in view.channels)
    raise ValueError(
        f"view {word!r}: got {found} of two images, wanted a tuple of {wanted}, as its .channels are; change either"
    )


def method_of(recipe: Recipe, channels: Sequence[int], labels: Mapping[str, Tensor]) -> nn.Module:
    """The method of a recipe, for views of these channels, with the weights of its seed; `labels` as of `Split`."""
    make: Any = METHODS[recipe.method]
    told = {"tasks": labels} if getattr(make, "needs_labels", False) else {}
    with torch_seeded(recipe.seed):
        made = make(
            channels,
            recipe.encoder,
            recipe.width,
            recipe.share_encoder,
            recipe.dim,
            recipe.head,
            recipe.tau,
            **told,
        )
    return made.to(memory_format=torch.channels_last)


def _inputs(split: Split, view: Any, recipe: Recipe, device: torch.device) -> Part:
    """What the view takes, on the device, and the labels."""
    takes = getattr(view, "takes", "images")
    kinds: dict[str, type] = {"scenes": Scenes, "clips": Clips}
    if takes in kinds and not isinstance(split.scenes, kinds[takes]):
        have = "no known factors" if split.scenes is None else f"not the factors of {takes}"
        use = {"scenes": "digits", "clips": "clips"}[takes]
        raise ValueError(
            f"view {recipe.view!r}: got data {recipe.data!r}, whose images have {have}; use data={use!r}"
        )
    inputs: Any = split.scenes if takes in kinds else split.images
    return inputs.to(device), {task: labels.to(device) for task, labels in split.labels.items()}


def _batches(
    part: Part, recipe: Recipe, device: torch.device
) -> Callable[[int], tuple[Any, Tensor, Any]]:
    rows = None
    if getattr(
        METHODS[recipe.method], "needs_labels", False
    ):  # an image without a label has nothing to say there
        known = torch.stack(
            [(labels >= 0).view(len(labels), -1).all(1) for labels in part[1].values()]
        ).any(0)
        rows = known.nonzero()[:, 0].cpu() if not known.all() else None
    return batches_by_step(
        part, recipe.batch, steps=recipe.steps, seed=recipe.seed, device=device, rows=rows
    )
