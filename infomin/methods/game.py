"""The view game: a view generator plays against critics that estimate the information views share.

The critics maximise I_NCE. The generator minimises it, while classifiers make it keep what is
needed to predict the labels. With gradient reversal all players move in the same step; otherwise
the generator moves after a fixed number of critic steps. Source: InfoMin.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.checks import check_choice, check_positive
from ..measure.bounds import infonce_symmetric
from ..measure.critics import cosine_scores
from ..networks.encoders import Encoder, build_encoder
from ..networks.heads import Projection
from ..training.step import Batch, Group, Learner, Step
from ..views.base import View

MODES = ("unsupervised", "supervised", "semi-supervised")


class Game(Learner):
    """A view generator against critics, with classifiers where labels are used.

    unsupervised: the generator minimises I_NCE(v1; v2), the critics maximise it. supervised: the
    generator and one classifier per view minimise the cross-entropy of labels; there are no
    critics. semi-supervised: both, with I_NCE on all images and cross-entropy on labelled ones.

    Two crops of an image come in. v1 is the generator's first view of the first crop, v2 its second
    view of the second crop.

    Args:
        generator: a view with parameters that returns two views: FlowSplit(PixelFlow()).
        classes: the number of classes; 0 for a game without labels.
        mode: one of MODES.
        weight: factor on the cross-entropy, 0 or more.
        task: the task whose labels are used; a label of -1 means unknown.
        encoder: network of the critics and classifiers, a key of `networks.ENCODERS`; one per view.
        width: factor on the encoders' channels.
        dim: size of the embedding that the critics compare.
        head: projection head of the critics, a key of `networks.HEADS`.
        tau: temperature of the critics.
        waits: critic steps before each step of the generator and its classifiers; 0 moves all
            players at once, by gradient reversal.

    Raises:
        TypeError: the generator is not a View.
        ValueError: a generator that does not return two views, or an argument out of range.

    Source: InfoMin, unsupervised and semi-supervised view learning.
    """

    def __init__(
        self,
        generator: View,
        classes: int = 0,
        *,
        mode: str = "semi-supervised",
        weight: float = 1.0,
        task: str = "digit",
        encoder: str = "tiny",
        width: float = 0.5,
        dim: int = 64,
        head: str = "linear",
        tau: float = 0.2,
        waits: int = 0,
    ) -> None:
        super().__init__()
        check_choice(mode, MODES, "Game(mode)")
        check_positive(weight, "Game(weight)", zero=True)
        if not isinstance(generator, View):
            raise TypeError(
                f"Game: the generator must be a View, got {type(generator).__name__}; "
                "wrap a flow, for example as FlowSplit(PixelFlow())"
            )
        if len(generator.channels) != 2:
            raise ValueError(
                f"Game: the generator must return 2 views, got {len(generator.channels)}; "
                "split its channels into two groups"
            )
        if mode != "unsupervised" and classes < 2:
            raise ValueError(
                f"Game(classes): got {classes} for a {mode} game, wanted 2 or more; "
                "use mode='unsupervised' if there are no labels"
            )
        if not isinstance(waits, int) or waits < 0 or (waits and mode == "supervised"):
            raise ValueError(
                f"Game(waits): got {waits!r} for a {mode} game, "
                "wanted a whole number of 0 or more, and 0 without critics"
            )
        self.generator, self.mode, self.weight, self.task = generator, mode, weight, task
        self.tau, self.waits = tau, waits

        def build_encoders() -> list[Encoder]:
            return [build_encoder(encoder, channels, width) for channels in generator.channels]

        critic_encoders = [] if mode == "supervised" else build_encoders()
        self.encoders = nn.ModuleList(critic_encoders)
        self.heads = nn.ModuleList(Projection(e.features, dim, head) for e in critic_encoders)
        self.classifiers = nn.ModuleList()
        for network in [] if mode == "unsupervised" else build_encoders():
            layer = nn.Linear(network.features, classes)
            self.classifiers.append(nn.Sequential(network, layer))
        self.turn: Tensor
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))
        # The critics' parameters that are frozen while it is the generator's turn.
        self._frozen: list[nn.Parameter] = []

    def groups(self) -> list[Group]:
        """The players of this mode, of critics, generator and classifiers.

        The generator has no weight decay.
        """
        groups = [
            Group("critics", self._critic_parameters()),
            Group("generator", list(self.generator.parameters()), decay=0.0),
            Group("classifiers", list(self.classifiers.parameters())),
        ]
        return [group for group in groups if group.parameters]

    def forward(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Two crops of images -> one loss whose gradient moves every player in its own direction.

        Args:
            views: two crops of each image, `[B, C, H, W]` each.
            batch: labels of the task are long `[B]`, -1 where unknown; an unsupervised game needs
                none.

        Returns:
            loss, and stats of the players in this mode: `i_nce`, the critics' estimate in nats;
            `cross_entropy`, in nats, summed over both views; `right`, the accuracy in 0..1.
        """
        v1, v2 = self.split(views)
        loss, stats = v1.new_zeros(()), {}
        generator_moves = self.waits == 0 or int(self.turn) % (self.waits + 1) == self.waits
        if self.mode != "supervised":
            i_nce = self._i_nce(v1, v2, generator_moves)
            loss, stats = loss - i_nce, {"i_nce": i_nce.detach()}
        if self.mode != "unsupervised":
            labels = self._labels(batch.labels)
            entropy, right = self._classify(v1, v2, labels, generator_moves)
            loss = loss + self.weight * entropy
            stats |= {"cross_entropy": entropy.detach(), "right": right}
        return Step(loss, {"loss": loss.detach(), **stats})

    def _critic_parameters(self) -> list[nn.Parameter]:
        return [*self.encoders.parameters(), *self.heads.parameters()]

    def _i_nce(self, v1: Tensor, v2: Tensor, generator_moves: bool) -> Tensor:
        """I_NCE by the critics.

        With gradient reversal one loss serves both sides. In turns, the critics are frozen while
        the generator moves, and the views are detached while the critics move.
        """
        self._unfreeze()
        if self.waits and generator_moves and torch.is_grad_enabled():
            self._frozen = [p for p in self._critic_parameters() if p.requires_grad]
            for p in self._frozen:
                p.requires_grad_(False)
        if not generator_moves:
            v1, v2 = v1.detach(), v2.detach()
        else:
            v1, v2 = reverse_gradient(v1), reverse_gradient(v2)
        critics = zip(self.heads, self.encoders, (v1, v2), strict=True)
        z1, z2 = [head(encoder(v)) for head, encoder, v in critics]
        return infonce_symmetric(cosine_scores(z1, z2, self.tau))

    def _classify(
        self, v1: Tensor, v2: Tensor, labels: Tensor, generator_moves: bool
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the labelled images, summed over both views, and the accuracy.

        Both are 0 if no image has a label.
        """
        labelled = (labels >= 0).nonzero()[:, 0]
        if not len(labelled):
            return v1[:0].sum() + v2[:0].sum(), v1.new_zeros(())  # a zero that has a gradient
        with torch.set_grad_enabled(generator_moves and torch.is_grad_enabled()):
            scores = [
                classifier(v.index_select(0, labelled)).float()
                for classifier, v in zip(self.classifiers, (v1, v2), strict=True)
            ]
        targets = labels[labelled]
        entropies = [F.cross_entropy(s, targets) for s in scores]
        accuracies = [(s.argmax(1) == targets).float().mean() for s in scores]
        return torch.stack(entropies).sum(), torch.stack(accuracies).mean()

    def _labels(self, labels: Mapping[str, Tensor]) -> Tensor:
        if self.task not in labels:
            raise ValueError(
                f"Game: needs labels of task {self.task!r}, got {', '.join(labels) or 'none'}"
            )
        return labels[self.task]

    def split(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The generator's first view of the first crop and its second view of the second crop."""
        if isinstance(views, Tensor) or len(views) != 2:
            got = "a tensor" if isinstance(views, Tensor) else f"{len(views)} views"
            raise ValueError(
                f"Game: got {got}, wanted two crops of each image, "
                "for example those of parse('crop:0.5')"
            )
        a, b = views
        return self.generator(a)[0], self.generator(b)[1]

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Outputs of the critics' encoders, before their heads, `[B, D]` each.

        A supervised game has no critics: outputs of the classifiers' encoders.
        """
        encoders = self.encoders or [next(classifier.children()) for classifier in self.classifiers]
        return tuple(encoder(v) for encoder, v in zip(encoders, self.split(views), strict=True))

    def after_step(self, step: int) -> None:
        """Unfreeze the critics and pass the turn on."""
        self._unfreeze()
        self.turn += 1

    def _unfreeze(self) -> None:
        while self._frozen:
            self._frozen.pop().requires_grad_()


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


def reverse_gradient(x: Tensor) -> Tensor:
    """Return `x` unchanged; on the way back, its gradient changes sign.

    Whatever computes `x` is thus trained to maximise the loss that what follows minimises.

    Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015.

    >>> x = torch.ones(2, requires_grad=True)
    >>> reverse_gradient(x).sum().backward()
    >>> x.grad
    tensor([-1., -1.])
    """
    reversed_: Tensor = _Reverse.apply(x)
    return reversed_
