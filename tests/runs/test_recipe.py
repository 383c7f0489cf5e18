"""Recipes: what a field may be, and what the key of a run depends on."""

import json
import math
from dataclasses import asdict, fields, make_dataclass, replace

import numpy as np
import pytest
from tiny_runs import same, tiny

from infomin import Learning, Recipe, learn, run, sweep
from infomin.methods import METHODS, InfoNCE
from infomin.runs import recipe as recipes

pytestmark = pytest.mark.usefixtures("one_penalty")


OTHER = {
    "view": "shared:nothing",
    "method": "another",
    "data": "photos",
    "size": 48,
    "encoder": "alexnet",
    "width": 0.5,
    "share_encoder": True,
    "dim": 32,
    "head": "mlp",
    "tau": 0.1,
    "steps": 13,
    "batch": 16,
    "optimizer": "sgd",
    "lr": 0.5,
    "weight_decay": 0.0,
    "schedule": "step",
    "warmup": 0.5,
    "precision": "bf16",
    "device": "cuda",
    "candidates": 33,
    "probe_images": 3000,
    "seed": 1,
}


@pytest.mark.parametrize(
    "name", ["method", "data", "encoder", "optimizer", "schedule", "precision", "device"]
)
def test_an_unknown_name_lists_the_known_ones(name):
    known = getattr(Recipe(), name)
    with pytest.raises(ValueError, match=rf"recipe: {name}: got 'no', wanted one of .*{known}"):
        Recipe(**{name: "no"})


FLOATS = ["width", "tau", "lr", "weight_decay", "warmup"]


WHOLE = ["size", "dim", "steps", "batch", "candidates", "probe_images", "seed"]


@pytest.mark.parametrize("name", FLOATS + WHOLE)
def test_numbers_have_their_range(name):
    zero = name in ("steps", "weight_decay", "warmup", "seed")
    wanted = f"wanted a finite number {'of 0 or more' if zero else 'above 0'}$"
    for value in [-1, *[0] * (not zero), *[math.nan, math.inf] * (name in FLOATS)]:
        with pytest.raises(ValueError, match=rf"recipe: {name}: got {value}, {wanted}"):
            Recipe(**{name: value})
    assert not zero or getattr(Recipe(**{name: 0}), name) == 0


@pytest.mark.parametrize("field", fields(Recipe), ids=lambda field: field.name)
def test_fields_have_their_kind(field):
    wrong = {
        str: [1, True, None],
        bool: [1, "true", None],
        float: ["1", True, None],
        int: ["1", True, None, 1.0],
    }[field.type]
    for value in wrong:
        with pytest.raises(
            ValueError,
            match=rf"recipe: {field.name}: got {value!r}, wanted {field.type.__name__}$",
        ):
            Recipe(**{field.name: value})


MISFITS = {
    "family": (
        {"view": "colour:lab"},
        r"view 'colour:lab': family: got 'colour', wanted one of .*color",
    ),
    "dial": ({"view": "color"}, r"view 'color': the dial is missing; the dial of color is"),
    "space": ({"view": "color:cmyk"}, r"ColorSplit\(space\): got 'cmyk', wanted one of rgb, .*lab"),
    "factor": (
        {"view": "shared:colour"},
        r"shared factor in 'shared:colour'|shared factor in 'colour'.*wanted one of digit",
    ),
    "head": ({"head": "no"}, r"head\)?: got 'no', wanted one of none, linear, mlp"),
    "no head": (
        {"head": "none"},
        r"dim must equal the features, got dim=64 and features=128; use dim=128 or head='linear'",
    ),
    "size": ({"size": 10}, r"data 'digits': got size 10, wanted 24 to 96 px"),
    "one view": (
        {"view": "color:lab/012"},
        r"method 'infonce': got 1 view, wanted 2 or more; split the image",
    ),
    "sharing": (
        {"view": "color:lab"},
        r"encoders: a shared encoder needs views with the same number of channels, got \(1, 2\)",
    ),
    "photos": (
        {"data": "photos"},
        r"view 'shared:digit': takes scenes, got data 'photos', .* factors; use data='digits'",
    ),
    "large batch": ({"batch": 8193}, r"batch: got 8193, wanted 2 to 8192"),
    "small batch": (
        {"batch": 1},
        r"batch: got 1, wanted 2 to 8192 \(InfoNCE contrasts each image with the others",
    ),
    "small images": (
        {"encoder": "alexnet"},
        r"alexnet: images must be 63 px or more on each side, got 32x32; use larger images",
    ),
    "candidates": (
        {"candidates": 97},
        r"candidates: must be 2 to 96, the probe_images, got 97",
    ),
    "one candidate": ({"candidates": 1}, r"candidates: must be 2 or more, got 1"),
    "few to probe": (
        {"probe_images": 9, "candidates": 9},
        r"probe_images: must be at least the 10 neighbours of the probe, got 9",
    ),
    "many to probe": (
        {"probe_images": 4097},
        r"probe_images: got 4097, wanted at most the 4096 labelled images of 'digits'",
    ),
    "seed": (
        {"seed": 2**63},
        r"seed: must be below 2\*\*63, got 9223372036854775808",
    ),
    "warm-up": (
        {"warmup": 1.5},
        r"warmup: must be a share of the steps, 0 to 1, got 1\.5",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_before_anything_is_trained(monkeypatch, case):
    def trained(self):
        raise AssertionError("trained")

    monkeypatch.setattr(InfoNCE, "after_step", trained)
    change, message = MISFITS[case]
    with pytest.raises(ValueError, match=message):
        run(tiny(**change))


@pytest.mark.parametrize(
    "edge",
    [
        {"seed": 2**63 - 1},
        {"warmup": 1.0},
        {"candidates": 10, "probe_images": 10},
        {"probe_images": 4096},
    ],
    ids=str,
)
def test_what_just_fits_is_taken(handed, edge):
    assert {name: run(tiny(**edge))[name] for name in edge} == edge


def test_a_recipe_of_no_words_has_the_key_that_its_rows_on_disk_have():
    """Whoever changes a default gives PROTOCOL_NAME another value, and changes this."""
    assert (Recipe().key, Learning().key) == ("6205d8ceae17", "efecf1281e8b")


def test_every_field_changes_the_key(registered):
    registered(METHODS, "another", InfoNCE)
    assert set(OTHER) == {field.name for field in fields(Recipe)}
    recipes = [Recipe()] + [replace(Recipe(), **{name: value}) for name, value in OTHER.items()]
    assert len({recipe.key for recipe in recipes}) == len(recipes) == len(set(recipes))
    assert Recipe().key == Recipe(seed=0, width=1).key and len(Recipe().key) == 12
    assert all(len(json.dumps(asdict(recipe))) > 100 for recipe in recipes)


def test_numbers_of_numpy_are_numbers(tmp_path):
    wanted, found = (
        tiny(lr=0.25, seed=2, tau=0.5),
        tiny(lr=np.float64(0.25), seed=np.int64(2), tau=np.float32(0.5)),
    )
    assert found == wanted and found.key == wanted.key and same(run(wanted), run(found, tmp_path))


def test_data_that_several_recipes_name_are_read_once(monkeypatch):
    asked = []
    monkeypatch.setattr(recipes, "data_digest", lambda name: asked.append(name) or f"of {name}")
    names = ["digits", "photos", "digits", "clips"]
    keys = recipes.recipe_keys([Recipe(data=name) for name in names])
    assert asked == ["digits", "photos", "clips"]
    assert keys == [Recipe(data=name).key for name in names] and keys[0] == keys[2]


def test_a_run_and_a_game_of_default_recipes_have_different_keys():
    assert Recipe().key != Learning().key
    shared = {field.name for field in fields(recipes.BaseRecipe)}
    assert shared < {field.name for field in fields(Recipe)}
    assert shared < {field.name for field in fields(Learning)}
    assert not issubclass(Recipe, Learning) and not issubclass(Learning, Recipe)


def test_a_field_that_is_new_changes_no_old_key():
    newer = make_dataclass("Newer", [("extra", int, 3)], bases=(Recipe,), frozen=True)
    assert newer(seed=1).key == Recipe(seed=1).key != newer(seed=1, extra=4).key


def test_defaults_and_the_order_of_fields_are_not_in_the_key():
    assert Recipe(seed=0, width=1).key == Recipe().key == Recipe(steps=Recipe().steps).key


@pytest.mark.parametrize("door", [run, learn, lambda word: sweep([word], "runs")])
def test_what_is_no_recipe_is_told(door):
    with pytest.raises(
        TypeError,
        match=r"(run|learn|sweep): got str, wanted a (Recipe|Learning)",
    ):
        door("color:lab")
    if door is learn:
        with pytest.raises(TypeError, match="learn: got Recipe, wanted a Learning"):
            door(Recipe())


def test_a_head_that_is_not_known_is_told_by_the_recipe():
    with pytest.raises(
        ValueError, match="recipe: head: got 'abc', wanted one of none, linear, mlp"
    ):
        Recipe(head="abc")
