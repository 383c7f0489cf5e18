"""A game becomes a row and a file: the same ones however often and wherever it was cut, and chosen by what the log says."""

import math
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers import Cut, cut_after

from infomin import Learning, Recipe, data, learn
from infomin.common import files
from infomin.methods import InfoNCE
from infomin.methods.game import MODES, Game
from infomin.training import loop
from infomin.views import parse
from infomin.views.flow import PixelFlow

torch.set_num_threads(1)
room = sys.modules["infomin.runs.view_learning"]  # the name infomin.learn is the function's
SETTINGS = {
    "data": "digits",
    "size": 24,
    "view": "crop:0.7",
    "mode": "semi-supervised",
    "steps": 12,
    "batch": 32,
    "width": 0.25,
    "dim": 16,
    "hidden": 4,
    "couplings": 3,
    "candidates": 64,
    "labels": 100,
    "labelled": 16,
    "weight": 1.0,
    "fresh_every": 10,
    "fresh_steps": 20,
    "optimizer": "adamw",
    "momentum": 0.5,
    "lr": 5e-3,
    "lr_generator": 2e-2,
    "lr_classifiers": 2e-3,
    "schedule": "step",
    "schedule_generator": "step",
    "schedule_classifiers": "step",
    "weight_decay": 1e-4,
    "warmup": 0.0,
    "waits": 0,
    "precision": "fp32",
    "device": "cpu",
}
SWIFT = {"fresh_steps": 2}  # where nobody looks at what fresh critics say


def tiny(**fields):
    return Learning(**SETTINGS | fields)


def told(row):
    """A row, but for the time it took and where it was written."""
    return {name: value for name, value in row.items() if name not in ("seconds", "file")}


def written(folder: Path):
    """What a game leaves behind: the bytes of its log and of its generators."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".jsonl", ".safetensors")
    }


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    """Mode -> row and folder."""
    out = tmp_path_factory.mktemp("games")
    return {mode: (learn(tiny(mode=mode), out), out / tiny(mode=mode).key) for mode in MODES}


# The row, the log and the file


@pytest.mark.parametrize("mode", MODES)
def test_a_row_says_everything(games, mode):
    row, folder = games[mode]
    recipe = tiny(mode=mode)
    fields = asdict(recipe) | {"task": "digit"}
    assert (
        {name: row[name] for name in fields} == fields
        and row["key"] == recipe.key
        and row["status"] == "done"
    )
    numbers = {"i_nce_fresh", "i_nce_raw", "log_det", "lipschitz", "lipschitz_inverse"}
    judged = {"cross_entropy_held", "right_held"}
    assert numbers | {
        "verdict",
        "said",
        "file",
        "step_kept",
        "precision_used",
        "commit",
        "torch",
        "host",
        "seconds",
    } <= set(row)
    assert judged <= set(row) if mode != "unsupervised" else not judged & set(row)
    assert (
        row["i_nce_raw"] < math.log(64) and row["lipschitz"] >= 1 and row["lipschitz_inverse"] >= 1
    )
    assert files.read_json(folder / "row.json") == row and row["file"] == str(
        folder / "learned.safetensors"
    )
    assert Learning(**files.read_json(folder / "recipe.json")) == recipe


@pytest.mark.parametrize("mode", MODES)
def test_the_file_gives_views_and_knows_where_it_comes_from(games, mode):
    row, folder = games[mode]
    flow, images = PixelFlow.load(row["file"]), data.load("digits", 24)[0].images[:4]
    assert (flow.config["couplings"], flow.config["hidden"], flow.config["volume_preserving"]) == (
        3,
        4,
        True,
    )
    known = flow.provenance
    assert (
        known["recipe"] == asdict(tiny(mode=mode))
        and known["key"] == row["key"]
        and known["commit"] == row["commit"]
    )
    assert known["step"] == row["step_kept"] and known["i_nce_fresh"] == row["i_nce_fresh"]
    assert known.get("right_held") == row.get("right_held")
    first, rest = parse(f"crop:0.5+flow:{row['file']}")(images, torch.Generator().manual_seed(0))
    assert (first.shape, rest.shape) == ((4, 1, 24, 24), (4, 2, 24, 24))
    untouched = PixelFlow.load(folder / "generator-000000.safetensors")(images)
    assert torch.equal(untouched, images / 255)
    assert not torch.equal(
        PixelFlow.load(folder / "generator-000012.safetensors")(images), untouched
    )


def criterion(mode: str, weight: float, line) -> float:
    return {
        "unsupervised": line["i_nce_fresh"],
        "supervised": weight * line.get("cross_entropy_held", 0.0),
        "semi-supervised": line["i_nce_fresh"] + weight * line.get("cross_entropy_held", 0.0),
    }[mode]


@pytest.mark.parametrize("mode", MODES)
def test_kept_is_the_generator_of_least_value(games, mode):
    row, folder = games[mode]
    log = files.read_log(folder / "log.jsonl")
    least = min(log, key=lambda line: criterion(mode, 1.0, line))
    assert row["step_kept"] == least["step"] and {
        name: row[name] for name in ("i_nce_fresh", "log_det", "lipschitz")
    } == {name: least[name] for name in ("i_nce_fresh", "log_det", "lipschitz")}
    assert row["i_nce_raw"] == log[0]["i_nce_fresh"]
    assert (
        Path(row["file"]).read_bytes()
        == (folder / f"generator-{least['step']:06d}.safetensors").read_bytes()
    )


@pytest.mark.parametrize(
    ("mode", "weight"), [(mode, weight) for mode in MODES for weight in (0.0, 0.5)]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_the_criterion_is_that_of_the_mode(tmp_path, monkeypatch, mode, weight, order):
    """What is measured is made up, so that each mode and weight has one best step, which is the first, the middle or the last."""
    made_up = [(1.0, 4.0), (1.2, 3.0), (1.5, 2.9)]
    shared, entropies = (iter([made_up[i][side] for i in order]) for side in (0, 1))
    monkeypatch.setattr(room, "fresh_i_nce", lambda *_: next(shared))
    monkeypatch.setattr(
        room,
        "classifier_scores",
        lambda *_: {} if mode == "unsupervised" else {"cross_entropy_held": next(entropies)},
    )
    monkeypatch.setattr(
        loop, "_step", lambda method, *_: {"loss": torch.zeros(()), "i_nce": torch.ones(())}
    )
    row = learn(tiny(mode=mode, weight=weight), tmp_path)
    least = {
        "unsupervised": 0,
        "supervised": 2 if weight else order[0],
        "semi-supervised": 1 if weight else 0,
    }[mode]
    assert (
        row["step_kept"] == (0, 10, 12)[order.index(least)]
        and row["i_nce_raw"] == made_up[order[0]][0]
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_log_says_what_one_has_to_know(games, mode):
    log = files.read_log(games[mode][1] / "log.jsonl")
    assert [line["step"] for line in log] == [0, 10, 12]
    players = {"critics", "generator", "classifiers"} - {
        "supervised": {"critics"},
        "unsupervised": {"classifiers"},
    }.get(mode, set())
    shared = {"i_nce", "i_nce_ema"} if "critics" in players else set()
    for line in log:
        assert {"i_nce_fresh", "lipschitz", "lipschitz_inverse", "log_det"} <= set(line) and abs(
            line["log_det"]
        ) < 1e-6
        assert ("cross_entropy_held" in line) == ("right_held" in line) == (mode != "unsupervised")
        steps = {"loss", "rate"} | shared | {f"gradient_{name}" for name in players}
        assert steps <= set(line) if line["step"] else not steps & set(line)
        assert {name for name in line if name.startswith(("i_nce", "gradient_"))} <= steps | {
            "i_nce_fresh"
        }
    assert (
        log[0]["lipschitz"] == log[0]["lipschitz_inverse"] == pytest.approx(1)
        and log[-1]["lipschitz"] > 1
    )
    assert all(log[1][f"gradient_{name}"] > 0 for name in players)


def test_what_the_recipe_says_reaches_the_players_and_their_referee(tmp_path, monkeypatch):
    stands, games = [], []
    monkeypatch.setattr(room, "fresh_i_nce", lambda generator, stand: stands.append(stand) or 1.0)
    monkeypatch.setattr(
        room, "Game", lambda *given, **settings: games.append(Game(*given, **settings)) or games[-1]
    )
    own = {
        "tau": 0.07,
        "candidates": 48,
        "seed": 3,
        "precision": "bf16",
        "dim": 8,
        "head": "mlp",
        "weight": 2.5,
        "batch": 24,
    }
    learn(tiny(**own, steps=1, fresh_steps=7), tmp_path)
    stand, game = stands[0], games[0]
    said = (stand.candidates, stand.seed, stand.precision, stand.steps, stand.batch, stand.lr)
    assert said == (48, 3, "bf16", 7, 24, room.FRESH_RATE)
    assert (game.tau, game.weight, game.mode, game.task) == (0.07, 2.5, "semi-supervised", "label")
    assert repr(stand.crops) == repr(parse("crop:0.7")) and [
        c[-1].out_features for c in game.classifiers
    ] == [10, 10]
    critics = stand.critics((1, 2))
    assert critics.tau == 0.07 and not torch.equal(
        *(next(room._game(tiny(seed=s), 10).encoders.parameters()) for s in (0, 1))
    )
    for heads in (critics.heads, game.heads):
        assert all(
            head(torch.rand(2, critics.encoders[0].features)).shape == (2, 8) for head in heads
        )


@pytest.mark.parametrize(("bar", "tensorboard"), [(False, False), (True, False), (False, True)])
def test_the_bar_and_events_are_there_only_if_they_were_asked_for(
    tmp_path, monkeypatch, bar, tensorboard
):
    told = []
    monkeypatch.setattr(
        room,
        "log_training",
        lambda steps, folder, **how: told.append((how["bar"], how["tensorboard"])),
    )
    monkeypatch.setattr(room, "_kept", lambda *_: {"file": None})
    learn(tiny(), tmp_path, bar=bar, tensorboard=tensorboard)
    assert told == [(bar, tensorboard)]


def test_precision_is_left_to_the_hardware_unless_it_is_given(tmp_path, monkeypatch):
    stands, runs = [], sys.modules["infomin.runs.single"]
    monkeypatch.setattr(
        room, "fresh_i_nce", lambda generator, stand: stands.append(stand.precision) or 1.0
    )
    for fast, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(runs, "fast_bf16", lambda _, fast=fast: fast)
        row = learn(tiny(precision="auto", steps=1), tmp_path / str(fast))
        assert stands[-1] == row["precision_used"] == precision and row["precision"] == "auto"
    assert stands[0] == "bf16"


@pytest.mark.parametrize(("word", "asked"), [("auto", None), ("cpu", "cpu"), ("cuda", "cuda")])
def test_the_device_is_the_recipe_s_or_left_to_the_hardware(tmp_path, monkeypatch, word, asked):
    found = []
    monkeypatch.setattr(
        room, "setup_device", lambda device: found.append(device) or torch.device("cpu")
    )
    monkeypatch.setattr(room, "_play", lambda *_: {"file": None})
    learn(tiny(device=word), tmp_path)
    assert found == [asked]


def test_the_colours_that_are_watched_are_those_of_images_held_out_and_the_same_for_all_seeds(
    tmp_path, monkeypatch
):
    seen, stands, stretch = [], [], room.stretch
    monkeypatch.setattr(
        room, "color_stretch", lambda flow, colors: seen.append(colors) or stretch(flow, colors)
    )
    monkeypatch.setattr(room, "fresh_i_nce", lambda generator, stand: stands.append(stand) or 1.0)
    for seed in (0, 1):
        learn(tiny(mode="unsupervised", steps=1, seed=seed), tmp_path)
    known = set(map(tuple, stands[0].held.permute(0, 2, 3, 1).reshape(-1, 3).tolist()))
    found = (255 * seen[0][0, :, 0]).round().int().T.tolist()
    assert set(map(tuple, found)) <= known and all(torch.equal(colors, seen[0]) for colors in seen)


def test_the_kept_file_is_whole_or_not_there(tmp_path, monkeypatch):
    """A process that ends while the file is written leaves none that a view would take for it."""

    def cut(part, path):
        if Path(path).name == room.FILE:
            raise Cut
        return replace(part, path)

    replace = files.os.replace
    monkeypatch.setattr(room, "fresh_i_nce", lambda *_: 1.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(files.os, "replace", cut)
        learn(tiny(mode="unsupervised", steps=1), tmp_path)
    assert not list(tmp_path.rglob(room.FILE)) and not list(tmp_path.rglob("row.json"))
    assert Path(learn(tiny(mode="unsupervised", steps=1), tmp_path)["file"]).exists()


def test_the_stretch_is_that_of_colours_in_the_cube(tmp_path, monkeypatch):
    """And log_det that of the flow, whatever volume its colour space has."""
    seen, stretch = [], room.stretch
    monkeypatch.setattr(
        room, "color_stretch", lambda flow, colors: seen.append(colors) or stretch(flow, colors)
    )
    row = learn(tiny(space="ydbdr", volume_preserving=False, **SWIFT), tmp_path)
    log = files.read_log(tmp_path / row["key"] / "log.jsonl")
    colors = seen[0]
    assert (
        colors.shape == (1, 3, 1, room.COLORS)
        and 0 <= colors.min() < 0.1
        and 0.5 < colors.max() <= 1
    )
    assert abs(log[0]["log_det"]) < 1e-6 and log[0]["lipschitz"] > 1.1  # YDbDr stretches
    flow = PixelFlow.load(tmp_path / row["key"] / "generator-000012.safetensors")
    assert (
        log[-1]["log_det"] == pytest.approx(float(flow.log_det(colors).detach().mean()))
        and abs(log[-1]["log_det"]) > 1e-4
    )


@pytest.mark.parametrize("mode", MODES)
def test_no_image_is_its_own_negative(tmp_path, monkeypatch, mode):
    asked, step = [], loop._step
    monkeypatch.setattr(
        loop,
        "_step",
        lambda method, view, batch, *rest: asked.append(batch) or step(method, view, batch, *rest),
    )
    learn(tiny(mode=mode, labels=1000, fresh_steps=1), tmp_path)
    games = [
        index for images, index, labels in asked if len(index) == 48
    ]  # 32 and 16 labelled, or as many without
    assert len(games) == 12 and all(len(index.unique()) == 48 for index in games)


def test_only_some_rows_are_measured_and_only_those_are_kept(tmp_path):
    row = learn(
        tiny(mode="unsupervised", fresh_every=20, steps=24, waits=1, fresh_steps=2), tmp_path
    )
    folder = tmp_path / row["key"]
    log = files.read_log(folder / "log.jsonl")
    assert [(line["step"], "i_nce_fresh" in line) for line in log] == [
        (0, True),
        (10, False),
        (20, True),
        (24, True),
    ]
    assert {path.name for path in folder.glob("generator-*")} == {
        f"generator-{step:06d}.safetensors" for step in (0, 20, 24)
    }
    for line in log[
        1:
    ]:  # after an even number of steps the generator has had the move, and the critics have waited
        assert "gradient_critics" not in line and line["gradient_generator"] > 0


# The same again


def test_a_row_that_exists_is_read(games, monkeypatch):
    monkeypatch.setattr(room, "_play", lambda *_: pytest.fail("played again"))
    for row, folder in games.values():
        assert learn(tiny(mode=row["mode"]), folder.parent) == row
    with pytest.raises(pytest.fail.Exception, match="played again"):
        learn(tiny(seed=1), folder.parent)


def test_a_folder_that_was_moved_still_has_its_file(games, tmp_path):
    row, folder = games["unsupervised"]
    shutil.copytree(folder, tmp_path / "moved" / folder.name)
    again = learn(tiny(mode="unsupervised"), tmp_path / "moved")
    assert (
        again["file"] == str(tmp_path / "moved" / folder.name / "learned.safetensors")
        and Path(again["file"]).exists()
    )
    assert told(again) == told(row)


OTHER = {"mode": "supervised", "weight": 0.5, "task": "background", "labels": 200, "labelled": 8, "space": "lab", "depth": 0,
         "volume_preserving": False, "couplings": 4, "hidden": 5, "lr_generator": 0.1, "schedule_generator": "cosine",
         "lr_classifiers": 0.1, "schedule_classifiers": "cosine", "momentum": 0.9, "waits": 1, "fresh_every": 20,
         "fresh_steps": 21, "seed": 1, "tau": 0.1}  # fmt: skip


def test_every_field_changes_the_key():
    own = set(asdict(tiny())) - set(asdict(Recipe()))
    assert own <= set(OTHER)
    recipes = [tiny(), *(tiny(**{name: value}) for name, value in OTHER.items())]
    assert len({recipe.key for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_recipe_gives_the_same_bytes_whatever_was_drawn_before(games, tmp_path, mode):
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    row = learn(tiny(mode=mode), tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert told(row) == told(games[mode][0]) and written(tmp_path / row["key"]) == written(
        games[mode][1]
    )


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"lr_generator": 0.01}, {"labelled": 17}, {"waits": 1}, {"space": "ydbdr"}],
    ids=str,
)
def test_games_that_differ_in_one_field_differ(games, tmp_path, change):
    row = learn(tiny(**change, **SWIFT), tmp_path)
    last = "generator-000012.safetensors"
    one, other = (
        dict(PixelFlow.load(f / last).named_parameters())
        for f in (games[MODES[2]][1], tmp_path / row["key"])
    )
    assert any(not torch.equal(p, other[name]) for name, p in one.items())


BRIEF = tiny(fresh_steps=2, batch=16)


def add_a_nat(patch):
    """To what fresh critics find: in a brief game they learn next to nothing, and no generator would be kept."""
    fresh = room.fresh
    patch.setattr(room, "fresh_i_nce", lambda *given: 1 + fresh(*given))


@pytest.fixture
def a_nat_more(monkeypatch):
    add_a_nat(monkeypatch)


@pytest.fixture(scope="module")
def through(tmp_path_factory):
    """Row and folder of a brief game that was not cut."""
    out = tmp_path_factory.mktemp("through")
    with pytest.MonkeyPatch.context() as patch:
        add_a_nat(patch)
        return learn(BRIEF, out), out / BRIEF.key


CUTS = {
    "while the raw views are measured": (1, InfoNCE, "after_step", 12),
    "before the first line": (0, files, "append_jsonl", 12),
    "at step 5": (4, Game, "after_step", 8),
    "at a step that is logged": (9, Game, "after_step", 3),
    "while fresh critics learn": (3, InfoNCE, "after_step", 3),
    "between a generator and its line": (1, files, "append_jsonl", 3),
    "between a line and its checkpoint": (9, loop.disk, "save_figure", 3),
    "before the last line": (2, files, "append_jsonl", 1),
    "between the last line and its checkpoint": (11, loop.disk, "save_figure", 1),
    "before one is chosen": (0, room, "_kept", 0),
    "before the row": (1, files, "write_json", 0),
}


@pytest.mark.parametrize("where", CUTS)
def test_a_game_that_was_cut_goes_on_and_ends_bit_equal(
    a_nat_more, through, tmp_path, monkeypatch, where
):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    *cut, missing = CUTS[where]
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, *cut)
        learn(BRIEF, tmp_path)
    folder, steps, after_step = tmp_path / BRIEF.key, [], Game.after_step
    assert not (folder / "row.json").exists()
    monkeypatch.setattr(Game, "after_step", lambda self: (steps.append(1), after_step(self))[1])
    row = learn(BRIEF, tmp_path)
    assert (
        told(row) == told(through[0])
        and written(folder) == written(through[1])
        and len(steps) == missing
    )


def test_a_game_that_was_cut_before_its_first_checkpoint_is_played_again(
    a_nat_more, through, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_EVERY", math.inf)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 11, Game, "after_step")
        learn(BRIEF, tmp_path)
    folder, measured, fresh = tmp_path / BRIEF.key, [], room.fresh
    assert (
        not (folder / "checkpoint.pt").exists() and len(files.read_log(folder / "log.jsonl")) == 2
    )
    monkeypatch.setattr(room, "fresh_i_nce", lambda *given: (measured.append(1), fresh(*given))[1])
    row = learn(BRIEF, tmp_path)
    assert told(row) == told(through[0]) and written(folder) == written(through[1])
    assert len(measured) == 2  # the raw views not again


def test_a_log_with_a_torn_line_is_mended(a_nat_more, through, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as patch, pytest.raises(Cut):
        cut_after(patch, 1, files, "append_jsonl")
        learn(BRIEF, tmp_path)
    log = tmp_path / BRIEF.key / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 10, "lo')
    learn(BRIEF, tmp_path)
    assert log.read_bytes() == (through[1] / "log.jsonl").read_bytes()


def test_fresh_critics_learn_in_bf16_as_in_fp32(tmp_path):
    """The same critics on the same views: with weights that were rounded once they would read what strangers share."""
    rough, plain = (
        learn(tiny(precision=p, mode="unsupervised"), tmp_path)["i_nce_raw"]
        for p in ("bf16", "fp32")
    )
    assert rough == pytest.approx(plain, abs=0.05) and plain > 0.2
