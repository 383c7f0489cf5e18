"""What makes good views? Vary the view, hold everything else fixed, read two numbers: shared information and accuracy.

>>> import infomin
>>> len(infomin.grid(infomin.Recipe(), view=["color:rgb", "color:lab"], seed=[0, 1, 2]))
6
"""

from . import plots, table, views
from .bounds import infonce
from .run import Recipe, run
from .sweep import grid, sweep
from .version import __version__

__all__ = ["Recipe", "__version__", "grid", "infonce", "plots", "run", "sweep", "table", "views"]
