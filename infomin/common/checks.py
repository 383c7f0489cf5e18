"""Argument checks of public functions: each error names the caller, the bad value and the fix."""

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

INF = float("inf")
IMAGE_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_images(x: object, who: str, *, channels: int | None = 3, unit: bool = True) -> Tensor:
    """Check a batch of images, or a single image, and return it unchanged.

    Args:
        x: `[B, C, H, W]` or `[C, H, W]`, uint8 in 0..255 or floating point.
        who: the caller; starts every message.
        channels: the required number of channels. None accepts any in a batch, unless its axes
            look like `[B, H, W, C]`, and 1 or 3 in a single image.
        unit: whether floating-point values must lie in [0, 1], up to 1e-3 (NaN never does).

    Raises:
        TypeError: not a tensor, or a dtype that is neither uint8 nor floating point.
        ValueError: wrong shape, empty, NaN, Inf or out of range.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{who}: images must be a torch.Tensor [B, {channels or 'C'}, H, W], got "
            f"{type(x).__name__}; "
            "convert it first, for example with torchvision.transforms.v2.functional.to_image"
        )
    if fix := _layout_fix(x.shape, channels):
        raise ValueError(
            f"{who}: images must have the shape [B, {channels or 'C'}, H, W], got {list(x.shape)}; "
            f"{fix}"
        )
    if 0 in x.shape:  # not len(x), which would make torch.export specialise on the batch size
        raise ValueError(f"{who}: need at least one image, got {list(x.shape)}; skip empty batches")
    if x.dtype not in IMAGE_DTYPES:
        raise TypeError(
            f"{who}: images must be uint8 in 0..255 or floating point in [0, 1], got {x.dtype}; "
            "convert 0..255 values with images.to(torch.uint8), scale others to [0, 1]"
        )
    if x.is_sparse:
        raise TypeError(f"{who}: images must be dense, got {x.layout}; use images.to_dense()")
    if x.is_floating_point() and not x.is_meta and not is_traced():
        _check_values(x, who, unit)
    return x


def _layout_fix(shape: Sequence[int], channels: int | None) -> str:
    """What to do about images of this shape; empty if it is right."""
    if len(shape) not in (3, 4):
        return "pass a batch, or a single image [C, H, W]"
    count, is_single = shape[-3], len(shape) == 3
    # no image is 4 px wide and has more than 4 channels
    is_last = shape[-1] == channels if channels else shape[-1] <= 4 < count
    is_right = count == channels if channels else not is_single or count in (1, 3)
    if is_right and not (is_last and channels is None):
        return ""
    if is_last:
        return f"permute the axes: images.permute({'2, 0, 1' if is_single else '0, 3, 1, 2'})"
    if is_single:
        return (
            f"a single image must have {channels or '1 or 3'} channels; pass grey images as "
            "images[:, None], one image of other channels as images[None]"
        )
    return f"convert the images to {channels} channels"


def is_traced() -> bool:
    """Whether torch.compile or torch.func traces this call: no values can be read then."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def is_mapped() -> bool:
    """Whether torch.func.vmap maps over this call."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    functorch = torch._C._functorch
    levels = functorch.get_interpreter_stack() or []
    return any(level.key() == functorch.TransformType.Vmap for level in levels)


def _check_values(x: Tensor, who: str, unit: bool) -> None:
    extremes = torch.stack(torch.aminmax(x.detach()))
    low, high = extremes.tolist()  # one synchronisation with the GPU instead of two
    if not (low > -INF and high < INF):  # also True for NaN
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


def to_unit(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale uint8 images to [0, 1] in `dtype`; return floating-point images unchanged."""
    return x.to(dtype).div_(255) if x.dtype == torch.uint8 else x


def check_choice(name: str, names: Iterable[str], what: str) -> str:
    """Return `name` if it is among `names`; otherwise raise a ValueError that lists them."""
    names = list(names)
    if name not in names:
        raise ValueError(f"{what}: got {name!r}, wanted one of {', '.join(names)}")
    return name


def check_type(value: object, wanted: type, what: str) -> None:
    """Raise a ValueError unless `value` has the wanted type.

    An int also passes as a float, a NumPy scalar as a number; a bool does not pass as a number.
    """
    kinds = {int: Integral, float: Real}
    matches = isinstance(value, kinds.get(wanted, wanted))
    if not matches or (isinstance(value, bool) and wanted is not bool):
        raise ValueError(f"{what}: got {value!r}, wanted {wanted.__name__}")


def check_positive(value: object, what: str, *, zero: bool = False) -> float:
    """Return a finite number above 0 (with `zero`: at least 0); otherwise raise a ValueError."""
    number = _finite_number(value)
    if number is None or number < 0 or (number == 0 and not zero):
        minimum = "of 0 or more" if zero else "above 0"
        raise ValueError(f"{what}: got {value!r}, wanted a finite number {minimum}")
    return number


def check_range(value: object, low: float, high: float, what: str) -> float:
    """Return a finite number in [low, high]; otherwise raise a ValueError."""
    number = _finite_number(value)
    if number is None or not low <= number <= high:
        bounds = f"of {low:g} or more" if high == INF else f"from {low:g} to {high:g}"
        raise ValueError(f"{what}: got {value!r}, wanted a number {bounds}")
    return number


def check_integer(value: object, low: float, high: float, what: str) -> int:
    """Return a whole number in [low, high]; otherwise raise a ValueError."""
    number = check_range(value, low, high, what)
    if int(number) != number:
        raise ValueError(f"{what}: got {value!r}, wanted a whole number")
    return int(number)


def check_interval(value: object, low: float, high: float, what: str) -> tuple[float, float]:
    """Return two numbers in [low, high], in ascending order; otherwise raise a ValueError."""
    if not isinstance(value, Sequence) or len(value) != 2 or isinstance(value, str):
        raise ValueError(f"{what}: got {value!r}, wanted two numbers (minimum, maximum)")
    minimum = check_range(value[0], low, high, what)
    maximum = check_range(value[1], low, high, what)
    if minimum > maximum:
        raise ValueError(f"{what}: got {value!r}, wanted the smaller number first")
    return minimum, maximum


def _finite_number(value: object) -> float | None:
    """A number as an int or a float of Python; None if it is none, NaN, Inf or a bool."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number = int(value) if isinstance(value, Integral) else float(value)
    return number if -INF < number < INF else None


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
    if x.is_sparse or x.is_meta:
        raise TypeError(
            f"{who}: {what} must be dense and have values, got {x.layout} on {x.device}"
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
    with torch.inference_mode(False):  # autograd cannot save inference tensors
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        return x.clone() if x.is_inference() else x


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
    y = y.long()  # torch has no minimum of uint16
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
