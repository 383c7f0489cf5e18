"""Views that share only the named factors of a scene or a clip; the dial names them."""

from dataclasses import replace

import torch

from ..common.checks import INF, check_integer, check_range
from ..data.moving_mnist import (
    LATER,
    PAST,
    Clips,
    draw_clips,
    parse_clip_factors,
    positions,
    render_clips,
    shared_clip_nats,
)
from ..data.scenes import Scenes, draw_partner, parse_factors, render_scenes, shared_nats
from .base import View, Views, register


@register(
    "shared",
    dial="the factors that both views share: shared:nothing, shared:digit%5, "
    "shared:digit-position, shared:all, or one of them with the probability of another class: "
    "shared:digit~0.3",
)
class SharedFactors(View):
    """v1 is a scene; v2 is another scene with the same named factors, all others redrawn.

    `nats` is exactly what the two views share. The labels describe v1 only, so `readout` is (0,).

    Args:
        share: factors joined by `-`: `nothing`, `digit%2`, `digit`, `digit-position`, …, `all`;
            `digit~0.3` is another digit in v2 with probability 0.3; see `scenes.parse_factors`.

    Raises:
        ValueError: an unknown factor, or a modulus or an error where none is possible.

    >>> from infomin import data
    >>> train, _ = data.load("digits")
    >>> v1, v2 = SharedFactors("digit")(train.scenes[:4])
    >>> v1.shape
    torch.Size([4, 3, 32, 32])
    >>> [round(SharedFactors(f"digit{error}").nats(train.scenes), 3) for error in ("", "~0.3")]
    [2.303, 1.033]
    """

    channels = (3, 3)
    readout = (0,)
    takes = "scenes"
    is_trusted = True

    def __init__(self, share: str) -> None:
        super().__init__()
        parse_factors(share)
        self.share = share

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """`[B]` scenes to two views, float32 `[B, 3, H, W]` in [0, 1].

        Raises:
            TypeError: not scenes; the factors of images are unknown, so they cannot be redrawn.
        """
        scenes = self._check_scenes(batch)
        partner = draw_partner(scenes, self.share, generator).tensors()
        both = {name: torch.cat([own, partner[name]]) for name, own in scenes.tensors().items()}
        # One call that renders 2 B scenes is faster than two calls.
        v1, v2 = render_scenes(Scenes(scenes.world, **both)).chunk(2)
        return v1, v2

    def nats(self, batch: object) -> float:
        """I(v1; v2) of `[B]` scenes in closed form, in nats."""
        return shared_nats(self._check_scenes(batch), self.share)

    def _check_scenes(self, batch: object) -> Scenes:
        if not isinstance(batch, Scenes):
            raise TypeError(
                f"SharedFactors({self.share}): got {type(batch).__name__}, wanted scenes.Scenes, "
                "whose factors can be redrawn; use scenes.draw_scenes or data='digits'"
            )
        return batch

    def extra_repr(self) -> str:
        return self.share


@register(
    "frames",
    dial="the factors that the past of a clip shares with one image: frames:nothing, "
    "frames:digit, frames:digit-background, frames:all",
)
class SharedFrames(View):
    """v1 is the past of a clip, v2 an image that shares the named factors with a later frame.

    v1 stacks the past frames in its channels. All other factors of v2 are redrawn; in eval mode v2
    is the later frame itself. A probe reads the encoder of single images, so `readout` is (1,);
    `beside` adds the encoder of v1 as `past`. Views are uint8, which takes a quarter of the memory;
    encoders and other views accept them.

    Args:
        share: factors joined by `-`, as for SharedFactors, of a clip with one digit: `digit`,
            `position` (in the later frame, to the pixel), `background`, their finer levels;
            `nothing`, `all`.
        past: number of frames in v1, 1 or more, at times 1, 2, …
        later: the time of the frame that v2 shares factors with.

    Raises:
        ValueError: an unknown factor, a position with a modulus, or a `past` that is not a whole
            number of 1 or more; a `later` beyond 1e9.

    Source: InfoMin, Colorful Moving-MNIST; `past` and `later` from memory.
    """

    takes = "clips"
    is_trusted = True
    augments = True

    def __init__(self, share: str, past: int = PAST, later: float = LATER) -> None:
        super().__init__()
        parse_clip_factors(share)
        self.share = share
        self.past = check_integer(past, 1, INF, "SharedFrames(past)")
        self.later = check_range(later, -1e9, 1e9, "SharedFrames(later)")
        self.channels = (3 * self.past, 3)
        self.readout = (1,)
        self.beside = {"past": (0,)}

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """`[B]` clips to uint8 `[B, 3 * past, H, W]` and `[B, 3, H, W]`.

        Raises:
            TypeError: not clips, or clips of several digits.
        """
        clips = self._check_clips(batch)
        past = render_clips(clips, range(1, self.past + 1), dtype=torch.uint8).flatten(1, 2)
        if self.training:
            frames = render_clips(self.other(clips, generator), [0], dtype=torch.uint8)
        else:
            frames = render_clips(clips, [self.later], dtype=torch.uint8)
        return past, frames[:, 0]

    def other(self, clips: Clips, generator: torch.Generator | None = None) -> Clips:
        """Draw clips whose frame at time 0 shares the factors with the later frame of `clips`."""
        scenes = Scenes(
            clips.world,
            digit=clips.digit[:, 0],
            digit_image=clips.digit_image[:, 0],
            position=torch.zeros_like(clips.background),  # unused: clips have `start` instead
            background=clips.background,
            background_image=clips.background_image,
            crop=clips.crop,
        )
        partner = draw_partner(scenes, self.share, generator)
        seed = int(torch.randint(2**47, (), device="cpu", generator=generator))
        start = draw_clips(clips.world, len(clips), seed).start
        if "position" in parse_clip_factors(self.share):
            start = positions(clips, [self.later])[:, 0]
        return replace(
            clips,
            digit=partner.digit[:, None],
            digit_image=partner.digit_image[:, None],
            start=start,
            background=partner.background,
            background_image=partner.background_image,
            crop=partner.crop,
        )

    def nats(self, batch: object) -> float:
        """The nats that the factors of both views share, in closed form: at least I(v1; v2)."""
        return shared_clip_nats(self._check_clips(batch), self.share)

    def _check_clips(self, batch: object) -> Clips:
        if isinstance(batch, Clips) and batch.digit.shape[1] == 1:
            return batch
        got = type(batch).__name__
        if isinstance(batch, Clips):
            got = f"clips of {batch.digit.shape[1]} digits"
        raise TypeError(
            f"SharedFrames({self.share}): got {got}, wanted moving_mnist.Clips of one digit each; "
            "use data='clips'"
        )

    def extra_repr(self) -> str:
        return f"{self.share}, past={self.past}, later={self.later}"
