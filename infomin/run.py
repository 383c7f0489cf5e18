"""One function turns a recipe into a row. The only file that knows every room."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from . import table
from .check import kind, known, positive
from .critics import HEADS
from .data import Part, Split, allowed, batches, first, load
from .digest import digest
from .dist import agree, main_process, spread, start
from .encoders import ENCODERS
from .methods import METHODS
from .moving_mnist import Clips
from .optim import OPTIMIZERS, SCHEDULES, optimizer, rate
from .origin import fast_bf16, origin
from .probe import NEIGHBOURS, PROTOCOL, all_of
from .record import follow, once
from .scenes import Scenes
from .seeds import generator, torch_seeded
from .train import Diverged, fit
from .views import parse

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Recipe:
    """All that a row depends on. Two runs that differ in one field differ in that alone."""

    view: str = "shared:digit"
    """How the views are made, as family:dial, parts joined by +; `infomin views` lists the families."""
    method: str = "infonce"
    """How the encoders learn from the views: infonce contrasts them; supervised is told the labels, for comparison."""
    data: str = "digits"
    """What views are made from: digits (handwriting over photographs), photos (patches of those), clips (moving digits),
    clips:DIGITS@BACKGROUNDS (of other pictures: clips:mnist@stl10), stl10, cifar10, folder:PATH."""
    size: int = 32
    """Side of an image in pixels; digits 24 to 96, photos 24 to 256, clips 32 to 256, stl10 8 to 96, cifar10 8 to 64, folder 8 to
    1024."""
    encoder: str = "tiny"
    """The network: tiny (17 px and more), alexnet (63 px and more), resnet18 or resnet50."""
    width: float = 1.0
    """Factor on the encoder's channels; 0.5 makes half a network for each of two views."""
    share_encoder: bool = False
    """Whether one encoder serves all views; they must then have equally many channels."""
    dim: int = 64
    """Size of the embedding that the critic compares."""
    head: str = "linear"
    """What stands between features and embedding: none, linear or mlp."""
    tau: float = 0.2
    """Temperature of the critic; small values look at the hardest negatives only."""
    steps: int = 400
    """Optimiser steps; 0 probes the network as it was made."""
    batch: int = 128
    """Images in a batch, over all processes; each is contrasted with all others, so I_NCE in training ends at log batch."""
    optimizer: str = "adamw"
    """The optimiser: sgd, adamw or lars."""
    lr: float = 3e-3
    """Learning rate at the top of its schedule."""
    weight_decay: float = 1e-4
    """Weight decay."""
    schedule: str = "cosine"
    """How the learning rate falls after the warm-up: cosine, step or constant."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises to its top, 0 to 1."""
    precision: str = "auto"
    """Arithmetic of the encoders: fp32 (convolutions on a GPU in TF32, unless torch is told otherwise), bf16 (autocast), or auto:
    bf16 where the hardware multiplies it faster."""
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto: cuda if there is one."""
    candidates: int = 1024
    """Candidates K of the held-out I_NCE, the true partner among them; its ceiling is log K."""
    probe_images: int = 4096
    """Images that the probe learns from, and as many other ones that it is tested on."""
    seed: int = 0
    """Seed of weights, batches and views; the data and the probe are the same for all seeds."""

    def __post_init__(self) -> None:
        for name, wanted in get_type_hints(type(self)).items():
            if isinstance(getattr(self, name), np.generic):  # of a numpy range, say
                object.__setattr__(self, name, getattr(self, name).item())
            kind(getattr(self, name), wanted, f"recipe: {name}")
        for name, names in self.choices().items():
            known(getattr(self, name), names, f"recipe: {name}")
        allowed(self.data, "recipe: data")
        for name in ("size", "width", "dim", "tau", "batch", "lr", "candidates", "probe_images"):
            positive(getattr(self, name), f"recipe: {name}")
        for name in ("steps", "weight_decay", "warmup", "seed"):
            positive(getattr(self, name), f"recipe: {name}", zero=True)
        if self.seed >= 2**63:
            raise ValueError(f"recipe: seed: got {self.seed}, wanted one below 2**63; take a smaller one")
        if self.warmup > 1:
            raise ValueError(f"recipe: warmup: got {self.warmup}, wanted a share of the steps, 0 to 1; change it")
        self.check_candidates()
        parse(self.view)

    def check_candidates(self) -> None:
        """Raise a ValueError unless the probe's images are enough for its candidates and neighbours."""
        if not 2 <= self.candidates <= self.probe_images:
            raise ValueError(
                f"recipe: candidates: got {self.candidates}, wanted 2 to {self.probe_images}, the probe_images; change one"
            )
        if self.probe_images < NEIGHBOURS:
            raise ValueError(f"recipe: probe_images: got {self.probe_images}, wanted {NEIGHBOURS} neighbours or more; use more")

    @classmethod
    def choices(cls) -> dict[str, Iterable[str]]:
        """The names that fields may have, by field."""
        return _CHOICES

    @cached_property
    def key(self) -> str:
        """12 hex digits that name the run's folder; of learned views and data on disk the files count, not only their names.

        They are looked at when they are first asked for, and anew by each `run` and `sweep`.
        """
        files = [told for told in (*digests(parse(self.view)), self.files) if told]
        return table.key(asdict(self) | ({"files": files} if files else {}))

    @property
    def warmup_steps(self) -> int:
        """How many steps the warm-up has."""
        return round(self.warmup * self.steps)

    def precision_on(self, device: torch.device) -> str:
        """`fp32` or `bf16`: what `auto` means on this device."""
        return self.precision if self.precision != "auto" else "bf16" if fast_bf16(device) else "fp32"

    @cached_property
    def files(self) -> str:
        """What tells data on disk from what they were; empty for other data."""
        return digest(self.data)


Some = TypeVar("Some", bound=Recipe)
_CHOICES: dict[str, Iterable[str]] = {
    "method": METHODS,
    "encoder": ENCODERS,
    "head": HEADS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": ("auto", "fp32", "bf16"),
    "device": ("auto", "cpu", "cuda"),
}


def digests(view: Any) -> list[str]:
    """What tells parts of a view that come from files from what they were."""
    return [module.digest for module in view.modules() if getattr(module, "digest", "")]


def anew(recipes: Iterable[Some]) -> list[Some]:
    """The recipes, without what they remember of files; those that several name are looked at once, for they may be many."""
    recipes = list(recipes)
    if wrong := [type(recipe).__name__ for recipe in recipes if not isinstance(recipe, Recipe)]:
        raise TypeError(f"recipe: got a {wrong[0]}, wanted a Recipe; write for example Recipe(view='color:lab')")
    found, told = [replace(recipe) for recipe in recipes], dict[str, str]()
    for recipe in found:
        vars(recipe)["files"] = told[recipe.data] if recipe.data in told else told.setdefault(recipe.data, recipe.files)
    return found


def run(recipe: Recipe, out: str | Path | None = None, *, bar: bool = False, tensorboard: bool = False) -> dict[str, Any]:
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
        table.Locked: another process is carrying out this very run.
    """
    (recipe,) = anew([recipe])
    if recipe.method not in METHODS:
        raise ValueError(f"run: got method {recipe.method!r}, wanted {' or '.join(METHODS)}; play games by infomin.learn(recipe)")
    device = start(None if recipe.device == "auto" else recipe.device)
    return once(recipe.key, asdict(recipe), out, lambda folder: _carry_out(recipe, folder, device, bar, tensorboard))


def _carry_out(recipe: Recipe, folder: Path | None, device: torch.device, bar: bool, tensorboard: bool) -> dict[str, Any]:
    began = time.perf_counter()
    view: Any = view_of(recipe.view).to(device)
    splits = load(recipe.data, recipe.size)
    train, test = (_inputs(split, view, recipe, device) for split in splits)
    if recipe.probe_images > (most := min(split.labelled for split in splits)):
        raise ValueError(f"probe_images: got {recipe.probe_images}, wanted at most the {most} of {recipe.data!r}; use fewer")
    _try(recipe.view, train, device)
    method = spread(method_of(recipe, view.channels, splits[0].labels).to(device), device)
    precision = recipe.precision_on(device)
    row: dict[str, Any] = {"key": recipe.key, **asdict(recipe), "status": "done"}
    if recipe.files:
        row["files"] = recipe.files[:12]
    if learned := digests(view):
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
        optimizer=optimizer(recipe.optimizer, nn.ModuleList([method, view]), recipe.lr, recipe.weight_decay),
        rate=lambda step: rate(recipe.schedule, step, recipe.steps, recipe.warmup_steps),
        checkpoint=folder and folder / "checkpoint.pt",
    )
    try:
        follow(steps, folder, total=recipe.steps, name=recipe.view, bar=bar, tensorboard=tensorboard)
        agree(method)
        seen, unseen = (first(part, recipe.probe_images) for part in (train, test))
        read = {"readout": view.readout, "beside": getattr(view, "beside", None), "candidates": recipe.candidates}
        row |= all_of(method, view, seen, unseen, **read, precision=precision, bar=bar and main_process())
    except (Diverged, FloatingPointError) as reason:
        row |= {"status": "diverged", "reason": str(reason)}
    row |= {"protocol": PROTOCOL, "precision_used": precision}
    return row | origin(device) | {"seconds": time.perf_counter() - began}


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
            views = view(first(part, 2)[0], generator(0, "try"))
    except TypeError as error:
        raise TypeError(f"view {word!r}: {error}; its forward takes images and a torch.Generator") from error
    found: Any = type(views).__name__
    if isinstance(views, (tuple, list)):
        found = [list(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in views]
        if [shape[:2] for shape in found if len(shape) == 4] == [[2, channels] for channels in view.channels]:
            return
    wanted = ", ".join(f"[2, {channels}, H, W]" for channels in view.channels)
    raise ValueError(f"view {word!r}: got {found} of two images, wanted a tuple of {wanted}, as its .channels are; change either")


def method_of(recipe: Recipe, channels: Sequence[int], labels: Mapping[str, Tensor]) -> nn.Module:
    """The method of a recipe, for views of these channels, with the weights of its seed; `labels` as of `Split`."""
    make: Any = METHODS[recipe.method]
    told = {"tasks": labels} if getattr(make, "needs_labels", False) else {}
    with torch_seeded(recipe.seed):
        made = make(channels, recipe.encoder, recipe.width, recipe.share_encoder, recipe.dim, recipe.head, recipe.tau, **told)
    return made.to(memory_format=torch.channels_last)


def _inputs(split: Split, view: Any, recipe: Recipe, device: torch.device) -> Part:
    """What the view takes, on the device, and the labels."""
    takes = getattr(view, "takes", "images")
    kinds: dict[str, type] = {"scenes": Scenes, "clips": Clips}
    if takes in kinds and not isinstance(split.scenes, kinds[takes]):
        have = "no known factors" if split.scenes is None else f"not the factors of {takes}"
        use = {"scenes": "digits", "clips": "clips"}[takes]
        raise ValueError(f"view {recipe.view!r}: got data {recipe.data!r}, whose images have {have}; use data={use!r}")
    inputs: Any = split.scenes if takes in kinds else split.images
    return inputs.to(device), {task: labels.to(device) for task, labels in split.labels.items()}


def _batches(part: Part, recipe: Recipe, device: torch.device) -> Callable[[int], tuple[Any, Tensor, Any]]:
    rows = None
    if getattr(METHODS[recipe.method], "needs_labels", False):  # an image without a label has nothing to say there
        known = torch.stack([(labels >= 0).view(len(labels), -1).all(1) for labels in part[1].values()]).any(0)
        rows = known.nonzero()[:, 0].cpu() if not known.all() else None
    return batches(part, recipe.batch, steps=recipe.steps, seed=recipe.seed, device=device, rows=rows)
