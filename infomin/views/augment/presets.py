"""Augmentations by name: the presets of the paper and its relatives, and the words of the command line.

Each augmentation is a view generator with one view, `forward(images, generator=None) -> (view,)`, that draws anew for each sample
and works on the batch at once. `draw` and `at` are its two halves, so that what was drawn can be kept, changed or shown; `at`
takes what `forward` hands it: a batch of bytes, float32 or float64, outside autocast.

They are written out, not taken from torchvision, which draws once for a batch, nor from kornia, which draws for each sample: its
SimCLR takes twice as long on a CPU (experiments/speed.py), for its colour jitter goes by way of HSV.
"""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from ...common.checks import check_choice
from .blur import Blur
from .crop import Crop, Flip
from .jigsaw import Jigsaw
from .jitter import Grey, Jitter
from .multicrop import MultiCrop
from .randaugment import RandAugment

__all__ = [
    "AUGMENTATIONS",
    "AUGMENTATION_DIALS",
    "PRESETS",
    "Blur",
    "Crop",
    "Flip",
    "Grey",
    "Jigsaw",
    "Jitter",
    "MultiCrop",
    "RandAugment",
    "preset",
]

# Each in the order in which it is applied. Sources: InfoMin (A to E); SimCLR, arXiv 2002.05709, appendix A.
_D = (Crop, Flip, partial(Jitter, 0.8, 0.8, 0.8, 0.2, p=0.8), Blur, RandAugment, Grey)
PRESETS: dict[str, tuple[Callable[[], nn.Module], ...]] = {
    "A": (Crop, Flip, partial(Jitter, 0.4, 0.4, 0.4, 0.4), Grey),  # InstDis, MoCo
    "B": (Crop, Flip, partial(Jitter, 0.4, 0.4, 0.4, 0.1, p=0.8), Grey, Blur),  # MoCo v2
    "C": (Crop, Flip, partial(Jitter, 0.4, 0.4, 0.4, 0.1)),  # CMC
    "D": _D,  # InfoMin Aug
    "E": (
        Crop,
        Flip,
        partial(Jitter, 0.4, 0.4, 0.4, 0.1, p=0.8),
        Blur,
        partial(RandAugment, color=False),
    ),  # CMC v2
    "infomin": _D,
    "simclr": (
        partial(Crop, (0.08, 1.0)),
        Flip,
        partial(Jitter.of, 1, p=0.8),
        Grey,
        partial(Blur, kernel=0.1),
    ),
}


def preset(name: str) -> list[nn.Module]:
    """The augmentations of a named preset, in the order in which they are applied.

    Args:
        name: A (InstDis, MoCo), B (MoCo v2), C (CMC), D or infomin (InfoMin Aug), E (CMC v2), simclr.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    >>> [type(part).__name__ for part in preset("infomin")]
    ['Crop', 'Flip', 'Jitter', 'Blur', 'RandAugment', 'Grey']
    """
    return [make() for make in PRESETS[check_choice(name, PRESETS, "aug")]]


AUGMENTATION_DIALS = {
    "crop": "the least share of the image, or the least and the greatest: crop:0.2, crop:0.2-0.9",
    "flip": "the probability of a mirror image: flip:0.5",
    "jitter": "the strength x: 0.8x for brightness, contrast and saturation, 0.2x for hue (0.5 at most): jitter:1",
    "grey": "the probability of losing the colour: grey:0.2",
    "blur": "the probability of a blur with sigma 0.1 to 2 px: blur:0.5",
    "randaugment": "the mean magnitude of two operations, 0 to 10: randaugment:10",
    "jigsaw": "how many cells there are in a row and in a column: jigsaw:3",
    "multicrop": "how many crops of which side in px, large ones first: multicrop:2x32-4x16",
    "aug": f"the name of a preset, one of {', '.join(PRESETS)}: aug:infomin",
}


def _match(family: str, dial: str, pattern: str) -> re.Match[str]:
    found = re.fullmatch(pattern, dial)
    if not found:
        raise ValueError(
            f"view '{family}:{dial}': got {dial!r}, wanted {AUGMENTATION_DIALS[family]}"
        )
    return found


_NUMBER = r"(\d+\.?\d*|\.\d+)"


def _number(family: str, dial: str) -> float:
    return float(_match(family, dial, _NUMBER)[0])


def _crop(dial: str) -> nn.Module:
    low, high = _match("crop", dial, f"{_NUMBER}(?:-{_NUMBER})?").groups()
    return Crop((float(low), float(high or 1)))


def _multicrop(dial: str) -> nn.Module:
    _match("multicrop", dial, r"\d+x\d+(-\d+x\d+)*")
    counts, sizes = zip(*[map(int, part.split("x")) for part in dial.split("-")], strict=True)
    return MultiCrop(sizes, counts, ((0.14, 1.0), *[(0.05, 0.14)] * (len(sizes) - 1)))


AUGMENTATIONS: dict[str, Callable[[str], nn.Module | list[nn.Module]]] = {
    "crop": _crop,
    "flip": lambda dial: Flip(_number("flip", dial)),
    "jitter": lambda dial: Jitter.of(_number("jitter", dial)),
    "grey": lambda dial: Grey(_number("grey", dial)),
    "blur": lambda dial: Blur(p=_number("blur", dial)),
    "randaugment": lambda dial: RandAugment(m=_number("randaugment", dial)),
    "jigsaw": lambda dial: Jigsaw(int(_match("jigsaw", dial, r"\d+")[0])),
    "multicrop": _multicrop,
    "aug": preset,
}
