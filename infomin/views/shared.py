"""Views that share chosen factors of a scene or a clip, and nothing else. The dial: which factors."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..common.checks import check_positive, check_type, mark_validated
from ..data.moving_mnist import (
    LATER,
    PAST,
    Clips,
    draw_clips,
    parse_clip_factors,
    positions,
    render_clips,
)
from ..data.moving_mnist import shared_clip_nats as clip_nats
from ..data.scenes import Scenes, draw_partner, parse_factors, render_scenes, shared_nats


class SharedFactors(nn.Module):
    """v1 is a scene; v2 is another one that has the named factors in common with it, the rest being drawn anew.

    What the two views share is known exactly: `nats`. Only v1 shows the scene that the labels speak of, so `readout` is (0,).

    Args:
        share: factors joined by `-`: `nothing`, `digit%2`, `digit`, `digit-position`, …, `all`; see `scenes.parse_factors`.

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
        parse_factors(share)
        self.share = share

    def forward(
        self, scenes: Scenes, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """`[B]` scenes -> two float32 `[B, 3, H, W]` in [0, 1].

        Raises:
            TypeError: images came instead of scenes; their factors are not known, so they cannot be redrawn.
        """
        if not isinstance(scenes, Scenes):
            raise TypeError(
                f"SharedFactors({self.share}): got {type(scenes).__name__}, wanted scenes.Scenes, whose factors can be "
                "redrawn; draw them with scenes.draw, or use data='digits'"
            )
        other = draw_partner(scenes, self.share, generator).tensors()
        both = {name: torch.cat([factor, other[name]]) for name, factor in scenes.tensors().items()}
        v1, v2 = render_scenes(Scenes(scenes.world, **both)).chunk(
            2
        )  # drawn at once: half the calls
        return mark_validated(v1), mark_validated(v2)

    def nats(self, scenes: Scenes) -> float:
        """I(v1; v2) in closed form, in nats."""
        return shared_nats(scenes, self.share)

    def extra_repr(self) -> str:
        return self.share


class SharedFrames(nn.Module):
    """v1 is the past of a clip, its frames stacked; v2 is one image that shares the named factors with a later frame.

    The rest of v2 is drawn anew. In eval mode v2 is that frame itself, all of it: a probe reads what the encoder of single images
    has learned, so `readout` is (1,); `past`, beside it, is what the encoder of v1 has learned. Views are bytes, a quarter of the
    memory: encoders and other views take them as they are.

    Args:
        share: factors joined by `-`, as for SharedFactors, of a clip with one digit: `digit`, `position` (that of the later
            frame, to the pixel), `background`, their finer levels; `nothing`, `all`.
        past: frames of v1, 1 or more, at times 1, 2, …
        later: the time of the frame that v2 shares factors with.

    Raises:
        ValueError: an unknown factor, a position modulo a number (it has none), a past that is no number.

    Source: InfoMin, Colorful Moving-MNIST; past and later as recalled.
    """

    takes = "clips"
    augments = True  # redraws in training, and shows images as they are in eval mode

    def __init__(self, share: str, past: int = PAST, later: float = LATER) -> None:
        super().__init__()
        parse_clip_factors(share)
        check_type(past, int, "SharedFrames(past)")
        check_positive(past, "SharedFrames(past)")
        self.share, self.past, self.later = share, past, later
        self.channels, self.readout, self.beside = (3 * past, 3), (1,), {"past": (0,)}

    def forward(
        self, clips: Clips, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """`[B]` clips -> uint8 `[B, 3 * past, H, W]` and `[B, 3, H, W]`."""
        if not isinstance(clips, Clips) or clips.digit.shape[1] != 1:
            got = (
                f"{clips.digit.shape[1]} digits"
                if isinstance(clips, Clips)
                else type(clips).__name__
            )
            raise TypeError(
                f"SharedFrames({self.share}): got {got}, wanted moving_mnist.Clips of a digit each; use data='clips'"
            )
        v1 = render_clips(clips, range(1, self.past + 1), dtype=torch.uint8).flatten(1, 2)
        seen, time = (self.other(clips, generator), 0) if self.training else (clips, self.later)
        return v1, render_clips(seen, [time], dtype=torch.uint8)[:, 0]

    def other(self, clips: Clips, generator: torch.Generator | None = None) -> Clips:
        """Clips whose frame at time 0 has the shared factors in common with the later frame of `clips`."""
        places, digit, image = (
            torch.zeros_like(clips.background),
            clips.digit[:, 0],
            clips.digit_image[:, 0],
        )
        scenes = Scenes(
            clips.world, digit, image, places, clips.background, clips.background_image, clips.crop
        )
        kept = draw_partner(scenes, self.share, generator)
        new = draw_clips(
            clips.world,
            len(clips),
            int(torch.randint(2**47, (), device="cpu", generator=generator)),
        )
        start = (
            positions(clips, [self.later])[:, 0]
            if "position" in parse_clip_factors(self.share)
            else new.start
        )
        return replace(
            clips,
            digit=kept.digit[:, None],
            digit_image=kept.digit_image[:, None],
            start=start,
            background=kept.background,
            background_image=kept.background_image,
            crop=kept.crop,
        )

    def nats(self, clips: Clips) -> float:
        """What the factors of both views share, in closed form, in nats; it bounds I(v1; v2) from above."""
        return clip_nats(clips, self.share)

    def extra_repr(self) -> str:
        return f"{self.share}, past={self.past}, later={self.later}"
