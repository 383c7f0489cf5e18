"""The tables of the README are those of the rows that are committed; what a test says it wants can be pasted there."""

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
from infomin.report.summary import summary

ROOT = Path(__file__).parents[1]
SPACES = {"rgb": "RGB", "ydbdr": "YDbDr"}


def rows(name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (ROOT / "experiments" / "figures" / f"{name}.jsonl").read_text().splitlines()
    ]


def table(head: list[str], body: list[list[str]]) -> str:
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)) + "\n"
    )


def cell(row: pd.Series, column: str) -> str:
    return f"{row[f'{column}_mean']:.2f} ± {row[f'{column}_std']:.2f}"


def learned_views() -> str:
    stage_two = pd.DataFrame(rows("learned_views")).dropna(subset="generator")
    columns = ["acc_digit", "knn_digit", "i_nce"]
    at = summary(stage_two, ["generator", "flow", "space"], columns).set_index(
        ["generator", "flow", "space"]
    )
    numbers = ("accuracy", "neighbours", "I_NCE")
    head = ["views", *(f"{what}, from {shown}" for shown in SPACES.values() for what in numbers)]
    body = [
        [
            f"{name}, {flow}" if flow else name,
            *(cell(at.loc[name, flow, space], column) for space in SPACES for column in columns),
        ]
        for name, flow in dict.fromkeys((name, flow) for name, flow, _ in at.index)
    ]
    return table(head, body)


def moving_mnist() -> str:
    frame = pd.DataFrame(rows("moving_mnist"))
    columns = []
    for end in ("", "_past"):
        for name in ("digit", "background"):
            frame[f"error_{name}{end}"] = 1 - frame[f"acc_{name}{end}"]
        columns += [f"error_digit{end}", f"error_background{end}", f"px_place{end}"]
    names = ["digit", "background", "place, px"]
    body = [
        [row["shared"], *(cell(row, column) for column in columns)]
        for _, row in summary(frame, "shared", columns).iterrows()
    ]
    return table(["shared", *names, *(f"{name}: past" for name in names)], body)


@pytest.mark.parametrize(("made", "lines"), [(learned_views, 2 + 3 * 2), (moving_mnist, 7 + 2)])
def test_a_table_of_the_readme_is_that_of_its_rows(made: Callable[[], str], lines: int) -> None:
    wanted = made()
    assert len(wanted.splitlines()) == 2 + lines
    assert wanted in (ROOT / "README.md").read_text(), f"the README should have\n{wanted}"


FIGURES = [
    path
    for path in sorted((ROOT / "experiments" / "figures").glob("*.jsonl"))
    if not path.stem.startswith("speed")
]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_rows_of_a_figure_were_measured_in_one_way_by_code_that_is_committed(path: Path) -> None:
    frame = pd.DataFrame(rows(path.stem))
    assert (
        frame["protocol"].dropna().nunique()
        == frame["precision_used"].nunique()
        == frame["host"].nunique()
        == 1
    )
    assert frame["commit"].str.fullmatch("[0-9a-f]{12}").all() and set(frame["status"]) == {"done"}
    assert not frame["key"].duplicated().any()


def planned(name: str) -> list[infomin.Recipe]:
    """The recipes of the preset `quick` of an experiment, which its committed figure is of."""
    script = runpy.run_path(str(ROOT / "experiments" / f"{name}.py"))
    if name == "moving_mnist":
        return [recipe for some in script["recipes"]("quick").values() for recipe in some]
    if name in ("known_nats", "u_curve"):
        found = recipes("quick", *([script["VIEWS"]] if "VIEWS" in script else []))
        return found if name == "known_nats" else [*found, *untrained(found)]
    fields = {**script["PRESETS"]["quick"]}
    views, seeds, _ = (fields.pop(word) for word in ("views", "seeds", "task"))
    found = infomin.grid(infomin.Recipe(**fields), seed=range(seeds), view=views)
    return [*found, *untrained(found)]


@pytest.mark.parametrize("name", [path.stem for path in FIGURES if path.stem != "learned_views"])
def test_a_figure_is_of_the_recipes_that_its_command_has_today(name: str) -> None:
    wanted = [
        {field: value for field, value in asdict(recipe).items() if field != "device"}
        for recipe in planned(name)
    ]
    got = [{field: row[field] for field in wanted[0] if field in row} for row in rows(name)]
    have = set(got[0])
    assert have >= {
        "view",
        "seed",
        "steps",
        "data",
        "size",
        "share_encoder",
        "width",
        "batch",
        "method",
    }

    def said(some: list[dict[str, Any]]) -> list[str]:
        return sorted(
            json.dumps({field: one[field] for field in have}, sort_keys=True) for one in some
        )

    assert said(got) == said(wanted)
