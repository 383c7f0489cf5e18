"""Views that share chosen factors of a scene and nothing else. The dial: which factors."""

import torch
from torch import Tensor, nn

from ..moving_mnist import Scenes, nats, parse, partner, render, together


class SharedFactors(nn.Module):
    """v1 is a scene; v2 is another one that has the named factors in common with it, the rest being drawn anew.

    What the two views share is known exactly: `nats`. Only v1 shows the scene that the labels speak of, so `readout` is (0,).

    Args:
        share: factors joined by `-`: `nothing`, `digit%2`, `digit`, `digit-position`, …, `all`; see `moving_mnist.parse`.

    >>> from infomin import data
    >>> train, _ = data.load("digits")
    >>> view = SharedFactors("digit")
    >>> v1, v2 = view(train.scenes[:4])
    >>> v1.shape, round(view.nats(train.scenes), 3)
    (torch.Size([4, 3, 32, 32]), 2.303)
    """

    channels = (3, 3)
    readout = (0,)
    takes = "scenes"

    def __init__(self, share: str) -> None:
        super().__init__()
        parse(share)
        self.share = share

    def forward(self, scenes: Scenes, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """`[B]` scenes -> two float32 `[B, 3, H, W]` in [0, 1].

        Raises:
            TypeError: images came instead of scenes; their factors are not known, so they cannot be redrawn.
        """
        if not isinstance(scenes, Scenes):
            raise TypeError(
                f"SharedFactors({self.share}): got {type(scenes).__name__}, wanted moving_mnist.Scenes, whose factors can be "
                "redrawn; draw them with moving_mnist.draw, or use data='digits'"
            )
        v1, v2 = render(together(scenes, partner(scenes, self.share, generator))).chunk(2)  # drawn at once: half the calls
        return v1, v2

    def nats(self, scenes: Scenes) -> float:
        """I(v1; v2) in closed form, in nats."""
        return nats(scenes, self.share)

    def extra_repr(self) -> str:
        return self.share
