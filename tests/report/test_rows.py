"""Tables of rows: what is read from folders and .jsonl files, and their summary."""

import math
import os

import numpy as np
import pandas as pd
import pytest

from infomin.common import files
from infomin.report.rows import read_rows, to_frame
from infomin.report.summary import summarise


def test_a_new_column_follows_its_neighbour_in_the_row():
    rows = [
        {"key": 1, "status": "done", "x": 1},
        {"key": 2, "tau": 0.1, "status": "done"},
        {"host": "a", "key": 3, "y": 2},
    ]
    assert list(to_frame(rows)) == ["host", "key", "y", "tau", "status", "x"]


def write_runs(folder, rows):
    for i, row in enumerate(rows):
        files.write_json(folder / f"run{i}" / "row.json", row)


def test_a_folder_and_its_jsonl_give_the_same_table(tmp_path):
    rows = [
        {"view": view, "seed": seed, "accuracy": 0.1 * seed}
        for view in ("color:rgb", "color:lab")
        for seed in range(3)
    ]
    write_runs(tmp_path / "runs", rows[:4])
    write_runs(tmp_path / "runs" / "deeper", rows[4:])
    frame = read_rows(tmp_path / "runs")
    files.write_jsonl(tmp_path / "rows.jsonl", frame.to_dict("records"))
    pd.testing.assert_frame_equal(frame, read_rows(tmp_path / "runs"))
    pd.testing.assert_frame_equal(frame, read_rows(tmp_path / "rows.jsonl"))
    assert sorted(frame.to_dict("records"), key=str) == sorted(rows, key=str)


DAMAGED = [
    "",
    '{"seed": 1',
    "[1]",
    "\x00\x00",
    "\xff",
    '{"seed": NaN}',
    '{"seed": -1e999}',
    '{"seed": [1]}',
    '{"seed": {"a": 1}}',
    f'{{"seed": 1{"0" * 400}}}',
    f'{{"seed": {"[" * 100_000}{"]" * 100_000}}}',
]


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:20])
def test_damaged_rows_are_left_out_with_one_warning(tmp_path, text):
    write_runs(tmp_path, [{"seed": 0}])
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "row.json").write_text(text, encoding="latin-1")
    message = r"left out 2 rows.*/a/row\.json; .*/b/row\.json; delete what"
    with pytest.warns(UserWarning, match=message) as caught:
        frame = read_rows(tmp_path)
    assert len(caught) == 1 and list(frame.seed) == [0]
    if text:  # a blank line is none
        lines = ['{"seed": 0}', text, '{"seed": 2}\n']
        (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="latin-1")
        with pytest.warns(UserWarning, match=r"left out 1 row that .*rows\.jsonl, line 2; delete"):
            assert list(read_rows(tmp_path / "rows.jsonl").seed) == [0, 2]


def put_pipe(path):
    os.mkfifo(path)


def put_zeros(path):
    path.symlink_to("/dev/zero")


def put_large(path):
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk


@pytest.mark.parametrize("put", [put_pipe, put_zeros, put_large])
def test_what_never_ends_is_not_read(tmp_path, put):
    write_runs(tmp_path, [{"seed": 0}])
    (tmp_path / "a").mkdir()
    put(tmp_path / "a" / "row.json")
    with pytest.warns(UserWarning, match=r"left out 1 row that cannot be read: .*/a/row\.json;"):
        assert list(read_rows(tmp_path).seed) == [0]
    put(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match=r"rows\.jsonl: got (a pipe or device|more than 2)"):
        read_rows(tmp_path / "rows.jsonl")


def test_a_warning_names_five_rows_and_counts_the_others(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"seed": 0}\n' + "?\n" * 7)
    with pytest.warns(UserWarning, match=r"left out 7 rows .*line 6; 2 more; delete"):
        read_rows(tmp_path / "rows.jsonl")


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="wanted a folder of runs"):
        read_rows(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="got none that can be read; run a sweep"):
        read_rows(tmp_path)


def test_several_paths_are_read_in_order_and_each_run_once(tmp_path):
    runs = [{"key": key, "seed": seed} for seed, key in enumerate("abc")]
    own_rows = [{"seed": 7}, {"seed": 7}]  # without a key, so both stay
    files.write_json(tmp_path / "x" / "a" / "row.json", runs[0])
    files.write_jsonl(tmp_path / "y.jsonl", [runs[1], runs[0] | {"seed": 9}, *own_rows])
    frame = read_rows(tmp_path / "x", tmp_path / "y.jsonl", tmp_path / "x")
    assert list(frame["seed"]) == [0, 1, 7, 7] and list(frame.index) == [0, 1, 2, 3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"/empty: wanted row\.json files"):
        read_rows(tmp_path / "x", tmp_path / "empty")


def test_unreadable_rows_of_several_paths_give_one_warning(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"seed": 0}\n{"se\n')
    message = r"left out 2 rows.*a\.jsonl, line 2; .*b\.jsonl, line 2; delete what"
    with pytest.warns(UserWarning, match=message) as caught:
        assert len(read_rows(tmp_path / "a.jsonl", tmp_path / "b.jsonl")) == 2
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("name", ["table.csv", "row.json", "rows"])
def test_another_kind_of_file_is_an_error(tmp_path, name):
    (tmp_path / name).write_text("view,seed\ncolor:lab,0\n")
    message = (
        rf"{name}: got another .*file, wanted a folder .* \.jsonl file .*; name the folder that"
    )
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / name)


def test_summary_is_the_mean_and_the_sample_deviation_of_each_group():
    rng = np.random.default_rng(0)
    views = ["color:ydbdr", "color:lab", "color:rgb"]
    data = {view: rng.normal(size=n) for view, n in zip(views, (2, 5, 1), strict=True)}
    rows = [{"view": view, "task": "digit", "accuracy": x} for view in views for x in data[view]]
    rows = [rows[0], *rng.permutation(rows[1:])]
    out = summarise(pd.DataFrame(rows), "view", "accuracy").set_index("view")
    assert list(out) == ["accuracy_mean", "accuracy_std", "n", "diverged"]
    assert list(out.index) == list(dict.fromkeys(row["view"] for row in rows))
    for view, x in data.items():
        mean = sum(x) / len(x)
        std = math.sqrt(sum((x - mean) ** 2) / (len(x) - 1)) if len(x) > 1 else math.nan
        assert out.loc[view].tolist() == pytest.approx([mean, std, len(x), 0], nan_ok=True)


def test_diverged_rows_are_only_counted():
    rows = [
        {"view": "a", "dial": None, "x": 1.0, "status": "done"},
        {"view": "b", "dial": 2, "x": None, "status": "diverged"},
        {"view": "a", "dial": None, "x": None, "status": "diverged"},
        {"view": "a", "dial": None, "x": 3.0, "status": "done"},
    ]
    out = summarise(pd.DataFrame(rows), ["view", "dial"], ["x"])
    assert out.view.tolist() == ["a", "b"] and out.dial.isna().tolist() == [True, False]
    assert out.n.tolist() == [2, 0] and out.diverged.tolist() == [1, 1]
    assert out.x_mean.tolist() == pytest.approx([2.0, math.nan], nan_ok=True)
    assert out.x_std.tolist() == pytest.approx([math.sqrt(2), math.nan], nan_ok=True)


def test_a_missing_number_of_a_finished_row_makes_its_mean_nan():
    frame = pd.DataFrame([{"view": "a", "x": 1.0, "y": 1.0}, {"view": "a", "x": 2.0}])
    out = summarise(frame, "view", ["x", "y"]).iloc[0]
    assert out.x_mean == 1.5 and math.isnan(out.y_mean) and math.isnan(out.y_std)
    with pytest.raises(ValueError, match="got unknown columns z, wanted some of view, x, y"):
        summarise(frame, "view", ["x", "z"])


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_missing_number_makes_mean_and_deviation_of_its_group_nan(missing):
    frame = pd.DataFrame({"view": ["a"] * 3 + ["b"] * 3, "x": [1.0, 2.0, missing, 1.0, 2.0, 6.0]})
    a, b = summarise(frame, "view", "x").to_dict("records")
    assert math.isnan(a["x_mean"]) and math.isnan(a["x_std"]) and a["n"] == b["n"] == 3
    assert (b["x_mean"], b["x_std"]) == pytest.approx((3.0, math.sqrt(7.0)))
