"""The recipe of a view game."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..common.checks import check_positive
from ..methods.game import MODES
from ..training.optim import SCHEDULES
from ..views import parse
from ..views.color import SPACES
from .recipe import LOG_EVERY, BaseRecipe

# These spaces stretch grey or black without bound, so the stretch of a flow from them is useless.
UNBOUND = ("hsv", "luv")


@dataclass(frozen=True)
class Learning(BaseRecipe):
    """Everything that a learned generator depends on."""

    kind = "game"

    view: str = "crop:0.5"
    """View that is drawn twice from each image, as the input of the generator."""
    width: float = 0.5
    """Factor on the channels of the encoders of critics and classifiers, one per view."""
    steps: int = 300
    """Optimiser steps."""
    batch: int = 128
    """Unlabelled images in a batch; critics contrast each image with all of the batch, labelled
    ones included."""
    optimizer: str = "adamw"
    """The optimiser of all players: sgd, adamw or lars."""
    lr: float = 2e-3
    """Learning rate of the critics."""
    schedule: str = "step"
    """How the critics' learning rate falls: cosine, step or constant."""
    mode: str = "semi-supervised"
    """Who plays with the generator: unsupervised (critics), supervised (classifiers) or
    semi-supervised (both)."""
    weight: float = 30.0
    """Factor on the cross-entropy of the classifiers, chosen on digits; at 1 only the critics
    matter there."""
    task: str = ""
    """Task whose labels are used; by default the first task of the data."""
    labels: int = 1000
    """Images whose labels are used: 80 % for training the classifiers, 20 % for selecting the
    generator."""
    labelled: int = 64
    """Labelled images in a batch, besides the unlabelled ones; a game without classifiers uses as
    many unlabelled images instead."""
    space: str = "rgb"
    """Colour space that the flow starts from; not hsv or luv, which stretch some colours without
    bound."""
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
    """Momentum of the optimiser, beta1 of adamw; games need less than usual."""
    weight_decay: float = 1e-4
    """Weight decay of critics and classifiers; the generator has none."""
    waits: int = 0
    """Critic steps before each generator step; 0 moves all players at once, by gradient reversal.
    Every tenth step is logged, with gradients of the players that move in it."""
    fresh_every: int = 100
    """Steps between measurements by fresh critics, a multiple of 10; the best of the measured
    generators is kept."""
    fresh_steps: int = 100
    """Training steps of fresh critics."""

    @classmethod
    def choices(cls) -> dict[str, Iterable[str]]:
        """The valid names of fields that are names, by field."""
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
        if self.labels < 10:
            raise ValueError(
                f"recipe: labels: must be 10 or more, of which 20 % are held out, got {self.labels}"
            )
        most = self.labels * 4 // 5
        if self.mode != "unsupervised" and not 2 <= self.labelled <= most:
            raise ValueError(
                f"recipe: labelled: a {self.mode} game with {self.labels} labels "
                f"(20 % are held out) needs 2 to {most}, got {self.labelled}"
            )
        view = parse(self.view)
        if view.channels != (3, 3) or view.takes != "images":
            raise ValueError(
                "recipe: view: must draw two views of three channels each from images, "
                f"such as crop:0.5, got {self.view!r}"
            )
