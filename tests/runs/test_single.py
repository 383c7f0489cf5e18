"""A recipe becomes a row: the same one however often, and whatever surrounds it."""

import json
import math
import random
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from tiny_runs import TINY, same, tiny

from infomin import Recipe, data, run
from infomin.common import files
from infomin.methods import InfoNCE, Supervised
from infomin.report.rows import read_rows
from infomin.runs import recipe as recipes
from infomin.runs import single
from infomin.training import optim
from infomin.views import SharedFactors

pytestmark = pytest.mark.usefixtures("one_penalty")


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
        "context.json",
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
    numbers = [[r["i_nce_high"], r["acc_digit"], r["knn_digit"]] for r in (other, row)]
    assert numbers[0] != numbers[1] and other["status"] == "done"
    assert other["entropy_digit"] == row["entropy_digit"]  # the data are the same


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
    monkeypatch.setattr(recipes, "fast_bf16", lambda _: fast)
    row = run(tiny(precision="auto"))
    assert (
        handed["probed"]["precision"] == handed["precision"] == row["precision_used"] == precision
    )
    assert row["precision"] == "auto"


@pytest.mark.parametrize(("word", "asked"), [("auto", None), ("cpu", "cpu"), ("cuda", "cuda")])
def test_the_device_is_the_recipe_s_or_left_to_the_hardware(handed, monkeypatch, word, asked):
    found = []
    monkeypatch.setattr(
        single, "setup_device", lambda device: found.append(device) or torch.device("cpu")
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


def test_batch_norm_is_synchronised_in_the_method_that_is_trained(handed, monkeypatch):
    spread = []
    monkeypatch.setattr(single, "sync_batch_norm", lambda method, _: spread.append(method))
    run(tiny())
    assert handed["method"] is spread[0]


def test_the_probe_reads_the_views_beside_the_readout_if_there_are_some(handed):
    for view, beside in (("frames:digit", {"past": (0,)}), ("color:rgb/012", {})):
        run(tiny(view=view, data="clips", share_encoder=False, method="supervised"))
        assert handed["probed"]["beside"] == beside


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
        [optim.rate_factor("step", step, 12, 4)] * 2 for step in range(12)
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
    row = {"key": tiny().key, "status": "done", "i_nce": 1.25}
    files.write_json(folder / "row.json", row)
    assert run(tiny(), tmp_path) == run(tiny(), str(tmp_path)) == row
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


def random_states():
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
    return torch.get_rng_state(), random.getstate(), numpy_state


def test_the_caller_s_random_numbers_go_on_as_if_nothing_had_happened():
    torch.manual_seed(7), random.seed(7), np.random.seed(7)  # noqa: NPY002
    before = random_states()
    run(tiny())
    after = random_states()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_a_run_of_no_step_probes_the_network_as_it_was_made(tmp_path, monkeypatch):
    made, build = [], single.build_seeded_method
    monkeypatch.setattr(
        single, "build_seeded_method", lambda *given: made.append(build(*given)) or made[-1]
    )
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
    part, cpu = (torch.arange(6), labels), torch.device("cpu")
    for method, wanted in ((Supervised, {0, 2, 3}), (InfoNCE, set(range(6)))):
        at = single._batches(part, Recipe(batch=3, steps=4), method, cpu)
        assert {int(i) for step in range(4) for i in at(step)[1]} == wanted
    places = labels | {"place": torch.zeros(6, 2)}  # which are known of every image
    at = single._batches((part[0], places), Recipe(batch=3), Supervised, cpu)
    assert {int(i) for step in range(2) for i in at(step)[1]} == set(range(6))


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


def test_tensorboard_that_is_not_installed_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError,
        match=r"tensorboard: it is not installed; run pip install 'infomin\[tensorboard\]'",
    ):
        run(tiny(), tmp_path, tensorboard=True)


def test_what_surrounds_a_run_changes_no_bit_of_it(monkeypatch):
    alone, evaluate, during = run(Recipe(**TINY)), single.evaluate, []

    def observed(*args, **options):
        for matmul in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
            during.append(matmul.fp32_precision)
        return evaluate(*args, **options)

    monkeypatch.setattr(single, "evaluate", observed)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            inside = run(Recipe(**TINY))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert {**inside, "seconds": 0} == {**alone, "seconds": 0}
    assert during == ["ieee", "ieee"]


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
