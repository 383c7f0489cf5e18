"""Laws that every view obeys, and the rules of composition."""

import copy
import math
import re
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from infomin.data.scenes import Scenes, World, draw_scenes, render_scenes
from infomin.views import (
    VIEWS,
    ColorSplit,
    Crop,
    Each,
    Frequency,
    ImageView,
    Jitter,
    SharedFactors,
    Then,
    View,
    parse,
    register,
)
from infomin.views.augment.presets import PRESETS
from infomin.views.color import SPACES

# the order within a view matters too
SPLITS = ("0-12", "01-2", "2-01", "2-10", "0-1-2", "2-1-0", "012", "201")
COLOR = (
    [f"color:{space}" for space in SPACES]
    + [f"color:lab/{split}" for split in SPLITS]
    + ["color:rgb/01-2", "color:hsv/0-1-2"]
)
SHARED = [
    f"shared:{dial}"
    for dial in ("nothing", "digit%2", "digit", "digit-position", "background_image", "all")
]
MIXED = ["shared:digit+color:lab", "shared:nothing+color:ydbdr/01-2", "shared:all+color:rgb"]
BANDS = ["frequency:1", "frequency:0.5-2", "color:lab+frequency:1", "frequency:3|color:hsv/012"]
RANDOM = [
    "crop:0.2",
    "crop:0.1-0.5",
    "flip:0.5",
    "jitter:1",
    "grey:0.5",
    "blur:0.9",
    "randaugment:7",
    "jigsaw:2",
    "multicrop:2x8-1x5",
    "patch:3/7",
    "crop:0.3/3",
    "crop:0.2+jitter:1+grey:0.2",
    "crop:0.2+color:lab",
    "crop:0.2/1+color:ydbdr/01-2",
    "patch:2/8+jitter:1+blur:0.5",
    "color:lab+crop:0.3",
    "grey:1|crop:0.2+jitter:1|frequency:1",
    "shared:digit+crop:0.5",
    *(f"aug:{name}" for name in PRESETS),
]
every_view = pytest.mark.parametrize("name", COLOR + SHARED + MIXED + BANDS + RANDOM)
every_color = pytest.mark.parametrize("name", COLOR)
every_shared = pytest.mark.parametrize("name", SHARED + MIXED)
OF_IMAGES = [name for name in COLOR + BANDS + RANDOM if not name.startswith("shared")]
every_image_view = pytest.mark.parametrize("name", OF_IMAGES)


def world() -> World:
    g = torch.Generator().manual_seed(0)
    return World(
        digits=torch.randint(256, (12, 6, 5), dtype=torch.uint8, generator=g),
        digit_class=torch.arange(12) % 10,
        backgrounds=torch.randint(256, (4, 3, 20, 22), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([0, 1, 0, 1]),
        size=16,
    )


torch.set_num_threads(1)
SCENES = draw_scenes(world(), 8, torch.Generator().manual_seed(1))
IMAGES = torch.rand(8, 3, 16, 12, generator=torch.Generator().manual_seed(2))


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def call_seeded(view: Any, number: int = 0) -> tuple[Tensor, ...]:
    """The views of IMAGES with draws from torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        return view(IMAGES)


def inputs(view: View) -> Any:
    return SCENES if view.takes == "scenes" else IMAGES


@pytest.fixture(autouse=True)
def forget_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that a test registers are gone afterwards."""
    monkeypatch.setattr(VIEWS, "_entries", dict(VIEWS._entries))


# --- laws of every view ---


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
    """Permuting the batch permutes v1."""
    view = parse(name)
    order = torch.randperm(8, generator=seed(4))
    if view.augments:
        view.eval()
    permuted = view(inputs(view)[order], seed(0))[0]
    torch.testing.assert_close(permuted, view(inputs(view), seed(0))[0][order])


# --- views of images ---


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


@pytest.mark.parametrize("name", [name for name in RANDOM if name in OF_IMAGES and "|" not in name])
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


def test_families_do_not_share_compiled_variants() -> None:
    torch.compiler.reset()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # the compiler keeps few variants of a function, and warns when it has too many
        warnings.simplefilter("error")
        for name in ("aug:infomin", "aug:simclr", "multicrop:2x8-2x5", "patch:3/7", "frequency:1"):
            view = torch.compile(parse(name), backend="eager")
            view(IMAGES), view(IMAGES[:1])
        torch.compile(ColorSplit("lab"), backend="eager", fullgraph=True)(IMAGES)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_in_a_view_of_images_are_not_rounded(precision: str) -> None:
    before, precisions, dtypes = torch.get_float32_matmul_precision(), [], []

    class Product(ImageView):
        channels, readout = (3,), (0,)

        def make_views(
            self, images: Tensor, generator: torch.Generator | None = None
        ) -> tuple[Tensor, ...]:
            for backend in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
                precisions.append(backend.fp32_precision)
            dtypes.append((images @ images.mT).dtype)
            return (images,)

    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", torch.bfloat16):
            Product()(IMAGES)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert precisions == ["ieee", "ieee"] and dtypes == [IMAGES.dtype]


def test_a_compiled_patch_has_the_same_draws() -> None:
    view = parse("patch:3/7")
    # like the default backend of users, this one could use random numbers of its own
    compiled = torch.compile(view, backend="aot_eager")
    assert all(map(torch.equal, call_seeded(view), call_seeded(compiled)))


@every_image_view
def test_draws_are_made_on_the_cpu_whatever_the_default_device(name: str) -> None:
    view = parse(name)
    expected = *view(IMAGES, seed(0)), *copy.deepcopy(view).eval()(IMAGES)
    with torch.device("meta"):  # holds no numbers, so nothing can be drawn there
        views = *view(IMAGES, seed(0)), *copy.deepcopy(view).eval()(IMAGES)
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


def test_views_work_in_a_torchvision_transform() -> None:
    from torchvision.transforms import v2

    picture = (IMAGES[0] * 255).byte().permute(1, 2, 0).numpy()
    luma, chroma = v2.Compose([v2.ToImage(), parse("crop:0.2+color:lab")])(picture)
    assert luma.shape == (1, 16, 12) and chroma.shape == (2, 16, 12) and luma.dtype == torch.float32


# --- colours ---


@every_color
def test_colours_of_a_batch_equal_those_of_each_image(name: str) -> None:
    view = parse(name)
    singles = zip(*(view(image[None]) for image in IMAGES), strict=True)
    for whole, parts in zip(view(IMAGES), singles, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-6)


@every_color
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.uint8, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_dtypes_of_colours(name: str, dtype: torch.dtype, expected: torch.dtype) -> None:
    batch = (IMAGES * 255).byte() if dtype == torch.uint8 else IMAGES.to(dtype)
    assert {v.dtype for v in parse(name)(batch)} == {expected}


@every_color
def test_gradients_flow_from_every_channel_to_the_image(name: str) -> None:
    for i in range(len(parse(name).channels)):
        images = IMAGES.clone().requires_grad_()
        parse(name)(images)[i].square().sum().backward()
        grad = images.grad
        assert grad is not None and grad.isfinite().all() and grad.abs().sum() > 0


@every_color
def test_colours_stay_on_their_device(name: str) -> None:
    view, batch = parse(name), torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta")
    views = view(batch)
    assert {v.device.type for v in views} == {"meta"}
    assert tuple(v.shape[1] for v in views) == view.channels


@pytest.mark.parametrize("space", SPACES)
def test_every_split_has_the_same_channels(space: str) -> None:
    whole = parse(f"color:{space}/012")(IMAGES)[0]
    for split in SPLITS:
        for v, group in zip(parse(f"color:{space}/{split}")(IMAGES), split.split("-"), strict=True):
            assert torch.equal(v, whole[:, [int(channel) for channel in group]])
    default = parse(f"color:{space}")
    assert isinstance(default, ColorSplit) and default.split == "0-12"


# --- shared factors ---


@every_shared
def test_draws_affect_the_second_view_only(name: str) -> None:
    view = parse(name)
    one, other = view(SCENES, seed(0)), view(SCENES, seed(1))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1]) == name.startswith("shared:all")


@every_shared
def test_the_first_view_of_a_scene_does_not_depend_on_the_batch(name: str) -> None:
    view = parse(name)
    singles = [view(SCENES[i : i + 1], seed(i))[0] for i in range(8)]
    torch.testing.assert_close(view(SCENES, seed(0))[0], torch.cat(singles))


@pytest.mark.parametrize("name", SHARED)
def test_the_first_view_is_the_scene_that_the_labels_describe(name: str) -> None:
    view = parse(name)
    v1, v2 = view(SCENES, seed(0))
    assert torch.equal(v1, render_scenes(SCENES))
    assert torch.equal(v1, v2) == (name == "shared:all")


@pytest.mark.parametrize(
    ("dial", "nats"),
    [
        ("nothing", 0),
        ("digit%2", math.log(2)),
        ("digit", math.log(10)),
        ("digit-position", math.log(90)),
        ("position", math.log(9)),
    ],
)
def test_nats_of_shared_factors(dial: str, nats: float) -> None:
    assert SharedFactors(dial).nats(SCENES) == pytest.approx(nats)


@every_shared
def test_images_instead_of_scenes_are_an_error(name: str) -> None:
    with pytest.raises(
        TypeError, match=r"SharedFactors\(.*\): got Tensor, wanted scenes.Scenes, .*data='digits'"
    ):
        parse(name)(IMAGES)


@pytest.mark.parametrize("name", ["color:lab", "color:rgb/0-1-2"])
def test_scenes_instead_of_images_are_an_error(name: str) -> None:
    with pytest.raises(
        TypeError, match=r"ColorSplit: images must be a torch.Tensor .*, got Scenes"
    ):
        parse(name)(SCENES)


# --- one after another ---


@pytest.mark.parametrize(
    ("first", "second"), [("shared:digit", "color:lab"), ("shared:nothing", "color:hsv/2-01")]
)
def test_then_applies_view_i_to_view_i(first: str, second: str) -> None:
    whole, one, two = parse(f"{first}+{second}"), parse(first), parse(second)
    expected = [two(v)[i] for i, v in enumerate(one(SCENES, seed(0)))]
    assert all(map(torch.equal, whole(SCENES, seed(0)), expected))
    assert isinstance(whole, Then) and whole.takes == "scenes"
    assert whole.channels == two.channels and whole.readout == one.readout


class Shift(View):
    """Two views: the images, plus random noise, plus one number per view."""

    channels, readout = (3, 3), (1,)

    def __init__(self, *steps: float) -> None:
        super().__init__()
        self.steps = steps

    def forward(
        self, batch: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        noise = torch.rand(batch.shape, generator=generator)
        return tuple(batch + noise + step for step in self.steps)


def test_then_passes_the_generator_on_and_keeps_what_the_first_declares() -> None:
    view = Then(Shift(10, 20), Shift(300, 400))
    v1, v2 = view(IMAGES, seed(5))
    g = seed(5)
    # one for the first part, then one for each of its views
    noise = [torch.rand(IMAGES.shape, generator=g) for _ in range(3)]
    torch.testing.assert_close(v1, IMAGES + noise[0] + 10 + noise[1] + 300)
    torch.testing.assert_close(v2, IMAGES + noise[0] + 20 + noise[2] + 400)
    assert view.readout == (1,) and view.takes == "images"


def test_composition_is_associative() -> None:
    a, b, c = Shift(1, 2), Shift(30, 40), Shift(500, 600)
    left, right = Then(Then(a, b), c), Then(a, Then(b, c))
    with torch.no_grad():
        black = torch.zeros_like(IMAGES)
        for one, other in zip(left(black, seed(0)), right(black, seed(0)), strict=True):
            # the same steps; the order of the draws may differ
            assert (one.mean() - other.mean()).abs() < 0.1


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            "color:rgb+color:lab",
            "Then: ColorSplit takes images of 3 channels, got views of 1, 2; "
            "put it before the part that splits channels",
        ),
        (
            "color:lab/0-1-2+jitter:1",
            "Then: Jitter takes images of 3 channels, got views of 1, 1, 1; put it before",
        ),
        ("color:lab+crop:0.2+grey:1", "Then: Grey takes images of 3 channels, got views of 1, 2"),
        (
            "color:rgb/012+shared:digit",
            "Then: the second part must take images, got one that takes scenes; put it first",
        ),
        ("shared:digit+shared:digit", "Then: the second part must take images, got .* scenes"),
        (
            "shared:digit+color:lab/0-1-2",
            "Then: got 2 views and then 3, wanted equally many, or one on either side",
        ),
        ("crop:0.2/3+color:lab", "Then: got 3 views and then 2"),
        (
            "frequency:1+color:lab",
            r"Then: ColorSplit takes images in \[0, 1\], got views with other values; put it",
        ),
        (
            "shared:digit|color:lab",
            "Each: parts must take the same input, got parts for images and scenes",
        ),
        (
            "crop:0.2/0",
            "the number after the slash must be 1 or more, got '0'; write crop:0.2/1 to draw",
        ),
        ("multicrop:2x8/2", "view 'multicrop:2x8/2': got '2x8/2'; the dial of multicrop is"),
    ],
)
def test_parts_that_do_not_fit_are_errors_when_composed(view: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(view)


def test_one_view_before_several_and_several_before_one() -> None:
    lab, whole = parse("color:lab"), parse("color:lab/012")
    split = Then(Crop((0.3, 1)), lab)
    (crop,) = Crop((0.3, 1))(IMAGES, seed(0))
    assert split.channels == (1, 2) and split.readout == (0, 1) and split.in_channels == 3
    assert all(map(torch.equal, split(IMAGES, seed(0)), lab(crop)))
    both = Then(Frequency(1), Crop((0.3, 1)))
    g = seed(0)
    expected = [Crop((0.3, 1))(v, g)[0] for v in Frequency(1)(IMAGES)]
    assert both.channels == (3, 3) and all(map(torch.equal, both(IMAGES, seed(0)), expected))
    assert Then(parse("patch:8/16"), whole).channels == (3, 3)


@pytest.mark.parametrize(
    ("view", "readout"),
    [
        ("multicrop:2x32-2x24", (0,)),
        ("flip:0.5/1+multicrop:2x32-2x24", (0,)),
        ("flip:0.5+multicrop:2x32-2x24", (0,)),
        ("aug:infomin+multicrop:2x32-4x20", (0,)),
        ("crop:0.2+color:lab", (0, 1)),
        ("crop:0.2+frequency:1-2", (0, 1, 2)),
        ("shared:digit+color:lab", (0,)),
        ("frames:digit+crop:0.5", (1,)),
    ],
)
def test_a_probe_reads_the_views_in_both_readouts(view: str, readout: tuple[int, ...]) -> None:
    assert parse(view).readout == readout


def test_each_puts_views_side_by_side() -> None:
    parts = parse("color:lab"), Crop(), parse("frequency:1")
    side_by_side, g = Each(*parts), seed(0)
    expected = [v for part in parts for v in part(IMAGES, g)]
    assert side_by_side.channels == (1, 2, 3, 3, 3) and side_by_side.readout == (0, 1, 2, 3, 4)
    assert all(map(torch.equal, side_by_side(IMAGES, seed(0)), expected))
    with pytest.raises(ValueError, match="Each: need at least one part, got none"):
        Each()


def test_each_needs_parts_that_take_the_same_channels() -> None:
    four = ColorSplit("lab")
    four.in_channels = 4
    with pytest.raises(ValueError, match=r"Each: parts must .* number of channels, .* 3 and 4"):
        Each(ColorSplit("lab"), four)


@pytest.mark.parametrize("part", [torch.nn.Identity(), "color:lab", None])
def test_only_views_can_be_composed(part: Any) -> None:
    name = type(part).__name__
    message = rf"must be of type infomin.views.View, got a {name}; derive its class from View"
    for compose in (
        lambda: Then(part, ColorSplit()),
        lambda: Then(Crop(), part),
        lambda: Each(Crop(), part),
    ):
        with pytest.raises(TypeError, match=message):
            compose()


def test_a_chain_of_augmentations_is_drawn_for_each_view() -> None:
    one, two = parse("crop:0.2+jitter:1"), Then(Crop((0.2, 1)), Jitter.of(1))
    g = seed(0)
    assert all(map(torch.equal, one(IMAGES, seed(0)), [two(IMAGES, g)[0] for _ in range(2)]))
    lab, (first, second) = parse("color:lab"), parse("crop:0.2")(IMAGES, seed(0))
    luma, chroma = parse("crop:0.2+color:lab")(IMAGES, seed(0))
    assert torch.equal(luma, lab(first)[0]) and torch.equal(chroma, lab(second)[1])
    luma, chroma = parse("crop:0.2/1+color:lab")(IMAGES, seed(0))
    assert torch.equal(luma, lab(first)[0]) and torch.equal(chroma, lab(first)[1])


class Noise(View):
    """A user's augmentation."""

    channels, readout, augments = (3,), (0,), True

    def __init__(self, dial: str) -> None:
        super().__init__()
        self.amount = float(dial)

    def forward(self, batch: Any, generator: torch.Generator | None = None) -> tuple[Tensor]:
        return (batch + self.amount * torch.rand(batch.shape, generator=generator),)


@pytest.mark.parametrize(
    "name", ["noise", "crop"]
)  # a new family, and one that replaces a built-in
def test_a_users_augmentation_is_drawn_like_a_built_in_one(name: str) -> None:
    register(name, dial="the amount of noise")(Noise)
    for suffix, draws in (("", 2), ("/1", 1), ("/3", 3)):
        views = parse(f"{name}:0.5{suffix}")(IMAGES, seed(0))
        assert len(views) == draws and len({float(view.sum()) for view in views}) == draws
    one: Any = parse(f"{name}:0.5/1+color:rgb")
    two: Any = parse(f"{name}:0.5+color:rgb")
    noise = Noise("0.5")(IMAGES, seed(0))[0]
    assert torch.equal(one.first(IMAGES, seed(0))[0], noise)
    assert len(one.first.channels) == 1 and len(two.first.channels) == 2


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        (
            "much",
            "view 'noise:much': could not convert string to float: 'much'; "
            "the dial of noise is the amount of noise$",
        ),
        ("0.5/x", "view 'noise:0.5/x': the number after the slash must be 1 or more, got 'x'"),
    ],
)
def test_errors_in_a_users_family_name_the_view(dial: str, message: str) -> None:
    register("noise", dial="the amount of noise")(Noise)
    with pytest.raises(ValueError, match=message):
        parse(f"crop:0.5+noise:{dial}")


class DuckNoise(torch.nn.Module):
    """All that a view declares and does, but no View."""

    channels, readout, augments, takes = (3,), (0,), True, "images"
    in_channels, bounded, beside, tiles, digest = 3, True, {}, (), ""

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor]:
        return (images,)


@pytest.mark.parametrize("built", [None, torch.nn.Identity(), DuckNoise()])
def test_a_users_family_must_build_a_view(built: object) -> None:
    register("odd")(lambda dial: built)
    message = (
        rf"view 'odd:1': a family must build an infomin.views.View, got a {type(built).__name__}; "
        "derive its class from View"
    )
    with pytest.raises(ValueError, match=message):
        parse("odd:1")


def test_a_users_function_that_builds_a_view_is_a_family() -> None:
    register("double")(lambda dial: Shift(float(dial), 2 * float(dial)))
    view = parse("double:3")
    assert isinstance(view, Shift) and view.steps == (3, 6) and view.channels == (3, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("channels", 3), ("readout", None), ("readout", ()), ("readout", (1,)), ("channels", ())],
)
def test_a_users_view_must_declare_its_views(name: str, value: object) -> None:
    register("odd")(type("Odd", (Noise,), {name: value}))
    message = rf"view 'odd:1': channels must be a tuple .* {name}={re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        parse("odd:1+color:lab")


# --- words ---


@pytest.mark.parametrize(
    "view", ["color:lab+", "|color:lab", "color:lab++grey:1", "grey:1||grey:1"]
)
def test_a_missing_part_is_an_error_with_the_whole_word(view: str) -> None:
    message = (
        rf"view '{re.escape(view)}': a part is missing next to \+ or \|; add one of aug, blur,"
    )
    with pytest.raises(ValueError, match=message):
        parse(view)


def test_only_text_can_be_parsed() -> None:
    with pytest.raises(ValueError, match="view: got None, wanted str"):
        parse(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("dial", ["-1", "fine", "1-"])
def test_a_frequency_that_is_not_a_number_is_an_error_with_an_example(dial: str) -> None:
    message = (
        rf"view 'frequency:{dial}': got '{dial}'; the dial of frequency is sigma .*frequency:0.7"
    )
    with pytest.raises(ValueError, match=message):
        parse(f"frequency:{dial}")


@pytest.mark.parametrize("family", VIEWS)
def test_every_family_describes_its_dial_with_an_example(family: str) -> None:
    assert f"{family}:" in VIEWS.dial(family)


@pytest.mark.parametrize(
    "view",
    [
        "colour:lab",
        "lab",
        "",
        "color:lab+",
        "+color:lab",
        "color:lab++color:lab",
        "Color:lab",
        " color:lab",
    ],
)
def test_an_unknown_family_lists_the_known_ones(view: str) -> None:
    with pytest.raises(ValueError, match=f"(wanted|add) one of {', '.join(VIEWS)}$"):
        parse(view)


@pytest.mark.parametrize("family", VIEWS)
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_missing_dial_is_an_error_with_an_example(family: str, colon: str) -> None:
    message = f"view '{family}{colon}': the dial is missing; the dial of {family} is .*{family}:"
    with pytest.raises(ValueError, match=message):
        parse(family + colon)


@pytest.mark.parametrize("view", ["color:cmyk", "color:LAB", "color:/0-12", "color:lab:0-12"])
def test_an_unknown_space_lists_the_known_ones(view: str) -> None:
    with pytest.raises(
        ValueError, match=f"wanted one of {', '.join(SPACES)}; the dial of color is"
    ):
        parse(view)


@pytest.mark.parametrize("split", ["", "0", "0-1", "0-123", "00-12", "0--12", "a-b", "0-12/3"])
def test_a_bad_split_is_an_error_with_an_example(split: str) -> None:
    with pytest.raises(
        ValueError, match=r"ColorSplit\(split\): got .*; write for example '0-12' or '0-1-2'"
    ):
        parse(f"color:lab/{split}")


def test_an_unknown_factor_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="wanted one of digit, digit_image, position"):
        parse("shared:digits")


def test_scenes_are_scenes() -> None:
    assert isinstance(SCENES, Scenes) and len(SCENES) == len(IMAGES)
