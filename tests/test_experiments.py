"""The experiments: what their recipes share, and that tables hold the rows; nothing is trained."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FACTORS = {"digit": "digit_image", "place": "position", "background": "background_crop"}


def run_script(name, **stand_ins):
    """The names that a script defines, with stand-ins for some that its functions use."""
    names = runpy.run_path(str(EXPERIMENTS / f"{name}.py"))
    names["main"].__globals__.update(stand_ins)
    return names


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_a_row_of_clips_shares_what_its_name_says(preset):
    script = run_script("moving_mnist")
    rows = script["recipes"](preset)
    seeds = list(range(script["BUDGETS"][preset]["seeds"]))
    assert preset == "tiny" or len(seeds) >= 3
    data = "clips:mnist@stl10" if preset == "paper" else "clips:digits@photos"
    references = {
        "supervised": ("frames:all", "supervised", False),
        "untrained": ("frames:all", "infonce", True),
    }
    assert len(rows) == 2**3 - 1 + len(references)
    for name, recipes in rows.items():
        assert [recipe.seed for recipe in recipes] == seeds
        assert {recipe.data for recipe in recipes} == {data}
        ((view, method, untrained),) = {(r.view, r.method, r.steps == 0) for r in recipes}
        factors = [FACTORS.get(word, "") for word in name.split(", ")]
        shared = (f"frames:{'-'.join(factors)}", "infonce", False)
        assert (view, method, untrained) == references.get(name, shared)


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_other_pictures_replace_those_of_the_preset(preset):
    rows = run_script("moving_mnist")["recipes"](preset, "idx:A", "folder:B")
    data = {recipe.data for recipes in rows.values() for recipe in recipes}
    assert data == {"clips:idx:A@folder:B"}


def test_each_table_of_clips_has_the_means_of_its_own_encoder(tmp_path, monkeypatch):
    """Each row has numbers that follow from its position, so that none can take another's place."""
    order = []
    images = {"acc_digit": 0.9, "acc_background": 0.8, "px_place": 3.0}
    past = {"acc_digit_past": 0.7, "acc_background_past": 0.6, "px_place_past": 5.0}

    def sweep(recipes, out, jobs):
        order.extend(recipes)
        rows = []
        for i in range(len(recipes)):
            row = {"status": "done", "i_nce": 1.0, "true_nats": 2.0}
            row |= {name: value + i / 100 for name, value in {**images, **past}.items()}
            rows.append(row)
        return rows

    script = run_script("moving_mnist", sweep=sweep)
    monkeypatch.setattr(script["panels"], "dot_table", lambda *_, **__: None)
    script["main"]("tiny", out=str(tmp_path), jobs=1)
    by_name = script["recipes"]("tiny")
    assert order == [recipe for recipes in by_name.values() for recipe in recipes]
    errors = {"": (0.1, 0.2, 3.0), "_past": (0.3, 0.4, 5.0)}
    for suffix, (digit, background, place) in errors.items():
        table = pd.read_csv(tmp_path / f"table{suffix}.csv")
        assert list(table["shared"]) == list(by_name)
        shift = pd.Series(range(len(table))) / 100
        expected = {
            f"error_digit{suffix}_mean": digit - shift,
            f"error_background{suffix}_mean": background - shift,
            f"px_place{suffix}_mean": place + shift,
        }
        for name, values in expected.items():
            assert list(table[name]) == pytest.approx(list(values))


def test_known_nats_are_compared_with_measured_ones(tmp_path, monkeypatch, capsys):
    recipes_given = []

    def sweep(recipes, out, jobs):
        recipes_given.extend(recipes)
        numbers = {"status": "done", "true_nats": 2.0, "i_nce": 1.5}
        return [{"view": recipe.view, **numbers} for recipe in recipes]

    script = run_script("known_nats", sweep=sweep)
    monkeypatch.setattr(script["plots"], "calibration", lambda *_: None)
    script["main"]("quick", out=str(tmp_path))
    assert {recipe.view for recipe in recipes_given} == set(script["VIEWS"])
    assert {recipe.seed for recipe in recipes_given} == {0, 1, 2}
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.endswith("share of the truth")
    assert len(lines) == 5 and all(line.endswith("0.750") for line in lines)


def test_the_table_of_learned_views_has_both_probes_and_only_first_seeds_are_copied(
    tmp_path, monkeypatch
):
    from infomin.views import PixelFlow

    files = [str(tmp_path / f"{i}.safetensors") for i in range(4)]
    games = []
    for i, file in enumerate(files):
        additive, seed = i < 2, i % 2
        PixelFlow(hidden=2, seed=i, volume_preserving=additive).save(file)
        game = {"mode": "supervised", "space": "rgb", "verdict": "steady", "task": "digit"}
        game |= {"view": "crop:0.5", "volume_preserving": additive, "seed": seed, "file": file}
        games.append(game)
    numbers = {"acc_digit": 0.9, "knn_digit": 0.8, "i_nce": 0.7}
    flows_drawn = []

    def sweep(recipes, out, jobs, work=None):
        if work:
            return games
        return [{"status": "done", "seed": r.seed, "view": r.view, **numbers} for r in recipes]

    def pictures(rows, flows, task, path):
        flows_drawn.append(flows)

    script = run_script("learned_views", sweep=sweep, pictures=pictures)
    script["main"]("tiny", out=str(tmp_path / "out"), save=str(tmp_path / "save"))
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    for column, value in numbers.items():
        assert list(table[f"{column}_mean"]) == pytest.approx([value] * len(table))
    saved = (tmp_path / "save" / "learned_views").iterdir()
    copies = {path.stem: path.read_bytes() for path in saved}
    kept = {"supervised_rgb_vp": files[0], "supervised_rgb_nvp": files[2]}
    assert copies == {name: Path(file).read_bytes() for name, file in kept.items()}
    assert list(flows_drawn[0]) == ["supervised, rgb, VP", "supervised, rgb, NVP"]
