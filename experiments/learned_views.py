"""Learned views: invertible colour spaces from a game against critics, then a contrast between their channels (InfoMin).

    python experiments/learned_views.py                                  # 10 minutes on 2 cores; no download
    python experiments/learned_views.py --save experiments/figures       # the same, and the committed rows, figures, generators
    python experiments/learned_views.py --preset paper                   # for a GPU; first python data_tools/fetch.py stl10

Stage one learns a flow of the colour of each pixel. Unsupervised, it lowers the information between its first channel of one crop
and the others of another; supervised, it keeps what classifiers of both need; semi-supervised does both. Flows start from RGB or
YDbDr and preserve volume (VP, additive couplings) or not (NVP, affine ones). Stage two freezes the flow, and encoders that
know nothing learn from its views without labels: I_NCE in table and figure is by such fresh critics. Raw is stage two alone,
and untrained not even that: what networks as they are made show of raw views.
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
from infomin.report.summary import summary
from infomin.runs.presets import STL10, TINY
from infomin.views import ColorSplit, PixelFlow

NAMES = {"rgb": "RGB", "ydbdr": "YDbDr"}
SPACES = tuple(NAMES)
IMAGE = 223  # of the digits' test part, with a colourful background
BUDGETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "seeds": 1,
        "view": "crop:0.5",
        "game": {
            **TINY,
            "steps": 10,
            "hidden": 4,
            "labels": 100,
            "labelled": 16,
            "fresh_every": 10,
            "fresh_steps": 2,
        },
        "run": TINY,
    },
    "quick": {  # to end in 20 minutes on a CPU: a flow knows single pixels, and may learn on smaller images than it is used on
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


def games(preset: str) -> list[Any]:
    """Stage one: every kind of player, both spaces, both kinds of flow."""
    fields = BUDGETS[check_choice(preset, BUDGETS, "preset")]
    axes = {
        "mode": MODES,
        "space": SPACES,
        "volume_preserving": (True, False),
        "seed": range(fields["seeds"]),
    }
    return grid(Learning(view=fields["view"], **fields["game"]), **axes)


def second(preset: str, learned: list[dict[str, Any]]) -> list[tuple[Recipe, dict[str, Any]]]:
    """Stage two: a recipe for each raw space and each generator, with what the table says of it."""
    fields = BUDGETS[preset]
    run = {name: value for name, value in fields["run"].items() if name not in ("seeds", "task")}
    plan: list[tuple[Recipe, dict[str, Any]]] = [
        (
            Recipe(**run | steps, view=f"{fields['view']}+color:{space}", seed=seed),
            {"generator": name, "space": space, "flow": ""},
        )
        for name, steps in {"untrained": {"steps": 0}, "raw": {}}.items()
        for space in SPACES
        for seed in range(fields["seeds"])
    ]
    for game in learned:
        kind = {
            "generator": game["mode"],
            "space": game["space"],
            "flow": "VP" if game["volume_preserving"] else "NVP",
        }
        facts = {
            f"game_{name}": game.get(name)
            for name in ("verdict", "step_kept", "i_nce_raw", "i_nce_fresh", "right_held")
        }
        if game["file"]:
            plan.append(
                (
                    Recipe(**run, view=f"{game['view']}+flow:{game['file']}", seed=game["seed"]),
                    kind | facts,
                )
            )
    return plan


def pictures(rows: list[dict[str, Any]], flows: dict[str, PixelFlow], task: str, path: str) -> None:
    """Where views lie in the plane; and what flows from RGB make of colours, beside spaces that are known."""
    shown = [row | {"from": f"from {NAMES[row['space']]}"} for row in rows]
    panels.nats_plane(shown, f"{path}.png", task, "generator", "flow", "from")
    splits = {name: ColorSplit(name.lower(), "012") for name in ("RGB", "YDbDr", "Lab")}
    spaces: Any = {
        name: lambda images, split=split: split(images)[0] for name, split in splits.items()
    }
    image = load("digits", 64)[1].images[IMAGE]
    panels.space_pictures(
        spaces | {name: flow for name, flow in flows.items() if "rgb" in name},
        image,
        f"{path}_spaces.png",
    )


def main(
    preset: str = "quick", out: str = "runs/learned_views", jobs: int = 0, save: str = ""
) -> None:
    """Learn views, and learn from them.

    Args:
        preset: Budget: tiny only shows that it runs, quick is the figure, paper is meant for a GPU.
        out: Folder of runs; the same command again goes on where it was cut.
        jobs: Processes at a time; 0 means one per core.
        save: Folder to put rows, figures, and in a folder learned_views the generators of the first seed into as well.
    """
    learned = sweep(games(preset), f"{out}/games", jobs=jobs, work=learn)
    plan = second(preset, learned)
    done = sweep([recipe for recipe, _ in plan], f"{out}/runs", jobs=jobs)
    rows = [row | facts for row, (_, facts) in zip(done, plan, strict=True)]
    task, kinds = learned[0]["task"], ["generator", "space", "flow"]
    at = summary(pd.DataFrame(rows), kinds, [f"acc_{task}", f"knn_{task}", "i_nce"])
    print(at.to_string(index=False, float_format="%.3f", na_rep=""))
    with files.atomic_write(f"{out}/table.csv") as file:
        file.write(at.to_csv(index=False).encode())
    for game in learned:
        if game["verdict"] != "steady":
            print(f"{called(game)}, seed {game['seed']}: {game['said']}")
    firsts = {called(game): game["file"] for game in learned if game["file"] and game["seed"] == 0}
    flows = {name: PixelFlow.load(file) for name, file in firsts.items()}
    pictures(rows, flows, task, f"{out}/learned_views")
    if save:
        files.write_jsonl(f"{save}/learned_views.jsonl", [*rows, *learned])  # of both stages
        pictures(rows, flows, task, f"{save}/learned_views")
        for name, file in firsts.items():
            learned_flow = Path(file).read_bytes()
            with files.atomic_write(
                f"{save}/learned_views/{name.replace(', ', '_').lower()}.safetensors"
            ) as copy:
                copy.write(learned_flow)


def called(game: dict[str, Any]) -> str:
    """What a kind of generator is called: `semi-supervised, rgb, VP`."""
    return f"{game['mode']}, {game['space']}, {'VP' if game['volume_preserving'] else 'NVP'}"


if __name__ == "__main__":
    run_script(main, __doc__)
