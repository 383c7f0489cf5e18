"""Named chains of augmentations: the presets of InfoMin, its relatives and SimCLR.

They use this package's augmentations rather than a library's: torchvision draws once per batch;
kornia draws per image, but its SimCLR takes twice as long on a CPU (experiments/speed.py), because
its colour jitter converts to HSV.
"""

from collections.abc import Callable
from functools import partial, reduce

from ...common.checks import check_choice
from ..base import View, register
from ..compose import Then
from .blur import Blur
from .crop import Crop
from .jitter import Jitter
from .randaugment import RandAugment
from .sometimes import Flip, Grey

# In order of application. Sources: InfoMin (A to E); SimCLR, arXiv 2002.05709, appendix A.
_INFOMIN = (Crop, Flip, partial(Jitter, 0.8, 0.8, 0.8, 0.2, p=0.8), Blur, RandAugment, Grey)
PRESETS: dict[str, tuple[Callable[[], View], ...]] = {
    "A": (Crop, Flip, partial(Jitter, 0.4, 0.4, 0.4, 0.4), Grey),  # InstDis, MoCo
    "B": (Crop, Flip, partial(Jitter, 0.4, 0.4, 0.4, 0.1, p=0.8), Grey, Blur),  # MoCo v2
    "C": (Crop, Flip, partial(Jitter, 0.4, 0.4, 0.4, 0.1)),  # CMC
    "D": _INFOMIN,  # InfoMin Aug
    "E": (
        Crop,
        Flip,
        partial(Jitter, 0.4, 0.4, 0.4, 0.1, p=0.8),
        Blur,
        partial(RandAugment, color=False),
    ),  # CMC v2
    "infomin": _INFOMIN,
    "simclr": (
        partial(Crop, (0.08, 1.0)),
        Flip,
        partial(Jitter.from_strength, 1, p=0.8),
        Grey,
        partial(Blur, kernel=0.1),
    ),
}


def preset(name: str) -> list[View]:
    """The augmentations of a named preset, in order of application.

    Args:
        name: A (InstDis, MoCo), B (MoCo v2), C (CMC), D or infomin (InfoMin Aug), E (CMC v2),
            simclr.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    >>> [type(augmentation).__name__ for augmentation in preset("infomin")]
    ['Crop', 'Flip', 'Jitter', 'Blur', 'RandAugment', 'Grey']
    """
    return [make() for make in PRESETS[check_choice(name, PRESETS, "aug")]]


@register("aug", dial=f"the name of a preset, one of {', '.join(PRESETS)}: aug:infomin")
class Preset(Then):
    """The augmentations of a named preset as one view.

    Args:
        name: of the preset, see `preset`.

    Raises:
        ValueError: an unknown name.

    >>> Preset("simclr").augments
    True
    """

    channels = (3,)
    augments = True

    def __init__(self, name: str) -> None:
        *first, last = preset(name)
        super().__init__(reduce(Then, first), last)
