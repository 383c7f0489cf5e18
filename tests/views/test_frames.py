"""Views of clips: the factors that the image shares with a later frame, and what a probe sees."""

import math
from dataclasses import replace

import pytest
import torch

from infomin import Recipe, run
from infomin.data.datasets import load
from infomin.data.moving_mnist import (
    LATER,
    PAST,
    draw_clips,
    positions,
    render_clips,
    shared_clip_nats,
)
from infomin.data.scenes import World, nats_per_factor, render_scenes
from infomin.views import SharedFactors, SharedFrames, parse

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clips():
    return load("clips", 32)[0].scenes[:64]


def draw_other(share, clips, seed=0):
    return SharedFrames(share).other(clips, torch.Generator().manual_seed(seed))


SHARED = {  # the factors that each word keeps
    "nothing": set(),
    "digit": {"digit"},
    "digit_image": {"digit", "digit_image"},
    "position": {"position"},
    "background": {"background"},
    "background_image": {"background", "background_image"},
    "background_crop": {"background", "background_image", "crop"},
    "digit-position": {"digit", "position"},
    "all": {"digit", "digit_image", "position", "background", "background_image", "crop"},
}


@pytest.mark.parametrize("share", SHARED)
def test_the_named_factors_are_shared_and_no_others(share, clips):
    other = draw_other(share, clips)
    later = positions(clips, [LATER])[:, 0]
    same = {
        name: getattr(other, name) == getattr(clips, name)
        for name in ("digit", "digit_image", "background", "background_image", "crop")
    }
    same["position"] = (other.start == later).all(2)
    for name, equal in same.items():
        fraction = equal.double().mean()
        assert (fraction == 1) == (name in SHARED[share]), (name, fraction)
        assert name in SHARED[share] or fraction < 0.4
    assert (clips.world.digit_class[other.digit_image] == other.digit).all()
    assert (clips.world.background_class[other.background_image] == other.background).all()


def test_the_past_is_frames_one_to_ten_stacked(clips):
    v1, v2 = SharedFrames("digit")(clips, torch.Generator().manual_seed(0))
    frames = render_clips(clips, range(1, PAST + 1), dtype=torch.uint8)
    assert v1.shape == (64, 3 * PAST, 32, 32) and v2.shape == (64, 3, 32, 32)
    assert v1.dtype == v2.dtype == torch.uint8
    for t in range(PAST):
        assert torch.equal(v1[:, 3 * t : 3 * t + 3], frames[:, t])


def test_sharing_everything_or_eval_mode_gives_the_later_frame(clips):
    frame = render_clips(clips, [LATER], dtype=torch.uint8)[:, 0]
    assert torch.equal(SharedFrames("all")(clips)[1], frame)
    view = SharedFrames("nothing").eval()
    assert torch.equal(view(clips)[1], frame) and view.readout == (1,) and view.augments
    assert not torch.equal(view.train()(clips)[1], frame)


def test_draws_depend_only_on_the_generator(clips):
    view = SharedFrames("digit")
    one, two, other = (view(clips, torch.Generator().manual_seed(seed))[1] for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_factors_that_are_not_shared_are_redrawn_each_time(clips):
    one = draw_other("nothing", clips, seed=0).tensors()
    other = draw_other("nothing", clips, seed=1).tensors()
    for name in one.keys() - {"velocity"}:
        assert (one[name] != other[name]).double().mean() > 0.5, name


def test_past_and_later_can_be_set(clips):
    view = SharedFrames("all", past=2, later=3.5)
    past = render_clips(clips, [1, 2], dtype=torch.uint8).flatten(1, 2)
    frame = render_clips(clips, [3.5], dtype=torch.uint8)[:, 0]
    for training in (True, False):
        v1, v2 = view.train(training)(clips)
        assert torch.equal(v1, past) and torch.equal(v2, frame)


def test_positions_that_are_not_shared_are_uncorrelated(clips):
    clips = draw_clips(clips.world, 4000, seed=5)
    other = draw_other("digit", clips)
    later = positions(clips, [LATER])[:, 0, 0]
    correlations = torch.corrcoef(torch.cat([later, other.start[:, 0]], 1).T)
    assert correlations[:2, 2:].abs().max() < 0.06


# sizes of a digit on a canvas of 4 px
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 1), (4, 3)])
def test_the_nats_of_a_position_are_the_entropy_of_its_pixel(height, width):
    one_class = torch.zeros(1, dtype=torch.long)
    digits, backgrounds = torch.zeros(1, height, width).byte(), torch.zeros(1, 3, 4, 4).byte()
    world = World(digits, one_class, backgrounds, one_class, size=4)
    clips = draw_clips(world, 200_000, seed=1, speed=0.3)
    pixel = positions(clips, [LATER])[:, 0, 0].round().long()
    p = (pixel[:, 0] * 4 + pixel[:, 1]).bincount().double().div(len(clips))
    entropy = -float(p.xlogy(p).sum())
    assert SharedFrames("position").nats(clips) == pytest.approx(entropy, abs=4e-3)


def test_the_nats_of_frames_and_scenes_differ_only_for_the_position(clips):
    for share in (
        "nothing",
        "digit",
        "digit%5",
        "digit_image",
        "background_image",
        "background_crop",
        "digit-background",
    ):
        expected = math.fsum(nats_per_factor(clips.world, share).values())
        assert SharedFrames(share).nats(clips) == expected
    nats = SharedFrames("position").nats(clips)
    margin = clips.world.size - clips.world.digits.shape[1]
    assert 2 * math.log(margin) < nats < 2 * math.log(margin + 1)
    assert SharedFrames("digit-position").nats(clips) == pytest.approx(math.log(10) + nats)
    other_grid = replace(clips, world=replace(clips.world, cells=7))
    assert SharedFrames("position").nats(other_grid) == nats
    with pytest.raises(ValueError, match="'position%2': got a position with a modulus"):
        shared_clip_nats(clips, "position%2")


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SharedFrames("colour"), ValueError, "colour"),
        (
            lambda: SharedFrames("digit-position%2"),
            ValueError,
            "'digit-position%2': got a position with a modulus or an error, wanted none",
        ),
        (lambda: SharedFrames("position~0.2"), ValueError, "got a position with a modulus or an"),
        (lambda: SharedFrames("digit", past=0), ValueError, "past"),
        (lambda: SharedFrames("digit", past=1.5), ValueError, "past"),
        (
            lambda: SharedFrames("digit")(torch.zeros(1, 3, 32, 32)),
            TypeError,
            "got Tensor, wanted moving_mnist.Clips of one digit each; use data='clips'",
        ),
        (
            lambda: SharedFrames("digit")(
                draw_clips(load("clips", 32)[0].scenes.world, 2, 0, digits=2)
            ),
            TypeError,
            "got clips of 2 digits",
        ),
        (
            lambda: run(Recipe(view="frames:digit", data="digits")),
            ValueError,
            "not the factors of clips; use data='clips'",
        ),
        (
            lambda: run(Recipe(view="shared:digit", data="clips", size=64)),
            ValueError,
            "not the factors of scenes; use data='digits'",
        ),
        (lambda: Recipe(data="clips:mnist"), ValueError, "wanted clips:DIGITS@BACKGROUNDS"),
    ],
)
def test_mistakes_are_errors(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_labels_and_images_of_the_data_are_those_of_the_later_frame():
    train, test = load("clips", 32)
    assert len(train) == 8192 and len(test) == 4096
    assert set(train.labels) == {"digit", "background", "place"}
    corner = positions(train.scenes[:50], [LATER])[:, 0, 0]
    torch.testing.assert_close(train.labels["place"][:50].double(), corner + 7)  # a digit of 14 px
    assert torch.equal(train.labels["digit"], train.scenes.digit[:, 0])
    frames = render_clips(train.scenes[:5], [LATER], dtype=torch.uint8)[:, 0]
    assert torch.equal(train.images[:5], frames)
    train_digits, test_digits = (
        set(map(tuple, split.scenes.world.digits.flatten(1).tolist())) for split in (train, test)
    )
    assert not train_digits & test_digits, "train and test share no digit"


def test_a_run_probes_the_encoder_of_single_images_and_reports_pixels():
    fields = {
        "view": "frames:position",
        "data": "clips",
        "size": 32,
        "steps": 3,
        "batch": 16,
        "width": 0.25,
    }
    row = run(Recipe(**fields, candidates=32, probe_images=96))
    assert row["status"] == "done" and row["px_place"] > 0
    assert {"acc_digit", "acc_background", "i_nce"} <= set(row) and "acc_place" not in row
    assert row["true_nats"] == pytest.approx(2 * (math.log(18) + math.log(2) / 18))
    assert parse("frames:position").channels == (30, 3)


def test_a_row_has_the_probes_of_both_encoders():
    row = run(
        Recipe(
            view="frames:digit",
            data="clips",
            steps=2,
            batch=8,
            width=0.25,
            probe_images=300,
            candidates=100,
        )
    )
    for suffix in ("", "_past"):
        assert 0 <= row[f"acc_digit{suffix}"] <= 1
        assert 0 <= row[f"knn_background{suffix}"] <= 1
        assert row[f"px_place{suffix}"] > 0
    assert row["px_place"] != row["px_place_past"]
    assert row["entropy_digit"] == row["entropy_digit_past"]


@pytest.mark.parametrize(
    ("view", "beside"),
    [
        ("frames:digit+crop:0.5", {"past": (0,)}),
        ("grey:1+crop:0.3/1|crop:0.2/1", {}),
        ("frames:digit|frames:all", {"past": (2,)}),
    ],
)
def test_compositions_keep_the_views_beside(view, beside):
    assert parse(view).beside == beside


def test_a_probe_reads_the_views_that_the_labels_describe():
    scenes = load("digits")[0].scenes[:16]
    view = SharedFactors("nothing").eval()
    views = view(scenes, torch.Generator().manual_seed(0))
    images = render_scenes(scenes)
    assert view.readout == tuple(i for i, v in enumerate(views) if torch.equal(v, images))


def test_the_past_is_ten_frames_and_the_later_frame_the_twentieth_as_in_the_paper():
    view = SharedFrames("all")
    assert (view.past, view.later) == (10, 20)
