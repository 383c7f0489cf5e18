"""Argument checks of public functions: each error names the caller, the bad value and the fix."""

from collections.abc import Callable, Iterable
from numbers import Real

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_NOTES = {"vouched": WeakTensorKeyDictionary(), "lent": WeakTensorKeyDictionary()}


def check_images(
    x: object, who: str, *, channels: int | None = 3, smallest: int = 1, unit: bool = True
) -> Tensor:
    """Check a batch of images and return it unchanged.

    Args:
        x: `[B, C, H, W]`, uint8 in 0..255 or floating point.
        who: the caller as the user wrote it, for example `ColorSplit(lab)`; starts every message.
        channels: the required number of channels; None accepts any.
        smallest: the minimum height and width, in pixels.
        unit: whether floating-point values must lie in [0, 1] (NaN never does).

    Raises:
        TypeError: not a tensor, or a dtype that is neither uint8 nor floating point.
        ValueError: wrong shape, too small, empty, NaN, Inf or out of range.
    """
    x = check_tensor(x, who, channels)
    if x.dim() != 4 or (channels is not None and x.shape[1] != channels):
        layout = f"[B, {channels or 'C'}, H, W]"
        if x.dim() == 4:
            fix = f"permute the axes to {layout}, or convert the images to {channels} channels"
        else:
            fix = "add a batch axis with images[None]"
        raise ValueError(f"{who}: images must have the shape {layout}, got {list(x.shape)}; {fix}")
    if x.shape[0] == 0:  # len(x) would make torch.export specialise on the batch size
        raise ValueError(f"{who}: need at least one image, got {list(x.shape)}; skip empty batches")
    if 0 in x.shape or min(x.shape[2:]) < smallest:
        raise ValueError(
            f"{who}: images must be {smallest} px or more on each side, got {list(x.shape)}; "
            "use larger images"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise TypeError(
            f"{who}: images must be uint8 in 0..255 or floating point in [0, 1], got {x.dtype}; "
            "convert 0..255 values with images.to(torch.uint8), scale others to [0, 1]"
        )
    if x.is_floating_point() and not x.is_meta and not is_traced() and not is_validated(x):
        _values(x, who, unit)
    return x


def check_tensor(x: object, who: str, channels: int | None = 3) -> Tensor:
    """Return a tensor, or raise a TypeError that says what images have to be."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{who}: images must be a torch.Tensor [B, {channels or 'C'}, H, W], got "
            f"{type(x).__name__}; "
            "convert it first, for example with torchvision.transforms.v2.functional.to_image"
        )
    return x


def is_traced() -> bool:
    """Whether torch.compile or torch.func traces this call: no values can be read then."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def mark_validated(x: Tensor) -> Tensor:
    """Note that images lie in [0, 1]: no check reads them again until they are written to.

    >>> images = mark_validated(torch.rand(1, 3, 2, 2))
    >>> is_validated(images), is_validated(images + 1), is_validated(images.add_(1))
    (True, False, False)
    """
    return note_on(x, "vouched")


def is_validated(x: Tensor) -> bool:
    """Whether `mark_validated` got this tensor and nothing has been written to it since.

    Writes through numpy or `.data` go unnoticed.
    """
    return has_note(x, "vouched")


def was_validated(x: Tensor) -> bool:
    """Whether `mark_validated` was given this very tensor, whatever was written to it since."""
    return x in _NOTES["vouched"]


def note_on(x: Tensor, what: str) -> Tensor:
    """Note something on a tensor until it is written to; kept outside it, never saved or copied."""
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
    extremes = torch.stack(torch.aminmax(x.detach()))
    low, high = extremes.tolist()  # one synchronisation with the GPU instead of two
    if not (low > -float("inf") and high < float("inf")):  # also True for NaN
        count = int((~torch.isfinite(x)).sum())
        raise ValueError(
            f"{who}: images must be finite, got {count} pixels that are NaN or Inf; "
            "repair or drop those images"
        )
    if unit and (low < -1e-3 or high > 1 + 1e-3):
        raise ValueError(
            f"{who}: floating-point images must lie in [0, 1], got [{low:.4g}, {high:.4g}]; "
            "divide by 255 or pass uint8"
        )
    if low >= 0 and high <= 1:
        mark_validated(x)
    else:
        drop_note(x, "vouched")


def to_unit(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale uint8 images to [0, 1] in `dtype`; return floating-point images unchanged."""
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x


def check_choice(name: str, names: Iterable[str], what: str) -> str:
    """Return `name` if it is among `names`; otherwise raise a ValueError that lists them."""
    names = list(names)
    if name not in names:
        raise ValueError(f"{what}: got {name!r}, wanted one of {', '.join(names)}")
    return name


def check_positive(value: float, what: str, *, zero: bool = False) -> float:
    """Return a finite number above 0 (with `zero`: at least 0); otherwise raise a ValueError."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and (value >= 0 if zero else value > 0) and value < float("inf")):
        minimum = "of 0 or more" if zero else "above 0"
        raise ValueError(f"{what}: got {value!r}, wanted a finite number {minimum}")
    return value


def check_features(x: object, who: str, what: str) -> Tensor:
    """Check features and return them detached, as float32 or float64.

    Args:
        x: `[N, D]`, floating point, N and D at least 1.
        who: the caller as the user wrote it.
        what: what `x` is, for the message: `training features`.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong shape, empty, NaN or Inf.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{who}: {what} must be a floating-point tensor [N, D], got {got}; "
            "use torch.as_tensor(x).float()"
        )
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(
            f"{who}: {what} must have the shape [N, D], got {list(x.shape)}; "
            "use x.flatten(1), and drop empty batches"
        )
    if not x.isfinite().all():
        count = int((~x.isfinite()).sum())
        raise ValueError(
            f"{who}: {what} must be finite, got {count} NaN or Inf; repair or drop those rows"
        )
    x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    return x.clone() if x.is_inference() else x  # autograd cannot save inference tensors


def check_classes(y: object, who: str, what: str) -> Tensor:
    """Check class labels and return them as long.

    Args:
        y: `[N]`, integers of 0 or more.
        who: the caller as the user wrote it.
        what: what `y` is, for the message: `training labels`.

    Raises:
        TypeError: not an integer tensor.
        ValueError: wrong shape or a negative label.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
        got = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(
            f"{who}: {what} must be an integer tensor [N], got {got}; use torch.as_tensor(y).long()"
        )
    if y.dim() != 1:
        raise ValueError(
            f"{who}: {what} must have the shape [N], got {list(y.shape)}; "
            "pass one class per image, for example y.flatten()"
        )
    if len(y) and int(y.min()) < 0:
        raise ValueError(
            f"{who}: {what} must be 0 or more, got {int(y.min())}; drop images without a class"
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
    """Check the features and labels of a probe and return all four.

    Args:
        who: the caller as the user wrote it.
        answers: the check of the labels: `check_classes`, or `check_features` for positions.
        train: training features `[N, D]`.
        known: training labels, N of them.
        test: test features `[M, D]`.
        wanted: test labels, M of them.
        least: the minimum N.

    Raises:
        TypeError, ValueError: as `check_features` and `answers`; numbers of rows or columns that
            do not match; too few training images.
    """
    train = check_features(train, who, "training features")
    test = check_features(test, who, "test features")
    known = answers(known, who, "training labels")
    wanted = answers(wanted, who, "test labels")
    if train.shape[1] != test.shape[1] or known.shape[1:] != wanted.shape[1:]:
        raise ValueError(
            f"{who}: training and test data must have the same number of columns, "
            f"got features {list(train.shape)} and {list(test.shape)}, "
            f"labels {list(known.shape)} and {list(wanted.shape)}; take both from one network"
        )
    if len(train) != len(known) or len(test) != len(wanted):
        raise ValueError(
            f"{who}: need one label per image, "
            f"got {len(train)} training features and {len(known)} labels, "
            f"{len(test)} test features and {len(wanted)} labels; pass them in the same order"
        )
    if len(train) < least:
        raise ValueError(
            f"{who}: need at least {least} training images (20 % are held out), got {len(train)}"
        )
    return train, known, test, wanted


def check_type(value: object, wanted: type, what: str) -> None:
    """Raise a ValueError unless `value` has the wanted type.

    An int also passes as a float; a bool does not pass as a number.
    """
    matches = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
    if not matches or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"{what}: got {value!r}, wanted {wanted.__name__}")
