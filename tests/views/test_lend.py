"""A chain of augmentations overwrites its intermediate images, and no tensor that others hold."""

import copy
import pickle
from io import BytesIO
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from infomin.common.checks import is_validated, mark_validated
from infomin.views import (
    Blur,
    Crop,
    Each,
    Flip,
    Grey,
    Jigsaw,
    Jitter,
    MultiCrop,
    RandAugment,
    Then,
    View,
    draws,
    parse,
)
from infomin.views.draws import apply_in_sequence, apply_where, writable

torch.set_num_threads(1)
PARTS: dict[str, Any] = {
    "crop": Crop(),
    "flip": Flip(),
    "no flip": Flip(0),  # returns its input tensor
    "jitter": Jitter.of(1, p=0.7),
    "grey": Grey(0.5),
    "all grey": Grey(1),
    "blur": Blur(),
    "randaugment": RandAugment(),
    "jigsaw": Jigsaw(2),
}
BYTES = torch.randint(
    256, (8, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
INPUTS = {
    "bytes": BYTES.clone,
    "floats": lambda: BYTES / 255,
    "validated floats": lambda: mark_validated(BYTES / 255),
}
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


@every_pair
def test_a_view_that_the_caller_holds_is_not_overwritten(pair: str) -> None:
    first, second = (PARTS[name] for name in pair.split(", "))
    (held,) = first(BYTES, seeded())
    before = held.clone()
    second(held, seeded())
    assert torch.equal(held, before)
    (held,) = Then(first, second)(BYTES, seeded())
    before = held.clone()
    Then(PARTS["flip"], PARTS["grey"])(held, seeded())
    assert torch.equal(held, before)


def test_a_view_with_two_readers_is_not_overwritten() -> None:
    first, readers = Crop(), [Grey(0.5), Flip(0.5)]
    grey, flipped = Then(first, Each(*readers))(BYTES, seeded())
    generator = seeded()
    (crop,) = first(BYTES, generator)
    assert torch.equal(grey, readers[0](crop.clone(), generator)[0])
    assert torch.equal(flipped, readers[1](crop.clone(), generator)[0])
    views = Then(first, MultiCrop((8, 5), (2, 1)))(BYTES, seeded())
    assert [view.shape[2] for view in views] == [8, 8, 5]


@pytest.mark.parametrize("name", [name for name in PARTS if name != "no flip"])
def test_lent_images_are_overwritten_once(name: str) -> None:
    """The result is in the same memory if the images are lent, otherwise in new memory."""
    (images,) = PARTS[name](BYTES, seeded())
    which = torch.arange(8) % 2 == 0
    expected = apply_where(images, which, lambda selected, rows: 1 - selected)
    assert expected.data_ptr() != images.data_ptr()
    lent = images.clone(memory_format=torch.contiguous_format)
    with writable(lent):
        result = apply_where(lent, which, lambda selected, rows: 1 - selected)
        assert result is lent and torch.equal(result, expected)
        assert apply_where(result, which, lambda selected, rows: selected) is not result
    lent = images.clone(memory_format=torch.contiguous_format)
    with writable(lent):
        pass
    assert apply_where(lent, which, lambda selected, rows: selected) is not lent


def test_a_chain_lends_each_part_the_result_of_the_part_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lent, has_note = [], draws.has_note

    def record(images: Tensor, what: str) -> bool:
        lent.append(has_note(images, what))
        return lent[-1]

    monkeypatch.setattr(draws, "has_note", record)
    Then(Then(Then(Crop(), Flip()), Jitter(p=0.9)), Grey(0.5))(BYTES, seeded())
    assert lent == [True] * len(lent) and len(lent) >= 3
    lent.clear()
    Then(Then(Flip(0.5), Jitter(p=0.9)), Grey(0.5))(BYTES / 255, seeded())
    assert lent[0] is False  # the batch is the caller's


def test_images_with_a_gradient_or_shared_memory_are_not_lent() -> None:
    which = torch.tensor([True, False])
    choices = torch.tensor([[0], [1]])
    add = lambda images, rows: images + 1  # noqa: E731
    for images in (
        torch.zeros(2, 3, 1, 1, requires_grad=True),
        torch.zeros(2, 1, 1, 1).expand(2, 3, 1, 1),
    ):
        with writable(images):
            assert apply_where(images, which, add) is not images and not images.any()
            result = apply_in_sequence(images, choices, [add, add])
            assert result is not images and not images.any()
    with torch.inference_mode():
        images = torch.zeros(2, 3, 1, 1)
        with writable(images):
            assert apply_where(images, which, add) is not images and not images.any()


def test_gradients_pass_through_a_chain() -> None:
    chain = Then(Then(Then(Crop(), Jitter.of(1)), Grey(0.5)), Blur())
    parts = [Crop(), Jitter.of(1), Grey(0.5), Blur()]
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


class AddedFlip(Flip):
    """A user's subclass of a built-in augmentation."""

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        return (super().forward(images, generator)[0] + images,)


@pytest.mark.parametrize("second", [HalfGrey(), AddedFlip()], ids=lambda part: type(part).__name__)
def test_a_users_augmentation_is_lent_nothing(second: Any) -> None:
    generator = seeded()
    (crop,) = PARTS["crop"](BYTES, generator)
    expected = second(crop.clone(), generator)[0]
    assert torch.equal(Then(PARTS["crop"], second)(BYTES, seeded())[0], expected)


def test_the_result_of_a_users_augmentation_is_not_lent() -> None:
    view = FixedNoise()
    before = view.noise.clone()
    Then(view, PARTS["grey"])(BYTES, seeded())
    assert torch.equal(view.noise, before)


@pytest.mark.parametrize("nested", [False, True])
def test_a_tensor_that_a_hook_keeps_is_not_overwritten(nested: bool) -> None:
    first, kept = Crop(), []
    first.register_forward_hook(
        lambda module, inputs, views: kept.append((views[0], views[0].clone()))
    )
    second = Then(first, Flip(0)) if nested else first
    Then(second, Grey(0.5))(BYTES, seeded())
    assert len(kept) == 1 and torch.equal(*kept[0])


@pytest.mark.parametrize("images", [BYTES, BYTES / 255], ids=["bytes", "floats"])
def test_a_chain_in_eval_mode_can_be_compiled_whole_and_exported(images: Tensor) -> None:
    chain = Then(Then(Crop(size=8), Flip()), Grey()).eval()
    (expected,) = chain(images)
    compiled = torch.compile(chain, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images)[0], expected)
    assert torch.equal(torch.export.export(chain, (images,)).module()(images)[0], expected)


def test_a_tensor_that_a_global_hook_keeps_is_not_overwritten() -> None:
    chain = Then(Crop((0.5, 1.0)), Then(Jitter.of(1), Grey(0.5)))
    kept: list[tuple[Tensor, Tensor]] = []
    hook = register_module_forward_hook(
        lambda module, inputs, views: kept.append((views[0], views[0].clone()))
    )
    try:
        chain(BYTES, seeded())
    finally:
        hook.remove()
    assert len(kept) == 5 and all(torch.equal(tensor, before) for tensor, before in kept)


def test_validated_images_are_saved_like_others() -> None:
    fresh, validated, files = BYTES / 255, BYTES / 255, (BytesIO(), BytesIO())
    Crop((0.5, 1.0))(validated)
    for file, images in zip(files, (fresh, validated), strict=True):
        torch.save(images, file)
    assert is_validated(validated) and files[0].getvalue() == files[1].getvalue()
    assert not vars(validated)
    assert not is_validated(copy.deepcopy(validated))
    assert not is_validated(pickle.loads(pickle.dumps(validated)))


def test_per_sample_gradients_pass_through_a_view_of_floats() -> None:
    view, images = parse("color:lab"), BYTES / 255

    def loss(weight: Tensor, image: Tensor) -> Tensor:
        return (weight * view(image)[0]).sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))(torch.ones(()), images)
    torch.testing.assert_close(gradients, torch.stack([view(image)[0].sum() for image in images]))


def test_functional_gradients_pass_through_a_chain() -> None:
    chain, images = Then(Then(Crop(), Jitter.of(1)), Grey(0.5)), BYTES / 255
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
