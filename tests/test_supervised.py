"""Supervised learning: its loss against torch's own, what it must not look at, and that it learns."""

import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import launch
from torch.nn.parallel import DistributedDataParallel

from infomin import Recipe, dist, run
from infomin.methods import Supervised

torch.set_num_threads(1)
TASKS = {"digit": torch.tensor([0, 2, 1, -1]), "place": torch.tensor([[0.0, 10.0], [2.0, 30.0], [4.0, 20.0], [6.0, 0.0]])}


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
    torch.testing.assert_close(step.stats["loss_digit"] + step.stats["loss_place"], step.loss.detach())


def test_labels_that_are_unknown_count_for_nothing():
    found, given = method().eval(), views()
    none = found(given, None, TASKS | {"digit": torch.full((4,), -1)})
    assert none.stats["loss_digit"] == 0 and none.loss.isfinite()
    none.loss.backward()
    assert all(p.grad is not None for p in found.parameters()), "every parameter has a gradient, as DDP wants it"


@pytest.mark.parametrize("shared", [False, True])
def test_its_state_comes_back_and_every_parameter_has_a_gradient(shared):
    found, twin = method(shared=shared), method(shared=shared)
    found(views(), None, TASKS).loss.backward()
    found.after_step()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in found.parameters())
    twin.load_state_dict(found.state_dict())
    assert torch.equal(found(views(seed=1), None, TASKS).loss, twin(views(seed=1), None, TASKS).loss)


def test_halves_of_a_batch_average_to_the_whole():
    """So that processes which average their gradients have one process's."""
    found, given = method().eval(), views()
    labels = TASKS | {"digit": torch.tensor([0, 2, 1, 1])}
    parts = [slice(0, 2), slice(2, 4)]
    halves = [found([v[p] for v in given], None, {k: y[p] for k, y in labels.items()}).loss for p in parts]
    torch.testing.assert_close(sum(halves) / 2, found(given, None, labels).loss)


def worker(path):
    """What each of two processes finds with its half of the images: of three known labels the first one has two."""
    dist.start("cpu")
    mine = slice(2 * dist.rank(), 2 * dist.rank() + 2)
    found = DistributedDataParallel(method().eval())
    step = found([v[mine] for v in views()], None, {task: labels[mine] for task, labels in TASKS.items()})
    step.loss.backward()
    torch.save({"stats": step.stats, "gradients": [p.grad for p in found.parameters()]}, path)
    dist.stop()


def test_two_processes_have_one_process_s_gradient_however_known_labels_are_spread(tmp_path):
    whole = method().eval()
    step = whole(views(), None, TASKS)
    step.loss.backward()
    for found in launch(__file__, tmp_path, 2):
        torch.testing.assert_close(found["stats"], step.stats)
        torch.testing.assert_close(found["gradients"], [p.grad for p in whole.parameters()], atol=1e-6, rtol=1e-4)


def test_features_are_the_encoders():
    found, given = method().eval(), views()
    for h, encoder, view in zip(found.features(given), found.encoders, given, strict=True):
        assert torch.equal(h, encoder(view))


def test_nothing_to_learn_is_told():
    with pytest.raises(ValueError, match="no label of digit"):
        Supervised((3,), "tiny", tasks={"digit": torch.full((4,), -1)})
    with pytest.raises(ValueError, match="no label of any task"):
        Supervised((3,), "tiny", tasks={})
    with pytest.raises(ValueError, match="give each view its own"):
        Supervised((1, 2), "tiny", shared=True, tasks=TASKS)


def test_labels_teach_what_views_alone_do_not():
    fields = {"view": "color:rgb/012", "steps": 80, "batch": 64, "size": 24, "width": 0.5, "candidates": 64, "probe_images": 512}
    told = run(Recipe(method="supervised", share_encoder=True, **fields))
    untold = run(Recipe(method="supervised", share_encoder=True, **{**fields, "steps": 1}))
    assert told["acc_digit"] > untold["acc_digit"] + 0.1 and told["status"] == "done"
    assert told["i_nce"] != told["i_nce"], "one view shares nothing with another"


if __name__ == "__main__":
    worker(sys.argv[1])
