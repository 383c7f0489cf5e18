"""Laws that every view obeys, over the whole family, and what may be composed."""

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
    FAMILIES,
    ColorSplit,
    Crop,
    Each,
    Frequency,
    Jitter,
    SharedFactors,
    Then,
    parse,
)
from infomin.views.augment.presets import PRESETS
from infomin.views.base import door
from infomin.views.color import SPACES
from infomin.views.compose import DIALS

SPLITS = (
    "0-12",
    "01-2",
    "2-01",
    "2-10",
    "0-1-2",
    "2-1-0",
    "012",
    "201",
)  # the order within a view counts too
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
DRAWN = [
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
every_view = pytest.mark.parametrize("name", COLOR + SHARED + MIXED + BANDS + DRAWN)
every_color = pytest.mark.parametrize("name", COLOR)
every_shared = pytest.mark.parametrize("name", SHARED + MIXED)
OF_IMAGES = [name for name in COLOR + BANDS + DRAWN if not name.startswith("shared")]
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


def inputs(view: Any) -> Any:
    return SCENES if view.takes == "scenes" else IMAGES


def draws(view: Any) -> bool:
    return any(getattr(module, "augments", False) for module in view.modules())


def build(name: str) -> Any:
    """A view; what it takes is images unless it says otherwise."""
    view: Any = parse(name)
    view.takes = getattr(view, "takes", "images")
    return view


# --- laws of every view ---


@every_view
def test_a_view_is_a_tuple_with_the_channels_it_says(name: str) -> None:
    view = build(name)
    batch = inputs(view)
    side = SCENES.world.size if view.takes == "scenes" else None
    views = view(batch, seed(0))
    assert (
        isinstance(views, tuple)
        and isinstance(view.channels, tuple)
        and len(views) == len(view.channels)
    )
    resized = any(word in name for word in ("patch", "jigsaw", "multicrop"))
    for v, channels in zip(views, view.channels, strict=True):
        assert v.shape == (
            8,
            channels,
            *(v.shape[2:] if resized else (side, side) if side else IMAGES.shape[2:]),
        )
        assert v.dtype == torch.float32 and v.device.type == "cpu" and v.isfinite().all()


@every_view
def test_readout_names_views(name: str) -> None:
    view = build(name)
    assert len(view.readout) >= 1 and len(set(view.readout)) == len(view.readout)
    assert set(view.readout) <= set(range(len(view.channels)))
    everything = tuple(range(len(view.channels)))
    assert tuple(view.readout) == (
        (0,) if view.takes == "scenes" or "multicrop" in name else everything
    )


@every_view
def test_what_a_view_takes_is_said(name: str) -> None:
    assert build(name).takes == ("scenes" if name.startswith("shared") else "images")


@every_view
def test_a_batch_of_one(name: str) -> None:
    view = build(name)
    assert [len(v) for v in view(inputs(view)[:1], seed(0))] == [1] * len(view.channels)


@every_view
def test_the_same_generator_gives_the_same_views_and_no_other_is_used(name: str) -> None:
    view = build(name)
    before = torch.get_rng_state()
    one, other = view(inputs(view), seed(0)), view(inputs(view), seed(0))
    assert all(map(torch.equal, one, other)) and torch.equal(torch.get_rng_state(), before)


@every_view
def test_a_view_has_no_state_and_copies(name: str) -> None:
    view = build(name)
    assert view.state_dict() == {} and not list(view.parameters()) and not list(view.buffers())
    twin = copy.deepcopy(view)
    assert all(map(torch.equal, view(inputs(view), seed(0)), twin(inputs(view), seed(0)))) and repr(
        twin
    ) == repr(view)
    if not draws(view):  # nor a mode
        assert all(
            map(torch.equal, view(inputs(view), seed(0)), view.eval()(inputs(view), seed(0)))
        )


@pytest.mark.parametrize("name", DRAWN)
def test_in_eval_mode_nothing_is_drawn(name: str) -> None:
    """What is left is the view of an image that is not augmented."""
    view = build(name).eval()
    rest = "+".join(part for part in name.split("+") if part.startswith(("color", "shared")))
    known = parse(rest)(inputs(view), seed(0)) if rest else [inputs(view)] * len(view.channels)
    for i, v in enumerate(view(inputs(view), seed(1) if view.takes == "images" else seed(0))):
        if "|" not in name and "multicrop" not in name:  # one is of several kinds, the other scales
            assert torch.equal(v, known[i])
    assert all(map(torch.equal, view(inputs(view), seed(2)), view(inputs(view), seed(2))))


@every_view
def test_a_view_leaves_its_batch_as_it_is(name: str) -> None:
    view = build(name)
    images, scenes = IMAGES.clone(), {key: value.clone() for key, value in SCENES.tensors().items()}
    view(inputs(view), seed(0))
    assert torch.equal(images, IMAGES) and all(
        torch.equal(value, scenes[key]) for key, value in SCENES.tensors().items()
    )


@every_view
def test_views_are_of_their_own_image(name: str) -> None:
    """Turning the batch turns v1 with it: no row looks at another one."""
    view = build(name)
    turn = torch.randperm(8, generator=seed(4))
    if draws(view):
        view.eval()
    torch.testing.assert_close(
        view(inputs(view)[turn], seed(0))[0], view(inputs(view), seed(0))[0][turn]
    )


# --- views of images ---


@every_image_view
def test_a_single_image_is_a_batch_of_one_without_its_axis(name: str) -> None:
    view = build(name)
    for one, batch in zip(view(IMAGES[0], seed(0)), view(IMAGES[:1], seed(0)), strict=True):
        assert one.dim() == 3 and torch.equal(one, batch[0])


@every_image_view
def test_without_a_generator_the_global_one_decides(name: str) -> None:
    view = build(name)
    with torch.random.fork_rng(devices=[]):
        found = [view(IMAGES) for s in (0, 0, 1) if torch.manual_seed(s)]
    assert all(map(torch.equal, found[0], found[1]))
    assert not draws(view) or not all(map(torch.equal, found[0], found[2]))


@pytest.mark.parametrize("name", [name for name in DRAWN if name in OF_IMAGES])
def test_each_sample_has_draws_of_its_own(name: str) -> None:
    same = IMAGES[:1].expand(64, -1, -1, -1)
    assert all(
        len(torch.unique(v, dim=0)) > 1
        for v in parse(name)(same, seed(0))
        if name.partition("|")[0] == name
    )


@every_image_view
def test_bytes_are_scaled_and_other_types_are_kept(name: str) -> None:
    view, pixels = build(name), (IMAGES * 255).round().byte()
    for v, floats in zip(view(pixels, seed(0)), view(pixels.float() / 255, seed(0)), strict=True):
        assert v.dtype == torch.float32
        torch.testing.assert_close(v, floats, rtol=0, atol=1e-5)
    assert {v.dtype for v in view(IMAGES.double(), seed(0))} == {torch.float64}
    assert {v.dtype for v in view(IMAGES.bfloat16(), seed(0))} == {torch.bfloat16}


@every_image_view
def test_autocast_rounds_nothing(name: str) -> None:
    view = build(name)
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
    view = build(name)
    compiled = torch.compile(view, backend="eager")
    with torch.random.fork_rng(devices=[]):
        plain, traced = ((torch.manual_seed(0), f(IMAGES))[1] for f in (view, compiled))
        for one, other in zip(plain, traced, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["jitter:1", "aug:simclr", "aug:infomin"])
def test_compiled_views_are_the_same_with_several_threads(name: str) -> None:
    view, threads = build(name), torch.get_num_threads()
    torch.compiler.reset()
    torch.set_num_threads(2)  # then jitter lends memory, which a compiler must not look into
    try:
        with torch.random.fork_rng(devices=[]):
            plain, traced = (
                (torch.manual_seed(0), f(IMAGES))[1]
                for f in (view, torch.compile(view, backend="eager"))
            )
        assert all(map(torch.equal, plain, traced))
    finally:
        torch.set_num_threads(threads)


def test_each_family_is_compiled_for_itself() -> None:
    torch.compiler.reset()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter(
            "error"
        )  # the compiler warns when it gives up, for it keeps few variants of a function
        for name in ("aug:infomin", "aug:simclr", "multicrop:2x8-2x5", "patch:3/7", "frequency:1"):
            view = torch.compile(build(name), backend="eager")
            view(IMAGES), view(IMAGES[:1])
        torch.compile(ColorSplit("lab"), backend="eager", fullgraph=True)(IMAGES)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_no_view_s_products_are_rounded(precision: str) -> None:
    before, found = torch.get_float32_matmul_precision(), []

    class Product(torch.nn.Module):
        @door
        def forward(
            self, images: Tensor, generator: torch.Generator | None = None
        ) -> tuple[Tensor, ...]:
            kinds = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
            found.extend([kind.fp32_precision for kind in kinds] + [(images @ images.mT).dtype])
            return (images,)

    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", torch.bfloat16):
            Product()(IMAGES)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    assert found == ["ieee", "ieee", IMAGES.dtype]


def test_a_compiled_patch_is_drawn_as_any_other() -> None:
    view = build("patch:3/7")
    with torch.random.fork_rng(
        devices=[]
    ):  # by the compiler that users have: its own random numbers are others
        plain, traced = (
            (torch.manual_seed(0), f(IMAGES))[1]
            for f in (view, torch.compile(view, backend="aot_eager"))
        )
    assert all(map(torch.equal, plain, traced))


@every_image_view
def test_draws_are_made_on_the_cpu_whatever_device_is_the_default(name: str) -> None:
    view = build(name)
    want = view(IMAGES, seed(0)), copy.deepcopy(view).eval()(IMAGES)
    with torch.device("meta"):  # which has no numbers, so nothing can be drawn there
        got = view(IMAGES, seed(0)), copy.deepcopy(view).eval()(IMAGES)
    for some, others in zip(want, got, strict=True):
        assert all(map(torch.equal, some, others))


@every_shared
def test_scenes_are_drawn_on_the_cpu_whatever_device_is_the_default(name: str) -> None:
    bank = world()
    want = build(name)(draw_scenes(bank, 5, seed(0)), seed(1))
    with torch.device("meta"):
        got = build(name)(draw_scenes(replace(bank), 5, seed(0)), seed(1))
    assert all(map(torch.equal, want, got))


class Viewed(torch.utils.data.Dataset):
    """Views of one image each, as a transform of a data set makes them."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return self.view(IMAGES[0])


def test_views_in_workers_draw_anew_for_each_sample_and_again_with_the_same_seed() -> None:
    def load() -> list[Tensor]:
        loader = torch.utils.data.DataLoader(
            Viewed(parse("crop:0.2+jitter:1")), 4, num_workers=2, generator=seed(3)
        )
        return [torch.cat(column) for column in zip(*loader, strict=True)]

    first, second = load(), load()
    assert [v.shape for v in first] == [(8, *IMAGES.shape[1:])] * 2
    assert all(map(torch.equal, first, second)) and len(torch.unique(torch.cat(first), dim=0)) == 16


def test_views_stand_in_a_torchvision_transform() -> None:
    from torchvision.transforms import v2

    picture = (IMAGES[0] * 255).byte().permute(1, 2, 0).numpy()
    luma, chroma = v2.Compose([v2.ToImage(), parse("crop:0.2+color:lab")])(picture)
    assert luma.shape == (1, 16, 12) and chroma.shape == (2, 16, 12) and luma.dtype == torch.float32


# --- colours ---


@every_color
def test_colours_of_a_batch_are_those_of_each_image(name: str) -> None:
    view = parse(name)
    singles = zip(*(view(image[None]) for image in IMAGES), strict=True)
    for whole, parts in zip(view(IMAGES), singles, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=1e-6)


@every_color
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (torch.float64, torch.float64),
        (torch.uint8, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
    ],
)
def test_dtypes_of_colours(name: str, given: torch.dtype, wanted: torch.dtype) -> None:
    batch = (IMAGES * 255).byte() if given == torch.uint8 else IMAGES.to(given)
    assert {v.dtype for v in parse(name)(batch)} == {wanted}


@every_color
def test_gradients_flow_from_every_channel_to_the_image(name: str) -> None:
    for i in range(len(parse(name).channels)):
        images = IMAGES.clone().requires_grad_()
        parse(name)(images)[i].square().sum().backward()
        assert (
            images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0
        )


@every_color
def test_colours_stay_on_their_device(name: str) -> None:
    batch = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta")
    assert [(v.device.type, v.shape[1]) for v in parse(name)(batch)] == [
        ("meta", c) for c in parse(name).channels
    ]


@pytest.mark.parametrize("space", SPACES)
def test_every_split_deals_out_the_same_channels(space: str) -> None:
    whole = parse(f"color:{space}/012")(IMAGES)[0]
    for split in SPLITS:
        for v, group in zip(parse(f"color:{space}/{split}")(IMAGES), split.split("-"), strict=True):
            assert torch.equal(v, whole[:, [int(channel) for channel in group]])
    default = parse(f"color:{space}")
    assert isinstance(default, ColorSplit) and default.split == "0-12"


# --- shared factors ---


@every_shared
def test_other_draws_change_the_second_view_only(name: str) -> None:
    view = build(name)
    one, other = view(SCENES, seed(0)), view(SCENES, seed(1))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1]) == name.startswith("shared:all")


@every_shared
def test_the_first_view_of_a_scene_does_not_depend_on_the_batch(name: str) -> None:
    view = build(name)
    torch.testing.assert_close(
        view(SCENES, seed(0))[0], torch.cat([view(SCENES[i : i + 1], seed(i))[0] for i in range(8)])
    )


@pytest.mark.parametrize("name", SHARED)
def test_the_first_view_is_the_scene_that_the_labels_speak_of(name: str) -> None:
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
def test_scenes_are_wanted_where_images_come(name: str) -> None:
    with pytest.raises(
        TypeError, match=r"SharedFactors\(.*\): got Tensor, wanted scenes.Scenes, .*data='digits'"
    ):
        parse(name)(IMAGES)


@pytest.mark.parametrize("name", ["color:lab", "color:rgb/0-1-2"])
def test_images_are_wanted_where_scenes_come(name: str) -> None:
    with pytest.raises(TypeError, match=r"ColorSplit\(.*\): images must be a torch.Tensor"):
        parse(name)(SCENES)


# --- one after another ---


@pytest.mark.parametrize(
    ("first", "second"), [("shared:digit", "color:lab"), ("shared:nothing", "color:hsv/2-01")]
)
def test_then_takes_view_i_of_view_i(first: str, second: str) -> None:
    whole, one, two = parse(f"{first}+{second}"), parse(first), parse(second)
    expected = [two(v)[i] for i, v in enumerate(one(SCENES, seed(0)))]
    assert all(map(torch.equal, whole(SCENES, seed(0)), expected))
    assert (
        isinstance(whole, Then)
        and whole.channels == two.channels
        and whole.readout == one.readout
        and whole.takes == "scenes"
    )


class Shift(torch.nn.Module):
    """Two views: the images plus noise of the generator, plus a number for each view."""

    channels, readout, takes = (3, 3), (1,), "images"

    def __init__(self, *steps: float) -> None:
        super().__init__()
        self.steps = steps

    def forward(
        self, batch: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        noise = torch.rand(batch.shape, generator=generator)
        return tuple(batch + noise + step for step in self.steps)


def test_then_hands_on_the_generator_in_turn_and_what_the_first_says() -> None:
    view = Then(Shift(10, 20), Shift(300, 400))
    v1, v2 = view(IMAGES, seed(5))
    g = seed(5)
    noise = [
        torch.rand(IMAGES.shape, generator=g) for _ in range(3)
    ]  # one for the first part, then one for each of its views
    torch.testing.assert_close(v1, IMAGES + noise[0] + 10 + noise[1] + 300)
    torch.testing.assert_close(v2, IMAGES + noise[0] + 20 + noise[2] + 400)
    assert view.readout == (1,) and view.takes == "images"


def test_composition_is_associative() -> None:
    a, b, c = Shift(1, 2), Shift(30, 40), Shift(500, 600)
    left, right = Then(Then(a, b), c), Then(a, Then(b, c))
    with torch.no_grad():
        quiet = torch.zeros_like(IMAGES)
        for one, other in zip(left(quiet, seed(0)), right(quiet, seed(0)), strict=True):
            assert (
                one.mean() - other.mean()
            ).abs() < 0.1  # the same steps; the order of the draws may differ


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (
            "color:rgb+color:lab",
            r"Then: got views of 1, 2 channels for ColorSplit, wanted 3 each; put it before the part that",
        ),
        (
            "color:lab/0-1-2+jitter:1",
            "Then: got views of 1, 1, 1 channels for Jitter, wanted 3 each",
        ),
        ("color:lab+crop:0.2+grey:1", "Then: got views of 1, 2 channels for Grey, wanted 3 each"),
        (
            "color:rgb/012+shared:digit",
            "Then: got a second part that takes scenes, wanted one that takes images; put it first",
        ),
        ("shared:digit+shared:digit", "Then: got a second part that takes scenes"),
        (
            "shared:digit+color:lab/0-1-2",
            "Then: got 2 views and then 3, wanted equally many, or one on either side; change one",
        ),
        ("crop:0.2/3+color:lab", "Then: got 3 views and then 2"),
        ("shared:digit|color:lab", "Each: got parts that take images and scenes"),
        (
            "crop:0.2/0",
            "got '0' after the slash, wanted how often a single view is drawn: crop:0.2/1",
        ),
        ("multicrop:2x8/2", "got '2' after the slash"),
    ],
)
def test_what_does_not_fit_is_said_when_it_is_put_together(view: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(view)


def test_one_view_before_several_and_several_before_one() -> None:
    lab, whole = parse("color:lab"), parse("color:lab/012")
    split = Then(Crop((0.3, 1)), lab)
    (crop,) = Crop((0.3, 1))(IMAGES, seed(0))
    assert split.channels == (1, 2) and split.readout == (0, 1) and split.wants == 3
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
def test_a_probe_reads_what_both_parts_have_worth_reading(
    view: str, readout: tuple[int, ...]
) -> None:
    assert parse(view).readout == readout


def test_each_puts_views_side_by_side() -> None:
    parts = parse("color:lab"), Crop(), parse("frequency:1")
    side_by_side, g = Each(*parts), seed(0)
    expected = [v for part in parts for v in part(IMAGES, g)]
    assert side_by_side.channels == (1, 2, 3, 3, 3) and side_by_side.readout == (0, 1, 2, 3, 4)
    assert all(map(torch.equal, side_by_side(IMAGES, seed(0)), expected))
    with pytest.raises(ValueError, match="Each: got parts that take nothing"):
        Each()


def test_a_chain_of_augmentations_is_drawn_anew_for_each_view() -> None:
    one, two = parse("crop:0.2+jitter:1"), Then(Crop((0.2, 1)), Jitter.of(1))
    g = seed(0)
    assert all(map(torch.equal, one(IMAGES, seed(0)), [two(IMAGES, g)[0] for _ in range(2)]))
    luma, chroma = parse("crop:0.2+color:lab")(IMAGES, seed(0))
    crops = parse("crop:0.2")(IMAGES, seed(0))
    assert torch.equal(luma, parse("color:lab")(crops[0])[0]) and torch.equal(
        chroma, parse("color:lab")(crops[1])[1]
    )
    luma, chroma = parse("crop:0.2/1+color:lab")(IMAGES, seed(0))
    assert torch.equal(luma, parse("color:lab")(crops[0])[0]) and torch.equal(
        chroma, parse("color:lab")(crops[0])[1]
    )


class Noise(torch.nn.Module):
    """An augmentation of a user's."""

    channels, readout, augments = (3,), (0,), True

    def __init__(self, dial: str) -> None:
        super().__init__()
        self.amount = float(dial)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor]:
        return (images + self.amount * torch.rand(images.shape, generator=generator),)


@pytest.mark.parametrize(
    "name", ["noise", "crop"]
)  # a family of its own, and one in the place of a built-in one
def test_an_augmentation_of_a_user_is_drawn_anew_as_a_built_in_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, name, Noise)
    for words, draws in (("", 2), ("/1", 1), ("/3", 3)):
        views = parse(f"{name}:0.5{words}")(IMAGES, seed(0))
        assert len(views) == draws and len({float(view.sum()) for view in views}) == draws
    one, two = (parse(f"{name}:0.5{words}+color:rgb") for words in ("/1", ""))
    noise = Noise("0.5")(IMAGES, seed(0))[0]
    assert (
        torch.equal(one.first(IMAGES, seed(0))[0], noise)
        and len(one.first.channels) == 1
        and len(two.first.channels) == 2
    )


@pytest.mark.parametrize(
    ("dial", "words"),
    [
        ("much", "view 'noise:much': could not convert string to float: 'much'"),
        ("0.5/x", "view 'noise:0.5/x': got 'x' after the slash"),
    ],
)
def test_what_goes_wrong_in_a_family_of_a_user_names_the_view(
    dial: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "noise", Noise)
    with pytest.raises(ValueError, match=words):
        parse(f"crop:0.5+noise:{dial}")


@pytest.mark.parametrize("made", [None, torch.nn.Identity()])
def test_a_family_of_a_user_that_makes_no_view_is_told(
    made: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "odd", lambda dial: made)
    with pytest.raises(
        ValueError,
        match=rf"view 'odd:1': got a {type(made).__name__}, wanted a module with \.channels, a tuple",
    ):
        parse("odd:1")


@pytest.mark.parametrize(("name", "value"), [("channels", 3), ("readout", None)])
def test_a_view_of_a_user_says_what_its_views_are(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "odd", type("Odd", (Noise,), {name: value}))
    with pytest.raises(
        ValueError, match=rf"view 'odd:1': got a Odd, wanted a module with \.{name}, a tuple of the"
    ):
        parse("odd:1+color:lab")


# --- words ---


@pytest.mark.parametrize(
    "view", ["color:lab+", "|color:lab", "color:lab++grey:1", "grey:1||grey:1"]
)
def test_a_part_that_is_missing_is_told_with_all_that_was_written(view: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"view '{re.escape(view)}': got nothing beside a \+ or \|, wanted one of color, ",
    ):
        parse(view)


def test_what_is_no_text_is_no_view() -> None:
    with pytest.raises(ValueError, match="view: got None, wanted str"):
        parse(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("dial", ["-1", "fine", "1-"])
def test_a_frequency_that_is_no_number_is_told_how_it_is_written(dial: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"view 'frequency:{dial}': got no numbers; write sigmas in px, for example frequency:1",
    ):
        parse(f"frequency:{dial}")


def test_every_family_says_what_its_dial_is() -> None:
    assert set(DIALS) == set(FAMILIES)


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
    with pytest.raises(ValueError, match=f"wanted one of {', '.join(FAMILIES)}; pick one of those"):
        parse(view)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_missing_dial_says_what_it_could_be(family: str, colon: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"view '{family}{colon}': got no dial, wanted {family}:DIAL, where DIAL is ",
    ) as caught:
        parse(family + colon)
    assert (
        f"{family}:" in str(caught.value).split("where DIAL is")[1]
    )  # with an example that can be typed


@pytest.mark.parametrize("view", ["color:cmyk", "color:LAB", "color:/0-12", "color:lab:0-12"])
def test_an_unknown_space_lists_the_known_ones(view: str) -> None:
    with pytest.raises(ValueError, match=f"wanted one of {', '.join(SPACES)}; pick one of those"):
        parse(view)


@pytest.mark.parametrize("split", ["", "0", "0-1", "0-123", "00-12", "0--12", "a-b", "0-12/3"])
def test_a_bad_split_says_how_to_write_one(split: str) -> None:
    with pytest.raises(
        ValueError, match=r"ColorSplit\(split\): got .*; write for example '0-12' or '0-1-2'"
    ):
        parse(f"color:lab/{split}")


def test_an_unknown_factor_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="wanted one of digit, digit_image, position"):
        parse("shared:digits")


def test_scenes_are_scenes() -> None:
    assert isinstance(SCENES, Scenes) and len(SCENES) == len(IMAGES)
