"""The experiment on learned views: its budgets can begin, and stage two varies only the view."""

import runpy
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from infomin.views import PixelFlow

torch.set_num_threads(1)
SCRIPT = Path(__file__).parents[1] / "experiments" / "learned_views.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def fields_without(recipe, *names):
    return {name: value for name, value in asdict(recipe).items() if name not in names}


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_games_differ_only_in_mode_space_flow_and_seed(script, preset):
    games = script["games"](preset)
    varied = ("mode", "space", "volume_preserving", "seed")
    fixed = fields_without(games[0], *varied)
    assert all(fields_without(game, *varied) == fixed for game in games)
    assert len({game.key for game in games}) == len(games)
    seeds = script["BUDGETS"][preset]["seeds"]
    assert len(games) == 12 * seeds
    assert preset == "tiny" or seeds >= 3


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_stage_two_varies_only_the_view(script, preset, tmp_path):
    file = tmp_path / "learned.safetensors"
    PixelFlow(hidden=2).save(file)
    seeds, view = script["BUDGETS"][preset]["seeds"], script["BUDGETS"][preset]["view"]
    game = {"mode": "supervised", "space": "rgb", "volume_preserving": False, "seed": 0}
    game |= {"verdict": "steady", "file": str(file), "view": view}
    plan = script["second"](preset, [game, game | {"file": None}])
    untrained = [recipe for recipe, columns in plan if columns["generator"] == "untrained"]
    recipes = [recipe for recipe, columns in plan if columns["generator"] != "untrained"]
    assert len(recipes) == 2 * seeds + 1, "a game that kept no generator has no stage two"
    assert untrained == [replace(recipe, steps=0) for recipe in recipes[:-1]]
    fixed = fields_without(recipes[0], "view", "seed")
    assert all(fields_without(recipe, "view", "seed") == fixed for recipe in recipes)
    raw_views = {recipe.view for recipe in recipes[:-1]}
    assert raw_views == {f"{view}+color:rgb", f"{view}+color:ydbdr"}
    _, columns = plan[-1]
    assert columns["generator"] == "supervised" and columns["space"] == "rgb"
    assert columns["flow"] == "NVP" and columns["game_verdict"] == "steady"


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_stage_two_has_the_seed_of_its_game(script, preset, tmp_path):
    """So that a spread over seeds is one of both stages."""
    file = tmp_path / "learned.safetensors"
    PixelFlow(hidden=2).save(file)
    game = {"mode": "supervised", "space": "rgb", "volume_preserving": False, "seed": 2}
    game |= {"file": str(file), "view": script["BUDGETS"][preset]["view"]}
    recipe, _ = script["second"](preset, [game])[-1]
    assert recipe.seed == 2


def test_an_unknown_preset_lists_the_known_ones(script):
    with pytest.raises(ValueError, match="tiny, quick, paper"):
        script["games"]("big")
