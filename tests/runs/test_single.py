"""A recipe becomes a row: the same one however often, wherever it was cut, and in one process or two."""

import importlib
import json
import math
import os
import random
import re
import subprocess
import sys
from dataclasses import asdict, fields, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as c10d
from helpers import Cut, cut_after

import infomin
from infomin import Learning, Recipe, data, learn, run, sweep, trained
from infomin.common import distributed, files
from infomin.measure import probe
from infomin.methods import InfoNCE
from infomin.report.rows import read_rows
from infomin.training import loop, optim
from infomin.views import PixelFlow, SharedFactors
from infomin.views.compose import FAMILIES

room = importlib.import_module("infomin.runs.single")  # the name infomin.run is the function's

TINY = {
    "steps": 12,
    "batch": 32,
    "candidates": 32,
    "probe_images": 96,
    "width": 0.25,
    "share_encoder": True,
    "precision": "fp32",
    "device": "cpu",
}
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


def tiny(**fields):
    return Recipe(**TINY | fields)


def same(*rows):
    """Whether rows are equal bit for bit, but for the time they took."""
    first, *others = (
        {name: value for name, value in row.items() if name != "seconds"} for row in rows
    )
    return all(other == first for other in others)


@pytest.fixture(scope="module", autouse=True)
def one_penalty():
    """The linear probe tries one instead of four: it has tests of its own, and here it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe.linear, "__defaults__", ((0.1,),))
        yield


@pytest.fixture(scope="module")
def row(one_penalty):
    """The tiny recipe's, nothing being written."""
    return run(tiny())


@pytest.fixture
def untrained(monkeypatch):
    """Training is a mistake."""

    def fail(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(room, "fit", fail)


# Recipes


@pytest.mark.parametrize(
    "name", ["method", "data", "encoder", "optimizer", "schedule", "precision", "device"]
)
def test_an_unknown_name_lists_the_known_ones(name):
    known = getattr(Recipe(), name)
    with pytest.raises(
        ValueError, match=rf"recipe: {name}: got 'no', wanted one of .*{known}.*; pick one of those"
    ):
        Recipe(**{name: "no"})


FLOATS = ["width", "tau", "lr", "weight_decay", "warmup"]
WHOLE = ["size", "dim", "steps", "batch", "candidates", "probe_images", "seed"]


@pytest.mark.parametrize("name", FLOATS + WHOLE)
def test_numbers_have_their_range(name):
    zero = name in ("steps", "weight_decay", "warmup", "seed")
    wanted = f"wanted a finite number {'of 0 or more' if zero else 'above 0'}; change it"
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
            match=rf"recipe: {field.name}: got {value!r}, wanted {field.type.__name__}; change it",
        ):
            Recipe(**{field.name: value})


MISFITS = {
    "family": (
        {"view": "colour:lab"},
        r"view 'colour:lab': its family: got 'colour', wanted one of .*color",
    ),
    "dial": ({"view": "color"}, r"view 'color': got no dial, wanted color:DIAL, where DIAL is"),
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
        r"InfoNCE: got a view of 1 part, wanted two or more to contrast; split it",
    ),
    "sharing": (
        {"view": "color:lab"},
        r"encoders: got views of \(1, 2\) channels, wanted equal ones for a shared encoder",
    ),
    "photos": (
        {"data": "photos"},
        r"view 'shared:digit': got data 'photos', whose images have no known factors; use data='digits'",
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
        r"candidates: got 97, wanted 2 to 96, the probe_images; change one",
    ),
    "one candidate": ({"candidates": 1}, r"candidates: got 1, wanted 2 to 96"),
    "few to probe": (
        {"probe_images": 9, "candidates": 9},
        r"probe_images: got 9, wanted 10 neighbours or more; use more",
    ),
    "many to probe": (
        {"probe_images": 4097},
        r"probe_images: got 4097, wanted at most the 4096 of 'digits'; use fewer",
    ),
    "seed": (
        {"seed": 2**63},
        r"seed: got 9223372036854775808, wanted one below 2\*\*63; take a smaller one",
    ),
    "warm-up": (
        {"warmup": 1.5},
        r"warmup: got 1\.5, wanted a share of the steps, 0 to 1; change it",
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
    """A default that changes gives rows of the same words another meaning: whoever changes one says so, and changes this."""
    assert (Recipe().key, Learning().key) == ("4ae2a460d3fa", "ae081b267888")


def test_every_field_changes_the_key(monkeypatch):
    monkeypatch.setitem(room._CHOICES, "method", ("infonce", "another"))
    assert set(OTHER) == {field.name for field in fields(Recipe)}
    recipes = [Recipe()] + [replace(Recipe(), **{name: value}) for name, value in OTHER.items()]
    assert len({recipe.key for recipe in recipes}) == len(recipes) == len(set(recipes))
    assert Recipe().key == Recipe(seed=0, width=1).key and len(Recipe().key) == 12
    assert all(len(json.dumps(asdict(recipe))) > 100 for recipe in recipes)


# Rows


def test_a_row_says_everything(row):
    assert row["status"] == "done" and {name: row[name] for name in asdict(tiny())} == asdict(
        tiny()
    )
    assert (
        row["key"] == tiny().key
        and row["candidates"] == 32
        and row["ceiling"] == pytest.approx(math.log(32))
    )
    assert row["true_nats"] == pytest.approx(math.log(10)) and row["i_nce"] < row["ceiling"]
    chances = {"digit": 10, "background": 10, "position": 9}
    for task, classes in chances.items():
        assert 0 < row[f"acc_{task}"] <= 1 and 0 < row[f"knn_{task}"] <= 1
        assert row[f"entropy_{task}"] == pytest.approx(math.log(classes), abs=0.1)
    assert row["acc_position"] > 0.5  # even this little network sees where the ink is
    origin = {
        "protocol",
        "precision_used",
        "device_used",
        "threads",
        "processes",
        "host",
        "commit",
        "infomin",
        "torch",
        "python",
    }
    assert origin | {"seconds"} <= set(row) and "reason" not in row
    assert (row["precision_used"], row["device_used"], row["processes"], row["threads"]) == (
        "fp32",
        "cpu",
        1,
        1,
    )
    assert row["torch"] == torch.__version__ and 0 < row["seconds"] < 600
    assert json.loads(json.dumps(row)) == row


def test_information_that_is_not_known_is_not_in_the_row():
    row = run(tiny(view="color:lab", share_encoder=False, data="photos"))
    assert (
        "true_nats" not in row
        and "acc_background" in row
        and "acc_digit" not in row
        and row["status"] == "done"
    )


def test_the_same_recipe_gives_the_same_row_wherever_it_is_written(row, tmp_path):
    torch.manual_seed(1234)  # whatever the caller draws
    written = run(tiny(), tmp_path)
    folder = tmp_path / tiny().key
    assert same(row, written, files.read_json(folder / "row.json"))
    assert Recipe(**files.read_json(folder / "recipe.json")) == tiny()
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "recipe.json",
        "log.jsonl",
        "checkpoint.pt",
        "row.json",
    }
    assert [line["step"] for line in files.read_log(folder / "log.jsonl")] == [10, 12]
    assert list(read_rows(tmp_path)["i_nce"]) == [row["i_nce"]]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"tau": 0.1}, {"precision": "bf16"}, {"view": "shared:all"}], ids=str
)
def test_rows_that_differ_in_one_field_differ_in_their_numbers(row, change):
    other = run(tiny(**change))
    assert other["i_nce"] != row["i_nce"] and other["status"] == "done"
    assert other["entropy_digit"] == row["entropy_digit"]  # the data are the same


@pytest.fixture
def handed(monkeypatch):
    """What the loop and the probe are handed, instead of carrying it out."""
    seen = {}

    def fit(method, view, batches, **options):
        seen.update(options, method=method, view=view, batches=batches)
        return iter(())

    def all_of(method, view, train, test, **options):
        seen.update(options, train=train, test=test, probed=options)
        return {}

    monkeypatch.setattr(room, "fit", fit)
    monkeypatch.setattr(room, "evaluate", all_of)
    return seen


@pytest.mark.parametrize("seed", [0, 3])
def test_batches_are_those_of_the_seed_and_the_step(handed, seed):
    run(tiny(seed=seed))
    scenes = data.load("digits", 32)[0].scenes
    for step in (0, 5, 8192 // 32):  # the last one belongs to the second epoch
        inputs, index, labels = handed["batches"](step)
        assert torch.equal(index, data.batch_rows(8192, 32, step, seed=seed)) and len(index) == 32
        for name, value in inputs.tensors().items():
            assert torch.equal(value, getattr(scenes, name)[index])
        assert all(
            torch.equal(labels[task], getattr(inputs, task))
            for task in ("digit", "background", "position")
        )
    assert handed["seed"] == seed


def test_the_probe_learns_from_training_images_and_is_asked_about_others(handed):
    run(tiny(view="color:lab", share_encoder=False, data="photos", batch=8))
    (x, labels), (x_test, test_labels) = handed["train"], handed["test"]
    for part, found, told in zip(
        data.load("photos", 32), (x, x_test), (labels, test_labels), strict=True
    ):
        assert torch.equal(found, part.images[:96]) and torch.equal(
            told["background"], part.labels["background"][:96]
        )
    assert (
        handed["readout"] == (0, 1) and handed["candidates"] == 32 and handed["precision"] == "fp32"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_probe_computes_as_the_training_did(handed, precision):
    row = run(tiny(precision=precision))
    assert (
        handed["probed"]["precision"] == handed["precision"] == row["precision_used"] == precision
    )


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_precision_is_left_to_the_hardware_unless_it_is_given(handed, monkeypatch, fast, precision):
    monkeypatch.setattr(room, "fast_bf16", lambda _: fast)
    row = run(tiny(precision="auto"))
    assert (
        handed["probed"]["precision"] == handed["precision"] == row["precision_used"] == precision
    )
    assert row["precision"] == "auto"


@pytest.mark.parametrize(("word", "asked"), [("auto", None), ("cpu", "cpu"), ("cuda", "cuda")])
def test_the_device_is_the_recipe_s_or_left_to_the_hardware(handed, monkeypatch, word, asked):
    found = []
    monkeypatch.setattr(
        room, "setup_device", lambda device: found.append(device) or torch.device("cpu")
    )
    run(tiny(device=word))
    assert found == [asked]


def test_weights_are_those_of_the_seed(handed):
    """Not of batches and views alone, which are its own as well."""
    made = []
    for seed in (0, 1, 0):
        run(tiny(seed=seed))
        made.append(torch.cat([p.detach().flatten() for p in handed["method"].parameters()]))
    assert torch.equal(made[0], made[2]) and not torch.equal(made[0], made[1])


def test_true_nats_are_those_of_the_pictures_that_i_nce_is_read_on(handed, monkeypatch):
    monkeypatch.setattr(SharedFactors, "nats", lambda self, scenes: float(len(scenes)))
    train_part, test = data.load("digits", 32)
    assert len(train_part) != len(test) == run(tiny())["true_nats"]


class Own(torch.nn.Module):
    """A user's view: the images twice, the second times a number that can be learned."""

    channels, readout = (3, 3), (0, 1)

    def __init__(self, readout=(0, 1)):
        super().__init__()
        self.readout, self.factor = readout, torch.nn.Parameter(torch.ones(()))

    def forward(self, images, generator=None):
        return images / 255, images / 255 * self.factor


def test_what_a_view_can_learn_is_learned_with_the_networks(handed, monkeypatch):
    monkeypatch.setitem(FAMILIES, "own", lambda _: Own())
    run(tiny(view="own:x", data="photos"))
    learned = [p for group in handed["optimizer"].param_groups for p in group["params"]]
    assert {id(p) for p in learned} == {
        id(p) for part in ("method", "view") for p in handed[part].parameters()
    }
    assert any(p is handed["view"].factor for p in learned)


@pytest.mark.parametrize("readout", [(), (2,), (0, 5), (-1,)])
def test_a_view_whose_readout_is_none_of_its_views_is_told_before_anything_is_trained(
    untrained, monkeypatch, readout
):
    monkeypatch.setitem(FAMILIES, "own", lambda _: Own(readout))
    with pytest.raises(
        ValueError,
        match=r"view 'own:x': got channels \(3, 3\) and readout .*, wanted the channels of each view",
    ):
        run(tiny(view="own:x", data="photos"))


def test_trained_is_the_method_that_is_spread_over_processes(handed, monkeypatch):
    spread = []
    monkeypatch.setattr(
        room,
        "sync_batch_norm",
        lambda method, _: spread.append(torch.nn.ModuleList([method])) or spread[0],
    )
    run(tiny())
    assert handed["method"] is spread[0]


def test_the_probe_reads_the_views_beside_the_readout_if_there_are_some(handed):
    for view, beside in (("frames:digit", {"past": (0,)}), ("color:rgb/012", None)):
        run(tiny(view=view, data="clips", share_encoder=False, method="supervised"))
        assert handed["probed"]["beside"] == beside


def test_of_several_data_each_recipe_has_its_own_files(monkeypatch):
    monkeypatch.setattr(room, "data_digest", lambda name: f"those of {name}")
    names = ["digits", "photos", "digits", "clips"]
    recipes = room.anew([Recipe(data=name) for name in names])
    assert [recipe.files for recipe in recipes] == [f"those of {name}" for name in names]


@pytest.mark.parametrize("bar", [False, True])
def test_the_probe_shows_its_progress_only_when_asked_for(handed, bar):
    run(tiny(), bar=bar)
    assert handed["probed"]["bar"] is bar


def test_every_field_gets_where_it_belongs(handed):
    run(
        tiny(
            optimizer="lars",
            lr=0.7,
            weight_decay=0.3,
            tau=0.05,
            dim=9,
            head="mlp",
            schedule="step",
            warmup=0.3,
        )
    )
    assert (
        type(handed["optimizer"]).__name__ == "LARS"
        and handed["steps"] == 12
        and handed["precision"] == "fp32"
    )
    assert [(group["lr"], group["weight_decay"]) for group in handed["optimizer"].param_groups] == [
        (0.7, 0.3),
        (0.7, 0.0),
    ]
    assert [handed["rate"](step) for step in range(12)] == [
        optim.rate_factor("step", step, 12, 4) for step in range(12)
    ]  # 3.6, rounded
    method = handed["method"]
    assert method.tau == 0.05 and len(method.encoders) == 1 and method.encoders[0].features == 128
    assert [tuple(layer.weight.shape) for layer in method.heads[0] if hasattr(layer, "weight")] == [
        (128, 128),
        (9, 128),
    ]
    assert (
        handed["view"].share == "digit"
        and handed["readout"] == (0,)
        and handed["checkpoint"] is None
    )


def test_a_row_that_exists_is_read(tmp_path, untrained, monkeypatch):
    folder = tmp_path / tiny().key
    files.write_json(folder / "row.json", {"key": tiny().key, "i_nce": 1.25})
    assert run(tiny(), tmp_path) == run(tiny(), str(tmp_path)) == {"key": tiny().key, "i_nce": 1.25}
    assert not (folder / "log.jsonl").exists()
    with pytest.raises(AssertionError, match="trained"):
        run(tiny(seed=1), tmp_path)


def test_a_folder_in_use_is_left_alone(tmp_path, untrained):
    with files.lock(tmp_path / tiny().key), pytest.raises(files.Locked, match="is in use by"):
        run(tiny(), tmp_path)
    with pytest.raises(
        AssertionError, match="trained"
    ):  # and not locked for ever by a run that failed
        run(tiny(), tmp_path)
    with pytest.raises(AssertionError, match="trained"):
        run(tiny(), tmp_path)


def test_the_caller_s_random_numbers_go_on_as_if_nothing_had_happened():
    torch.manual_seed(7), random.seed(7), np.random.seed(7)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(tiny())
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


# Stop and go


CUTS = {
    "before the first save": (0, InfoNCE, "after_step"),
    "at step 5": (4, InfoNCE, "after_step"),
    "at a step that is logged": (9, InfoNCE, "after_step"),
    "before its line": (0, files, "append_jsonl"),
    "between the last line and its save": (11, loop.disk, "save_figure"),
    "at the last step": (11, InfoNCE, "after_step"),
    "before the probe": (0, room, "evaluate"),
    "before the row": (1, files, "write_json"),
}


@pytest.mark.parametrize("where", CUTS)
def test_a_run_that_was_cut_goes_on_and_ends_bit_equal(row, tmp_path, monkeypatch, where):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    folder = tmp_path / tiny().key
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, *CUTS[where])
        run(tiny(), tmp_path)
    assert not (folder / "row.json").exists()
    begun = (folder / "checkpoint.pt").exists()
    assert begun == (where not in ("before the first save"))
    steps, after_step = [], InfoNCE.after_step
    monkeypatch.setattr(InfoNCE, "after_step", lambda self: (steps.append(1), after_step(self))[1])
    assert same(row, run(tiny(), tmp_path))
    assert len(steps) == {
        "before the first save": 12,
        "at step 5": 8,
        "at a step that is logged": 3,
        "before its line": 3,
    }.get(where, 1 if "last" in where else 0)
    lines = files.read_log(folder / "log.jsonl")
    assert [line["step"] for line in lines] == [10, 12] and lines[-1]["loss"] > 0


def test_a_log_with_a_torn_line_is_mended(row, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    whole = tmp_path / "whole" / tiny().key / "log.jsonl"
    run(tiny(), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 11, InfoNCE, "after_step")
        run(tiny(), tmp_path)
    torn = tmp_path / tiny().key / "log.jsonl"
    torn.write_bytes(torn.read_bytes() + b'{"step": 12, "lo')
    assert same(row, run(tiny(), tmp_path)) and torn.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "of another recipe", "not one at all"])
def test_a_damaged_checkpoint_is_said_and_what_to_do(tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 0, room, "evaluate")
        run(tiny(), tmp_path)
    path = tmp_path / tiny().key / "checkpoint.pt"
    if damage == "of another recipe":
        run(tiny(width=0.5, steps=1), tmp_path)
        path.write_bytes((tmp_path / tiny(width=0.5, steps=1).key / "checkpoint.pt").read_bytes())
    else:
        path.write_bytes(path.read_bytes()[:1000] if damage == "truncated" else b"a text")
    with pytest.raises(
        ValueError,
        match=r"checkpoint\.pt: .*; delete it and run the same command again, this run will start anew",
    ):
        run(tiny(), tmp_path)
    path.unlink()
    assert run(tiny(), tmp_path)["status"] == "done"


# Divergence


@pytest.mark.parametrize("change", [{"lr": 1e30}, {"tau": 1e-40}], ids=str)
def test_a_run_that_diverges_gives_a_row_that_says_so(tmp_path, change):
    recipe = tiny(**change)
    row = run(recipe, tmp_path)
    assert (
        row["status"] == "diverged"
        and row["reason"] == "step 10: the loss is nan; lower the learning rate or raise tau"
    )
    assert row["true_nats"] == pytest.approx(math.log(10)) and row["torch"] == torch.__version__
    assert (
        not {"i_nce", "ceiling", "acc_digit"} & set(row)
        and {name: row[name] for name in change} == change
    )
    assert files.read_json(tmp_path / recipe.key / "row.json") == row == run(recipe, tmp_path)
    assert (tmp_path / recipe.key / "checkpoint.pt").exists() and not (
        tmp_path / recipe.key / "log.jsonl"
    ).exists()


def test_a_run_whose_last_step_breaks_it_has_diverged(tmp_path):
    recipe = tiny(
        lr=1e30, steps=1, warmup=0, schedule="constant", optimizer="sgd"
    )  # no loss is read after that step
    row = run(recipe, tmp_path)
    assert row["status"] == "diverged" and row["reason"].startswith(
        "features: got NaN or Inf from the encoders"
    )
    assert not {"i_nce", "acc_digit"} & set(row)


def test_a_run_of_no_step_probes_the_network_as_it_was_made(tmp_path, monkeypatch):
    made, build = [], room.method_of
    monkeypatch.setattr(room, "method_of", lambda *given: made.append(build(*given)) or made[-1])
    row = run(tiny(steps=0), tmp_path)
    assert (
        row["status"] == "done"
        and row["steps"] == 0
        and 0 < row["acc_digit"] < 1
        and math.isfinite(row["i_nce"])
    )
    assert not (tmp_path / row["key"] / "log.jsonl").exists()
    weights = dict(made[0].named_parameters())
    run(tiny(steps=0, lr=1.0), tmp_path)
    assert all(torch.equal(weight, weights[name]) for name, weight in made[1].named_parameters())
    with pytest.raises(
        ValueError, match="recipe: steps: got -1, wanted a finite number of 0 or more"
    ):
        tiny(steps=-1)


def test_supervised_runs_see_images_that_have_a_label_of_some_task():
    labels = {"a": torch.tensor([0, -1, -1, 1, -1, -1]), "b": torch.tensor([-1, -1, 2, 0, -1, -1])}
    part = torch.arange(6), labels
    for method, wanted in (("supervised", {0, 2, 3}), ("infonce", set(range(6)))):
        at = sys.modules["infomin.runs.single"]._batches(
            part, Recipe(method=method, batch=3, steps=4), torch.device("cpu")
        )
        assert {int(i) for step in range(4) for i in at(step)[1]} == wanted
    places = labels | {"place": torch.zeros(6, 2)}  # which are known of every image
    at = sys.modules["infomin.runs.single"]._batches(
        (part[0], places), Recipe(method="supervised", batch=3), torch.device("cpu")
    )
    assert {int(i) for step in range(2) for i in at(step)[1]} == set(range(6))


# Screen and events


# In bfloat16, and with draws of one's own


def test_a_run_in_bf16_learns_as_one_in_fp32_does_and_goes_on_where_it_was_cut(
    tmp_path, monkeypatch
):
    """Around a run autocast is off; within it torch would round the weights once and never again."""
    fields = {"view": "crop:0.5/1+color:rgb", "steps": 60, "share_encoder": False}
    whole, plain = (
        run(tiny(precision=precision, **fields), tmp_path / precision)
        for precision in ("bf16", "fp32")
    )
    ends = [
        files.read_log(tmp_path / row["precision"] / row["key"] / "log.jsonl")[-1]["i_nce_ema"]
        for row in (whole, plain)
    ]
    first = files.read_log(tmp_path / "fp32" / plain["key"] / "log.jsonl")[0]["i_nce_ema"]
    assert ends[0] == pytest.approx(ends[1], abs=0.1) and ends[1] > first + 0.3
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with pytest.raises(Cut), monkeypatch.context() as patch:
        cut_after(patch, 30, InfoNCE, "after_step")
        run(tiny(precision="bf16", **fields), tmp_path / "cut")
    assert same(whole, run(tiny(precision="bf16", **fields), tmp_path / "cut"))


class Dropping(InfoNCE):
    """A method of a user's own that draws random numbers, as dropout does."""

    def features(self, views):
        return tuple(
            torch.nn.functional.dropout(h, training=self.training) for h in super().features(views)
        )


def test_what_a_method_of_ones_own_draws_is_that_of_the_seed(tmp_path, monkeypatch):
    monkeypatch.setitem(room.METHODS, "dropping", Dropping)
    rows = [run(tiny(method="dropping")), run(tiny(method="dropping"))]
    assert same(*rows) and rows[0]["i_nce"] != run(tiny())["i_nce"]
    assert run(tiny(method="dropping", seed=1))["i_nce"] != rows[0]["i_nce"]


# What a run leaves


def test_the_view_that_is_handed_out_is_that_of_the_run_and_no_other_at_the_same_path(tmp_path):
    file = tmp_path / "flow.safetensors"
    PixelFlow(hidden=2, seed=1).save(file)
    row = run(tiny(view=f"crop:0.5+flow:{file}", share_encoder=False), tmp_path / "out")
    kept = file.read_bytes()
    PixelFlow(hidden=2, seed=1, space="ydbdr").save(file)
    with pytest.raises(
        ValueError, match=r"whose file is not that of the run in .*; put that one back"
    ):
        trained(tmp_path / "out" / row["key"])
    file.write_bytes(kept)
    trained(tmp_path / "out" / row["key"])


def test_numbers_of_numpy_are_numbers(tmp_path):
    wanted, found = (
        tiny(lr=0.25, seed=2, tau=0.5),
        tiny(lr=np.float64(0.25), seed=np.int64(2), tau=np.float32(0.5)),
    )
    assert found == wanted and found.key == wanted.key and same(run(wanted), run(found, tmp_path))


@pytest.mark.parametrize(
    "fields", [{}, {"method": "supervised"}, {"view": "crop:0.5", "data": "photos"}, {"steps": 0}]
)
def test_the_network_of_a_run_is_handed_out_as_it_was_probed(fields, tmp_path):
    row = run(tiny(**fields), tmp_path)
    method, view = trained(tmp_path / row["key"])
    assert not any(module.training for module in (*method.modules(), *view.modules()))
    parts = [
        room._inputs(split, view, tiny(**fields), torch.device("cpu"))
        for split in data.load(row["data"], row["size"])
    ]
    again = probe.evaluate(
        method,
        view,
        *[data.first_rows(part, 96) for part in parts],
        readout=view.readout,
        candidates=32,
    )
    assert again == {name: row[name] for name in again}
    images = data.load("digits", 32)[1].images[:4]
    if row["view"] == "crop:0.5":
        assert [len(found) for found in method.features(view(images))] == [4, 4]


def test_where_no_run_is_finished_there_is_no_network(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match="wanted the folder of a run that has its row, OUT/KEY"
    ):
        trained(tmp_path)
    row = run(tiny(), tmp_path)
    folder = tmp_path / row["key"]
    files.write_json(folder / "recipe.json", asdict(Learning()))
    with pytest.raises(
        ValueError, match="other fields than a Recipe; views of games are flow:FILE"
    ):
        trained(folder)
    files.write_json(folder / "recipe.json", asdict(tiny(width=0.5)))
    with pytest.raises(
        ValueError,
        match=r"got the checkpoint of something else, .*; put that back which it is a checkpoint of",
    ):
        trained(folder)
    for status, words in (
        ("done", "default dtype torch.float64, wanted torch as it is"),
        ("diverged", "a run that diverged"),
    ):
        files.write_json(folder / "row.json", row | {"status": status})
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with pytest.raises(ValueError, match=f"trained: got .*{words}"):
                trained(folder)
        finally:
            torch.set_default_dtype(before)
    (folder / "row.json").unlink()
    with pytest.raises(FileNotFoundError, match="run it to its end"):
        trained(folder)


def test_progress_goes_to_the_screen_only_when_asked_for(row, capsys):
    assert same(run(tiny(), bar=True), row)
    said = capsys.readouterr()
    assert (
        said.out == ""
        and "shared:digit" in said.err
        and "12/12" in said.err
        and "I_NCE" in said.err
    )
    run(tiny())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("door", [run, learn, lambda word: sweep([word], "runs")])
def test_what_is_no_recipe_is_told(door):
    with pytest.raises(
        TypeError,
        match=r"recipe: got a str, wanted a Recipe; write for example Recipe\(view='color:lab'\)",
    ):
        door("color:lab")
    if door is learn:
        with pytest.raises(TypeError, match="learn: got a Recipe, wanted a Learning"):
            door(Recipe())


def test_tensorboard_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError,
        match=r"tensorboard: it is not installed; run pip install 'infomin\[tensorboard\]'",
    ):
        run(tiny(), tmp_path, tensorboard=True)


# Two processes


def environment():
    """Of a child: one thread, the loopback, no word but what it has to say, and this copy of the package, installed or not."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    }
    root = os.path.dirname(os.path.dirname(infomin.__file__))
    return given | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONWARNINGS": "error",
        "PYTHONPATH": root,
    }


def test_torchrun_with_two_processes_writes_one_row(tmp_path):
    drawn = {
        **TINY,
        "view": "crop:0.3+jitter:1",
        "share_encoder": True,
    }  # each process draws for images of its own
    words = [word for name, value in drawn.items() for word in (f"--{name}", str(value).lower())]
    launch = [
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "infomin",
        "run",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *words, "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    (path,) = tmp_path.rglob("row.json")
    row = files.read_json(path)
    assert (path.parent.name, row["status"], row["processes"]) == (Recipe(**drawn).key, "done", 2)
    assert [line["step"] for line in files.read_log(path.parent / "log.jsonl")] == [10, 12]
    assert done.stdout.count('"i_nce"') == 1, "every process printed the row"


def worker(folder):
    """One of two processes: a run without a stop, the same one cut and gone on with, and a row that is there already."""
    loop.SAVE_EVERY, probe.linear.__defaults__ = -1.0, ((0.1,),)
    rows = [run(tiny(), folder / "through")]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 6, InfoNCE, "after_step")
        run(tiny(), folder / "cut")
    rows.append(run(tiny(), folder / "cut"))
    room.fit = None
    rows.append(run(tiny(), folder / "cut"))
    files.write_json(folder / f"{distributed.rank()}.json", rows)
    distributed.leave_processes()


def test_two_processes_go_on_where_they_were_cut_and_read_a_row_that_exists(tmp_path):
    store = c10d.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
    )
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, tmp_path],
            text=True,
            stderr=subprocess.PIPE,
            env=environment() | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=90)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert said == ["", ""]
    rows, others = (files.read_json(tmp_path / f"{rank}.json") for rank in range(2))
    assert same(*rows) and len(rows) == 3
    assert all(map(same, rows, others)), "the processes return different rows"
    assert len(list(tmp_path.rglob("row.json"))) == 2


if __name__ == "__main__":
    worker(Path(sys.argv[1]))


def test_what_surrounds_a_run_changes_no_bit_of_it():
    alone = run(Recipe(**TINY))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            inside = run(Recipe(**TINY))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert {**inside, "seconds": 0} == {**alone, "seconds": 0}


def test_a_run_that_cannot_be_is_told_before_its_first_step():
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match="run: got inference mode, wanted torch as it is when"),
    ):
        run(Recipe(**TINY))
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match=r"run: got the default dtype torch.float64, wanted"):
            run(Recipe(**TINY))
    finally:
        torch.set_default_dtype(torch.float32)
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match="run: got the default device meta, wanted"),
    ):
        run(Recipe(**TINY))


def test_a_head_that_is_not_known_is_told_by_the_recipe():
    with pytest.raises(
        ValueError, match="recipe: head: got 'abc', wanted one of none, linear, mlp"
    ):
        Recipe(head="abc")


class Made(torch.nn.Module):
    """A view of a user's, which makes what `made` says of the images of a batch, a float each."""

    channels, readout = (3, 3), (0, 1)

    def __init__(self, dial):
        super().__init__()
        self.made = MADE[dial]

    def forward(self, images, generator=None):
        return self.made(images / 255)


MADE = {
    "tensor": lambda x: x,
    "single": lambda x: (x,),
    "grey": lambda x: (x[:, :1], x),
    "half": lambda x: (x[::2], x[::2]),
    "flat": lambda x: (x.flatten(1), x.flatten(1)),
    "nothing": lambda x: None,
    "list": lambda x: [x, x],
}


@pytest.mark.parametrize(
    ("dial", "found"),
    [
        ("tensor", "Tensor"),
        ("single", "[[2, 3, 32, 32]]"),
        ("grey", "[[2, 1, 32, 32], [2, 3, 32, 32]]"),
        ("half", "[[1, 3, 32, 32], [1, 3, 32, 32]]"),
        ("flat", "[[2, 3072], [2, 3072]]"),
        ("nothing", "NoneType"),
    ],
)
def test_a_view_that_makes_other_than_it_says_is_told_before_the_first_step(
    dial, found, tmp_path, monkeypatch
):
    monkeypatch.setitem(FAMILIES, "own", Made)
    with pytest.raises(
        ValueError,
        match=rf"view 'own:{dial}': got {re.escape(found)} of two images, wanted a tuple of \[2, 3, H",
    ):
        run(Recipe(**TINY, view=f"own:{dial}"), tmp_path)
    assert not list(tmp_path.glob("*/log.jsonl"))


def test_a_view_that_makes_what_it_says_may_give_a_list(monkeypatch):
    monkeypatch.setitem(FAMILIES, "own", Made)
    assert run(Recipe(**TINY | {"steps": 2}, view="own:list"))["status"] == "done"


def test_a_view_that_takes_no_generator_is_told_what_it_takes(monkeypatch):
    monkeypatch.setitem(
        FAMILIES, "own", type("Alone", (Made,), {"forward": lambda self, images: (images, images)})
    )
    with pytest.raises(
        TypeError,
        match=r"view 'own:list': .*positional arguments.*; its forward takes images and a torch.Generator",
    ):
        run(Recipe(**TINY, view="own:list"))
