"""What lies between the augmentations of a chain is written over; what anyone else holds is not."""

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
from infomin.views import Blur, Crop, Each, Flip, Jitter, Then, draws, parse
from infomin.views.augment.presets import Grey, Jigsaw, MultiCrop, RandAugment
from infomin.views.draws import apply_in_sequence, apply_where, writable

torch.set_num_threads(1)
PARTS: dict[str, Any] = {
    "crop": Crop(),
    "flip": Flip(),
    "no flip": Flip(0),  # gives the very tensor that it takes
    "jitter": Jitter.of(1, p=0.7),
    "grey": Grey(0.5),
    "all grey": Grey(1),  # gives three channels that share memory
    "blur": Blur(),
    "randaugment": RandAugment(),
    "jigsaw": Jigsaw(2),
}
BYTES = torch.randint(
    256, (8, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
KINDS = {
    "bytes": BYTES.clone,
    "floats": lambda: BYTES / 255,
    "vouched": lambda: mark_validated(BYTES / 255),
}
pairs = pytest.mark.parametrize("pair", [f"{a}, {b}" for a, b in product(PARTS, PARTS)])


def alone(images: Tensor, parts: list[Any], generator: torch.Generator) -> Tensor:
    """The parts one by one, each on memory of its own."""
    for part in parts:
        (images,) = part(images.clone(), generator)
    return images


def seed() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pairs
@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_equals_its_parts_and_leaves_its_batch_alone(pair: str, kind: str) -> None:
    first, second = (PARTS[name] for name in pair.split(", "))
    images = KINDS[kind]()
    before = images.clone()
    for chain, parts in [
        (Then(Then(first, second), PARTS["grey"]), [first, second, PARTS["grey"]]),
        (Then(first, Then(second, PARTS["flip"])), [first, second, PARTS["flip"]]),
    ]:
        assert torch.equal(chain(images, seed())[0], alone(images, parts, seed()))
        assert torch.equal(images, before)


@pairs
def test_a_view_that_someone_holds_is_not_written_to(pair: str) -> None:
    first, second = (PARTS[name] for name in pair.split(", "))
    (held,) = first(BYTES, seed())
    before = held.clone()
    second(held, seed())
    assert torch.equal(held, before)
    (held,) = Then(first, second)(BYTES, seed())
    before = held.clone()
    Then(PARTS["flip"], PARTS["grey"])(held, seed())
    assert torch.equal(held, before)


def test_a_view_with_two_readers_is_not_written_to() -> None:
    first, both = Crop(), [Grey(0.5), Flip(0.5)]
    g = seed()
    grey, mirrored = Then(first, Each(*both))(BYTES, g)
    h = seed()
    (crop,) = first(BYTES, h)
    assert torch.equal(grey, both[0](crop.clone(), h)[0]) and torch.equal(
        mirrored, both[1](crop.clone(), h)[0]
    )
    views = Then(first, MultiCrop((8, 5), (2, 1)))(BYTES, seed())
    assert [view.shape[2] for view in views] == [8, 8, 5]


@pytest.mark.parametrize("name", [name for name in PARTS if name != "no flip"])
def test_the_chain_writes_over_what_lies_between(name: str) -> None:
    """The pair that differs in one thing: lent or not, the second part's result lies in the same memory or in its own."""
    (between,) = PARTS[name](BYTES, seed())
    which = torch.arange(8) % 2 == 0
    once = apply_where(between, which, lambda some, rows: 1 - some)
    assert once.data_ptr() != between.data_ptr()
    ours = between.clone(memory_format=torch.contiguous_format)
    with writable(ours):
        over = apply_where(ours, which, lambda some, rows: 1 - some)
        assert over is ours and torch.equal(over, once)
        assert apply_where(over, which, lambda some, rows: some) is not over  # lent once
    ours = between.clone(memory_format=torch.contiguous_format)
    with writable(ours):
        pass
    assert apply_where(ours, which, lambda some, rows: some) is not ours  # and not for good


def test_each_part_of_a_chain_of_ours_is_lent_what_the_one_before_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told, noted = [], draws.has_note
    monkeypatch.setattr(
        draws, "has_note", lambda images, what: told.append(noted(images, what)) or told[-1]
    )
    Then(Then(Then(Crop(), Flip()), Jitter(p=0.9)), Grey(0.5))(BYTES, seed())
    assert told == [True] * len(told) and len(told) >= 3
    told.clear()
    Then(Then(Flip(0.5), Jitter(p=0.9)), Grey(0.5))(BYTES / 255, seed())
    assert told[0] is False  # the batch is the user's


def test_lent_is_neither_what_wants_a_gradient_nor_what_shares_its_own_memory() -> None:
    which = torch.tensor([True, False])
    add = lambda some, rows: some + 1  # noqa: E731
    for images in (
        torch.zeros(2, 3, 1, 1, requires_grad=True),
        torch.zeros(2, 1, 1, 1).expand(2, 3, 1, 1),
    ):
        with writable(images):
            assert apply_where(images, which, add) is not images and not images.any()
            assert (
                apply_in_sequence(images, torch.tensor([[0], [1]]), [add, add]) is not images
                and not images.any()
            )
    with torch.inference_mode():
        images = torch.zeros(2, 3, 1, 1)
        with writable(images):
            assert apply_where(images, which, add) is not images and not images.any()


def test_gradients_pass_through_a_chain() -> None:
    chain = Then(Then(Then(Crop(), Jitter.of(1)), Grey(0.5)), Blur())
    images = (BYTES / 255).double().requires_grad_()
    (chain(images, seed())[0] ** 2).sum().backward()
    copy = images.detach().clone().requires_grad_()
    (alone(copy, [Crop(), Jitter.of(1), Grey(0.5), Blur()], seed()) ** 2).sum().backward()
    assert images.grad is not None and torch.equal(images.grad, copy.grad)  # type: ignore[arg-type]


class Halved(torch.nn.Module):
    """A user's augmentation, which reads its images again after a part of ours has had them."""

    channels, readout, augments = (3,), (0,), True

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        (grey,) = PARTS["grey"](images, generator)
        return ((images + grey) / 2,)


class Kept(torch.nn.Module):
    """A user's augmentation that gives what it goes on to need."""

    channels, readout, augments = (3,), (0,), True

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.rand(8, 3, 16, 12, generator=seed())

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        return (self.noise,)


class Twin(Flip):
    """A part of ours that a user has changed."""

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        return (super().forward(images, generator)[0] + images,)


@pytest.mark.parametrize("second", [Halved(), Twin()], ids=lambda part: type(part).__name__)
def test_a_users_augmentation_is_lent_nothing(second: Any) -> None:
    g = seed()
    (crop,) = PARTS["crop"](BYTES, g)
    assert torch.equal(Then(PARTS["crop"], second)(BYTES, seed())[0], second(crop.clone(), g)[0])


def test_nothing_of_a_users_augmentation_is_lent() -> None:
    kept = Kept()
    before = kept.noise.clone()
    Then(kept, PARTS["grey"])(BYTES, seed())
    assert torch.equal(kept.noise, before)


@pytest.mark.parametrize("deep", [False, True])
def test_what_a_hook_keeps_is_not_written_to(deep: bool) -> None:
    first, seen = Crop(), []
    first.register_forward_hook(
        lambda module, given, views: seen.append((views[0], views[0].clone()))
    )
    Then(Then(first, Flip(0)), Grey(0.5))(BYTES, seed()) if deep else Then(first, Grey(0.5))(
        BYTES, seed()
    )
    assert len(seen) == 1 and torch.equal(*seen[0])


@pytest.mark.parametrize("images", [BYTES, BYTES / 255], ids=["bytes", "floats"])
def test_a_chain_is_compiled_whole_and_exported_in_eval_mode(images: Tensor) -> None:
    chain = Then(Then(Crop(size=8), Flip()), Grey()).eval()
    (plain,) = chain(images)
    assert torch.equal(torch.compile(chain, backend="eager", fullgraph=True)(images)[0], plain)
    assert torch.equal(torch.export.export(chain, (images,)).module()(images)[0], plain)


def test_what_a_hook_of_all_modules_keeps_is_not_written_to() -> None:
    chain, seen = (
        Then(Crop((0.5, 1.0)), Then(Jitter.of(1), Grey(0.5))),
        list[tuple[Tensor, Tensor]](),
    )
    hook = register_module_forward_hook(
        lambda module, given, views: seen.append((views[0], views[0].clone()))
    )
    try:
        chain(BYTES, seed())
    finally:
        hook.remove()
    assert len(seen) == 5 and all(torch.equal(kept, was) for kept, was in seen)


def test_images_that_views_have_seen_are_saved_as_if_they_had_not() -> None:
    fresh, seen, files = BYTES / 255, BYTES / 255, (BytesIO(), BytesIO())
    Crop((0.5, 1.0))(seen)
    for file, images in zip(files, (fresh, seen), strict=True):
        torch.save(images, file)
    assert is_validated(seen) and files[0].getvalue() == files[1].getvalue()
    assert (
        not vars(seen)
        and not is_validated(copy.deepcopy(seen))
        and not is_validated(pickle.loads(pickle.dumps(seen)))
    )


def test_gradients_of_samples_pass_through_a_view_of_floats() -> None:
    view, images = parse("color:lab"), BYTES / 255

    def loss(weight: Tensor, image: Tensor) -> Tensor:
        return (weight * view(image)[0]).sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(torch.ones(()), images)
    torch.testing.assert_close(found, torch.stack([view(image)[0].sum() for image in images]))


def test_gradients_of_functions_pass_through_a_chain() -> None:
    chain, images = Then(Then(Crop(), Jitter.of(1)), Grey(0.5)), BYTES / 255
    found = torch.func.grad(lambda x: (chain(x, seed())[0] ** 2).sum())(images)
    copy = images.clone().requires_grad_()
    (chain(copy, seed())[0] ** 2).sum().backward()
    assert torch.equal(found, copy.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["crop:0.5", "multicrop:2x8", "aug:infomin", "crop:0.5/1+color:lab"]
)
def test_in_eval_mode_a_chain_is_exported_for_any_batch(name: str) -> None:
    view = parse(name).eval()
    program = torch.export.export(
        view, (torch.rand(4, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    other = torch.rand(3, 3, 16, 16)
    for exported, plain in zip(program.module()(other), view(other), strict=True):
        torch.testing.assert_close(exported, plain)
