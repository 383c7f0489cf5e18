"""Checks for public doors. Every message says what came, what was wanted and what to do."""

from collections.abc import Callable, Iterable
from numbers import Real

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_NOTES = {"vouched": WeakTensorKeyDictionary(), "lent": WeakTensorKeyDictionary()}


def check_images(
    x: object, who: str, *, channels: int | None = 3, smallest: int = 1, unit: bool = True
) -> Tensor:
    """Return a batch of images, or say in one sentence what is wrong with it.

    Args:
        x: `[B, C, H, W]`, uint8 in 0..255 or floating point; returned unchanged.
        who: the caller as the user wrote it, for example `ColorSplit(lab)`; it opens every message.
        channels: the number of channels wanted; None accepts any.
        smallest: the least height and width wanted, in pixels.
        unit: whether floating-point values must lie in [0, 1] (NaN never does).

    Raises:
        TypeError: not a tensor, or a dtype that is neither uint8 nor floating point.
        ValueError: wrong shape, too small, empty, NaN, Inf or out of range.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{who}: images must be a torch.Tensor [B, {channels or 'C'}, H, W], got {type(x).__name__}; "
            "convert it first, for example with torchvision.transforms.v2.functional.to_image"
        )
    if x.dim() != 4 or (channels is not None and x.shape[1] != channels):
        cure = (
            "put the channels second, or change how many there are"
            if x.dim() == 4
            else "add a batch axis with images[None]"
        )
        raise ValueError(
            f"{who}: images must have the shape [B, {channels or 'C'}, H, W], got {list(x.shape)}; {cure}"
        )
    if x.shape[0] == 0:  # len() would fix the batch that torch.export leaves open
        raise ValueError(
            f"{who}: images must be at least one, got {list(x.shape)}; leave empty batches out"
        )
    if 0 in x.shape or min(x.shape[2:]) < smallest:
        raise ValueError(
            f"{who}: images must be {smallest} px or more on each side, got {list(x.shape)}; use larger images"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(
            f"{who}: images must be uint8 in 0..255 or floating point in [0, 1], got {x.dtype}; use images.to(torch.uint8) if "
            "they are in 0..255, and otherwise scale them to [0, 1]"
        )
    if x.is_floating_point() and not x.is_meta and not is_traced() and not is_validated(x):
        _values(x, who, unit)
    return x


def is_traced() -> bool:
    """Whether torch.compile traces this call or torch.func transforms it: then there are no values yet that could be read."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def mark_validated(x: Tensor) -> Tensor:
    """Note on images that they lie in [0, 1], so that no check reads them again until they are written to.

    >>> images = mark_validated(torch.rand(1, 3, 2, 2))
    >>> is_validated(images), is_validated(images + 1), is_validated(images.add_(1))
    (True, False, False)
    """
    return note_on(x, "vouched")


def is_validated(x: Tensor) -> bool:
    """Whether `mark_validated` was given this very tensor, and nothing was written to it since (not seen: numpy and `.data`)."""
    return has_note(x, "vouched")


def was_validated(x: Tensor) -> bool:
    """Whether `mark_validated` was given this very tensor, whatever was written to it since."""
    return x in _NOTES["vouched"]


def note_on(x: Tensor, what: str) -> Tensor:
    """Note something on a tensor that holds until it is written to; not in it, for it would be saved and copied along."""
    if not x.is_inference():  # such a tensor does not count how often it is written to
        _NOTES[what][x] = x._version
    return x


def has_note(x: Tensor, what: str) -> bool:
    """Whether that was noted, and still holds."""
    return not x.is_inference() and _NOTES[what].get(x) == x._version


def drop_note(x: Tensor, what: str) -> None:
    """Take the note off."""
    _NOTES[what].pop(x, None)


def _values(x: Tensor, who: str, unit: bool) -> None:
    low, high = torch.stack(
        torch.aminmax(x.detach())
    ).tolist()  # a GPU is waited for once, not twice
    if not (low > -float("inf") and high < float("inf")):  # false for NaN too: aminmax hands it on
        raise ValueError(
            f"{who}: images must be finite, got {int((~torch.isfinite(x)).sum())} pixels that are NaN or Inf; "
            "repair or drop those images"
        )
    if unit and (low < -1e-3 or high > 1 + 1e-3):
        raise ValueError(
            f"{who}: floating-point images must lie in [0, 1], got [{low:.4g}, {high:.4g}]; divide by 255 or pass uint8"
        )
    if low >= 0 and high <= 1:
        mark_validated(x)
    else:
        drop_note(x, "vouched")


def to_unit(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale uint8 images to [0, 1] in a floating-point dtype; leave floating point as it is."""
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x


def check_choice(name: str, names: Iterable[str], what: str) -> str:
    """Return `name` if it is among `names`; otherwise list the known ones in a ValueError."""
    names = list(names)
    if name not in names:
        raise ValueError(
            f"{what}: got {name!r}, wanted one of {', '.join(names)}; pick one of those"
        )
    return name


def check_positive(value: float, what: str, *, zero: bool = False) -> float:
    """Return a finite number above zero (or at least zero); otherwise say so in a ValueError."""
    good = (
        isinstance(value, Real)
        and not isinstance(value, bool)
        and (value >= 0 if zero else value > 0)
        and value < float("inf")
    )
    if not good:
        raise ValueError(
            f"{what}: got {value!r}, wanted a finite number {'of 0 or more' if zero else 'above 0'}; change it"
        )
    return value


def check_features(x: object, who: str, what: str) -> Tensor:
    """Return numbers `[N, D]` as float32 or float64 without their history, or say in one sentence what is wrong with them.

    Raises:
        TypeError: not a tensor of floating point.
        ValueError: wrong shape, empty, NaN or Inf.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{who}: {what} must be a floating-point tensor [N, D], got {got}; use torch.as_tensor(x).float()"
        )
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(
            f"{who}: {what} must have the shape [N, D], got {list(x.shape)}; use x.flatten(1) and leave out empty ones"
        )
    if not x.isfinite().all():
        raise ValueError(
            f"{who}: {what} must be finite, got {int((~x.isfinite()).sum())} NaN or Inf; repair or drop those rows"
        )
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    return x.clone() if x.is_inference() else x  # autograd keeps none of those


def check_classes(y: object, who: str, what: str) -> Tensor:
    """Return class numbers `[N]` of 0 or more as long, or say in one sentence what is wrong with them.

    Raises:
        TypeError: not a tensor of whole numbers.
        ValueError: wrong shape or a number below 0.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"{who}: {what} must be a tensor [N] of whole numbers, got {got}; use torch.as_tensor(y).long()"
        )
    if y.dim() != 1:
        raise ValueError(
            f"{who}: {what} must have the shape [N], got {list(y.shape)}; pass one class an image, y.flatten()"
        )
    if len(y) and int(y.min()) < 0:
        raise ValueError(
            f"{who}: {what} must be 0 or more, got {int(y.min())}; leave out images of no class"
        )
    return y.long().clone() if y.is_inference() else y.long()


def check_probe_inputs(
    who: str,
    answers: Callable[..., Tensor],
    train: Tensor,
    known: Tensor,
    test: Tensor,
    wanted: Tensor,
    least: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features and labels to train and to test a probe on, checked, or say in one sentence what is wrong.

    Args:
        who: the caller as the user wrote it.
        answers: `check_classes`, or `check_features` of places.
        train, known: features `[N, D]` and their labels.
        test, wanted: features `[M, D]` and their labels.
        least: how many images to train on are enough.

    Raises:
        TypeError, ValueError: as of `check_features` and `answers`; also other numbers of rows or columns.
    """
    train, test = (
        check_features(train, who, "features to train on"),
        check_features(test, who, "features to test on"),
    )
    known, wanted = (
        answers(known, who, "labels to train on"),
        answers(wanted, who, "labels to test on"),
    )
    if train.shape[1] != test.shape[1] or known.shape[1:] != wanted.shape[1:]:
        raise ValueError(
            f"{who}: got features {list(train.shape)} and labels {list(known.shape)} to train, {list(test.shape)} and "
            f"{list(wanted.shape)} to test, wanted as many columns in both; take both from one network"
        )
    if len(train) != len(known) or len(test) != len(wanted):
        raise ValueError(
            f"{who}: got {len(train)} features and {len(known)} labels to train, {len(test)} and {len(wanted)} to test, wanted "
            "as many labels as features; pass them in one order"
        )
    if len(train) < least:
        raise ValueError(
            f"{who}: got {len(train)} images to train on, wanted {least} or more, for a fifth is held out; add some"
        )
    return train, known, test, wanted


def check_type(value: object, wanted: type, what: str) -> None:
    """Raise a ValueError unless `value` is of the wanted type; a whole number may be a float, true and false are no numbers."""
    good = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not good or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"{what}: got {value!r}, wanted {wanted.__name__}; change it")
