"""Laws of every view: what it declares, what it draws, what it leaves alone."""

import copy
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from view_cases import (
    BITS,
    IMAGES,
    OF_IMAGES,
    RANDOM,
    SCENES,
    call_seeded,
    every_image_view,
    every_shared,
    every_view,
    inputs,
    seed,
    world,
)

from infomin.data.scenes import draw_scenes
from infomin.views import (
    VIEWS,
    ColorSplit,
    ImageView,
    PerView,
    parse,
)


@pytest.fixture(autouse=True)
def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that a test registers are gone afterwards."""
    monkeypatch.setattr(VIEWS, "_entries", dict(VIEWS._entries))


@every_view
def test_views_are_a_tuple_with_the_declared_channels(name: str) -> None:
    view = parse(name)
    batch = inputs(view)
    size = (SCENES.world.size,) * 2 if view.takes == "scenes" else tuple(IMAGES.shape[2:])
    views = view(batch, seed(0))
    assert isinstance(views, tuple) and isinstance(view.channels, tuple)
    assert len(views) == len(view.channels)
    resized = any(word in name for word in ("patch", "jigsaw", "multicrop"))
    for v, channels in zip(views, view.channels, strict=True):
        assert v.shape[:2] == (8, channels) and v.dim() == 4
        assert resized or v.shape[2:] == size
        assert v.dtype == torch.float32 and v.device.type == "cpu" and v.isfinite().all()


@every_view
def test_readout_refers_to_views(name: str) -> None:
    view = parse(name)
    assert len(view.readout) >= 1 and len(set(view.readout)) == len(view.readout)
    assert set(view.readout) <= set(range(len(view.channels)))
    if view.takes == "scenes" or "multicrop" in name:
        assert view.readout == (0,)
    else:
        assert view.readout == tuple(range(len(view.channels)))


@every_view
def test_a_view_declares_what_it_takes(name: str) -> None:
    assert parse(name).takes == ("scenes" if name.startswith("shared") else "images")


@every_view
def test_a_batch_of_one(name: str) -> None:
    view = parse(name)
    assert [len(v) for v in view(inputs(view)[:1], seed(0))] == [1] * len(view.channels)


@every_view
def test_views_depend_on_the_generator_only(name: str) -> None:
    view = parse(name)
    before = torch.get_rng_state()
    one, other = view(inputs(view), seed(0)), view(inputs(view), seed(0))
    assert all(map(torch.equal, one, other)) and torch.equal(torch.get_rng_state(), before)


@every_view
def test_a_view_has_no_state_and_can_be_copied(name: str) -> None:
    view = parse(name)
    assert view.state_dict() == {} and not list(view.parameters()) and not list(view.buffers())
    twin = copy.deepcopy(view)
    views = view(inputs(view), seed(0))
    assert all(map(torch.equal, views, twin(inputs(view), seed(0)))) and repr(twin) == repr(view)
    if not view.augments:  # nor a mode
        assert all(map(torch.equal, views, view.eval()(inputs(view), seed(0))))


@pytest.mark.parametrize("name", RANDOM)
def test_in_eval_mode_nothing_is_random(name: str) -> None:
    """What remains are the views of an image without augmentation."""
    view = parse(name).eval()
    rest = "+".join(part for part in name.split("+") if part.startswith(("color", "shared")))
    expected = parse(rest)(inputs(view), seed(0)) if rest else [inputs(view)] * len(view.channels)
    views = view(inputs(view), seed(1) if view.takes == "images" else seed(0))
    if "|" not in name and "multicrop" not in name:  # `|` mixes families, multicrop resizes
        assert all(map(torch.equal, views, expected)) and len(views) == len(view.channels)
    assert all(map(torch.equal, view(inputs(view), seed(2)), view(inputs(view), seed(2))))


@every_view
def test_a_view_leaves_its_batch_unchanged(name: str) -> None:
    view = parse(name)
    images = IMAGES.clone()
    factors = {name: value.clone() for name, value in SCENES.tensors().items()}
    view(inputs(view), seed(0))
    assert torch.equal(images, IMAGES)
    assert all(torch.equal(value, factors[name]) for name, value in SCENES.tensors().items())


@every_view
def test_each_view_depends_on_its_own_image_only(name: str) -> None:
    """Permuting the batch permutes v1, but for bits, which are drawn by row."""
    view = parse(name)
    order = torch.randperm(8, generator=seed(4))
    if view.augments:
        view.eval()
    end = view.channels[0] - 2 * ("bits" in name)
    permuted = view(inputs(view)[order], seed(0))[0][:, :end]
    torch.testing.assert_close(permuted, view(inputs(view), seed(0))[0][order, :end])


@every_image_view
def test_a_single_image_is_treated_as_a_batch_of_one(name: str) -> None:
    view = parse(name)
    for one, batch in zip(view(IMAGES[0], seed(0)), view(IMAGES[:1], seed(0)), strict=True):
        assert one.dim() == 3 and torch.equal(one, batch[0])


@every_image_view
def test_without_a_generator_the_global_one_is_used(name: str) -> None:
    view = parse(name)
    first, same, other = (call_seeded(view, s) for s in (0, 0, 1))
    assert all(map(torch.equal, first, same))
    assert not view.augments or not all(map(torch.equal, first, other))


@pytest.mark.parametrize("name", [n for n in RANDOM + BITS if n in OF_IMAGES and "|" not in n])
def test_each_sample_has_its_own_draws(name: str) -> None:
    same = IMAGES[:1].expand(64, -1, -1, -1)
    assert all(len(torch.unique(v, dim=0)) > 1 for v in parse(name)(same, seed(0)))


@every_image_view
def test_uint8_is_scaled_and_other_dtypes_are_kept(name: str) -> None:
    view, pixels = parse(name), (IMAGES * 255).round().byte()
    for v, floats in zip(view(pixels, seed(0)), view(pixels.float() / 255, seed(0)), strict=True):
        assert v.dtype == torch.float32
        torch.testing.assert_close(v, floats, rtol=0, atol=1e-5)
    assert {v.dtype for v in view(IMAGES.double(), seed(0))} == {torch.float64}
    assert {v.dtype for v in view(IMAGES.bfloat16(), seed(0))} == {torch.bfloat16}


@every_image_view
def test_autocast_rounds_nothing(name: str) -> None:
    view = parse(name)
    with torch.autocast("cpu", torch.bfloat16):
        inside = view(IMAGES, seed(0))
    assert all(map(torch.equal, inside, view(IMAGES, seed(0))))


@every_image_view
def test_the_gradient_reaches_the_image(name: str) -> None:
    images = IMAGES.clone().requires_grad_()
    sum(v.square().sum() for v in parse(name)(images, seed(0))).backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "name", ["color:lab", "frequency:1", "patch:3/7", "crop:0.2+jitter:1+blur:0.5+color:lab"]
)
def test_compiled_views_are_the_same(name: str) -> None:
    view = parse(name)
    compiled = torch.compile(view, backend="eager")
    for one, other in zip(call_seeded(view), call_seeded(compiled), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["jitter:1", "aug:simclr", "aug:infomin"])
def test_compiled_views_are_the_same_with_several_threads(name: str) -> None:
    view, threads = parse(name), torch.get_num_threads()
    torch.compiler.reset()
    torch.set_num_threads(2)  # then jitter reuses memory, which a compiler must not trace
    try:
        compiled = torch.compile(view, backend="eager")
        assert all(map(torch.equal, call_seeded(view), call_seeded(compiled)))
    finally:
        torch.set_num_threads(threads)


def test_many_families_are_compiled_where_the_compiler_may_keep_their_variants() -> None:
    """They share one `forward`, of which torch keeps 8 variants unless it is told to keep more."""
    torch.compiler.reset()
    more = torch._dynamo.config.patch(recompile_limit=64)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), more:
        # the compiler warns when it has too many variants
        warnings.simplefilter("error")
        for name in ("aug:infomin", "aug:simclr", "multicrop:2x8-2x5", "patch:3/7", "frequency:1"):
            view = torch.compile(parse(name), backend="eager")
            view(IMAGES), view(IMAGES[:1])
        torch.compile(ColorSplit("lab"), backend="eager", fullgraph=True)(IMAGES)


def test_products_in_a_view_of_images_are_not_rounded_by_autocast() -> None:
    class Product(ImageView):
        channels, readout = (3,), (0,)

        def make_views(
            self, images: Tensor, generator: torch.Generator | None = None
        ) -> tuple[Tensor, ...]:
            return (images @ images.mT,)

    with torch.autocast("cpu", torch.bfloat16):
        (view,) = Product()(IMAGES)
    assert view.dtype == IMAGES.dtype and torch.equal(view, IMAGES @ IMAGES.mT)


def test_a_compiled_patch_has_the_same_draws() -> None:
    view = parse("patch:3/7")
    # like the default backend of users, this one could use random numbers of its own
    compiled = torch.compile(view, backend="aot_eager")
    assert all(map(torch.equal, call_seeded(view), call_seeded(compiled)))


@every_image_view
def test_draws_are_made_on_the_cpu_whatever_the_default_device(name: str) -> None:
    view = parse(name)
    expected = *view(IMAGES, seed(0)), *copy.deepcopy(view).eval()(IMAGES, seed(0))
    with torch.device("meta"):  # holds no numbers, so nothing can be drawn there
        views = *view(IMAGES, seed(0)), *copy.deepcopy(view).eval()(IMAGES, seed(0))
    assert len(views) == len(expected) and all(map(torch.equal, views, expected))


@every_shared
def test_scenes_are_drawn_on_the_cpu_whatever_the_default_device(name: str) -> None:
    bank = world()
    expected = parse(name)(draw_scenes(bank, 5, seed(0)), seed(1))
    with torch.device("meta"):
        views = parse(name)(draw_scenes(replace(bank), 5, seed(0)), seed(1))
    assert all(map(torch.equal, expected, views))


class ViewDataset(torch.utils.data.Dataset):
    """Views of one image, made in the workers of a data loader."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return self.view(IMAGES[0])


def test_views_in_workers_differ_between_samples_and_repeat_with_the_same_seed() -> None:
    def load() -> list[Tensor]:
        loader = torch.utils.data.DataLoader(
            ViewDataset(parse("crop:0.2+jitter:1")), 4, num_workers=2, generator=seed(3)
        )
        return [torch.cat(column) for column in zip(*loader, strict=True)]

    first, second = load(), load()
    assert [v.shape for v in first] == [(8, *IMAGES.shape[1:])] * 2
    assert all(map(torch.equal, first, second)) and len(torch.unique(torch.cat(first), dim=0)) == 16


WORDS = [
    "crop:0.2+color:lab",
    "aug:simclr",
    "patch:2/8",
    "multicrop:1x8-2x5",
    "crop:0.5/1+patch:2/8",
]


@pytest.mark.parametrize("word", WORDS)
def test_transforms_that_follow_a_view_change_all_of_its_views(word: str) -> None:
    """As they do one view by itself; `ToImage` and `PerView` are the two ways."""
    picture = (IMAGES[0] * 255).byte().permute(1, 2, 0).numpy()
    view, half = parse(word), v2.Normalize([0.5], [0.5])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = [
            half(made) for made in view(v2.functional.to_image(picture).as_subclass(Tensor))
        ]
        for pipeline in (
            [v2.ToImage(), view, half],
            [v2.ToImage(), v2.ToPureTensor(), view, PerView(half)],
        ):
            torch.manual_seed(0)
            views = v2.Compose(pipeline)(picture)
            assert isinstance(views, tuple) and all(map(torch.equal, views, expected))
            is_image = [isinstance(made, tv_tensors.Image) for made in views]
            assert is_image == [len(pipeline) == 3] * len(views)
    # of plain tensors, torchvision changes the first only
    first, second, *_ = half(tuple(made.as_subclass(Tensor) for made in views))
    assert torch.equal(first, half(views[0])) and torch.equal(second, views[1])


@every_image_view
def test_a_torchvision_image_gives_torchvision_images(name: str) -> None:
    view, image = parse(name), tv_tensors.Image((IMAGES[0] * 255).byte())
    for made, plain in zip(
        view(image, seed(0)), view(image.as_subclass(Tensor), seed(0)), strict=True
    ):
        assert isinstance(made, tv_tensors.Image) and torch.equal(made, plain)


@every_image_view
def test_views_are_mapped_over_images_or_say_why_not(name: str) -> None:
    """torch.func.vmap, but where something is drawn, for a batch: by bits in eval mode too."""
    view, mapped = parse(name), parse(name).eval()
    if "bits" not in name:
        views = torch.func.vmap(mapped)(IMAGES)
        for one, other in zip(views, mapped(IMAGES), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for drawn in [view] * view.augments + [mapped] * ("bits" in name):
        for randomness in ("error", "same", "different"):
            with pytest.raises(RuntimeError, match=r"call the view on the whole batch"):
                torch.func.vmap(drawn, randomness=randomness)(IMAGES)
