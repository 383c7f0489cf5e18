"""The README's tables are those of the committed rows; a failing test prints the table to paste."""

import json
import runpy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import infomin
from infomin.experiment import recipes, untrained
from infomin.report.summary import summarise
from infomin.runs.presets import U_CURVE

ROOT = Path(__file__).parents[1]
SPACES = {"rgb": "RGB", "ydbdr": "YDbDr"}


def read_rows(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / "experiments" / "figures" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def table(head: list[str], body: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *body)]
    return "".join(lines)


def cell(row: pd.Series, column: str) -> str:
    return f"{row[f'{column}_mean']:.2f} ± {row[f'{column}_std']:.2f}"


def learned_views() -> str:
    stage_two = pd.DataFrame(read_rows("learned_views")).dropna(subset="generator")
    groups, columns = ["generator", "flow", "space"], ["acc_digit", "knn_digit", "i_nce"]
    means = summarise(stage_two, groups, columns).set_index(groups)
    numbers = ("accuracy", "neighbours", "I_NCE")
    from_spaces = [f"from {space}" for space in SPACES.values()]
    head = ["views", *(f"{number}, {space}" for space in from_spaces for number in numbers)]
    body = []
    for generator, flow in dict.fromkeys((generator, flow) for generator, flow, _ in means.index):
        cells = [f"{generator}, {flow}" if flow else generator]
        for space in SPACES:
            row = means.loc[generator, flow, space]
            cells += [cell(row, column) for column in columns]
        body.append(cells)
    return table(head, body)


def moving_mnist() -> str:
    frame = pd.DataFrame(read_rows("moving_mnist"))
    columns = []
    for suffix in ("", "_past"):
        for name in ("digit", "background"):
            frame[f"error_{name}{suffix}"] = 1 - frame[f"acc_{name}{suffix}"]
        columns += [f"error_digit{suffix}", f"error_background{suffix}", f"px_place{suffix}"]
    names = ["digit", "background", "place, px"]
    head = ["shared", *names, *(f"{name}: past" for name in names)]
    body = [
        [row["shared"], *(cell(row, column) for column in columns)]
        for _, row in summarise(frame, "shared", columns).iterrows()
    ]
    return table(head, body)


@pytest.mark.parametrize(("make", "lines"), [(learned_views, 2 + 3 * 2), (moving_mnist, 7 + 2)])
def test_a_table_of_the_readme_has_the_numbers_of_its_rows(
    make: Callable[[], str], lines: int
) -> None:
    expected = make()
    assert len(expected.splitlines()) == 2 + lines
    assert expected in (ROOT / "README.md").read_text(), f"the README should have\n{expected}"


FIGURES = [
    path
    for path in sorted((ROOT / "experiments" / "figures").glob("*.jsonl"))
    if "key" in read_rows(path.stem)[0]  # rows of runs
]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_rows_of_a_figure_were_measured_in_one_way_by_committed_code(path: Path) -> None:
    frame = pd.DataFrame(read_rows(path.stem))
    assert frame["protocol"].dropna().nunique() == 1
    assert frame["precision_used"].nunique() == 1
    assert frame["host"].nunique() == 1
    assert frame["commit"].str.fullmatch("[0-9a-f]{12}").all()
    assert set(frame["status"]) == {"done"}
    assert not frame["key"].duplicated().any()


def planned(name: str) -> list[infomin.Recipe]:
    """The recipes of an experiment's preset `quick`, which its committed figure shows."""
    script = runpy.run_path(str(ROOT / "experiments" / f"{name}.py"))
    if name == "moving_mnist":
        by_row = script["recipes"]("quick")
        return [recipe for seeds in by_row.values() for recipe in seeds]
    if name == "known_nats":
        return recipes(U_CURVE, "quick", views=script["VIEWS"])
    if name == "u_curve":
        trained = recipes(U_CURVE, "quick")
        return [*trained, *untrained(trained)]
    trained = recipes(script["PRESETS"], "quick")
    return [*trained, *untrained(trained)]


@pytest.mark.parametrize("name", [path.stem for path in FIGURES if path.stem != "learned_views"])
def test_a_figure_shows_the_recipes_of_its_command(name: str) -> None:
    rows = read_rows(name)
    expected = [asdict(recipe) for recipe in planned(name)]
    fields = set(expected[0]) & set(rows[0]) - {"device"}
    assert fields >= {"view", "seed", "steps", "data", "size"}
    assert fields >= {"share_encoder", "width", "batch", "method"}

    def in_order(dicts: list[dict[str, Any]]) -> list[str]:
        chosen = [{field: one[field] for field in fields} for one in dicts]
        return sorted(json.dumps(one, sort_keys=True) for one in chosen)

    assert in_order(rows) == in_order(expected)


DIALS = {
    "patch_distance": ("digit", "An inverted U", "Patch distance** is an inverted U"),
    "frequency": ("digit", "An inverted U", "Frequency** is an inverted U along sigma"),
    "crop_area": ("background", "Falling", "shows only the falling side of an inverted U"),
    "color_jitter": ("digit", "Rising", "Colour jitter** rises from 0.23 to 0.72"),
}


def test_the_readme_says_the_verdicts_on_its_dials() -> None:
    sweeps = {name: (read_rows(name), task) for name, (task, *_) in DIALS.items()}
    text = " ".join((ROOT / "README.md").read_text().split())
    for name, found in infomin.plots.verdicts(sweeps, dial=True).items():
        _, shape, sentence = DIALS[name]
        p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
        assert found.shape == shape and f"{sentence} ({p}" in text, found
    assert infomin.plots.verdict(read_rows("u_curve"), "digit").shape == "An inverted U"
    for name in ("patch_distance", "frequency"):
        nats = infomin.plots.verdict(*sweeps[name])
        assert nats.shape == {"patch_distance": "Undecided", "frequency": "Rising"}[name]
