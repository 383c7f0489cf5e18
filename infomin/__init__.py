"""What makes good views? Vary the view, hold everything else fixed, read two numbers: shared information and accuracy.

>>> import infomin
>>> len(infomin.grid(infomin.Recipe(), view=["color:rgb", "color:lab"], seed=[0, 1, 2]))
6
"""

from typing import TYPE_CHECKING

from . import probe, table, views
from .bounds import infonce
from .learn import Learning, learn
from .run import Recipe, run
from .sweep import grid, sweep
from .trained import trained
from .version import __version__

if TYPE_CHECKING:
    from . import gallery, plots, shards
else:

    def __getattr__(name):
        """Modules when they are first asked for: matplotlib and pandas take a second that workers of a sweep need not wait."""
        if name in ("gallery", "plots", "shards"):
            from importlib import import_module

            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Learning",
    "Recipe",
    "__version__",
    "gallery",
    "grid",
    "infonce",
    "learn",
    "plots",
    "probe",
    "run",
    "shards",
    "sweep",
    "table",
    "trained",
    "views",
]
