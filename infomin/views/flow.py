"""Invertible pixel-wise flows: learned colour spaces, split into views like any other space.

A coupling changes some channels of a pixel by numbers that a small network computes from the other
channels. Those stay as they are, so the coupling can be inverted. A volume-preserving coupling adds
to the channels; an affine one first multiplies them by a factor between 1/e and e.

The couplings are those of nflows (no other file imports it): they hold the parameters and are the
reference. The fast path computes the same numbers on one piece of the images at a time.
"""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from nflows.transforms.coupling import AdditiveCouplingTransform, AffineCouplingTransform
from torch import Tensor, nn

from ..common.checks import check_choice, check_images, check_integer, is_traced, to_unit
from ..common.files import PathLike
from ..common.seeds import seeded_generator, to_device
from .base import ImageView, Views, on_batch, register
from .color import SPACES, ColorSplit
from .couplings import apply_couplings, apply_in_pieces, invert_in_pieces
from .dials import read_groups
from .flow_parts import (
    REMEDY,
    Conditioner,
    check_size,
    coupling_groups,
    is_finite_float,
    read_flow,
    write_flow,
)


class _AffineCoupling(AffineCouplingTransform):
    """An affine coupling that scales by exp(tanh(x)): 1/e to e, and 1 at x = 0.

    The scale of nflows, sigmoid(x + 2) + 0.001, never exceeds 1.001.
    """

    def _scale_and_shift(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = outputs.split(self.num_transform_features, 1)
        return torch.tanh(raw).exp(), shift


class PixelFlow(nn.Module):
    """A learned bijection of each pixel's colour; a new flow is the identity.

    Args:
        channels: of the images, 2 to 1000.
        couplings: number of couplings, 1 to 1000. With the default order, 2 couplings change every
            channel once (3 if the number of channels is odd).
        hidden: width of the hidden layers of each coupling's network, 1 to 100,000.
        depth: number of its hidden layers, 0 to 100.
        volume_preserving: True uses additive couplings, False affine ones, which scale each channel
            by 1/e to e.
        space: the colour space (one of SPACES) whose channels the flow transforms, each mapped to
            [-1, 1] as in ColorSplit. "rgb" uses the images' channels unchanged, and is the only
            choice unless there are 3.
        order: the channels that each coupling changes, repeated as needed: ((1, 2), (0,)). By
            default each coupling changes the next `channels // 2` channels: for 3 channels
            0, 1, 2, 0, ….
        seed: of the hidden layers, 0 or more.

    Attributes:
        fast: True computes in pieces that stay in the cache; False uses nflows, which gives the
            same numbers more slowly.
        provenance: after `load`, what was passed to `save`.

    Products follow `torch.set_float32_matmul_precision`: on a CPU with bfloat16 instructions,
    "medium" made `inverse` miss the images by 8e-4 to 6e-3 where torch's default, "highest", missed
    them by 3e-7 (6 couplings, depth 2, weights of deviation 0.5). Runs always use "highest".

    Raises:
        ValueError: a number out of range, an unknown space, or an order that leaves a coupling
            nothing to change or nothing to see.

    Source: InfoMin, learned views; NICE and RealNVP for the couplings.

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
        channels = check_integer(channels, 2, 1000, "PixelFlow(channels)")
        couplings = check_integer(couplings, 1, 1000, "PixelFlow(couplings)")
        hidden = check_integer(hidden, 1, 1e5, "PixelFlow(hidden)")
        depth = check_integer(depth, 0, 100, "PixelFlow(depth)")
        seed = check_integer(seed, 0, 2**63 - 1, "PixelFlow(seed)")
        if check_choice(space, SPACES, "PixelFlow(space)") != "rgb" and channels != 3:
            raise ValueError(
                f"PixelFlow(space): got {space!r} for {channels} channels, wanted 3 channels; "
                "use space='rgb'"
            )
        groups = coupling_groups(order, channels, couplings)
        self.config: dict[str, Any] = {
            "channels": channels,
            "couplings": couplings,
            "hidden": hidden,
            "depth": depth,
            "seed": seed,
            "volume_preserving": bool(volume_preserving),
            "space": space,
            "order": groups,
        }
        self.channels, self.space, self.fast = channels, space, True
        split = ColorSplit(space, norm="range")
        self.units = split.mean, split.std
        self.provenance: Mapping[str, Any] = {}
        generator = seeded_generator(seed, "flow")

        def make_network(inputs: int, outputs: int) -> Conditioner:
            return Conditioner(inputs, outputs, hidden, depth, generator)

        transform = AdditiveCouplingTransform if volume_preserving else _AffineCoupling
        masks = [[int(channel in group) for channel in range(channels)] for group in groups]
        self.couplings: Any = nn.ModuleList(transform(mask, make_network) for mask in masks)

    def forward(self, images: Tensor) -> Tensor:
        """Images to their latent: as many learned channels.

        Args:
            images: `[B, C, H, W]` or a single `[C, H, W]`, uint8 or floating point. Half precision
                is computed in float32 and rounded once.
        """
        return self.forward_and_log_det(images)[0]

    def log_det(self, images: Tensor) -> Tensor:
        """The log of the factor by which the flow scales volume at each pixel, `[B, H, W]`.

        It is log |det| of the derivative of the latent with respect to the channels of `space`,
        mapped to [-1, 1]; 0 for a volume-preserving flow.
        """
        return self.forward_and_log_det(images)[1]

    def forward_and_log_det(self, images: Tensor) -> tuple[Tensor, ...]:
        """The latent and the log-det in one pass."""
        images = check_images(images, "PixelFlow", channels=self.channels, unit=False)
        return on_batch(self.to_latent, images)

    def inverse(self, latent: Tensor) -> Tensor:
        """The images `[B, C, H, W]` or `[C, H, W]` with this floating-point latent, not clipped."""
        check_images(latent, "PixelFlow.inverse", channels=self.channels, unit=False)
        if not latent.is_floating_point():
            raise TypeError(
                f"PixelFlow.inverse: got a latent of {latent.dtype}, wanted floating point; "
                "pass the output of the flow"
            )
        return on_batch(self._to_images, latent)[0]

    def to_latent(self, images: Tensor) -> Views:
        """The latent and the log-det of a checked batch `[B, C, H, W]`."""
        images = to_unit(images)
        if self.space != "rgb":
            mean, std = self._mean_std(images)
            images = (SPACES[self.space].from_rgb(images) - mean) / std
        latent, log_det = self._apply_couplings(images.flatten(2), inverse=False)
        return latent.unflatten(2, images.shape[2:]), log_det.unflatten(1, images.shape[2:])

    def _to_images(self, latent: Tensor) -> Views:
        planes, _ = self._apply_couplings(latent.flatten(2), inverse=True)
        images = planes.unflatten(2, latent.shape[2:])
        if self.space != "rgb":
            mean, std = self._mean_std(images)
            images = SPACES[self.space].to_rgb(images * std + mean)
        return (images,)

    def _mean_std(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the channels of the space, `[C, 1, 1]` each."""
        mean, std = torch.tensor(self.units, dtype=torch.float64, device="cpu")[..., None, None]
        return to_device(mean, images), to_device(std, images)

    def _apply_couplings(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Apply all couplings, or their inverses, to planes `[B, C, N]`.

        The log-det is always that of the forward direction.
        """
        if not self.fast:
            return self._apply_nflows(x, inverse)
        networks = [coupling.transform_net for coupling in self.couplings]
        layers = [network.layers(x.dtype) for network in networks]
        chain = list(zip(self.config["order"], layers, strict=True))
        # compilers split the work themselves; torch.func needs autograd's gradients
        if is_traced():
            return apply_couplings(x, chain, inverse)
        return invert_in_pieces(x, chain) if inverse else apply_in_pieces(x, chain)

    def _apply_nflows(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        pixels = x.movedim(1, 2).flatten(0, 1)
        log_det = torch.zeros_like(pixels[:, 0])
        for coupling in reversed(self.couplings) if inverse else self.couplings:
            if inverse:
                pixels, change = coupling.inverse(pixels)
                log_det = log_det - change
            else:
                pixels, change = coupling(pixels)
                log_det = log_det + change
        return pixels.unflatten(0, (len(x), -1)).movedim(2, 1), log_det.view(len(x), -1)

    def save(self, path: PathLike, **provenance: Any) -> None:
        """Write the flow to one safetensors file, atomically.

        The same flow and provenance give the same bytes.

        Args:
            path: for example `learned.safetensors`; replaced if it exists.
            provenance: where the flow comes from, anything that JSON can represent:
                `data="stl10", seed=0, commit="1a2b3c"`.

        Raises:
            ValueError: a provenance that JSON cannot represent.
            OSError: the file cannot be written; an existing file is left unchanged.
        """
        write_flow(path, self.config, provenance, dict(self.named_parameters()))

    @classmethod
    def load(cls, path: PathLike, *, trainable: bool = False) -> "PixelFlow":
        """Read a flow that `save` wrote, with its dtype, onto the CPU; nothing is unpickled.

        Args:
            path: of the file.
            trainable: whether its parameters require a gradient. They should not where only its
                views are wanted: an optimiser would change them, and workers of a DataLoader cannot
                send views that require a gradient.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is truncated, damaged or from another program or version, or
                whose parameters are missing, not finite, or of another shape or dtype.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PixelFlow(couplings=2).save(f"{folder}/learned.safetensors", data="digits")
        ...     flow = PixelFlow.load(f"{folder}/learned.safetensors")
        >>> len(flow.couplings), flow.provenance
        (2, {'data': 'digits'})
        """
        config, provenance, tensors = read_flow(path)
        try:
            check_size(config, tensors)
            flow = cls(**config)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: got the configuration {config} ({error}), wanted the arguments of "
                f"PixelFlow; {REMEDY}"
            ) from None
        flow.provenance = provenance
        wanted = {name: list(parameter.shape) for name, parameter in flow.named_parameters()}
        got = {name: list(tensor.shape) for name, tensor in tensors.items()}
        names = {**wanted, **got}
        if bad := [name for name, tensor in tensors.items() if not is_finite_float(tensor)]:
            raise ValueError(
                f"{path}: got parameters that are not finite floating-point numbers, "
                f"{', '.join(bad[:3])}; {REMEDY}"
            )
        differences = [
            f"{name}: {got.get(name, 'missing')}, wanted {wanted.get(name, 'no such parameter')}"
            for name in names
            if wanted.get(name) != got.get(name)
        ]
        if differences:
            raise ValueError(
                f"{path}: got parameters that do not match its configuration, "
                f"{'; '.join(differences[:3])}; {REMEDY}"
            )
        # Not strict: what is not a parameter follows from the configuration.
        flow.load_state_dict(tensors, strict=False, assign=True)
        return flow.requires_grad_(trainable)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config.items())


@register(
    "flow",
    dial="the file of a learned flow; its first channel is one view, the others the second: "
    "flow:learned.safetensors",
)
class FlowSplit(ImageView):
    """Split the channels of a flow into views: `first, rest = FlowSplit(flow)(images)`.

    Args:
        flow: not copied; its parameters can be trained through the views.
        split: the channels of each view, one digit per channel: "0-12", "01-2", …; for more than
            ten channels use groups of numbers.

    Raises:
        ValueError: a split that does not use each channel once.

    Source: InfoMin, learned views.

    >>> first, rest = FlowSplit(PixelFlow())(torch.rand(4, 3, 8, 8))
    >>> first.shape, rest.shape
    (torch.Size([4, 1, 8, 8]), torch.Size([4, 2, 8, 8]))
    """

    bounded = False

    def __init__(self, flow: PixelFlow, split: str | Iterable[Iterable[int]] = "0-12") -> None:
        super().__init__()
        self.flow = flow
        self.groups = read_groups(split, flow.channels, "FlowSplit(split)", all_once=True)
        self.in_channels = flow.channels
        self.channels = tuple(len(group) for group in self.groups)
        self.readout = tuple(range(len(self.groups)))

    @classmethod
    def from_dial(cls, dial: str) -> "FlowSplit":
        """`flow:FILE`: the first channel of a learned flow, and the others.

        The flow is frozen, and `digest` is the sha256 of the file. For other splits, and for flows
        of more or fewer than 3 channels, write FlowSplit(PixelFlow.load(file), split).

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged file, or a flow that does not have 3 channels.
        """
        file = os.path.expanduser(dial)
        view = cls(PixelFlow.load(file)).eval()
        view.digest = sha256(Path(file).read_bytes()).hexdigest()
        return view

    def make_views(self, images: Tensor, generator: torch.Generator | None = None) -> Views:
        """One view `[B, channels, H, W]` per group; nothing is random."""
        planes = self.flow.to_latent(images)[0].unbind(1)
        return tuple(
            torch.stack([planes[channel] for channel in group], 1) for group in self.groups
        )
