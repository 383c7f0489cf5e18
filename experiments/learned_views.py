"""Learned views: invertible colour spaces from a game, then contrast between channels (InfoMin).

    python experiments/learned_views.py                             # 10 minutes on 2 cores
    python experiments/learned_views.py --save experiments/figures  # also saves rows and figures
    python experiments/learned_views.py --preset paper              # on a GPU, with STL-10

Stage one learns a flow: an invertible map of each pixel's colour. Unsupervised flows minimise the
information between their first channel of one crop and the others of another crop; supervised flows
keep what classifiers of both need; semi-supervised flows do both. Flows start from RGB or YDbDr and
either preserve volume (VP, additive couplings) or not (NVP, affine couplings).

Stage two freezes the flow and trains new encoders on its views, without labels; the I_NCE in table
and figure is that of fresh critics. The raw rows are stage two on the colour space itself, the
untrained rows are networks at initialisation on raw views. The preset paper needs
`infomin data fetch stl10` first; the others download nothing.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from infomin import Learning, Recipe, grid, learn, sweep
from infomin.common import files
from infomin.common.checks import check_choice
from infomin.data.datasets import load
from infomin.experiment import run_script
from infomin.methods.game import MODES
from infomin.report import panels
from infomin.report.summary import summarise
from infomin.runs.presets import STL10, TINY
from infomin.views import ColorSplit, PixelFlow

NAMES = {"rgb": "RGB", "ydbdr": "YDbDr"}
SPACES = tuple(NAMES)
IMAGE = 223  # of the digits' test part, with a colourful background
TINY_GAME = {name: value for name, value in TINY.items() if name != "probe_images"}
BUDGETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "seeds": 1,
        "view": "crop:0.5",
        "game": {
            **TINY_GAME,
            "steps": 10,
            "hidden": 4,
            "labels": 100,
            "labelled": 16,
            "fresh_every": 10,
            "fresh_steps": 2,
        },
        "run": TINY,
    },
    # To end in 20 minutes on a CPU. A flow maps single pixels, so it can learn on smaller images.
    "quick": {
        "seeds": 3,
        "view": "crop:0.5",
        "game": {"steps": 200, "batch": 64, "size": 24},
        "run": {"steps": 600, "batch": 64, "probe_images": 2048},
    },
    "paper": {
        "seeds": 5,
        "view": "crop:0.2+flip:0.5",
        "game": {
            "data": "stl10",
            "size": 64,
            "encoder": "resnet18",
            "batch": 128,
            "labels": 5000,
            "steps": 82_000,  # 100 epochs
            "weight": 1.0,
            "lr": 2e-4,
            "lr_generator": 1e-3,
            "lr_classifiers": 1e-3,
            "fresh_every": 8_200,
            "fresh_steps": 2_000,
        },
        "run": {**STL10, "share_encoder": False, "width": 0.5, "head": "linear"},
    },
}
FACTS = ("verdict", "step_kept", "i_nce_raw", "i_nce_fresh", "right_held")  # of a game, in its row


def games(preset: str) -> list[Any]:
    """Stage one: every mode of the game, both spaces, both kinds of flow."""
    fields = BUDGETS[check_choice(preset, BUDGETS, "preset")]
    axes = {
        "mode": MODES,
        "space": SPACES,
        "volume_preserving": (True, False),
        "seed": range(fields["seeds"]),
    }
    return grid(Learning(view=fields["view"], **fields["game"]), **axes)


def second(preset: str, learned: list[dict[str, Any]]) -> list[tuple[Recipe, dict[str, Any]]]:
    """Stage two: a recipe per raw space and per generator, each with its columns in the table."""
    fields = BUDGETS[preset]
    run = {name: value for name, value in fields["run"].items() if name not in ("seeds", "task")}
    plan: list[tuple[Recipe, dict[str, Any]]] = []
    for name, steps in {"untrained": {"steps": 0}, "raw": {}}.items():
        for space in SPACES:
            columns = {"generator": name, "space": space, "flow": ""}
            view = f"{fields['view']}+color:{space}"
            for seed in range(fields["seeds"]):
                plan.append((Recipe(**(run | steps), view=view, seed=seed), columns))
    for game in learned:
        if game["file"]:
            view = f"{game['view']}+flow:{game['file']}"
            recipe = Recipe(**run, view=view, seed=game["seed"])
            columns = {"generator": game["mode"], "space": game["space"], "flow": flow_kind(game)}
            facts = {f"game_{name}": game.get(name) for name in FACTS}
            plan.append((recipe, columns | facts))
    return plan


def pictures(rows: list[dict[str, Any]], flows: dict[str, PixelFlow], task: str, path: str) -> None:
    """Draw the views in the plane, and the colour spaces: known ones, then flows from RGB."""
    shown = [row | {"from": f"from {NAMES[row['space']]}"} for row in rows]
    panels.nats_plane(shown, f"{path}.png", task, "generator", "flow", "from")
    spaces: dict[str, Any] = {name: color_space(name) for name in ("RGB", "YDbDr", "Lab")}
    spaces |= {name: flow for name, flow in flows.items() if "rgb" in name}
    image = load("digits", 64)[1].images[IMAGE]
    panels.space_pictures(spaces, image, f"{path}_spaces.png")


def color_space(name: str) -> Any:
    """The map of images to a known colour space."""
    split = ColorSplit(name.lower(), "012")
    return lambda images: split(images)[0]


def main(
    preset: str = "quick", out: str = "runs/learned_views", jobs: int = 0, save: str = ""
) -> None:
    """Learn views, then train on them.

    Args:
        preset: Budget: tiny is a smoke test, quick draws the figures, paper needs a GPU.
        out: Folder of runs; run the same command again to resume.
        jobs: Runs in parallel; 0 means one per core. Another number may change the last
            digits of a row, by rounding.
        save: Folder that also gets rows, figures and, in a folder learned_views, the flows of the
            first seed.
    """
    learned = sweep(games(preset), f"{out}/games", jobs=jobs, work=learn)
    plan = second(preset, learned)
    done = sweep([recipe for recipe, _ in plan], f"{out}/runs", jobs=jobs)
    rows = [row | columns for row, (_, columns) in zip(done, plan, strict=True)]
    task = learned[0]["task"]
    numbers = [f"acc_{task}", f"knn_{task}", "i_nce"]
    table = summarise(pd.DataFrame(rows), ["generator", "space", "flow"], numbers)
    print(table.to_string(index=False, float_format="%.3f", na_rep=""))
    with files.atomic_write(f"{out}/table.csv") as file:
        file.write(table.to_csv(index=False).encode())
    for game in learned:
        if game["verdict"] != "steady":
            print(f"{called(game)}, seed {game['seed']}: {game['said']}")
    kept = {called(game): game["file"] for game in learned if game["file"] and game["seed"] == 0}
    flows = {name: PixelFlow.load(file) for name, file in kept.items()}
    pictures(rows, flows, task, f"{out}/learned_views")
    if save:
        files.write_jsonl(f"{save}/learned_views.jsonl", [*rows, *learned])  # of both stages
        pictures(rows, flows, task, f"{save}/learned_views")
        for name, file in kept.items():
            stem = name.replace(", ", "_").lower()
            with files.atomic_write(f"{save}/learned_views/{stem}.safetensors") as copy:
                copy.write(Path(file).read_bytes())


def flow_kind(game: dict[str, Any]) -> str:
    """Whether the flow preserves volume: `VP` or `NVP`."""
    return "VP" if game["volume_preserving"] else "NVP"


def called(game: dict[str, Any]) -> str:
    """The name of a generator without its seed: `semi-supervised, rgb, VP`."""
    return f"{game['mode']}, {game['space']}, {flow_kind(game)}"


if __name__ == "__main__":
    run_script(main, __doc__)
