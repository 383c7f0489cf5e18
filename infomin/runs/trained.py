"""What a run leaves for further use: its networks and its view."""

from pathlib import Path

from ..common import checkpoint, files
from ..common.seeds import torch_seeded
from ..methods import Method
from ..views import View, parse
from .folder import default_torch_state, read_context
from .recipe import FileDigests, Recipe, changed_fields
from .single import build_seeded_method, encoder_factory


def trained(folder: str | Path) -> tuple[Method, View]:
    """The networks of a finished run, and its view; both in eval mode, on the CPU.

    `method.features(view(images))` is what the probe read: `[B, D]` for each view. No data set is
    loaded. Views, methods and encoders of your own have to be registered, and the file of a learned
    flow has to be where it was.

    Args:
        folder: of the run, `out/<key>`.

    Raises:
        FileNotFoundError: no finished run is there.
        ValueError: it diverged, is a view game or damaged, or what it names has changed.
    """
    folder = Path(folder)
    if not (folder / "row.json").exists():
        raise FileNotFoundError(
            f"trained: got {folder}, wanted the folder of a finished run, OUT/KEY; run it to its "
            "end"
        )
    stored, row = files.read_json(folder / "recipe.json"), files.read_json(folder / "row.json")
    if unknown := [name for name in stored if name not in Recipe.__dataclass_fields__]:
        raise ValueError(
            f"trained: got {folder}, which has a field unknown to a Recipe, {unknown[0]}; "
            "views of games are flow:FILE"
        )
    if row.get("status") != "done":
        raise ValueError(
            f"trained: the run in {folder} is {row.get('status')}, wanted a done one; "
            "lower its learning rate"
        )
    recipe = Recipe(**stored)
    described = {name: value for name, value in row.items() if name in stored}
    if changed := changed_fields(recipe, described):
        raise ValueError(
            f"trained: got {folder}, where recipe and row differ in {', '.join(changed)}; "
            "put the files of the run back, or repeat it in another folder"
        )
    with default_torch_state("trained"):
        with torch_seeded(recipe.seed):
            view = parse(recipe.view)
        learned = FileDigests.of(recipe, view, data="").columns().get("learned", "")
        if learned != row.get("learned", ""):
            raise ValueError(
                f"trained: the file of {recipe.view!r} is not that of the run in {folder}; put "
                "that one back"
            )
        context = read_context(folder / "context.json", encoder_factory(recipe, view))
        method = build_seeded_method(recipe, context)
        if recipe.steps:
            state = {"method": method, "view": view}
            checkpoint.load(folder / "checkpoint.pt", state, part=True)
    return method.eval(), view.eval()
