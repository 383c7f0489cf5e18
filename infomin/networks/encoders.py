"""Encoders: from a view `[B, C, H, W]` to features `[B, D]`.

To add a network of your own, register a function `(channels, width) -> Encoder`.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..common.checks import check_choice, check_positive, to_unit
from ..common.registry import Registry

# With more channels, one change of layout before the network costs less than the convolutions' own.
COLORS = 3

ENCODERS = Registry("encoder")
register = ENCODERS.register


class Encoder(nn.Module):
    """A network, the images it takes and the number of features it returns.

    Args:
        name: as in `ENCODERS`; starts the error messages.
        channels: C of the images.
        features: D of the result.
        smallest: minimum height and width of an image, in pixels.
        body: `[B, C, H, W]` -> `[B, D]`; other code can load its state dict.
    """

    def __init__(
        self, name: str, channels: int, features: int, smallest: int, body: nn.Module
    ) -> None:
        super().__init__()
        self.name, self.channels, self.features, self.smallest = name, channels, features, smallest
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, D]` of images `[B, C, H, W]`, floating point of any range, or uint8.

        uint8 images are scaled to [0, 1].

        Raises:
            ValueError: a wrong shape, of the images or of the body's output.
        """
        features: Tensor = self.body(self._prepare(x))
        if features.shape != (x.shape[0], self.features):  # len(x) would fix an exported batch
            raise ValueError(
                f"{self.name}: the body must return [B, {self.features}], "
                f"got {list(features.shape)} for {x.shape[0]} images; "
                "flatten its output, or correct features"
            )
        return features

    def map(self, x: Tensor) -> Tensor:
        """The feature map `[B, C', h, w]` of images `[B, C, H, W]`: the input of the `Grid`.

        Raises:
            TypeError: the body is not an nn.Sequential that contains a `Grid`.
        """
        x = self._prepare(x)
        for layer in self.body if isinstance(self.body, nn.Sequential) else ():
            if isinstance(layer, Grid):
                return x
            x = layer(x)
        raise TypeError(
            f"{self.name}: a feature map needs a body that is an nn.Sequential with a Grid, "
            f"got {type(self.body).__name__}; override map"
        )

    def _prepare(self, x: Tensor) -> Tensor:
        """Check images and convert them to the first layer's memory layout and dtype."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"{self.name}: images must have the shape [B, {self.channels}, H, W], "
                f"got {list(x.shape)}; "
                + ("add a batch axis with x[None]" if x.dim() == 3 else "pass the encoder's view")
            )
        if min(x.shape[2:]) < self.smallest:
            raise ValueError(
                f"{self.name}: images must be {self.smallest} px or more on each side, "
                f"got {x.shape[2]}x{x.shape[3]}; use larger images or another encoder"
            )
        if x.shape[1] > COLORS:
            # Once, before uint8 grows to floats: a convolution would repeat it for its gradient.
            x = x.contiguous(memory_format=torch.channels_last)
        if x.dtype != torch.uint8:
            return x
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            return to_unit(x, torch.get_autocast_dtype(device))
        return to_unit(x, next(self.parameters()).dtype)


class Grid(nn.Module):
    """Averages over size x size cells: `[B, C, H, W]` -> `[B, size * size * C]`, channels fastest.

    Unlike a global average it keeps the position of objects. Channels vary fastest, as in memory
    of the channels_last format: this needs no copy and keeps the layout in the backward pass.

    >>> Grid(2)(torch.arange(16.0).reshape(1, 1, 4, 4)).tolist()
    [[2.5, 4.5, 10.5, 12.5]]
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        # If each cell is one pixel, averaging changes nothing, and its backward pass is slow.
        if x.shape[2:] != (self.size, self.size):
            x = nn.functional.adaptive_avg_pool2d(x, self.size)
        return torch.flatten(x.permute(0, 2, 3, 1), 1)


@register("tiny")
def tiny(channels: int = 3, width: float = 1.0) -> Encoder:
    """Four 3x3 convolutions of stride 2, then a 2x2 grid: 512 features, for 32 px on a CPU.

    The convolutions have 16, 32, 64 and 128 channels. Images must be 17 px or more: smaller ones
    would leave less than one pixel per cell.

    Args:
        channels: C of the images.
        width: factor on the numbers of channels, each at least 8.

    >>> tiny(channels=2, width=0.5)(torch.zeros(4, 2, 32, 32)).shape
    torch.Size([4, 256])
    """
    sizes = _scale_widths((16, 32, 64, 128), width)
    layers = [_conv(i, o, stride=2) for i, o in pairwise([channels, *sizes])]
    return Encoder("tiny", channels, 4 * sizes[-1], 17, nn.Sequential(*layers, Grid(2)))


@register("alexnet")
def alexnet(channels: int = 3, width: float = 1.0) -> Encoder:
    """AlexNet for 64 px: five 3x3 convolutions, two fully connected layers, 4096 features.

    The convolutions have 96, 192, 384, 384 and 192 channels. Images must be 63 px or more: smaller
    ones would leave less than one pixel per cell of the 7x7 grid.

    Args:
        channels: C of the images.
        width: factor on the numbers of channels and features, each at least 8; 0.5 is the paper's
            half network, one per view.

    Source: CMC's network for STL-10 without its last layer, which is the projection head here.

    >>> alexnet(channels=1, width=0.05).features
    205
    """
    a, b, c, d, e, full = _scale_widths((96, 192, 384, 384, 192, 4096), width)
    body = nn.Sequential(
        _conv(channels, a),
        nn.MaxPool2d(3, 2),
        _conv(a, b),
        nn.MaxPool2d(3, 2),
        _conv(b, c),
        _conv(c, d),
        _conv(d, e),
        nn.MaxPool2d(3, 2),
        Grid(7),
        nn.Linear(49 * e, full, bias=False),
        nn.BatchNorm1d(full),
        nn.ReLU(inplace=True),
        nn.Linear(full, full, bias=False),
        nn.BatchNorm1d(full),
        nn.ReLU(inplace=True),
    )
    return Encoder("alexnet", channels, full, 63, body)


@register("resnet18")
def resnet18(channels: int = 3, width: float = 1.0) -> Encoder:
    """ResNet-18 for small images: 3x3 stem of stride 1, no max-pool, global average, 512 features.

    Args:
        channels: C of the images, 8 px or more.
        width: factor on 64, 128, 256, 512 channels, each at least 8.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016. Blocks and names are
    torchvision's, so at width 1 all weights but the stem's are interchangeable with torchvision's.

    >>> resnet18(channels=2, width=0.125).features
    64
    """
    return _resnet("resnet18", "BasicBlock", (2, 2, 2, 2), channels, width)


@register("resnet50")
def resnet50(channels: int = 3, width: float = 1.0) -> Encoder:
    """ResNet-50 for small images: as `resnet18`, with bottleneck blocks and 2048 features.

    >>> resnet50(channels=2, width=0.125).features
    256
    """
    return _resnet("resnet50", "Bottleneck", (3, 4, 6, 3), channels, width)


def build_encoder(name: str, channels: int, width: float = 1.0) -> Encoder:
    """Build an encoder by name; its `.features` is the number of features.

    Args:
        name: a key of `ENCODERS`.
        channels: C of the images.
        width: factor on the numbers of channels, above 0.

    Raises:
        TypeError: the registered function returned something else than an `Encoder`.
        ValueError: an unknown name, or channels or width not above 0.

    >>> build_encoder("tiny", channels=3).features
    512
    """
    check_choice(name, ENCODERS, "encoder")
    check_positive(channels, f"{name}(channels)")
    encoder = ENCODERS[name](channels, width)
    if not isinstance(encoder, Encoder):
        raise TypeError(
            f"encoder {name!r}: must be an infomin.networks.Encoder, "
            f"got {type(encoder).__name__}; "
            f"wrap it as Encoder({name!r}, channels, features, smallest, body)"
        )
    return encoder


class Encoders(nn.ModuleList):
    """One encoder per view, or one for all of them.

    A shared encoder processes views of equal shape as one batch, which matters to batch norm.

    Args:
        channels: the number of channels of each view.
        name: a key of `ENCODERS`.
        width: factor on the numbers of channels, above 0.
        shared: whether all views share one encoder.
        tiles: the number of images stacked in the channels of each view; empty means one. Each of
            them is encoded separately, and their features are concatenated.

    Attributes:
        features: D of each encoder, for one image.

    Raises:
        ValueError: a shared encoder for views with different numbers of channels; or as
            `build_encoder`.

    >>> len(Encoders([1, 2], "tiny", 0.5)), len(Encoders([3, 3], "tiny", 0.5, shared=True))
    (2, 1)
    >>> Encoders([3, 27], "tiny", 0.5, shared=True, tiles=[1, 9]).features
    [256]
    """

    def __init__(
        self,
        channels: Sequence[int],
        name: str,
        width: float = 1.0,
        shared: bool = False,
        tiles: Sequence[int] = (),
    ) -> None:
        self.tiles = tuple(tiles) or (1,) * len(channels)
        channels = [c // tile for c, tile in zip(channels, self.tiles, strict=True)]
        if shared and len(set(channels)) > 1:
            raise ValueError(
                "encoders: a shared encoder needs views with the same number of channels, "
                f"got {tuple(channels)}; give each view its own with share_encoder=False"
            )
        distinct = channels[:1] if shared else channels
        encoders = [build_encoder(name, c, width) for c in distinct]
        super().__init__(encoders)
        self.features = [encoder.features for encoder in encoders]

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Views `[B, C, H, W]` each -> features `[B, tiles * D]` each.

        Raises:
            TypeError: one tensor instead of several views.
            ValueError: another number of views than the encoders were built for.
        """
        if isinstance(views, Tensor):
            raise TypeError("encoders: got one tensor, wanted a tuple of views; pass view(images)")
        if len(views) != len(self.tiles):
            raise ValueError(
                f"encoders: got {len(views)} views, wanted {len(self.tiles)}; pass the run's views"
            )
        if len(self) == 1 and len({(view.shape, view.dtype) for view in views}) == 1:
            batch = torch.cat(list(views))  # one large pass uses the cores better than several
            return self._encode(self[0], batch, self.tiles[0]).chunk(len(views))
        encoders = list(self) * (len(views) if len(self) == 1 else 1)
        inputs = zip(encoders, views, self.tiles, strict=True)
        return tuple(self._encode(encoder, view, tiles) for encoder, view, tiles in inputs)

    def _encode(self, encoder: nn.Module, view: Tensor, tiles: int) -> Tensor:
        if tiles == 1:
            features: Tensor = encoder(view)
            return features
        images = view.unflatten(1, (tiles, -1)).flatten(0, 1)
        features = encoder(images)
        return features.unflatten(0, (-1, tiles)).flatten(1)


def _scale_widths(sizes: tuple[int, ...], width: float) -> list[int]:
    check_positive(width, "encoder(width)")
    return [max(8, round(size * width)) for size in sizes]


def _conv(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, 3, stride, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


def _stage(block: Any, i: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    o = planes * block.expansion
    skip = None
    if stride != 1 or i != o:
        skip = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
    first = block(i, planes, stride, skip)
    return nn.Sequential(first, *(block(o, planes) for _ in range(blocks - 1)))


def _resnet(
    name: str, block_name: str, blocks: tuple[int, ...], channels: int, width: float
) -> Encoder:
    # Imported here: it takes a second, and the other encoders do not need it.
    from torchvision.models import resnet

    block = getattr(resnet, block_name)
    # torchvision's ResNet always starts with 64 channels; its blocks take any number.
    planes = _scale_widths((64, 128, 256, 512), width)
    inputs = [planes[0], *(p * block.expansion for p in planes)]
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, planes[0], 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(planes[0]),
        "relu": nn.ReLU(inplace=True),
    }
    for n in range(4):
        stride = 1 if n == 0 else 2
        layers[f"layer{n + 1}"] = _stage(block, inputs[n], planes[n], blocks[n], stride)
    body = nn.Sequential(OrderedDict(**layers, grid=Grid(1)))
    for m in body.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    return Encoder(name, channels, inputs[-1], 8, body)
