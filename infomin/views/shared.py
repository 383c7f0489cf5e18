"""Views that share chosen factors of a scene or a clip, and nothing else. The dial: which factors."""

from dataclasses import replace

import torch

from ..common.checks import check_positive, check_type, mark_validated
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
    dial="the factors that both views show: shared:nothing, shared:digit%5, shared:digit-position, shared:all",
)
class SharedFactors(View):
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

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """`[B]` scenes -> two float32 `[B, 3, H, W]` in [0, 1].

        Raises:
            TypeError: images came instead of scenes; their factors are not known, so they cannot be
                redrawn.
        """
        scenes = self._check_scenes(batch)
        other = draw_partner(scenes, self.share, generator).tensors()
        both = {name: torch.cat([factor, other[name]]) for name, factor in scenes.tensors().items()}
        pictures = render_scenes(Scenes(scenes.world, **both))  # at once: half the calls
        v1, v2 = pictures.chunk(2)
        return mark_validated(v1), mark_validated(v2)

    def nats(self, batch: object) -> float:
        """I(v1; v2) of `[B]` scenes in closed form, in nats."""
        return shared_nats(self._check_scenes(batch), self.share)

    def _check_scenes(self, batch: object) -> Scenes:
        if not isinstance(batch, Scenes):
            raise TypeError(
                f"SharedFactors({self.share}): got {type(batch).__name__}, wanted scenes.Scenes, whose "
                "factors can be redrawn; draw them with scenes.draw_scenes, or use data='digits'"
            )
        return batch

    def extra_repr(self) -> str:
        return self.share


@register(
    "frames",
    dial="what the past of a clip shares with one image: frames:nothing, frames:digit, frames:digit-background, frames:all",
)
class SharedFrames(View):
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
    augments = True

    def __init__(self, share: str, past: int = PAST, later: float = LATER) -> None:
        super().__init__()
        parse_clip_factors(share)
        check_type(past, int, "SharedFrames(past)")
        check_positive(past, "SharedFrames(past)")
        self.share, self.past, self.later = share, past, later
        self.channels, self.readout, self.beside = (3 * past, 3), (1,), {"past": (0,)}

    def forward(self, batch: object, generator: torch.Generator | None = None) -> Views:
        """`[B]` clips -> uint8 `[B, 3 * past, H, W]` and `[B, 3, H, W]`."""
        clips = self._check_clips(batch)
        past = render_clips(clips, range(1, self.past + 1), dtype=torch.uint8).flatten(1, 2)
        if self.training:
            image = render_clips(self.other(clips, generator), [0], dtype=torch.uint8)
        else:
            image = render_clips(clips, [self.later], dtype=torch.uint8)
        return past, image[:, 0]

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

    def nats(self, batch: object) -> float:
        """What the factors of both views share, in closed form, in nats: an upper bound of I(v1; v2)."""
        return shared_clip_nats(self._check_clips(batch), self.share)

    def _check_clips(self, batch: object) -> Clips:
        if isinstance(batch, Clips) and batch.digit.shape[1] == 1:
            return batch
        got = f"{batch.digit.shape[1]} digits" if isinstance(batch, Clips) else type(batch).__name__
        raise TypeError(
            f"SharedFrames({self.share}): got {got}, wanted moving_mnist.Clips of one digit each; use "
            "data='clips'"
        )

    def extra_repr(self) -> str:
        return f"{self.share}, past={self.past}, later={self.later}"
