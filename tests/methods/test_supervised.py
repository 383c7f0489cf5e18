"""Supervised learning: its loss against torch's own, what it must not look at, and that it learns."""

import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import launch
from torch.nn.parallel import DistributedDataParallel

from infomin import Recipe, run
from infomin.common import distributed
from infomin.methods import Supervised
from infomin.networks.encoders import build_encoder

torch.set_num_threads(1)
TASKS = {
    "digit": torch.tensor([0, 2, 1, -1]),
    "place": torch.tensor([[0.0, 10.0], [2.0, 30.0], [4.0, 20.0], [6.0, 0.0]]),
}


def method(channels=(3, 3), **others):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supervised(channels, "tiny", 0.25, tasks=TASKS, **others)


def views(n=2, seed=0):
    return torch.rand(n, 4, 3, 24, 24, generator=torch.Generator().manual_seed(seed)).unbind(0)


@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_is_that_of_every_task_and_view(shared):
    found, given = method(shared=shared).eval(), views()
    step = found(given, None, TASKS)
    some, want = TASKS["digit"] >= 0, 0.0
    places = (TASKS["place"] - TASKS["place"].mean(0)) / TASKS["place"].std(0)
    for i, view in zip((0, 0) if shared else (0, 1), given, strict=True):
        h = found.encoders[i](view)
        want += F.cross_entropy(found.heads[i]["digit"](h[some]), TASKS["digit"][some]) / 2
        want += F.mse_loss(found.heads[i]["place"](h), places) / 2
    torch.testing.assert_close(step.loss, want)
    torch.testing.assert_close(
        step.stats["loss_digit"] + step.stats["loss_place"], step.loss.detach()
    )


def test_labels_that_are_unknown_count_for_nothing():
    found, given = method().eval(), views()
    none = found(given, None, TASKS | {"digit": torch.full((4,), -1)})
    assert none.stats["loss_digit"] == 0 and none.loss.isfinite()
    none.loss.backward()
    assert all(p.grad is not None for p in found.parameters()), (
        "every parameter has a gradient, as DDP wants it"
    )


@pytest.mark.parametrize("shared", [False, True])
def test_its_state_comes_back_and_every_parameter_has_a_gradient(shared):
    found = method(shared=shared)
    twin = Supervised(
        (3, 3), "tiny", 0.25, shared, tasks=TASKS | {"place": 2 * TASKS["place"]}
    )  # made for other places
    found(views(), None, TASKS).loss.backward()
    found.after_step()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in found.parameters())
    twin.load_state_dict(found.state_dict())
    assert torch.equal(
        found(views(seed=1), None, TASKS).loss, twin(views(seed=1), None, TASKS).loss
    )


def test_halves_of_a_batch_average_to_the_whole():
    """So that processes which average their gradients have one process's."""
    found, given = method().eval(), views()
    labels = TASKS | {"digit": torch.tensor([0, 2, 1, 1])}
    parts = [slice(0, 2), slice(2, 4)]
    halves = [
        found([v[p] for v in given], None, {k: y[p] for k, y in labels.items()}).loss for p in parts
    ]
    torch.testing.assert_close(sum(halves) / 2, found(given, None, labels).loss)


KNOWN = [
    [0, 2, 1, -1],
    [-1, -1, 1, -1],
]  # to the first process two labels and the second one, or none and one


def gradient(found, digits, part=slice(None)):
    labels = {task: y[part] for task, y in (TASKS | {"digit": torch.tensor(digits)}).items()}
    step = found([v[part] for v in views()], None, labels)
    step.loss.backward()
    return {"stats": step.stats, "gradients": [p.grad for p in found.parameters()]}


def worker(path):
    """What each of two processes finds with its half of the images."""
    distributed.setup_device("cpu")
    mine = slice(2 * distributed.rank(), 2 * distributed.rank() + 2)
    torch.save(
        [gradient(DistributedDataParallel(method().eval()), digits, mine) for digits in KNOWN], path
    )
    distributed.leave_processes()


def test_two_processes_have_one_process_s_gradient_however_known_labels_are_spread(tmp_path):
    whole = [gradient(method().eval(), digits) for digits in KNOWN]
    for each in launch(__file__, tmp_path, 2):
        for found, wanted in zip(each, whole, strict=True):
            torch.testing.assert_close(found["stats"], wanted["stats"])
            torch.testing.assert_close(
                found["gradients"], wanted["gradients"], atol=1e-6, rtol=1e-4
            )


def test_features_are_the_encoders():
    found, given = method().eval(), views()
    for h, encoder, view in zip(found.features(given), found.encoders, given, strict=True):
        assert torch.equal(h, encoder(view))


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_the_networks_are_those_of_the_name_and_width_and_have_an_output_for_each_class_and_number(
    encoder, width
):
    found = Supervised((1, 2), encoder, width, tasks=TASKS)
    for network, heads, channels in zip(found.encoders, found.heads, (1, 2), strict=True):
        wanted = build_encoder(encoder, channels, width)
        assert [p.shape for p in network.parameters()] == [p.shape for p in wanted.parameters()]
        assert {task: head.out_features for task, head in heads.items()} == {"digit": 3, "place": 2}


def test_places_may_be_below_zero_and_all_the_same():
    """They are no classes, of which -1 is none; and what does not vary is not divided by."""
    places = TASKS["place"] - 100
    places[:, 1] = -7
    found = Supervised((3,), "tiny", 0.25, tasks={"place": places}).eval()
    step = found(views(1), None, {"place": places})
    wanted = torch.stack(
        [(places[:, 0] - places[:, 0].mean()) / places[:, 0].std(), torch.zeros(4)], 1
    )
    torch.testing.assert_close(
        step.loss, F.mse_loss(found.heads[0]["place"](found.features(views(1))[0]), wanted)
    )


def test_a_loss_inside_autocast_is_that_of_float32():
    for place in (TASKS["place"], TASKS["place"].double()):
        with torch.autocast("cpu", torch.bfloat16):
            step = method()(views(), None, TASKS | {"place": place})
        assert step.loss.dtype == torch.float32 and all(
            value.dtype == torch.float32 for value in step.stats.values()
        )
    found, places = (
        Supervised((3,), "tiny", 0.25, tasks={"place": TASKS["place"]}).eval(),
        TASKS["place"],
    )
    with torch.autocast("cpu", torch.bfloat16):  # what is wanted is not rounded, what is found is
        loss, rough = (
            found(views(1), None, {"place": places}).loss,
            found.heads[0]["place"](found.features(views(1))[0]),
        )
    torch.testing.assert_close(
        loss,
        F.mse_loss(rough.float(), (places - places.mean(0)) / places.std(0)),
        rtol=1e-6,
        atol=0,
    )


def test_nothing_to_learn_is_told():
    with pytest.raises(ValueError, match="no label of digit"):
        Supervised((3,), "tiny", tasks={"digit": torch.full((4,), -1)})
    with pytest.raises(ValueError, match="no label of any task"):
        Supervised((3,), "tiny", tasks={})
    with pytest.raises(ValueError, match="give each view its own"):
        Supervised((1, 2), "tiny", shared=True, tasks=TASKS)


def test_labels_teach_what_views_alone_do_not():
    fields = {
        "view": "color:rgb/012",
        "steps": 80,
        "batch": 64,
        "size": 24,
        "width": 0.5,
        "candidates": 64,
        "probe_images": 512,
    }
    told = run(Recipe(method="supervised", share_encoder=True, **fields))
    untold = run(Recipe(method="supervised", share_encoder=True, **{**fields, "steps": 1}))
    assert told["acc_digit"] > untold["acc_digit"] + 0.1 and told["status"] == "done"
    assert told["i_nce"] != told["i_nce"], "one view shares nothing with another"


if __name__ == "__main__":
    worker(sys.argv[1])
