"""The experiment on learned views: its budgets can begin, and its second stage differs from raw views in the flow alone."""

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


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_games_differ_in_players_space_flow_and_seed_alone(script, preset):
    games = script["games"](preset)
    varied = {"mode", "space", "volume_preserving", "seed"}
    same = [
        {name: value for name, value in asdict(game).items() if name not in varied}
        for game in games
    ]
    assert all(one == same[0] for one in same) and len({game.key for game in games}) == len(games)
    assert len(games) == 12 * script["BUDGETS"][preset]["seeds"]
    assert preset == "tiny" or script["BUDGETS"][preset]["seeds"] >= 3


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_the_second_stage_differs_in_the_view_alone(script, preset, tmp_path):
    PixelFlow(hidden=2).save(tmp_path / "learned.safetensors")
    game = {
        "mode": "supervised",
        "space": "rgb",
        "volume_preserving": False,
        "seed": 0,
        "verdict": "steady",
    }
    game |= {
        "file": str(tmp_path / "learned.safetensors"),
        "view": script["BUDGETS"][preset]["view"],
    }
    plan = script["second"](preset, [game, game | {"file": None}])
    assert script["second"](preset, [game | {"seed": 2}])[-1][0].seed == 2, (
        "a spread over seeds is one of both stages"
    )
    seeds = script["BUDGETS"][preset]["seeds"]
    bare = [recipe for recipe, told in plan if told["generator"] == "untrained"]
    recipes = [recipe for recipe, told in plan if told["generator"] != "untrained"]
    assert len(recipes) == 2 * seeds + 1, "a game that kept no generator has no second stage"
    assert bare == [replace(recipe, steps=0) for recipe in recipes[:-1]]
    same = [
        {name: value for name, value in asdict(r).items() if name not in ("view", "seed")}
        for r in recipes
    ]
    assert all(one == same[0] for one in same)
    assert {r.view for r in recipes[:-1]} == {
        f"{game['view']}+color:{space}" for space in ("rgb", "ydbdr")
    }
    facts = plan[-1][1]
    assert (facts["generator"], facts["space"], facts["flow"], facts["game_verdict"]) == (
        "supervised",
        "rgb",
        "NVP",
        "steady",
    )


def test_an_unknown_preset_is_told(script):
    with pytest.raises(ValueError, match="tiny, quick, paper"):
        script["games"]("big")
