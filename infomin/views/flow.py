"""Invertible pixel-wise flows: learned colour spaces, whose channels are dealt out to views as those of any other.

A coupling changes some channels of a pixel by numbers that a small network computes from the other channels, which stay as they
are, so it can be undone. Volume preserving: it adds to them. Otherwise it multiplies them first, by 1/e at least and e at most.
The couplings are nflows' (no other file imports it): they hold the parameters and are the reference. The fast path computes the
same numbers a piece of the images at a time.
"""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from nflows.transforms.coupling import AdditiveCouplingTransform, AffineCouplingTransform
from torch import Tensor, nn

from ..common.checks import check_choice, check_images, check_tensor, check_type, is_traced, to_unit
from ..common.files import PathLike
from ..common.seeds import seeded_generator as seeded
from ..common.seeds import to_device
from .base import ImageView, Views, on_batch, register
from .color import SPACES, ColorSplit
from .couplings import apply_couplings, apply_in_pieces, invert_in_pieces
from .flow_parts import REMEDY, Conditioner, groups_in, groups_of, read, write


class _Affine(AffineCouplingTransform):
    """nflows' own scale, sigmoid(x + 2) + 0.001, can only shrink; this one is 1 at x = 0, and grows as far as it shrinks."""

    def _scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = outputs.split(self.num_transform_features, 1)
        return torch.tanh(raw).exp(), shift


class PixelFlow(nn.Module):
    """A learned bijection of the colour of each pixel, which is the identity at first.

    Args:
        channels: of the images, 2 or more.
        couplings: how many there are, 1 or more; with the default order it takes 2, or 3 for an odd number of channels, until
            every channel has been changed.
        hidden: width of the hidden layers of each coupling's network, 1 or more.
        depth: number of its hidden layers, 0 or more.
        volume_preserving: additive couplings; otherwise affine ones, each of which scales a channel by 1/e to e.
        space: one of SPACES, whose channels the flow works on, each mapped to [-1, 1] as ColorSplit does; "rgb" stands for the
            images' own channels as they are, and is the only one unless they are 3.
        order: the channels that each coupling changes, from the first again when they run out: ((1, 2), (0,)). By default
            `channels // 2` each, going on where the coupling before it stopped, round and round: 0, 1, 2, 0, … of 3 channels.
        seed: of the hidden layers.

    Attributes:
        fast: whether to compute in pieces that stay in the cache; False takes nflows' own path: the same numbers in more time.
        provenance: what `save` was told, after `load`.

    Raises:
        ValueError: a number out of range, an unknown space, an order that leaves a coupling nothing to change or to look at.

    Source: InfoMin, its learned views; NICE and RealNVP for the couplings.

    >>> flow, images = PixelFlow(), torch.rand(4, 3, 8, 8)
    >>> torch.equal(flow(images), images), flow.log_det(images).shape
    (True, torch.Size([4, 8, 8]))
    """

    def __init__(
        self,
        channels: int = 3,
        couplings: int = 4,
        hidden: int = 32,
        depth: int = 1,
        volume_preserving: bool = True,
        space: str = "rgb",
        order: Iterable[Iterable[int]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {
            "channels": (channels, 2),
            "couplings": (couplings, 1),
            "hidden": (hidden, 1),
            "depth": (depth, 0),
            "seed": (seed, 0),
        }
        for name, (value, least) in sizes.items():
            check_type(value, int, f"PixelFlow({name})")
            if value < least:
                raise ValueError(
                    f"PixelFlow({name}): got {value}, wanted {least} or more; change it"
                )
        if check_choice(space, SPACES, "PixelFlow(space)") != "rgb" and channels != 3:
            raise ValueError(
                f"PixelFlow(space): got {space!r} for {channels} channels, wanted 3 channels; take space='rgb'"
            )
        groups = groups_of(order, channels, couplings)
        self.config: dict[str, Any] = {name: value for name, (value, _) in sizes.items()}
        self.config |= {
            "volume_preserving": bool(volume_preserving),
            "space": space,
            "order": groups,
        }
        self.channels, self.space, self.fast = channels, space, True
        self.units = (split := ColorSplit(space, norm="range")).mean, split.std
        self.provenance: Mapping[str, Any] = {}
        draws = seeded(seed, "flow")
        transform = AdditiveCouplingTransform if volume_preserving else _Affine
        self.couplings: Any = nn.ModuleList(
            transform(
                [int(c in group) for c in range(channels)],
                lambda i, o: Conditioner(i, o, hidden, depth, draws),
            )
            for group in groups
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` or one `[C, H, W]`, uint8 or floating point, to the latent: learned channels, as many.

        Half precision is computed in float32 and rounded once.
        """
        return self.forward_and_log_det(images)[0]

    def log_det(self, images: Tensor) -> Tensor:
        """The logarithm of the factor by which the flow scales the volume at each pixel's colour, `[B, H, W]`; 0 if none.

        That is log |det| of the latent's derivative by the channels of `space`, as they are mapped to [-1, 1].
        """
        return self.forward_and_log_det(images)[1]

    def forward_and_log_det(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `forward` and `log_det` give, in one pass."""
        images = check_tensor(images, "PixelFlow", self.channels)
        return on_batch(self._to_latent, images)

    def inverse(self, latent: Tensor) -> Tensor:
        """The floating-point images `[B, C, H, W]` or `[C, H, W]` that have this latent; they are not clipped."""
        latent = check_tensor(latent, "PixelFlow.inverse", self.channels)
        return on_batch(self._to_images, latent)[0]

    def _to_latent(self, images: Tensor) -> Views:
        images = to_unit(check_images(images, "PixelFlow", channels=self.channels, unit=False))
        if self.space != "rgb":
            mean, std = self._units(images)
            images = (SPACES[self.space].from_rgb(images) - mean) / std
        latent, log_det = self._through(images.flatten(2), inverse=False)
        return latent.unflatten(2, images.shape[2:]), log_det.unflatten(1, images.shape[2:])

    def _to_images(self, latent: Tensor) -> Views:
        check_images(latent, "PixelFlow.inverse", channels=self.channels, unit=False)
        if not latent.is_floating_point():
            raise TypeError(
                f"PixelFlow.inverse: got a latent of {latent.dtype}, wanted floating point; pass what the flow gave"
            )
        images = self._through(latent.flatten(2), inverse=True)[0].unflatten(2, latent.shape[2:])
        if self.space != "rgb":
            mean, std = self._units(images)
            images = SPACES[self.space].to_rgb(images * std + mean)
        return (images,)

    def _units(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the channels of the space, `[C, 1, 1]` each."""
        mean, std = (
            to_device(torch.tensor(of, dtype=torch.float64, device="cpu"), images)[:, None, None]
            for of in self.units
        )
        return mean, std

    def _through(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Planes `[B, C, N]` through all couplings, or back through their inverses; the log-det is that of the way there."""
        if not self.fast:
            return self._by_nflows(x, inverse)
        chain = [
            (group, c.transform_net.layers(x.dtype))
            for group, c in zip(self.config["order"], self.couplings, strict=True)
        ]
        if (
            is_traced()
        ):  # a compiler makes pieces of its own, and torch.func knows no gradients of ours
            return apply_couplings(x, chain, inverse)
        return invert_in_pieces(x, chain) if inverse else apply_in_pieces(x, chain)

    def _by_nflows(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        rows = x.movedim(1, 2).flatten(0, 1)
        log_det = torch.zeros_like(rows[:, 0])
        for coupling in reversed(self.couplings) if inverse else self.couplings:
            rows, by = coupling.inverse(rows) if inverse else coupling(rows)
            log_det = log_det + (-by if inverse else by)
        return rows.unflatten(0, (len(x), -1)).movedim(2, 1), log_det.view(len(x), -1)

    def save(self, path: PathLike, **provenance: Any) -> None:
        """Write the flow to one safetensors file, atomically; the same flow and provenance give the same bytes.

        Args:
            path: for example `learned.safetensors`; replaced if it exists.
            provenance: where the flow comes from, anything that JSON has a word for: `data="stl10", seed=0, commit="1a2b3c"`.

        Raises:
            ValueError: a provenance that JSON has no word for.
            OSError: the file cannot be written; an older one is as it was.
        """
        write(path, self.config, provenance, dict(self.named_parameters()))

    @classmethod
    def load(cls, path: PathLike) -> "PixelFlow":
        """Read a flow that `save` wrote, on the CPU, with its dtype; nothing is unpickled.

        Raises:
            FileNotFoundError: no such file.
            ValueError: truncated, damaged, of another program or version, or parameters that are missing or of another shape.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PixelFlow(couplings=2).save(f"{folder}/learned.safetensors", data="digits")
        ...     flow = PixelFlow.load(f"{folder}/learned.safetensors")
        >>> len(flow.couplings), flow.provenance
        (2, {'data': 'digits'})
        """
        config, provenance, tensors = read(path)
        try:
            flow = cls(**config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: got {config} ({error}), wanted the arguments of PixelFlow; {REMEDY}"
            ) from None
        flow.provenance = provenance
        wanted = {name: list(parameter.shape) for name, parameter in flow.named_parameters()}
        got = {name: list(tensor.shape) for name, tensor in tensors.items()}
        if wrong := [name for name in {**wanted, **got} if wanted.get(name) != got.get(name)]:
            said = [
                f"{n}: {got.get(n, 'missing')}, wanted {wanted.get(n, 'no such parameter')}"
                for n in wrong[:3]
            ]
            raise ValueError(
                f"{path}: got other parameters than its configuration has, {'; '.join(said)}; {REMEDY}"
            )
        flow.load_state_dict(
            tensors, strict=False, assign=True
        )  # what is not a parameter follows from the configuration
        return flow

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())


@register(
    "flow",
    dial="the file of a learned flow, whose first channel is contrasted with the others: flow:learned.safetensors",
)
class FlowSplit(ImageView):
    """Views that are groups of a flow's channels: `first, rest = FlowSplit(flow)(images)`.

    Args:
        flow: it is not copied, and its parameters are trained through the views.
        split: which channels make up each view, a digit each: "0-12", "01-2", …; of more than ten channels groups of numbers.

    Raises:
        ValueError: a split that does not use each channel once.

    Source: InfoMin, its learned views.

    >>> first, rest = FlowSplit(PixelFlow())(torch.rand(4, 3, 8, 8))
    >>> first.shape, rest.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 2, 8, 8]))
    """

    bounded = False

    def __init__(self, flow: PixelFlow, split: str | Iterable[Iterable[int]] = "0-12") -> None:
        super().__init__()
        self.flow = flow
        self.groups = groups_in(split, flow.channels)
        self.in_channels = flow.channels
        self.channels = tuple(len(group) for group in self.groups)
        self.readout = tuple(range(len(self.groups)))

    @classmethod
    def from_dial(cls, dial: str) -> "FlowSplit":
        """`flow:FILE`: the first channel of a learned flow against the others.

        The flow is frozen, and `.digest` is the file's sha256.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or a flow of other than 3 channels; for those, and for other
                splits, write FlowSplit(PixelFlow.load(file), split).
        """
        file = os.path.expanduser(dial)
        views = cls(PixelFlow.load(file)).eval().requires_grad_(False)
        views.digest = sha256(Path(file).read_bytes()).hexdigest()
        return views

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """One view `[B, channels, H, W]` a group; nothing is drawn at random."""
        planes = self.flow(images).unbind(1)
        return tuple(torch.stack([planes[c] for c in group], 1) for group in self.groups)
