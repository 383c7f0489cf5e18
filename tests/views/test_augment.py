"""Laws of all augmentations; the files beside this one test what they compute and draw."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from infomin.views import (
    Blur,
    Crop,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
)
from infomin.views.draws import chunk_size

torch.set_num_threads(1)
AUGMENTATIONS: dict[str, Any] = {
    "crop": Crop(),
    "crop to 9 px": Crop((0.1, 0.5), size=9),
    "flip": Flip(),
    "jitter": Jitter.from_strength(1, p=0.8),
    "jitter without hue": Jitter(0.4, 0, 0.4, 0),
    "grey": Grey(0.5),
    "blur": Blur(),
    "blur with a relative kernel": Blur(kernel=0.3, p=1),
    "randaugment": RandAugment(),
    "randaugment with p=1": RandAugment(3, 5, 4, 1),
    "randaugment without colours": RandAugment(color=False),
    "jigsaw": Jigsaw(2),
    "jigsaw of 3 px": Jigsaw(3, crop=3),
    "multicrop": MultiCrop((8, 5), (2, 1)),
}
every_augmentation = pytest.mark.parametrize("name", AUGMENTATIONS)
REFERENCE = torch.rand(
    16, 3, 18, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
IMAGES = REFERENCE.float()
BYTES = (REFERENCE * 255).round().byte()
EXTREMES = torch.stack(
    [
        torch.zeros(3, 18, 14),
        torch.ones(3, 18, 14),
        torch.full((3, 18, 14), 0.5),
        IMAGES[0, :1].expand(3, 18, 14),
        IMAGES[1].round(),
    ]
)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def build(name: str) -> Any:
    return copy.deepcopy(AUGMENTATIONS[name]).train()


def view_sizes(name: str) -> list[tuple[int, int]]:
    """Height and width of each view of IMAGES."""
    sizes = {
        "crop to 9 px": [(9, 9)],
        "jigsaw": [(10, 10)],
        "jigsaw of 3 px": [(9, 9)],
        "multicrop": [(8, 8), (8, 8), (5, 5)],
    }
    return sizes.get(name, [(18, 14)])


def row(draws: Any, i: int) -> Any:
    """The draws of image i."""
    return type(draws)(*[draw[i : i + 1] for draw in draws])


@every_augmentation
def test_views_have_the_declared_channels_and_the_expected_size_and_dtype(name: str) -> None:
    view = build(name)
    views = view(BYTES, seeded(0))
    assert isinstance(views, tuple)
    assert view.channels == (3,) * len(views)
    assert view.readout == (0,)
    assert view.augments is True
    assert view.in_channels in (None, 3)
    for v, size in zip(views, view_sizes(name), strict=True):
        assert v.shape == (16, 3, *size) and v.dtype == torch.float32 and v.isfinite().all()
        assert v.min() > -1e-6 and v.max() < 1 + 1e-6


@every_augmentation
def test_forward_draws_and_augments(name: str) -> None:
    view = build(name)
    expected = view.augment(IMAGES, view.draw(16, 18, 14, seeded(3)))
    assert isinstance(expected, tuple)
    assert all(map(torch.equal, view(IMAGES, seeded(3)), expected))


@every_augmentation
def test_a_batch_equals_its_images_one_by_one(name: str) -> None:
    view = build(name)
    draws = view.draw(16, 18, 14, seeded(1))
    for images in (REFERENCE, EXTREMES[torch.arange(16) % 5].double()):
        views = view.augment(images, draws)
        for i in range(16):
            singles = view.augment(images[i : i + 1], row(draws, i))
            for v, single in zip(views, singles, strict=True):
                torch.testing.assert_close(v[i : i + 1], single, rtol=0, atol=1e-12)


@every_augmentation
def test_draws_are_on_the_cpu_and_differ_between_images(name: str) -> None:
    draws = build(name).draw(200, 18, 14, seeded(2))
    for draw in draws:
        assert draw.device.type == "cpu" and len(draw) == 200
    table = torch.cat([draw.double().reshape(200, -1) for draw in draws], 1)
    assert len(table.unique(dim=0)) > (1 if name in ("flip", "grey") else 30)


@every_augmentation
def test_an_image_does_not_affect_the_views_of_others(name: str) -> None:
    view = build(name)
    other = IMAGES.clone()
    other[3] = 1 - other[3]
    for v, w in zip(view(IMAGES, seeded(5)), view(other, seeded(5)), strict=True):
        unchanged = torch.arange(16) != 3
        assert torch.equal(v[unchanged], w[unchanged])


@every_augmentation
def test_views_depend_on_the_generator_or_else_on_the_global_one(name: str) -> None:
    view = build(name)
    before = torch.get_rng_state()
    one, same, other = (view(IMAGES, seeded(number)) for number in (7, 7, 8))
    assert all(map(torch.equal, one, same)) and not all(map(torch.equal, one, other))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert all(map(torch.equal, view(IMAGES), one))


@every_augmentation
def test_draws_do_not_depend_on_the_default_dtype(name: str) -> None:
    view = build(name)
    expected = view.draw(5, 18, 14, seeded(0))
    try:
        torch.set_default_dtype(torch.float64)
        assert all(map(torch.equal, view.draw(5, 18, 14, seeded(0)), expected))
    finally:
        torch.set_default_dtype(torch.float32)


@every_augmentation
def test_eval_mode_shows_the_whole_image(name: str) -> None:
    view = build(name).eval()
    state = torch.get_rng_state()
    for v, size in zip(view(IMAGES), view_sizes(name), strict=True):
        if name.startswith("jigsaw") or size == (18, 14):
            assert torch.equal(v, IMAGES)
        else:
            resized = torch.nn.functional.interpolate(IMAGES, size, mode="bilinear", antialias=True)
            torch.testing.assert_close(v, resized, rtol=0, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert view(BYTES)[0].dtype == torch.float32


@every_augmentation
def test_a_single_image_needs_no_batch_axis(name: str) -> None:
    view = build(name)
    batched, single = view(IMAGES[:1], seeded(1)), view(IMAGES[0], seeded(1))
    for v, w in zip(batched, single, strict=True):
        assert torch.equal(v[0], w)


@every_augmentation
def test_views_have_no_state_and_can_be_copied(name: str) -> None:
    view = build(name)
    assert view.state_dict() == {} and not list(view.parameters()) and not list(view.buffers())
    twin = copy.deepcopy(view)
    assert all(map(torch.equal, view(IMAGES, seeded(0)), twin(IMAGES, seeded(0))))
    assert repr(twin) == repr(view)
    assert repr(view).startswith(type(view).__name__ + "(") and "=" in repr(view)


@every_augmentation
def test_the_input_is_not_changed(name: str) -> None:
    images, pixels = IMAGES.clone(), BYTES.clone()
    build(name)(images, seeded(0))
    build(name)(pixels, seeded(0))
    assert torch.equal(images, IMAGES) and torch.equal(pixels, BYTES)


@every_augmentation
@pytest.mark.parametrize("images", [IMAGES, EXTREMES], ids=["random", "extremes"])
def test_gradients_are_finite_and_reach_the_image(name: str, images: Tensor) -> None:
    images = images.clone().requires_grad_()
    views = build(name)(images, seeded(0))
    sum((v * torch.rand(v.shape, generator=seeded(1))).sum() for v in views).backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0
    assert images.grad.abs().max() < 1e4


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if "randaugment" not in name])
def test_gradcheck(name: str) -> None:
    view, images = build(name), REFERENCE[:4, :, :9, :9].clone()
    if "blur" in name or "crop" in name:
        images = images[:2]
    draws = view.draw(len(images), 9, 9, seeded(3))
    assert torch.autograd.gradcheck(lambda x: view.augment(x, draws), images.requires_grad_())


@every_augmentation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_are_kept_and_half_precision_is_rounded_once(name: str, dtype: torch.dtype) -> None:
    view = build(name)
    images = IMAGES.to(dtype)
    # operations on 256 levels may round a float64 pixel to the other level
    has_levels = name in ("randaugment", "randaugment with p=1")
    references = view(images.float(), seeded(0))
    for v, reference in zip(view(images, seeded(0)), references, strict=True):
        assert v.dtype == dtype
        tolerance = 1e-4 if dtype == torch.float64 else 0
        if not has_levels or dtype != torch.float64:
            torch.testing.assert_close(v, reference.to(dtype), rtol=0, atol=tolerance)


@every_augmentation
def test_bytes_equal_floats(name: str) -> None:
    from_bytes = build(name)(BYTES, seeded(0))
    from_floats = build(name)(BYTES.float() / 255, seeded(0))
    for v, w in zip(from_bytes, from_floats, strict=True):
        assert torch.equal(v, w)


@every_augmentation
def test_autocast_does_not_round_the_pixels(name: str) -> None:
    view = build(name)
    expected = view(IMAGES, seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, view(IMAGES, seeded(0)), expected))


@every_augmentation
def test_channels_last_is_the_same(name: str) -> None:
    view = build(name)
    channels_last = view(IMAGES.to(memory_format=torch.channels_last), seeded(0))
    for v, w in zip(channels_last, view(IMAGES, seeded(0)), strict=True):
        torch.testing.assert_close(v, w, rtol=0, atol=1e-5)


@every_augmentation
def test_draws_are_applied_on_the_device_of_the_images(name: str) -> None:
    view = build(name)
    draws = view.draw(16, 18, 14, seeded(0))
    views = view.augment(IMAGES.to("meta"), draws)
    for v, size in zip(views, view_sizes(name), strict=True):
        assert v.device.type == "meta" and v.shape == (16, 3, *size) and v.dtype == torch.float32


@every_augmentation
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_draws(name: str) -> None:
    view = build(name)
    for v, w in zip(view(IMAGES.cuda(), seeded(0)), view(IMAGES, seeded(0)), strict=True):
        assert v.device.type == "cuda"
        torch.testing.assert_close(v.cpu(), w, rtol=0, atol=1e-4)


@every_augmentation
def test_a_view_accepts_the_channels_that_it_declares(name: str) -> None:
    view = build(name)
    for channels in (1, 2, 3, 5) if view.in_channels is None else (3,):
        images = torch.rand(3, channels, 18, 14, generator=seeded(0))
        assert all(v.shape[:2] == (3, channels) for v in view(images, seeded(0)))


@every_augmentation
@pytest.mark.parametrize("images", [IMAGES, BYTES], ids=["float", "bytes"])
def test_views_do_not_depend_on_the_chunk_size(
    name: str, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = build(name)(images, seeded(0))
    monkeypatch.setattr("infomin.views.draws.PIECE", 5 * images[0].numel())
    assert chunk_size(images) == 5
    for v, w in zip(build(name)(images, seeded(0)), expected, strict=True):
        torch.testing.assert_close(v, w, rtol=0, atol=1e-6)


def test_compiled_equals_eager_with_the_same_global_seed() -> None:
    augmentations = [Crop(size=8), Flip(), Jitter.from_strength(1, p=0.8), Grey(), Blur()]

    def chain(images: Tensor) -> Tensor:
        for augmentation in augmentations:
            (images,) = augmentation(images)
        return images

    torch.manual_seed(3)
    expected = chain(IMAGES)
    torch.manual_seed(3)
    compiled = torch.compile(chain, backend="eager")
    torch.testing.assert_close(compiled(IMAGES), expected, rtol=0, atol=1e-6)


@every_augmentation
def test_augment_takes_bytes_as_forward_does(name: str) -> None:
    view = build(name)
    images = (IMAGES * 255).round().to(torch.uint8)
    views = view(images, seeded(0))
    draws = view.draw(len(images), *images.shape[2:], seeded(0))
    assert all(map(torch.equal, view.augment(images, draws), views))
    assert all(map(torch.equal, view.augment(images.float() / 255, draws), views))


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_the_channels_of_a_grey_image_do_not_share_memory(p: float) -> None:
    (view,) = Grey(p)(IMAGES, seeded(0))
    before = view.clone()
    view[:, 0].add_(1)  # as an in-place Normalize does, channel by channel
    assert view.is_contiguous() and torch.equal(view[:, 1:], before[:, 1:])
