"""Supervised learning: its loss against torch's own, what it must ignore, and that it learns."""

import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import context, launch
from torch.nn.parallel import DistributedDataParallel

from infomin import Recipe, run
from infomin.common import distributed
from infomin.data.datasets import Split
from infomin.methods import Supervised
from infomin.networks.encoders import build_encoder
from infomin.runs.single import build_context
from infomin.training.step import make_batch
from infomin.views import parse

torch.set_num_threads(1)
LABELS = {
    "digit": torch.tensor([0, 2, 1, -1]),
    "place": torch.tensor([[0.0, 10.0], [2.0, 30.0], [4.0, 20.0], [6.0, 0.0]]),
}


def describe(labels):
    """What a run's method knows about these labels."""
    shapes = ((1, 24, 24), (2, 24, 24))
    return build_context(Recipe(), parse("color:rgb/0-12"), shapes, Split(labels)).tasks


def build(channels=(3, 3), shared=False, labels=LABELS, encoder="tiny", width=0.25):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supervised(context(channels, encoder, width, shared, tasks=describe(labels)))


def step(method, views, labels=LABELS):
    return method(views, make_batch(len(views[0]), labels))


def random_views(n=2, seed=0):
    return torch.rand(n, 4, 3, 24, 24, generator=torch.Generator().manual_seed(seed)).unbind(0)


def standardised(places):
    return (places - places.mean(0)) / places.std(0)


@pytest.mark.parametrize("shared", [False, True])
def test_the_loss_sums_tasks_and_averages_views(shared):
    method, views = build(shared=shared).eval(), random_views()
    result = step(method, views)
    known = LABELS["digit"] >= 0
    expected = 0.0
    for i, view in zip((0, 0) if shared else (0, 1), views, strict=True):
        h, heads = method.encoders[i](view), method.heads[i]
        expected += F.cross_entropy(heads["digit"](h[known]), LABELS["digit"][known]) / 2
        expected += F.mse_loss(heads["place"](h), standardised(LABELS["place"])) / 2
    torch.testing.assert_close(result.loss, expected)
    task_losses = result.stats["loss_digit"] + result.stats["loss_place"]
    torch.testing.assert_close(task_losses, result.loss.detach())


def test_unknown_labels_do_not_count():
    method, views = build().eval(), random_views()
    result = step(method, views, LABELS | {"digit": torch.full((4,), -1)})
    assert result.stats["loss_digit"] == 0 and result.loss.isfinite()
    result.loss.backward()
    assert all(p.grad is not None for p in method.parameters()), "DDP needs every gradient"


@pytest.mark.parametrize("shared", [False, True])
def test_its_state_can_be_loaded_and_every_parameter_has_a_gradient(shared):
    method = build(shared=shared)
    twin = build(shared=shared, labels=LABELS | {"place": 2 * LABELS["place"]})
    step(method, random_views()).loss.backward()
    method.after_step(0)
    assert all(p.grad.isfinite().all() and p.grad.any() for p in method.parameters())
    twin.load_state_dict(method.state_dict())
    views = random_views(seed=1)
    assert torch.equal(step(method, views).loss, step(twin, views).loss)


def test_the_halves_of_a_batch_average_to_the_whole():
    """So processes that average their gradients have the gradient of one process."""
    method, views = build().eval(), random_views()
    labels = LABELS | {"digit": torch.tensor([0, 2, 1, 1])}
    losses = []
    for half in (slice(0, 2), slice(2, 4)):
        half_labels = {task: y[half] for task, y in labels.items()}
        losses.append(step(method, [v[half] for v in views], half_labels).loss)
    torch.testing.assert_close(sum(losses) / 2, step(method, views, labels).loss)


# Labels known to the first and to the second process: two and one, or none and one.
DIGITS = [[0, 2, 1, -1], [-1, -1, 1, -1]]


def gradient(method, digits, rows=slice(None)):
    labels = LABELS | {"digit": torch.tensor(digits)}
    selected = {task: y[rows] for task, y in labels.items()}
    result = step(method, [v[rows] for v in random_views()], selected)
    result.loss.backward()
    return {"stats": result.stats, "gradients": [p.grad for p in method.parameters()]}


def worker(path):
    """Run by each of two processes, on its half of the images."""
    distributed.setup_device("cpu")
    rows = slice(2 * distributed.rank(), 2 * distributed.rank() + 2)
    results = [gradient(DistributedDataParallel(build().eval()), digits, rows) for digits in DIGITS]
    torch.save(results, path)
    distributed.leave_processes()


def test_two_processes_have_the_gradient_of_one_whichever_labels_are_known(tmp_path):
    whole = [gradient(build().eval(), digits) for digits in DIGITS]
    for results in launch(__file__, tmp_path, 2):
        for result, expected in zip(results, whole, strict=True):
            torch.testing.assert_close(result["stats"], expected["stats"])
            gradients = result["gradients"], expected["gradients"]
            torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_features_are_those_of_the_encoders():
    method, views = build().eval(), random_views()
    for h, encoder, view in zip(method.features(views), method.encoders, views, strict=True):
        assert torch.equal(h, encoder(view))


@pytest.mark.parametrize(("encoder", "width"), [("tiny", 0.25), ("tiny", 1.0), ("resnet18", 0.25)])
def test_networks_have_the_name_and_width_asked_for_and_one_output_per_class_or_coordinate(
    encoder, width
):
    method = build((1, 2), encoder=encoder, width=width)
    for built, heads, channels in zip(method.encoders, method.heads, (1, 2), strict=True):
        expected = build_encoder(encoder, channels, width)
        assert [p.shape for p in built.parameters()] == [p.shape for p in expected.parameters()]
        assert {task: head.out_features for task, head in heads.items()} == {"digit": 3, "place": 2}


def test_positions_may_be_negative_or_constant():
    """-1 is a valid coordinate, and a deviation of zero is not divided by."""
    places = LABELS["place"] - 100
    places[:, 1] = -7
    method = build((3,), labels={"place": places}).eval()
    result = step(method, random_views(1), {"place": places})
    targets = torch.stack([standardised(places)[:, 0], torch.zeros(4)], 1)
    outputs = method.heads[0]["place"](method.features(random_views(1))[0])
    torch.testing.assert_close(result.loss, F.mse_loss(outputs, targets))


@pytest.mark.parametrize("places", [LABELS["place"], LABELS["place"].double()])
def test_losses_in_autocast_are_float32(places):
    with torch.autocast("cpu", torch.bfloat16):
        result = step(build(), random_views(), LABELS | {"place": places})
    losses = [result.loss, *result.stats.values()]
    assert all(loss.dtype == torch.float32 for loss in losses)


def test_autocast_rounds_outputs_but_not_targets():
    places = LABELS["place"]
    method = build((3,), labels={"place": places}).eval()
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(method, random_views(1), {"place": places}).loss
        outputs = method.heads[0]["place"](method.features(random_views(1))[0])
    expected = F.mse_loss(outputs.float(), standardised(places))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_nothing_to_learn_is_an_error():
    with pytest.raises(ValueError, match="Supervised: needs labels, got none for digit; use other"):
        build((3,), labels={"digit": torch.full((4,), -1)})
    with pytest.raises(ValueError, match="Supervised: needs labels, got none for any task; use"):
        Supervised(context((3,), tasks={}))
    with pytest.raises(ValueError, match="give each view its own"):
        build((1, 2), shared=True)


def test_labels_teach_what_views_alone_do_not():
    fields = {
        "view": "color:rgb/012",
        "batch": 64,
        "size": 24,
        "width": 0.5,
        "candidates": 64,
        "probe_images": 512,
        "share_encoder": True,
    }
    supervised = run(Recipe(method="supervised", steps=80, **fields))
    untrained = run(Recipe(method="supervised", steps=1, **fields))
    assert supervised["acc_digit"] > untrained["acc_digit"] + 0.1
    assert supervised["status"] == "done"
    assert supervised["i_nce"] != supervised["i_nce"], "NaN: a single view has no pair"


if __name__ == "__main__":
    worker(sys.argv[1])
