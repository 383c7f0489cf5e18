"""Laws that every view obeys, over the whole family, and what may be composed."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from infomin.moving_mnist import Scenes, World, draw, render
from infomin.views import FAMILIES, ColorSplit, SharedFactors, parse
from infomin.views.color import SPACES
from infomin.views.compose import DIALS, Then

SPLITS = ("0-12", "01-2", "2-01", "2-10", "0-1-2", "2-1-0", "012", "201")  # the order within a view counts too
COLOR = (
    [f"color:{space}" for space in SPACES] + [f"color:lab/{split}" for split in SPLITS] + ["color:rgb/01-2", "color:hsv/0-1-2"]
)
SHARED = [f"shared:{dial}" for dial in ("nothing", "digit%2", "digit", "digit-position", "background_image", "all")]
MIXED = ["shared:digit+color:lab", "shared:nothing+color:ydbdr/01-2", "shared:all+color:rgb"]
every_view = pytest.mark.parametrize("name", COLOR + SHARED + MIXED)
every_color = pytest.mark.parametrize("name", COLOR)
every_shared = pytest.mark.parametrize("name", SHARED + MIXED)


def world() -> World:
    g = torch.Generator().manual_seed(0)
    return World(
        digits=torch.randint(256, (12, 6, 5), dtype=torch.uint8, generator=g),
        digit_class=torch.arange(12) % 10,
        backgrounds=torch.randint(256, (4, 3, 20, 22), dtype=torch.uint8, generator=g),
        background_class=torch.tensor([0, 1, 0, 1]),
        size=16,
    )


SCENES = draw(world(), 8, torch.Generator().manual_seed(1))
IMAGES = torch.rand(8, 3, 16, 12, generator=torch.Generator().manual_seed(2))


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def inputs(view: Any) -> Any:
    return SCENES if view.takes == "scenes" else IMAGES


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
    assert isinstance(views, tuple) and isinstance(view.channels, tuple) and len(views) == len(view.channels)
    for v, channels in zip(views, view.channels, strict=True):
        assert v.shape == (8, channels, *((side, side) if side else IMAGES.shape[2:]))
        assert v.dtype == torch.float32 and v.device.type == "cpu" and v.isfinite().all()


@every_view
def test_readout_names_views(name: str) -> None:
    view = build(name)
    assert len(view.readout) >= 1 and len(set(view.readout)) == len(view.readout)
    assert set(view.readout) <= set(range(len(view.channels)))
    assert tuple(view.readout) == ((0,) if view.takes == "scenes" else tuple(range(len(view.channels))))


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
    assert all(map(torch.equal, view(inputs(view), seed(0)), twin(inputs(view), seed(0)))) and repr(twin) == repr(view)
    assert all(map(torch.equal, view(inputs(view), seed(0)), view.eval()(inputs(view), seed(0))))  # nor a mode


@every_view
def test_a_view_leaves_its_batch_as_it_is(name: str) -> None:
    view = build(name)
    images, scenes = IMAGES.clone(), {key: value.clone() for key, value in SCENES.tensors().items()}
    view(inputs(view), seed(0))
    assert torch.equal(images, IMAGES) and all(torch.equal(value, scenes[key]) for key, value in SCENES.tensors().items())


@every_view
def test_views_are_of_their_own_image(name: str) -> None:
    """Turning the batch turns v1 with it: no row looks at another one."""
    view = build(name)
    turn = torch.randperm(8, generator=seed(4))
    torch.testing.assert_close(view(inputs(view)[turn], seed(0))[0], view(inputs(view), seed(0))[0][turn])


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
        assert images.grad is not None and images.grad.isfinite().all() and images.grad.abs().sum() > 0


@every_color
def test_colours_stay_on_their_device(name: str) -> None:
    batch = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device="meta")
    assert [(v.device.type, v.shape[1]) for v in parse(name)(batch)] == [("meta", c) for c in parse(name).channels]


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
    torch.testing.assert_close(view(SCENES, seed(0))[0], torch.cat([view(SCENES[i : i + 1], seed(i))[0] for i in range(8)]))


@pytest.mark.parametrize("name", SHARED)
def test_the_first_view_is_the_scene_that_the_labels_speak_of(name: str) -> None:
    view = parse(name)
    v1, v2 = view(SCENES, seed(0))
    assert torch.equal(v1, render(SCENES))
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
    with pytest.raises(TypeError, match=r"SharedFactors\(.*\): got Tensor, wanted moving_mnist.Scenes, .*data='digits'"):
        parse(name)(IMAGES)


@pytest.mark.parametrize("name", ["color:lab", "color:rgb/0-1-2"])
def test_images_are_wanted_where_scenes_come(name: str) -> None:
    with pytest.raises(TypeError, match=r"ColorSplit\(.*\): images must be a torch.Tensor"):
        parse(name)(SCENES)


# --- one after another ---


@pytest.mark.parametrize(("first", "second"), [("shared:digit", "color:lab"), ("shared:nothing", "color:hsv/2-01")])
def test_then_takes_view_i_of_view_i(first: str, second: str) -> None:
    whole, one, two = parse(f"{first}+{second}"), parse(first), parse(second)
    expected = [two(v)[i] for i, v in enumerate(one(SCENES, seed(0)))]
    assert all(map(torch.equal, whole(SCENES, seed(0)), expected))
    assert isinstance(whole, Then) and whole.channels == two.channels and whole.readout == one.readout and whole.takes == "scenes"


class Shift(torch.nn.Module):
    """Two views: the images plus noise of the generator, plus a number for each view."""

    channels, readout, takes = (3, 3), (1,), "anything"

    def __init__(self, *steps: float) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, batch: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        noise = torch.rand(batch.shape, generator=generator)
        return tuple(batch + noise + step for step in self.steps)


def test_then_hands_on_the_generator_in_turn_and_what_the_first_says() -> None:
    view = Then(Shift(10, 20), Shift(300, 400))
    v1, v2 = view(IMAGES, seed(5))
    g = seed(5)
    noise = [torch.rand(IMAGES.shape, generator=g) for _ in range(3)]  # one for the first part, then one for each of its views
    torch.testing.assert_close(v1, IMAGES + noise[0] + 10 + noise[1] + 300)
    torch.testing.assert_close(v2, IMAGES + noise[0] + 20 + noise[2] + 400)
    assert view.readout == (1,) and view.takes == "anything"


def test_composition_is_associative() -> None:
    a, b, c = Shift(1, 2), Shift(30, 40), Shift(500, 600)
    left, right = Then(Then(a, b), c), Then(a, Then(b, c))
    with torch.no_grad():
        quiet = torch.zeros_like(IMAGES)
        for one, other in zip(left(quiet, seed(0)), right(quiet, seed(0)), strict=True):
            assert (one.mean() - other.mean()).abs() < 0.1  # the same steps; the order of the draws may differ


def test_colour_after_colour_is_an_error_that_names_the_second() -> None:
    with pytest.raises(ValueError, match=r"ColorSplit\(lab\): images must have the shape \[B, 3, H, W\], got \[8, 1, 16, 12\]"):
        parse("color:rgb+color:lab")(IMAGES)


@pytest.mark.parametrize("view", ["color:rgb/012+color:lab", "color:lab+color:lab/0-1-2", "shared:digit+color:lab/012"])
def test_then_wants_equally_many_views(view: str) -> None:
    with pytest.raises(ValueError, match=r"Then: got \d views and then \d, wanted equally many; change one"):
        parse(view)


# --- words ---


def test_every_family_says_what_its_dial_is() -> None:
    assert set(DIALS) == set(FAMILIES)


@pytest.mark.parametrize(
    "view", ["colour:lab", "lab", "", "color:lab+", "+color:lab", "color:lab++color:lab", "Color:lab", " color:lab"]
)
def test_an_unknown_family_lists_the_known_ones(view: str) -> None:
    with pytest.raises(ValueError, match=f"wanted one of {', '.join(FAMILIES)}; pick one of those"):
        parse(view)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_missing_dial_says_what_it_could_be(family: str, colon: str) -> None:
    with pytest.raises(
        ValueError, match=f"view '{family}{colon}': got no dial, wanted {family}:DIAL, where DIAL is the"
    ) as caught:
        parse(family + colon)
    assert f"{family}:" in str(caught.value).split("where DIAL is")[1]  # with an example that can be typed


@pytest.mark.parametrize("view", ["color:cmyk", "color:LAB", "color:/0-12", "color:lab:0-12"])
def test_an_unknown_space_lists_the_known_ones(view: str) -> None:
    with pytest.raises(ValueError, match=f"wanted one of {', '.join(SPACES)}; pick one of those"):
        parse(view)


@pytest.mark.parametrize("split", ["", "0", "0-1", "0-123", "00-12", "0--12", "a-b", "0-12/3"])
def test_a_bad_split_says_how_to_write_one(split: str) -> None:
    with pytest.raises(ValueError, match=r"ColorSplit\(split\): got .*; write for example '0-12' or '0-1-2'"):
        parse(f"color:lab/{split}")


def test_an_unknown_factor_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="wanted one of digit, digit_image, position"):
        parse("shared:digits")


def test_scenes_are_scenes() -> None:
    assert isinstance(SCENES, Scenes) and len(SCENES) == len(IMAGES)
