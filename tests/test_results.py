"""The tables of the README are those of the rows that are committed; what a test says it wants can be pasted there."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from infomin.curve import summary

ROOT = Path(__file__).parents[1]
SPACES = {"rgb": "RGB", "ydbdr": "YDbDr"}


def rows(name: str) -> pd.DataFrame:
    lines = (ROOT / "experiments" / "figures" / f"{name}.jsonl").read_text().splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


def table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)) + "\n"


def cell(row: pd.Series, column: str) -> str:
    return f"{row[f'{column}_mean']:.2f} ± {row[f'{column}_std']:.2f}"


def learned_views() -> str:
    stage_two = rows("learned_views").dropna(subset="generator")
    columns = ["acc_digit", "knn_digit", "i_nce"]
    at = summary(stage_two, ["generator", "flow", "space"], columns).set_index(["generator", "flow", "space"])
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
    frame = rows("moving_mnist")
    columns = []
    for end in ("", "_past"):
        for name in ("digit", "background"):
            frame[f"error_{name}{end}"] = 1 - frame[f"acc_{name}{end}"]
        columns += [f"error_digit{end}", f"error_background{end}", f"px_place{end}"]
    names = ["digit", "background", "place, px"]
    body = [
        [row["shared"], *(cell(row, column) for column in columns)] for _, row in summary(frame, "shared", columns).iterrows()
    ]
    return table(["shared", *names, *(f"{name}: past" for name in names)], body)


@pytest.mark.parametrize(("made", "lines"), [(learned_views, 2 + 3 * 2), (moving_mnist, 7 + 2)])
def test_a_table_of_the_readme_is_that_of_its_rows(made: Callable[[], str], lines: int) -> None:
    wanted = made()
    assert len(wanted.splitlines()) == 2 + lines
    assert wanted in (ROOT / "README.md").read_text(), f"the README should have\n{wanted}"


FIGURES = [path for path in sorted((ROOT / "experiments" / "figures").glob("*.jsonl")) if not path.stem.startswith("speed")]


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_rows_of_a_figure_were_measured_in_one_way_by_code_that_is_committed(path: Path) -> None:
    frame = rows(path.stem)
    assert frame["protocol"].dropna().nunique() == frame["precision_used"].nunique() == frame["host"].nunique() == 1
    assert frame["commit"].str.fullmatch("[0-9a-f]{12}").all() and set(frame["status"]) == {"done"}
    assert not frame["key"].duplicated().any()
