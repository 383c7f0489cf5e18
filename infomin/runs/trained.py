"""What a run leaves for further use: its networks and its view."""

from dataclasses import asdict
from pathlib import Path

from ..common import checkpoint, files
from ..methods import Method
from ..views import View
from .folder import REPEAT, default_torch_state, read_context, read_row
from .recipe import FileDigests, Recipe, changed_fields
from .single import build_seeded_method, encoder_factory


def trained(folder: files.PathLike) -> tuple[Method, View]:
    """The networks of a finished run, and its view; both in eval mode, on the CPU.

    `method.features(view(images))` is what the probe read: `[B, D]` for each view. No data set is
    loaded. Views, methods and encoders of your own have to be registered, and the file of a learned
    flow has to be where it was.

    Args:
        folder: of the run, `out/<key>`.

    Raises:
        FileNotFoundError: no finished run is there, or one of its files is missing.
        ValueError: it diverged, is a view game or damaged, or what it names has changed.
    """
    folder = files.as_path(folder, "trained: folder")
    if not (folder / "row.json").exists():
        raise FileNotFoundError(
            f"trained: got {folder}, wanted the folder of a finished run, OUT/KEY; run it to its "
            "end"
        )
    row = read_row(folder)
    recipe = _read_recipe(folder / "recipe.json")
    if row["status"] != "done":
        raise ValueError(
            f"trained: the run in {folder} is {row['status']}, wanted a done one; "
            "lower its learning rate"
        )
    stored = asdict(recipe)
    # These two are in the row as they were used.
    described = {n: row[n] for n in stored if n in row and n not in ("probe_images", "candidates")}
    if changed := changed_fields(recipe, stored | described):
        raise ValueError(
            f"trained: got {folder}, where recipe and row differ in {', '.join(changed)}; "
            "put the files of the run back, or repeat it in another folder"
        )
    with default_torch_state("trained"):
        view = recipe.build_view()
        learned = FileDigests.of(recipe, view, data="").columns().get("learned", "")
        if learned != row.get("learned", ""):
            raise ValueError(
                f"trained: the file of {recipe.view!r} is not that of the run in {folder}; put "
                "that one back"
            )
        context = read_context(folder / "context.json", encoder_factory(recipe, view))
        method = build_seeded_method(recipe, context)
        if recipe.steps:
            path = folder / "checkpoint.pt"
            checkpoint.load(path, {"method": method, "view": view}, part=True)
            for part in (method, view):
                odd = [name for name, p in part.named_parameters() if not p.isfinite().all()]
                odd += [name for name, buffer in part.named_buffers() if buffer.isnan().any()]
                if odd:
                    raise ValueError(
                        f"{path}: got NaN or Inf in {odd[0]}, wanted finite weights; {REPEAT}"
                    )
    return method.eval(), view.eval()


def _read_recipe(path: Path) -> Recipe:
    stored = files.read_json(path, REPEAT)
    if unknown := [name for name in stored if name not in Recipe.__dataclass_fields__]:
        raise ValueError(
            f"trained: got {path}, which has a field unknown to a Recipe, {unknown[0]}; "
            f"views of games are flow:FILE; of a damaged file, {REPEAT}"
        )
    try:
        return Recipe(**stored)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: wanted the recipe of a run, got one with {error}") from error
