"""A chain checks its images once and leaves them alone, whatever its parts are."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from view_cases import every_view, inputs

from infomin.common import checks
from infomin.views import (
    Augmentation,
    Blur,
    ColorSplit,
    Crop,
    Each,
    Flip,
    Grey,
    ImageView,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
    Then,
    View,
    parse,
    try_parts,
)

torch.set_num_threads(1)
PARTS: dict[str, Any] = {
    "crop": Crop(),
    "flip": Flip(),
    "no flip": Flip(0),  # returns its input tensor
    "jitter": Jitter.from_strength(1, p=0.7),
    "grey": Grey(0.5),
    "all grey": Grey(1),
    "blur": Blur(),
    "randaugment": RandAugment(),
    "jigsaw": Jigsaw(2),
}
BYTES = torch.randint(
    256, (8, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
INPUTS = {"bytes": BYTES.clone, "floats": lambda: BYTES / 255}
PAIRS = [f"{first}, {second}" for first, second in product(PARTS, PARTS)]
every_pair = pytest.mark.parametrize("pair", PAIRS)


def apply_to_copies(images: Tensor, parts: list[Any], generator: torch.Generator) -> Tensor:
    """Apply the parts one by one, each to a copy of its input."""
    for part in parts:
        (images,) = part(images.clone(), generator)
    return images


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@every_pair
@pytest.mark.parametrize("input_name", INPUTS)
def test_a_chain_equals_its_parts_and_does_not_change_its_input(pair: str, input_name: str) -> None:
    first, second = (PARTS[name] for name in pair.split(", "))
    images = INPUTS[input_name]()
    before = images.clone()
    for chain, parts in [
        (Then(Then(first, second), PARTS["grey"]), [first, second, PARTS["grey"]]),
        (Then(first, Then(second, PARTS["flip"])), [first, second, PARTS["flip"]]),
    ]:
        assert torch.equal(chain(images, seeded())[0], apply_to_copies(images, parts, seeded()))
        assert torch.equal(images, before)


def test_a_view_with_two_readers_reaches_both() -> None:
    first, readers = Crop(), [Grey(0.5), Flip(0.5)]
    grey, flipped = Then(first, Each(*readers))(BYTES, seeded())
    generator = seeded()
    (crop,) = first(BYTES, generator)
    assert torch.equal(grey, readers[0](crop.clone(), generator)[0])
    assert torch.equal(flipped, readers[1](crop.clone(), generator)[0])
    views = Then(first, MultiCrop((8, 5), (2, 1)))(BYTES, seeded())
    assert [view.shape[2] for view in views] == [8, 8, 5]


def test_gradients_pass_through_a_chain() -> None:
    chain = Then(Then(Then(Crop(), Jitter.from_strength(1)), Grey(0.5)), Blur())
    parts = [Crop(), Jitter.from_strength(1), Grey(0.5), Blur()]
    images = (BYTES / 255).double().requires_grad_()
    (chain(images, seeded())[0] ** 2).sum().backward()
    twin = images.detach().clone().requires_grad_()
    (apply_to_copies(twin, parts, seeded()) ** 2).sum().backward()
    assert images.grad is not None and torch.equal(images.grad, twin.grad)


class HalfGrey(View):
    """A user's augmentation that reads its images again after passing them to `Grey`."""

    channels, readout, augments = (3,), (0,), True

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        (grey,) = PARTS["grey"](images, generator)
        return ((images + grey) / 2,)


class FixedNoise(View):
    """A user's augmentation that returns a tensor which it needs again."""

    channels, readout, augments = (3,), (0,), True

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.rand(8, 3, 16, 12, generator=seeded())

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        return (self.noise,)


class FixedImages(ImageView):
    """The same as a view of images, which a chain trusts."""

    channels, readout = (3,), (0,)

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.rand(8, 3, 16, 12, generator=seeded())

    def make_views(self, images: Tensor, generator: Any = None) -> tuple[Tensor, ...]:
        return (self.noise,)


class FixedAugmentation(FixedNoise, Augmentation[None]):
    """The same as an augmentation."""

    forward = Augmentation.forward

    def draw(self, n: int, height: int, width: int, generator: Any = None) -> None:
        return None

    def augment(self, images: Tensor, draws: None) -> tuple[Tensor, ...]:
        return (self.noise,)


class PlainFlip(Flip):
    """A user's subclass whose `augment` knows no `inplace`."""

    def augment(self, images: Tensor, draws: Any) -> Any:  # type: ignore[override]
        return super().augment(images, draws)


class Recorder(Flip):
    """Records whether it may write into its images."""

    def augment(self, images: Tensor, draws: Any, *, inplace: bool = False) -> tuple[Tensor, ...]:
        self.inplace = inplace
        return super().augment(images, draws, inplace=inplace)


class AddedFlip(Flip):
    """A user's subclass of a built-in augmentation."""

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        return (super().forward(images, generator)[0] + images,)


@pytest.mark.parametrize("second", [HalfGrey(), AddedFlip()], ids=lambda part: type(part).__name__)
def test_the_forward_of_a_users_view_is_called_in_a_chain(second: Any) -> None:
    generator = seeded()
    (crop,) = PARTS["crop"](BYTES, generator)
    expected = second(crop.clone(), generator)[0]
    assert torch.equal(Then(PARTS["crop"], second)(BYTES, seeded())[0], expected)
    assert torch.equal(Each(Then(PARTS["crop"], second))(BYTES, seeded())[0], expected)


@pytest.mark.parametrize("kind", [FixedNoise, FixedImages, FixedAugmentation])
def test_what_a_users_view_keeps_is_not_overwritten(kind: type[Any]) -> None:
    view = kind()
    before = view.noise.clone()
    Then(Then(view, PARTS["grey"]), PARTS["jitter"])(BYTES, seeded())
    Then(Then(PARTS["crop"], view), PARTS["grey"])(BYTES, seeded())
    assert torch.equal(view.noise, before)


@pytest.mark.parametrize("first", [Crop(), Flip(1), Then(Flip(0), Jitter()), RandAugment(p=1)])
def test_a_part_may_write_into_images_that_no_one_else_has(first: Any) -> None:
    part = Recorder()
    for chain in (
        Then(first, part),
        Then(Then(first, Flip(0)), part),
        Then(first, Then(part, part)),
    ):
        for images, allowed in (
            (BYTES, True),
            (BYTES / 255, True),
            ((BYTES / 255).requires_grad_(), False),  # backward reads them
        ):
            chain(images, seeded())
            assert part.inplace is allowed
        torch.func.grad(lambda x, chain=chain: chain(x, seeded())[0].sum())(BYTES / 255)
        assert not part.inplace
    for unmoved in (Flip(0), Each(first), first.eval(), PlainFlip()):
        Then(unmoved, part)(BYTES / 255, seeded())
        assert not part.inplace
    first.train()
    Then(first, PlainFlip())(BYTES, seeded())


CHAINS = ["aug:infomin", "crop:0.2+color:lab", "aug:simclr/1+frequency:1", "grey:1|crop:0.2/1"]


@pytest.mark.parametrize("word", [*PARTS, *CHAINS])
def test_floats_are_read_once_by_a_chain_and_bytes_never(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers, check_values = [], checks._check_values
    monkeypatch.setattr(
        checks,
        "_check_values",
        lambda x, who, unit: callers.append(who) or check_values(x, who, unit),
    )
    view = PARTS[word] if word in PARTS else parse(word)
    for images, count in (
        (BYTES, 0),
        (BYTES / 255, 1),
        (BYTES[0] / 255, 1),
        (BYTES.half() / 255, 1),
    ):
        callers.clear()
        view(images, seeded())
        assert len(callers) == count


@pytest.mark.parametrize("word", [*PARTS, *CHAINS])
@pytest.mark.parametrize(
    ("value", "message"), [(255, r"must lie in \[0, 1\], got \[0, 255\]"), (np.nan, "NaN or Inf")]
)
def test_a_buffer_refilled_through_numpy_is_checked_again(
    word: str, value: float, message: str
) -> None:
    view = PARTS[word] if word in PARTS else parse(word)
    images = torch.zeros(2, 3, 16, 12)
    view(images, seeded())
    images.numpy()[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=message):
        view(images, seeded())


class Levels(View):
    """A user's view that gives 0..255, and says what it is told to."""

    channels, readout = (3,), (0,)

    def __init__(self, bounded: bool) -> None:
        super().__init__()
        self.bounded = bounded

    def forward(self, images: Tensor, generator: Any = None) -> tuple[Tensor, ...]:
        return (255 * images,)


class Doubled(Augmentation[None]):
    """A user's augmentation that leaves [0, 1] and does not say so."""

    def draw(self, n: int, height: int, width: int, generator: Any = None) -> None:
        return None

    def augment(self, images: Tensor, draws: None) -> tuple[Tensor, ...]:
        return (2 * images,)


class Bare(ImageView):
    """A user's view that forgets the tuple, without draws."""

    channels, readout = (3,), (0,)

    def make_views(self, images: Tensor, generator: Any = None) -> Any:
        return images


class Untupled(Doubled):
    """A user's augmentation that forgets the tuple."""

    def augment(self, images: Tensor, draws: None) -> Any:
        return images


@pytest.mark.parametrize("second", [Crop(), ColorSplit("lab"), Each(Crop(), Grey(1))])
def test_images_are_checked_after_a_users_view_too(second: View) -> None:
    images = BYTES / 255
    message = r"^views of Levels: floating-point images must lie in \[0, 1\], got \[0, 255\]"
    with pytest.raises(ValueError, match=message):
        Then(Levels(bounded=True), second)(images)
    # a view that takes any values takes those that are declared
    (any_values,) = Then(Levels(bounded=False), Crop())(images, seeded())
    torch.testing.assert_close(any_values, 255 * Crop()(images, seeded())[0])


@pytest.mark.parametrize(
    "view",
    [
        Then(Doubled(), Jitter()),
        Then(Then(Flip(), Doubled()), Jitter()),
        Each(Flip(), Then(Doubled(), ColorSplit("lab"))),
        Then(Levels(bounded=True), Jitter()),
        Doubled(),
    ],
    ids=lambda view: repr(view)[:40],
)
def test_a_trial_finds_a_part_that_gives_other_values_than_it_declares(view: View) -> None:
    with pytest.raises(
        ValueError, match=r"^views of .*: floating-point images must lie in \[0, 1\]"
    ):
        try_parts(view, BYTES / 255, seeded())


@pytest.mark.parametrize("part", [Untupled(), Bare()], ids=lambda part: type(part).__name__)
def test_views_that_are_no_tuple_are_an_error(part: View) -> None:
    message = rf"^{type(part).__name__}.*: must return a tuple of views, got Tensor"
    for view in (part, Then(part, Grey()), Then(Flip(), part), Each(part), Each(HalfGrey(), part)):
        with pytest.raises(TypeError, match=message):
            view(BYTES)


@every_view
def test_a_trial_gives_the_views_of_the_chain(name: str) -> None:
    view = parse(name)
    trial = try_parts(view, inputs(view), seeded())
    assert all(map(torch.equal, trial, view(inputs(view), seeded())))


@pytest.mark.parametrize("images", [BYTES, BYTES / 255], ids=["bytes", "floats"])
def test_a_chain_in_eval_mode_can_be_compiled_whole_and_exported(images: Tensor) -> None:
    chain = Then(Then(Crop(size=8), Flip()), Grey()).eval()
    (expected,) = chain(images)
    compiled = torch.compile(chain, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images)[0], expected)
    assert torch.equal(torch.export.export(chain, (images,)).module()(images)[0], expected)


def test_per_sample_gradients_pass_through_a_view_of_floats() -> None:
    view, images = parse("color:lab"), BYTES / 255

    def loss(weight: Tensor, image: Tensor) -> Tensor:
        return (weight * view(image)[0]).sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))(torch.ones(()), images)
    torch.testing.assert_close(gradients, torch.stack([view(image)[0].sum() for image in images]))


def test_functional_gradients_pass_through_a_chain() -> None:
    chain, images = Then(Then(Crop(), Jitter.from_strength(1)), Grey(0.5)), BYTES / 255
    gradient = torch.func.grad(lambda x: (chain(x, seeded())[0] ** 2).sum())(images)
    twin = images.clone().requires_grad_()
    (chain(twin, seeded())[0] ** 2).sum().backward()
    assert torch.equal(gradient, twin.grad)


@pytest.mark.parametrize(
    "name", ["crop:0.5", "multicrop:2x8", "aug:infomin", "crop:0.5/1+color:lab"]
)
def test_a_chain_in_eval_mode_can_be_exported_for_any_batch(name: str) -> None:
    view = parse(name).eval()
    any_batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(view, (torch.rand(4, 3, 16, 16),), dynamic_shapes=any_batch)
    images = torch.rand(3, 3, 16, 16)
    for exported, expected in zip(program.module()(images), view(images), strict=True):
        torch.testing.assert_close(exported, expected)
