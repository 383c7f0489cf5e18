"""What a run leaves for further use: its networks and its view."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..common import checkpoint, files
from ..data.datasets import load
from ..methods import METHODS
from .folder import default_torch_state
from .recipe import Recipe, view_digests
from .single import method_of, view_of


def trained(folder: str | Path) -> tuple[Any, Any]:
    """The networks of a finished run, and its view; both in eval mode, on the CPU.

    `method.features(view(images))` is what the probe read: `[B, D]` for each view. What the recipe names of your own has to be
    registered, and a file of a learned flow to be where it was; of data that a method needs to know the classes of, the data.

    Args:
        folder: of the run, `out/<key>`.

    Raises:
        FileNotFoundError: no finished run is there.
        ValueError: it diverged, is that of a view game or damaged, or what it names is not what it was.
    """
    folder = Path(folder)
    if not (folder / "row.json").exists():
        raise FileNotFoundError(
            f"trained: got {folder}, wanted the folder of a run that has its row, OUT/KEY; run it to its end"
        )
    told, row = files.read_json(folder / "recipe.json"), files.read_json(folder / "row.json")
    if told.keys() != asdict(Recipe()).keys():
        raise ValueError(
            f"trained: got {folder}, whose recipe has other fields than a Recipe; views of games are flow:FILE"
        )
    if row["status"] != "done":
        raise ValueError(
            f"trained: got {folder}, a run that {row['status']}, wanted one that is done; lower its learning rate"
        )
    recipe = Recipe(**told)
    with default_torch_state("trained"):
        view, needs_labels = (
            view_of(recipe.view),
            getattr(METHODS[recipe.method], "needs_labels", False),
        )
        if "+".join(digest[:12] for digest in view_digests(view)) != row.get("learned", ""):
            raise ValueError(
                f"trained: got {recipe.view!r}, whose file is not that of the run in {folder}; put that one back"
            )
        method: Any = method_of(
            recipe, view.channels, load(recipe.data, recipe.size)[0].labels if needs_labels else {}
        )
        if recipe.steps:
            checkpoint.load(folder / "checkpoint.pt", {"method": method, "view": view}, part=True)
    return method.eval(), view.eval()
