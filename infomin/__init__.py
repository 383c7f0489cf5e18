"""What makes good views for contrastive learning?

Vary the view, hold everything else fixed, read two numbers: shared information and accuracy.

>>> import infomin
>>> len(infomin.grid(infomin.Recipe(), view=["color:rgb", "color:lab"], seed=[0, 1, 2]))
6
"""

from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from . import data, measure, methods, networks, views
    from .common.allocator import keep_memory
    from .data import shards
    from .measure import probe
    from .measure.bounds import infonce
    from .report import gallery, plots
    from .report.rows import read_rows
    from .runs.game_recipe import Learning
    from .runs.recipe import Recipe
    from .runs.single import run
    from .runs.sweeps import grid, sweep
    from .runs.trained import trained
    from .runs.view_learning import learn
else:
    _MODULES = {
        "data": "data",
        "gallery": "report.gallery",
        "measure": "measure",
        "methods": "methods",
        "networks": "networks",
        "plots": "report.plots",
        "probe": "measure.probe",
        "shards": "data.shards",
        "views": "views",
    }
    _HOMES = {
        "Learning": "runs.game_recipe",
        "Recipe": "runs.recipe",
        "grid": "runs.sweeps",
        "infonce": "measure.bounds",
        "keep_memory": "common.allocator",
        "learn": "runs.view_learning",
        "read_rows": "report.rows",
        "run": "runs.single",
        "sweep": "runs.sweeps",
        "trained": "runs.trained",
    }

    def __getattr__(name):
        """Import what is asked for (PEP 562), so that views need no matplotlib."""
        from importlib import import_module

        if name in _MODULES:
            return import_module(f".{_MODULES[name]}", __name__)
        if name in _HOMES:
            return getattr(import_module(f".{_HOMES[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "Learning",
    "Recipe",
    "__version__",
    "data",
    "gallery",
    "grid",
    "infonce",
    "keep_memory",
    "learn",
    "measure",
    "methods",
    "networks",
    "plots",
    "probe",
    "read_rows",
    "run",
    "shards",
    "sweep",
    "trained",
    "views",
]
