"""The recipe of a view game: all that a learned generator depends on."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..common.checks import check_positive
from ..methods.game import MODES
from ..training.optim import SCHEDULES
from ..views import parse
from ..views.color import SPACES
from .recipe import LOG_EVERY, BaseRecipe

# These spaces stretch grey or black without bound, so no flow from them can be watched.
UNBOUND = ("hsv", "luv")


@dataclass(frozen=True)
class Learning(BaseRecipe):
    """All that a learned generator depends on."""

    kind = "game"

    view: str = "crop:0.5"
    """What is drawn of each image before the generator, once for each of the two views."""
    width: float = 0.5
    """Factor on the channels of the critics' and the classifiers' encoders, one a view."""
    steps: int = 300
    """Optimiser steps."""
    batch: int = 128
    """Images in a batch, beside the labelled ones; critics contrast each with all of both."""
    optimizer: str = "adamw"
    """The optimiser of all players: sgd, adamw or lars."""
    lr: float = 2e-3
    """Learning rate of the critics."""
    schedule: str = "step"
    """How the critics' learning rate falls: cosine, step or constant."""
    mode: str = "semi-supervised"
    """Who plays beside the generator: unsupervised critics, supervised classifiers, semi-supervised both."""
    weight: float = 30.0
    """Factor on the cross entropy of the classifiers; chosen on the digits, where with 1 the critics decide alone."""
    task: str = ""
    """Whose labels; by default the first task of the data."""
    labels: int = 1000
    """Images whose labels are known; on a fifth of them the generator is judged, the classifiers learn from the others."""
    labelled: int = 64
    """Labelled images in a batch, beside the others; without classifiers as many others more."""
    space: str = "rgb"
    """Colour space that the flow starts from, of those that stretch no colour without bound: neither hsv nor luv."""
    volume_preserving: bool = True
    """Whether couplings are additive; otherwise they are affine."""
    couplings: int = 4
    """Couplings of the flow."""
    hidden: int = 8
    """Width of the hidden layers of a coupling's network."""
    depth: int = 1
    """Number of hidden layers of a coupling's network."""
    lr_generator: float = 2e-2
    """Learning rate of the generator."""
    schedule_generator: str = "step"
    """How the generator's learning rate falls: cosine, step or constant."""
    lr_classifiers: float = 2e-3
    """Learning rate of the classifiers."""
    schedule_classifiers: str = "step"
    """How the classifiers' learning rate falls: cosine, step or constant."""
    momentum: float = 0.5
    """Momentum of the optimiser, beta1 of adamw; games want less than usual."""
    weight_decay: float = 1e-4
    """Weight decay of critics and classifiers; the generator has none."""
    waits: int = 0
    """Steps of the critics for each one of the generator; 0 moves all at once, by gradient reversal. The log has gradients of who
    moves at its steps, each tenth."""
    fresh_every: int = 100
    """Steps between measurements by fresh critics, a multiple of 10; the generators measured are those to choose from."""
    fresh_steps: int = 100
    """Steps that fresh critics learn for."""

    @classmethod
    def choices(cls) -> dict[str, Iterable[str]]:
        """The names that fields may have, by field."""
        spaces = [space for space in SPACES if space not in UNBOUND]
        schedules = {"schedule_generator": SCHEDULES, "schedule_classifiers": SCHEDULES}
        return {**super().choices(), **schedules, "mode": MODES, "space": spaces}

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = ("steps", "couplings", "hidden", "labels", "lr_generator", "lr_classifiers")
        for name in (*positive, "fresh_every", "fresh_steps"):
            check_positive(getattr(self, name), f"recipe: {name}")
        for name in ("weight", "labelled", "depth", "momentum", "waits"):
            check_positive(getattr(self, name), f"recipe: {name}", zero=True)
        if self.fresh_every % LOG_EVERY:
            raise ValueError(
                f"recipe: fresh_every: must be a multiple of {LOG_EVERY}, got {self.fresh_every}"
            )
        most = self.labels * 4 // 5
        if self.mode != "unsupervised" and not 2 <= self.labelled <= most:
            raise ValueError(
                f"recipe: labelled: a {self.mode} game with {self.labels} labels, a fifth of them held out, "
                f"needs 2 to {most}, got {self.labelled}"
            )
        view = parse(self.view)
        if view.channels != (3, 3) or view.takes != "images":
            raise ValueError(
                f"recipe: view: must draw two views of three channels each from images, for example "
                f"crop:0.5, got {self.view!r}"
            )
