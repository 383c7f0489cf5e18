"""The experiments: what their recipes share, and that tables are of the rows, without a step of training."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
WORDS = {"digit": "digit_image", "place": "position", "background": "background_crop"}


def script(name, **stand_ins):
    """The names of a script, some replaced in its functions."""
    found = runpy.run_path(str(EXPERIMENTS / f"{name}.py"))
    found["main"].__globals__.update(stand_ins)
    return found


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_a_row_of_clips_shares_what_its_name_says(preset):
    names = script("moving_mnist")
    rows = names["recipes"](preset)
    seeds = list(range(names["BUDGETS"][preset]["seeds"]))
    assert preset == "tiny" or len(seeds) >= 3
    for name, recipes in rows.items():
        (one,) = {(r.view, r.method, r.steps == 0, r.data) for r in recipes}
        assert [r.seed for r in recipes] == seeds and one[3] == (
            "clips:mnist@stl10" if preset == "paper" else "clips:digits@photos"
        )
        told = {
            "supervised": ("frames:all", "supervised", False),
            "untrained": ("frames:all", "infonce", True),
        }
        shared = f"frames:{'-'.join(WORDS.get(word, '') for word in name.split(', '))}"
        assert one[:3] == told.get(name, (shared, "infonce", False))
    assert len(rows) == 2**3 - 1 + 2
    assert {
        r.data for some in names["recipes"](preset, "idx:A", "folder:B").values() for r in some
    } == {"clips:idx:A@folder:B"}


def test_the_tables_of_clips_are_means_of_their_own_encoder(tmp_path, monkeypatch):
    """Each row has numbers that follow from its recipe, so that none may stand in another's place."""
    order = []

    def sweep(recipes, out, jobs):
        order.extend(recipes)
        base = {"status": "done", "i_nce": 1.0, "true_nats": 2.0}
        numbers = (
            {"acc_digit": 0.9, "acc_background": 0.8, "px_place": 3.0},
            {"acc_digit": 0.7, "acc_background": 0.6, "px_place": 5.0},
        )
        return [
            base
            | {
                f"{name}{end}": value + i / 100
                for end, own in zip(("", "_past"), numbers, strict=True)
                for name, value in own.items()
            }
            for i, _ in enumerate(recipes)
        ]

    names = script("moving_mnist", sweep=sweep)
    monkeypatch.setattr(names["panels"], "dot_table", lambda *_, **__: None)
    names["main"]("tiny", out=str(tmp_path), jobs=1)
    assert order == [recipe for some in names["recipes"]("tiny").values() for recipe in some]
    for end, (digit, ground, place) in {"": (0.1, 0.2, 3.0), "_past": (0.3, 0.4, 5.0)}.items():
        at = pd.read_csv(tmp_path / f"table{end}.csv")
        assert list(at["shared"]) == list(names["recipes"]("tiny"))
        step = pd.Series(range(len(at))) / 100
        for name, wanted in (
            ("error_digit", digit - step),
            ("error_background", ground - step),
            ("px_place", place + step),
        ):
            assert list(at[f"{name}{end}_mean"]) == pytest.approx(list(wanted))


def test_known_nats_are_held_against_what_was_measured(tmp_path, monkeypatch, capsys):
    seen = []

    def sweep(recipes, out, jobs):
        seen.extend(recipes)
        return [{"view": r.view, "status": "done", "true_nats": 2.0, "i_nce": 1.5} for r in recipes]

    names = script("known_nats", sweep=sweep)
    monkeypatch.setattr(names["plots"], "calibration", lambda *_: None)
    names["main"]("quick", out=str(tmp_path))
    assert {r.view for r in seen} == set(names["VIEWS"]) and {r.seed for r in seen} == {0, 1, 2}
    head, *lines = capsys.readouterr().out.splitlines()
    assert (
        head.endswith("share of the truth")
        and len(lines) == 5
        and all(line.endswith("0.750") for line in lines)
    )


def test_the_table_of_learned_views_has_both_probes_and_copies_first_seeds_alone(
    tmp_path, monkeypatch
):
    from infomin.views import PixelFlow

    files = [str(tmp_path / f"{i}.safetensors") for i in range(4)]
    for i, file in enumerate(files):
        PixelFlow(hidden=2, seed=i, volume_preserving=i < 2).save(file)
    base = {
        "mode": "supervised",
        "space": "rgb",
        "verdict": "steady",
        "task": "digit",
        "view": "crop:0.5",
    }
    games = [
        base | {"volume_preserving": i < 2, "seed": i % 2, "file": file}
        for i, file in enumerate(files)
    ]
    shown = []

    def sweep(recipes, out, jobs, work=None):
        done = {"status": "done", "acc_digit": 0.9, "knn_digit": 0.8, "i_nce": 0.7}
        return games if work else [done | {"seed": r.seed, "view": r.view} for r in recipes]

    names = script(
        "learned_views", sweep=sweep, pictures=lambda rows, flows, *_: shown.append(flows)
    )
    names["main"]("tiny", out=str(tmp_path / "out"), save=str(tmp_path / "save"))
    at = pd.read_csv(tmp_path / "out" / "table.csv")
    for column, value in {"acc_digit": 0.9, "knn_digit": 0.8, "i_nce": 0.7}.items():
        assert list(at[f"{column}_mean"]) == pytest.approx([value] * len(at))
    kept = {"supervised_rgb_vp": files[0], "supervised_rgb_nvp": files[2]}
    copies = {
        path.stem: path.read_bytes() for path in (tmp_path / "save" / "learned_views").iterdir()
    }
    assert copies == {name: Path(file).read_bytes() for name, file in kept.items()}
    assert list(shown[0]) == ["supervised, rgb, VP", "supervised, rgb, NVP"]
