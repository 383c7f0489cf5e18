"""Another device than the CPU gives the same numbers, and a training step does not wait for it."""

import copy
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from elsewhere import ELSEWHERE, Away, elsewhere
from helpers import GAME

from infomin import Recipe, data, learn, run
from infomin.common.files import read_log
from infomin.data.moving_mnist import draw_clips, render_clips
from infomin.data.scenes import draw_partner, draw_scenes, render_scenes
from infomin.runs.view_learning import Learning
from infomin.training import loop
from infomin.views import parse

VIEWS = ["color:lab", "color:hsv", "color:luv/012", "patch:3/7", "frequency:0.5-2"]
VIEWS += ["crop:0.2", "flip:0.5", "jitter:1", "grey:0.5"]
VIEWS += [
    "blur:0.9",
    "randaugment:7",
    "jigsaw:2",
    "multicrop:2x8-1x5",
    "aug:infomin",
    "aug:simclr",
    "crop:0.2+color:lab",
]
IMAGES = torch.randint(
    256, (16, 3, 18, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
SMALL = {
    "batch": 16,
    "width": 0.25,
    "dim": 16,
    "probe_images": 64,
    "candidates": 16,
    "precision": "fp32",
}


def seed(number):
    return torch.Generator().manual_seed(number)


@pytest.fixture(autouse=True)
def ordinary_autocast(monkeypatch):
    """torch.autocast does not know `meta`; where it is off it has nothing to do."""
    real = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *args, **options: (
            nullcontext() if kind == "meta" else real(kind, *args, **options)
        ),
    )


# --- the device itself ---


def test_elsewhere_has_values_and_gradients():
    layer, x = torch.nn.Linear(3, 2), torch.rand(4, 3)
    layer(x).square().sum().backward()
    with elsewhere():
        there = copy.deepcopy(layer).to(ELSEWHERE)
        there.zero_grad()
        there(x.to(ELSEWHERE)).square().sum().backward()
        assert there.weight.device == ELSEWHERE and isinstance(there.weight.grad, Away)
        assert torch.equal(there.weight.grad.cpu(), layer.weight.grad)


def test_tensors_of_two_devices_do_not_meet():
    with elsewhere():
        there = torch.zeros(3, device=ELSEWHERE)
        assert (there + torch.tensor(1.0))[torch.tensor([0, 2])].tolist() == [1, 1]
        for mix in (
            lambda: there + torch.ones(3),
            lambda: torch.ones(3)[there.long()],
            there.numpy,
        ):
            with pytest.raises((RuntimeError, TypeError)):
                mix()


def test_waits_are_counted():
    with elsewhere() as waits:
        x = torch.ones(3).to(ELSEWHERE, non_blocking=True) * 2
        assert not waits
        for n, wait in enumerate(
            (
                lambda: torch.ones(3).to(ELSEWHERE),
                lambda: torch.tensor([1.0], device=ELSEWHERE),
                lambda: x.sum().item(),
                x.cpu,
                lambda: x.to("cpu", non_blocking=True),
                lambda: x[x > 1],
                lambda: x[torch.tensor([0])],
                x.nonzero,
            )
        ):
            wait()
            assert waits.total() == n + 1


# --- views, scenes, clips ---


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_the_same_elsewhere_and_wait_for_nothing(name):
    view = parse(name)
    expected = view(IMAGES, seed(0))
    with elsewhere() as waits:
        found = view(IMAGES.to(ELSEWHERE, non_blocking=True), seed(0))
        assert waits == Counter() and all(isinstance(v, Away) for v in found)
    for v, w in zip(found, expected, strict=True):
        torch.testing.assert_close(v.here, w, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_floats_wait_once_to_see_that_they_are_in_range(name):
    view = parse(name)
    with elsewhere() as waits:
        view((IMAGES / 255).to(ELSEWHERE, non_blocking=True), seed(0))
        assert waits.total() == 1


@pytest.mark.parametrize(
    "share", ["nothing", "digit", "digit%5-position%2", "background_image", "all"]
)
def test_scenes_are_the_same_elsewhere_and_wait_for_nothing(share):
    scenes = data.load("digits", 24)[0].scenes[:8]
    mates = draw_partner(scenes, share, seed(0))
    again = draw_scenes(scenes.world, 8, seed(1))
    with elsewhere() as waits:
        there = scenes.to(ELSEWHERE)
        there.world.check()  # counts the pictures of each class, once
        waits.clear()
        found, drawn = draw_partner(there, share, seed(0)), draw_scenes(there.world, 8, seed(1))
        pictures = render_scenes(found)
        assert waits == Counter()
    for there, here in ((found, mates), (drawn, again)):
        assert all(
            torch.equal(value.here, here.tensors()[name]) for name, value in there.tensors().items()
        )
    torch.testing.assert_close(pictures.here, render_scenes(mates))


@pytest.mark.parametrize("subpixel", [False, True])
def test_clips_are_the_same_elsewhere_and_wait_only_to_see_that_places_are_finite(subpixel):
    world = data.load("clips", 32)[0].scenes.world
    clips = draw_clips(world, 6, 3, digits=2)
    with elsewhere() as waits:
        world = world.to(ELSEWHERE)
        world.check()
        waits.clear()
        there = draw_clips(world, 6, 3, digits=2)
        assert waits == Counter()
        frames = render_clips(there, range(4), subpixel, torch.uint8)
        assert (
            list(waits) == ["moving_mnist.py positions: if bad := int((~path.isfinite()).sum()):"]
            and waits.total() == 1
        )
    assert all(
        torch.equal(value.here, clips.tensors()[name]) for name, value in there.tensors().items()
    )
    assert torch.equal(frames.here, render_clips(clips, range(4), subpixel, torch.uint8))


# --- whole runs ---


def watched(monkeypatch, waits):
    """The waits so far whenever a training step begins or ends."""
    step, ends = loop._train_step, []

    def counting(*args):
        ends.append(Counter(waits))
        stats = step(*args)
        ends.append(Counter(waits))
        return stats

    monkeypatch.setattr(loop, "_train_step", counting)
    return ends


RUNS = {
    "shared:digit": {"data": "digits", "size": 24},
    "shared:digit-position+crop:0.5+color:lab": {"data": "digits", "size": 24},
    "crop:0.2+jitter:1": {"data": "photos", "size": 24, "optimizer": "sgd", "head": "mlp"},
    "crop:0.5+color:lab": {
        "data": "digits",
        "size": 24,
        "method": "supervised",
        "optimizer": "lars",
    },
    "frames:digit": {"data": "clips", "size": 32},
}


@pytest.mark.parametrize("view", RUNS)
def test_a_run_is_the_same_elsewhere_and_its_steps_wait_for_nothing(monkeypatch, view):
    recipe = Recipe(view=view, steps=4, **SMALL, **RUNS[view])
    expected = run(recipe)
    monkeypatch.setattr("infomin.runs.single.setup_device", lambda device: ELSEWHERE)
    with elsewhere() as waits:
        ends = watched(monkeypatch, waits)
        found = run(recipe)
    told = {
        "moving_mnist.py positions: if bad := int((~path.isfinite()).sum()):": 6
    }  # of a bad clip; two are drawn in a step
    # after the first step, in which the pictures of each class are counted, once
    assert ends[-1] - ends[1] == (told if view.startswith("frames") else {})
    assert found["device_used"] == "meta" and found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float) and name.startswith(("i_nce", "acc_", "knn_", "px_", "true_")):
            assert found[name] == pytest.approx(value, abs=0.1, rel=0.05, nan_ok=True), name


def test_a_game_is_the_same_elsewhere_and_waits_for_labels_and_the_range_of_its_crops(
    monkeypatch, tmp_path
):
    recipe = Learning(**GAME | {"steps": 4})
    learn(recipe, tmp_path / "here")
    monkeypatch.setattr("infomin.runs.view_learning.setup_device", lambda device: ELSEWHERE)
    with elsewhere() as waits:
        ends = watched(monkeypatch, waits)
        learn(recipe, tmp_path / "there")
    # of the game and, without labels, of fresh critics
    steps = [after - before for before, after in zip(ends[::2], ends[1::2], strict=True)]
    total = sum(steps, Counter())
    assert total.pop("game.py _classify: labelled = (labels >= 0).nonzero()[:, 0]") == 4
    ((place, count),) = total.items()  # the generator checks both crops
    assert place.startswith("checks.py _check_values") and count == 8
    expected, found = (
        read_log(tmp_path / where / recipe.key / "log.jsonl") for where in ("here", "there")
    )
    assert len(found) == len(expected) == 2 and "i_nce_fresh" in found[0]
    for row, there in zip(expected, found, strict=True):
        assert there == pytest.approx(row, abs=0.02)
