"""The recipe of a run: all that a row depends on."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

import numpy as np
import torch

from ..common import files
from ..common.checks import check_choice, check_positive, check_type
from ..data.datasets import check_data_name
from ..data.digests import data_digest
from ..measure.probe import NEIGHBOURS
from ..methods import METHODS
from ..networks.encoders import ENCODERS
from ..networks.heads import HEADS
from ..training.optim import OPTIMIZERS, SCHEDULES
from ..views import parse
from .provenance import fast_bf16

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
            check_type(getattr(self, name), wanted, f"recipe: {name}")
        for name, names in self.choices().items():
            check_choice(getattr(self, name), names, f"recipe: {name}")
        check_data_name(self.data, "recipe: data")
        for name in ("size", "width", "dim", "tau", "batch", "lr", "candidates", "probe_images"):
            check_positive(getattr(self, name), f"recipe: {name}")
        for name in ("steps", "weight_decay", "warmup", "seed"):
            check_positive(getattr(self, name), f"recipe: {name}", zero=True)
        if self.seed >= 2**63:
            raise ValueError(
                f"recipe: seed: got {self.seed}, wanted one below 2**63; take a smaller one"
            )
        if self.warmup > 1:
            raise ValueError(
                f"recipe: warmup: got {self.warmup}, wanted a share of the steps, 0 to 1; change it"
            )
        self.check_candidates()
        parse(self.view)

    def check_candidates(self) -> None:
        """Raise a ValueError unless the probe's images are enough for its candidates and neighbours."""
        if not 2 <= self.candidates <= self.probe_images:
            raise ValueError(
                f"recipe: candidates: got {self.candidates}, wanted 2 to {self.probe_images}, the probe_images; change one"
            )
        if self.probe_images < NEIGHBOURS:
            raise ValueError(
                f"recipe: probe_images: got {self.probe_images}, wanted {NEIGHBOURS} neighbours or more; use more"
            )

    @classmethod
    def choices(cls) -> dict[str, Iterable[str]]:
        """The names that fields may have, by field."""
        return _CHOICES

    @cached_property
    def key(self) -> str:
        """12 hex digits that name the run's folder; of learned views and data on disk the files count, not only their names.

        They are looked at when they are first asked for, and anew by each `run` and `sweep`.
        """
        found = [told for told in (*view_digests(parse(self.view)), self.files) if told]
        return files.key(asdict(self) | ({"files": found} if found else {}))

    @property
    def warmup_steps(self) -> int:
        """How many steps the warm-up has."""
        return round(self.warmup * self.steps)

    def precision_on(self, device: torch.device) -> str:
        """`fp32` or `bf16`: what `auto` means on this device."""
        return (
            self.precision if self.precision != "auto" else "bf16" if fast_bf16(device) else "fp32"
        )

    @cached_property
    def files(self) -> str:
        """What tells data on disk from what they were; empty for other data."""
        return data_digest(self.data)


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


def view_digests(view: Any) -> list[str]:
    """What tells parts of a view that come from files from what they were."""
    return [module.digest for module in view.modules() if getattr(module, "digest", "")]


def refresh_digests(recipes: Iterable[Some]) -> list[Some]:
    """The recipes, without what they remember of files; those that several name are looked at once, for they may be many."""
    recipes = list(recipes)
    if wrong := [type(recipe).__name__ for recipe in recipes if not isinstance(recipe, Recipe)]:
        raise TypeError(
            f"recipe: got a {wrong[0]}, wanted a Recipe; write for example Recipe(view='color:lab')"
        )
    found, told = [replace(recipe) for recipe in recipes], dict[str, str]()
    for recipe in found:
        vars(recipe)["files"] = (
            told[recipe.data] if recipe.data in told else told.setdefault(recipe.data, recipe.files)
        )
    return found
