"""All views of images check what comes in, and alike."""

import pytest
import torch
from torch import Tensor
from view_cases import COLOR, OF_IMAGES, seed

from infomin.views import FlowSplit, ImageView, PixelFlow, View, parse

SIZE = 16
VIEWS: dict[str, View] = {name: parse(name) for name in OF_IMAGES}
VIEWS["flow"] = FlowSplit(PixelFlow())
every_view = pytest.mark.parametrize("name", VIEWS)
RGB = torch.rand(8, 3, SIZE, SIZE, generator=seed(0))
GREY = torch.rand(64, 28, 28, generator=seed(1))  # without a channel axis


def with_pixel(value: float) -> Tensor:
    images = RGB.clone()
    images[2, 1, 3, 4] = value
    return images


WRONG: dict[str, tuple[object, type[Exception], str]] = {
    "channels last": (RGB.movedim(1, 3), ValueError, r"permute the axes: .*\(0, 3, 1, 2\)"),
    "RGBA, channels last": (torch.rand(2, 9, 9, 4), ValueError, "permute|convert"),
    "one, channels last": (RGB[0].movedim(0, 2), ValueError, r"permute the axes: .*\(2, 0, 1\)"),
    "no channel axis": (GREY, ValueError, r"got \[64, 28, 28\]; .* images\[:, None\]"),
    "one without channels": (GREY[0], ValueError, r"got \[28, 28\]"),
    "clips": (RGB[:, None], ValueError, r"got \[8, 1, 3, 16, 16\]"),
    "0..255": (255 * RGB, ValueError, r"must lie in \[0, 1\], got .* divide by 255"),
    "-1..1": (2 * RGB - 1, ValueError, r"must lie in \[0, 1\]"),
    "beyond the tolerance": (with_pixel(1.002), ValueError, r"must lie in \[0, 1\]"),
    "NaN": (with_pixel(torch.nan), ValueError, "must be finite, got 1 pixels"),
    "Inf": (with_pixel(torch.inf), ValueError, "must be finite, got 1 pixels"),
    "none": (RGB[:0], ValueError, "need at least one image"),
    "no pixels": (RGB[..., :0], ValueError, "need at least one image"),
    "int64": (
        (255 * RGB).long(),
        TypeError,
        "must be uint8 .* or floating point .*, got torch.int64",
    ),
    "bool": (RGB > 0.5, TypeError, "got torch.bool"),
    "complex": (RGB + 0j, TypeError, "got torch.complex64"),
    "NumPy": (RGB.numpy(), TypeError, "must be a torch.Tensor .*, got ndarray"),
    "None": (None, TypeError, "got NoneType"),
    "sparse": (RGB.to_sparse(), TypeError, "must be dense, got torch.sparse_coo; use"),
}


@every_view
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("mode", [True, False])
def test_what_is_no_batch_of_images_is_an_error_in_every_view(
    name: str, wrong: str, mode: bool
) -> None:
    batch, error, message = WRONG[wrong]
    with pytest.raises(error, match=rf"^[\w+|]+: .*{message}"):
        VIEWS[name].train(mode)(batch, seed(0))


@every_view
@pytest.mark.parametrize("label", [5, torch.tensor(5), "cat"])
def test_what_is_no_generator_is_an_error_in_every_view(name: str, label: object) -> None:
    """A pipeline of torchvision passes a label on to what follows."""
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or None, got"):
        VIEWS[name](RGB, label)


RIGHT: dict[str, Tensor] = {
    "floats": RGB,
    "bytes": (255 * RGB).byte(),
    "one": RGB[0],
    "half": RGB.half(),
    "double": RGB.double(),
    "resized, a little out of range": with_pixel(-9e-4),
    "channels last in memory": RGB.contiguous(memory_format=torch.channels_last),
}


@every_view
@pytest.mark.parametrize("right", RIGHT)
def test_images_are_accepted_by_every_view(name: str, right: str) -> None:
    assert all(view.isfinite().all() for view in VIEWS[name].train()(RIGHT[right], seed(0)))


ANY_CHANNELS = [name for name in VIEWS if VIEWS[name].in_channels is None]


@pytest.mark.parametrize("name", ANY_CHANNELS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13, 30])
def test_views_of_any_channels_take_grey_and_many_channels(name: str, channels: int) -> None:
    images = torch.rand(2, channels, SIZE, SIZE, generator=seed(0))
    view = VIEWS[name].train()
    views, made = view(images, seed(0)), channels + 2 * ("bits" in name)
    assert all(v.shape[1] == made for v in views)
    if channels in (1, 3):
        assert all(v.shape[0] == made for v in view(images[0], seed(0)))
    else:
        with pytest.raises(ValueError, match=r"single image must have 1 or 3 channels"):
            view(images[0], seed(0))


def test_the_repr_of_a_view_is_not_built_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> str:
        raise AssertionError

    for make in (ImageView, *{type(view) for view in VIEWS.values()}):
        monkeypatch.setattr(make, "extra_repr", fail)
    for view in VIEWS.values():
        view(RGB, seed(0))


@pytest.mark.parametrize("name", COLOR)
def test_colours_next_to_the_cube_stay_in_range(name: str) -> None:
    """Resizing leaves [0, 1] by up to 1e-3: ratios of such pixels mean nothing."""
    view = parse(name)
    steps = torch.tensor([-9e-4, -5e-5, -1e-9, 0, 1e-9, 1e-7, 5e-5, 9e-4, 0.5, 1, 1.0009])
    dark = 18e-4 * torch.rand(100_000, 3, generator=seed(0)) - 9e-4
    pixels = torch.cat([torch.cartesian_prod(steps, steps, steps), dark]).double()[..., None, None]
    for dtype in (torch.float64, torch.float32):
        images = pixels.to(dtype).requires_grad_()
        for part in view(images):
            assert part.abs().max() < 1.02  # as [-1, 1] is the range of colours in the cube
            (gradient,) = torch.autograd.grad(part.sum(), images, retain_graph=True)
            assert gradient.isfinite().all()
