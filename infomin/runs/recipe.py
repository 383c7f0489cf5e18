"""Recipes: all that a row depends on. A run's key hashes its recipe, not the source code."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, NamedTuple, get_type_hints

import numpy as np
import torch

from ..common.checks import check_choice, check_positive, check_type
from ..common.files import hash_json, to_plain
from ..common.seeds import torch_seeded
from ..data.datasets import check_data_name
from ..data.digests import data_digest
from ..measure.probe import NEIGHBOURS
from ..methods import METHODS, method_word
from ..networks.encoders import ENCODERS
from ..networks.heads import HEADS
from ..training.optim import OPTIMIZERS, SCHEDULES
from ..views import View, parse
from .provenance import fast_bf16

LOG_EVERY = 10  # steps
# Keys leave defaults out. A new name whenever a default or what is measured changes: old rows stay
# what they are, and new ones get keys of their own.
PROTOCOL_NAME = "1"


@dataclass(frozen=True)
class BaseRecipe:
    """What runs and games have in common."""

    kind: ClassVar[str]
    """`run` or `game`: a run and a game with the same fields have different keys."""

    view: str = "shared:digit"
    """How the views are made: family:dial, parts joined by +; `infomin views` lists them."""
    data: str = "digits"
    """What views are made from: digits (handwriting over photographs), photos (patches of those),
    clips (moving digits), clips:DIGITS@BACKGROUNDS (of other pictures: clips:mnist@stl10), stl10,
    cifar10, folder:PATH."""
    size: int = 32
    """Side of an image in pixels; digits 24 to 96, photos 24 to 256, clips 32 to 256, stl10 8 to
    96, cifar10 8 to 64, folder 8 to 1024."""
    encoder: str = "tiny"
    """The network: tiny (17 px and more), alexnet (63 px and more), resnet18 or resnet50."""
    width: float = 1.0
    """Factor on the encoder's channels; 0.5 makes half a network for each of two views."""
    dim: int = 64
    """Size of the embedding that the critic compares."""
    head: str = "linear"
    """What stands between features and embedding: none, linear or mlp."""
    tau: float = 0.2
    """Temperature of the critic; small values look at the hardest negatives only."""
    steps: int = 400
    """Optimiser steps; 0 probes the network as it was made."""
    batch: int = 128
    """Images in a batch, over all processes; I_NCE in training is at most log batch."""
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
    """Arithmetic of the encoders: fp32 (on a GPU, convolutions in TF32 unless torch is set
    otherwise), bf16 (autocast), or auto: bf16 where the hardware multiplies it faster."""
    device: str = "auto"
    """Where to compute: cpu, cuda, or auto: cuda if there is one."""
    candidates: int = 1024
    """Candidates K of the held-out I_NCE, the true partner among them; its ceiling is log K. If
    this is left out, a run on fewer labelled images has as many candidates as it has images."""
    seed: int = 0
    """Seed of weights, batches and views; the data and the probe are the same for all seeds."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):  # of a numpy range, say
                value = value.item()
                object.__setattr__(self, field.name, value)
            check_type(value, hints[field.name], f"recipe: {field.name}")
        for name, names in self.choices().items():
            check_choice(getattr(self, name), names, f"recipe: {name}")
        check_data_name(self.data, "recipe: data")
        for name in ("size", "width", "dim", "tau", "batch", "lr", "candidates"):
            check_positive(getattr(self, name), f"recipe: {name}")
        for name in ("steps", "weight_decay", "warmup", "seed"):
            check_positive(getattr(self, name), f"recipe: {name}", zero=True)
        if self.seed >= 2**63:
            raise ValueError(f"recipe: seed: must be below 2**63, got {self.seed}")
        if self.warmup > 1:
            raise ValueError(
                f"recipe: warmup: must be a share of the steps, 0 to 1, got {self.warmup}"
            )
        if self.candidates < 2:
            raise ValueError(f"recipe: candidates: must be 2 or more, got {self.candidates}")
        self.build_view()

    @classmethod
    def choices(cls) -> dict[str, Iterable[str]]:
        """The names that fields may have, by field."""
        return {
            "encoder": ENCODERS,
            "head": HEADS,
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "precision": ("auto", "fp32", "bf16"),
            "device": ("auto", "cpu", "cuda"),
        }

    @property
    def key(self) -> str:
        """12 hex digits that name the run's folder.

        Of learned views and of data on disk the files count, not only their names; they are read
        each time.
        """
        return recipe_key(self, FileDigests.of(self, self.build_view()))

    def build_view(self) -> View:
        """The view, with its files read; if it has weights of its own, they are those of the seed.

        The caller's random numbers go on as if nothing had happened.
        """
        with torch_seeded(self.seed):
            return parse(self.view)

    @property
    def warmup_steps(self) -> int:
        """How many steps the warm-up has."""
        return round(self.warmup * self.steps)

    def precision_on(self, device: torch.device) -> str:
        """`fp32` or `bf16`: what `auto` means on this device."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if fast_bf16(device) else "fp32"


@dataclass(frozen=True)
class Recipe(BaseRecipe):
    """All that a row depends on. Two runs that differ in one field differ in that alone."""

    kind = "run"

    method: str = "infonce"
    """How encoders learn from the views: infonce contrasts them, supervised learns the labels;
    options follow as name:option=value/option=value."""
    share_encoder: bool = False
    """Whether one encoder serves all views; they must then have equally many channels."""
    probe_images: int = 4096
    """Images that the probe learns from, and as many other ones that it is tested on; if this is
    left out, all labelled images of smaller data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.method.partition(":")[0], METHODS, "recipe: method")
        object.__setattr__(self, "method", method_word(self.method))
        check_positive(self.probe_images, "recipe: probe_images")
        if self.candidates > self.probe_images:
            raise ValueError(
                f"recipe: candidates: must be 2 to {self.probe_images}, the probe_images, got "
                f"{self.candidates}"
            )
        if self.probe_images < NEIGHBOURS:
            raise ValueError(
                f"recipe: probe_images: must be at least the {NEIGHBOURS} neighbours of the probe, "
                f"got {self.probe_images}"
            )

    def probe_sizes(self, labelled: int) -> dict[str, int]:
        """`probe_images` and `candidates` on data with so many labelled images in each part.

        Values that were left out are reduced to what there is.

        Raises:
            ValueError: the recipe names more, or they are fewer than the probe's neighbours.
        """
        if labelled < NEIGHBOURS:
            raise ValueError(
                f"probe_images: need at least {NEIGHBOURS} labelled images for training and as "
                f"many for testing, got {labelled} in {self.data!r}; add some"
            )
        sizes = {}
        for field in fields(self):
            if field.name in ("candidates", "probe_images"):
                size = getattr(self, field.name)
                if size > labelled and size != field.default:
                    raise ValueError(
                        f"{field.name}: got {size}, wanted at most the {labelled} labelled images "
                        f"of {self.data!r}; leave it out to use what there is"
                    )
                sizes[field.name] = min(size, labelled)
        return sizes


class FileDigests(NamedTuple):
    """What the files were that a recipe names by their paths.

    Attributes:
        data: digest of data on disk; empty for other data.
        views: digests of learned views, in the order of the view's parts.
    """

    data: str
    views: tuple[str, ...]

    @classmethod
    def of(cls, recipe: BaseRecipe, view: View, data: str | None = None) -> "FileDigests":
        """Read the files of a recipe, whose view this is; `data` is their digest if it is known."""
        parts = [part.digest for part in view.modules() if isinstance(part, View) and part.digest]
        if odd := [digest for digest in parts if not isinstance(digest, str)]:
            raise TypeError(f"view {recipe.view!r}: digest must be a str, got {odd[0]!r}")
        return cls(data_digest(recipe.data) if data is None else data, tuple(parts))

    def columns(self) -> dict[str, str]:
        """What a row says of the files: `files` and `learned`, where there are any."""
        columns = {"files": self.data[:12], "learned": "+".join(d[:12] for d in self.views)}
        return {name: value for name, value in columns.items() if value}


def recipe_key(recipe: BaseRecipe, digests: FileDigests) -> str:
    """12 hex digits: a hash of kind, protocol, files and the fields that are not at their defaults.

    A new field changes no old key. A method's word has its options sorted and without defaults.
    """
    defaults = {field.name: field.default for field in fields(recipe)}
    changed = {name: v for name, v in asdict(recipe).items() if v != defaults[name]}
    files = [digest for digest in (*digests.views, digests.data) if digest]
    content = {"kind": recipe.kind, "protocol": PROTOCOL_NAME, "files": files, "fields": changed}
    return hash_json(content)


def recipe_keys(recipes: Sequence[BaseRecipe]) -> list[str]:
    """The keys of recipes; data that several of them name are read once."""
    data: dict[str, str] = {}
    keys = []
    for recipe in recipes:
        if recipe.data not in data:
            data[recipe.data] = data_digest(recipe.data)
        digests = FileDigests.of(recipe, recipe.build_view(), data[recipe.data])
        keys.append(recipe_key(recipe, digests))
    return keys


def changed_fields(recipe: BaseRecipe, stored: Mapping[str, object]) -> list[str]:
    """Fields in which a stored recipe differs from this one; what it lacks is at its default."""
    defaults = {field.name: field.default for field in fields(recipe)}
    given = to_plain(asdict(recipe))
    stored = {**defaults, **stored}
    return [name for name in {**given, **stored} if given.get(name) != stored.get(name)]
