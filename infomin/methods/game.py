"""The view game: a generator of views plays against critics that measure what its views share (InfoMin).

The critics raise I_NCE; the generator lowers it, and keeps what classifiers need to tell labels apart. With gradient reversal all
move in the same step; otherwise the generator waits for a number of steps of the critics.
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
    """A generator against critics, and beside classifiers.

    unsupervised: min over the generator, max over the critics, of I_NCE(v1; v2). supervised: the generator and a classifier a
    view lower the cross entropy of labels; there are no critics. semi-supervised: both; I_NCE on all images, cross entropy on the
    labelled ones.

    Views are of two crops of an image: v1 is the generator's first view of the one, v2 its second view of the other.

    Args:
        generator: views with parameters, two of an image: FlowSplit(PixelFlow()).
        classes: how many labels there are; 0 for a game without labels.
        mode: one of MODES.
        weight: of the cross entropy, 0 or more.
        task: whose labels; -1 is none.
        encoder, width: of the critics' and the classifiers' networks, one a view.
        dim, head, tau: of the critics, as for InfoNCE.
        waits: steps of the critics for each of the generator and its classifiers; 0 moves all at once, by gradient reversal.
        sign: of the generator's interest in I_NCE: -1 lowers it; 1 plays on the critics' side, for comparison.

    Source: InfoMin, its unsupervised and semi-supervised view learning.
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
        sign: int = -1,
    ) -> None:
        super().__init__()
        check_choice(mode, MODES, "Game(mode)")
        check_positive(weight, "Game(weight)", zero=True)
        if not isinstance(generator, View):
            raise TypeError(
                f"Game: the generator must be a View with parameters, such as the FlowSplit of a flow, got "
                f"a {type(generator).__name__}"
            )
        if len(generator.channels) != 2:
            raise ValueError(
                f"Game: the generator must give 2 views, got {len(generator.channels)}; split its channels "
                "otherwise"
            )
        if mode != "unsupervised" and classes < 2:
            raise ValueError(
                f"Game(classes): got {classes} for a {mode} game, wanted 2 or more; take mode='unsupervised'"
            )
        if not isinstance(waits, int) or waits < 0 or (waits and mode == "supervised"):
            raise ValueError(
                f"Game(waits): got {waits!r} for a {mode} game, wanted a whole number of 0 or more, and 0 without critics; "
                "take waits=0"
            )
        if sign not in (-1, 1):
            raise ValueError(
                f"Game(sign): got {sign!r}, wanted -1 (against the critics) or 1 (with them); take -1"
            )
        self.generator, self.mode, self.weight, self.task = generator, mode, weight, task
        self.tau, self.waits, self.sign = tau, waits, sign

        def networks() -> list[Encoder]:
            return [build_encoder(encoder, channels, width) for channels in generator.channels]

        critics = [] if mode == "supervised" else networks()
        self.encoders = nn.ModuleList(critics)
        self.heads = nn.ModuleList(Projection(e.features, dim, head) for e in critics)
        self.classifiers = nn.ModuleList()
        for network in [] if mode == "unsupervised" else networks():
            layer = nn.Linear(network.features, classes)
            self.classifiers.append(nn.Sequential(network, layer))
        self.turn: Tensor
        self.register_buffer("turn", torch.zeros((), dtype=torch.long))
        self._waiting: list[
            nn.Parameter
        ] = []  # those of the critics while the generator has the move

    def groups(self) -> list[Group]:
        """The players that there are: critics, generator, classifiers; weights of the generator do not decay."""
        critics = [*self.encoders.parameters(), *self.heads.parameters()]
        groups = [
            Group("critics", critics),
            Group("generator", list(self.generator.parameters()), decay=0.0),
            Group("classifiers", list(self.classifiers.parameters())),
        ]
        return [group for group in groups if group.parameters]

    def forward(self, views: Sequence[Tensor], batch: Batch) -> Step:
        """Two crops of images and labels -> the loss that all players go down, the generator's interest reversed.

        Args:
            views: two crops of each image, `[B, C, H, W]` each.
            batch: its labels are long `[B]`, -1 where unknown; not needed in an unsupervised game.

        Returns:
            loss, and stats: `i_nce` in nats by the critics, `cross_entropy` in nats summed over both views, `right` the share in
            0..1; of players that there are.
        """
        v1, v2 = self.split(views)
        loss, stats = v1.new_zeros(()), {}
        moves = self.waits == 0 or int(self.turn) % (self.waits + 1) == self.waits
        if self.mode != "supervised":
            i_nce = self._i_nce(v1, v2, moves)
            loss, stats = loss - i_nce, {"i_nce": i_nce.detach()}
        if self.mode != "unsupervised":
            entropy, right = self._classify(v1, v2, self._labels(batch.labels), moves)
            loss = loss + self.weight * entropy
            stats |= {"cross_entropy": entropy.detach(), "right": right}
        return Step(loss, {"loss": loss.detach(), **stats})

    def _i_nce(self, v1: Tensor, v2: Tensor, moves: bool) -> Tensor:
        """With reversal one loss serves both sides; where the generator has the move alone, the critics are held still."""
        self._go_on()
        if self.waits and moves and torch.is_grad_enabled():
            self._waiting = [
                p
                for p in (*self.encoders.parameters(), *self.heads.parameters())
                if p.requires_grad
            ]
            for p in self._waiting:
                p.requires_grad_(False)
        if not moves:
            v1, v2 = v1.detach(), v2.detach()
        elif self.sign < 0:
            v1, v2 = reverse_gradient(v1), reverse_gradient(v2)
        z1, z2 = (
            head(encoder(v))
            for head, encoder, v in zip(self.heads, self.encoders, (v1, v2), strict=True)
        )
        return infonce_symmetric(cosine_scores(z1, z2, self.tau))

    def _classify(
        self, v1: Tensor, v2: Tensor, labels: Tensor, moves: bool
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of the labelled images, summed over both views, and the share that is right; 0 if none has a label."""
        some = (labels >= 0).nonzero()[:, 0]
        if not len(some):
            return v1[:0].sum() + v2[:0].sum(), v1.new_zeros(())  # a zero that still has a gradient
        with torch.set_grad_enabled(moves and torch.is_grad_enabled()):
            scores = [
                classifier(v.index_select(0, some)).float()
                for classifier, v in zip(self.classifiers, (v1, v2), strict=True)
            ]
        entropy = torch.stack([F.cross_entropy(s, labels[some]) for s in scores]).sum()
        return entropy, torch.stack(
            [(s.argmax(1) == labels[some]).float().mean() for s in scores]
        ).mean()

    def _labels(self, labels: Mapping[str, Tensor]) -> Tensor:
        if self.task not in labels:
            raise ValueError(
                f"Game: needs labels of task {self.task!r}, got {', '.join(labels) or 'none'}; take "
                "another task"
            )
        return labels[self.task]

    def split(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The generator's first view of the first crop, and its second of the second."""
        if isinstance(views, Tensor) or len(views) != 2:
            got = "a tensor" if isinstance(views, Tensor) else f"{len(views)} views"
            raise ValueError(
                f"Game: got {got}, wanted two crops of each image; pass for example those of parse('crop:0.5')"
            )
        a, b = views
        return self.generator(a)[0], self.generator(b)[1]

    def features(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What a probe reads: the critics' encoders before their heads, or else those of the classifiers, `[B, D]` each."""
        encoders = self.encoders or [next(classifier.children()) for classifier in self.classifiers]
        return tuple(encoder(v) for encoder, v in zip(encoders, self.split(views), strict=True))

    def after_step(self, step: int) -> None:
        """Pass the turn on."""
        self._go_on()
        self.turn += 1

    def _go_on(self) -> None:
        while self._waiting:
            self._waiting.pop().requires_grad_()


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


def reverse_gradient(x: Tensor) -> Tensor:
    """Hand `x` on as it is, and its gradient back with the other sign: what comes before is trained against what comes after.

    Source: Ganin and Lempitsky, Unsupervised Domain Adaptation by Backpropagation, gradient reversal layer.

    >>> x = torch.ones(2, requires_grad=True)
    >>> reverse_gradient(x).sum().backward()
    >>> x.grad
    tensor([-1., -1.])
    """
    reversed_: Tensor = _Reverse.apply(x)
    return reversed_
