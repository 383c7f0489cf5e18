"""Views of clips: what the one image shares with a later frame, what it does not, and what a probe is shown."""

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
from infomin.data.scenes import World, nats_per_factor
from infomin.data.scenes import render_scenes as still
from infomin.views import SharedFactors, SharedFrames, parse

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clips():
    return load("clips", 32)[0].scenes[:64]


def drawn(share, clips, seed=0):
    view = SharedFrames(share)
    return view, view.other(clips, torch.Generator().manual_seed(seed))


FACTS = {  # what each word must keep
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


@pytest.mark.parametrize("share", FACTS)
def test_the_named_factors_are_shared_and_no_others(share, clips):
    _, other = drawn(share, clips)
    later = positions(clips, [LATER])[:, 0]
    same = {
        name: getattr(other, name) == getattr(clips, name)
        for name in ("digit", "digit_image", "background", "background_image", "crop")
    }
    same["position"] = (other.start == later).all(2)
    for name, equal in same.items():
        share_of = equal.double().mean()
        assert (share_of == 1) == (name in FACTS[share]), (name, share_of)
        assert name in FACTS[share] or share_of < 0.4
    assert (clips.world.digit_class[other.digit_image] == other.digit).all()
    assert (clips.world.background_class[other.background_image] == other.background).all()


def test_the_past_is_frames_one_to_ten_stacked(clips):
    v1, v2 = SharedFrames("digit")(clips, torch.Generator().manual_seed(0))
    frames = render_clips(clips, range(1, PAST + 1), dtype=torch.uint8)
    assert (
        v1.shape == (64, 3 * PAST, 32, 32)
        and v2.shape == (64, 3, 32, 32)
        and v1.dtype == v2.dtype == torch.uint8
    )
    for t in range(PAST):
        assert torch.equal(v1[:, 3 * t : 3 * t + 3], frames[:, t])


def test_all_that_is_shared_is_the_later_frame_and_so_is_what_a_probe_is_shown(clips):
    frame = render_clips(clips, [LATER], dtype=torch.uint8)[:, 0]
    assert torch.equal(SharedFrames("all")(clips)[1], frame)
    view = SharedFrames("nothing").eval()
    assert torch.equal(view(clips)[1], frame) and view.readout == (1,) and view.augments
    assert not torch.equal(view.train()(clips)[1], frame)


def test_draws_are_the_generator_s_alone(clips):
    view = SharedFrames("digit")
    one, two, other = (view(clips, torch.Generator().manual_seed(seed))[1] for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_what_is_not_shared_is_drawn_anew_each_time(clips):
    one, other = (drawn("nothing", clips, seed)[1].tensors() for seed in (0, 1))
    for name in one.keys() - {"velocity"}:
        assert (one[name] != other[name]).double().mean() > 0.5, name


def test_past_and_later_may_be_others(clips):
    view = SharedFrames("all", past=2, later=3.5)
    past, frame = (
        render_clips(clips, [1, 2], dtype=torch.uint8).flatten(1, 2),
        render_clips(clips, [3.5], dtype=torch.uint8)[:, 0],
    )
    for training in (True, False):
        v1, v2 = view.train(training)(clips)
        assert torch.equal(v1, past) and torch.equal(v2, frame)


def test_positions_that_are_not_shared_tell_nothing(clips):
    many = draw_clips(clips.world, 4000, seed=5)
    _, other = drawn("digit", many)
    later = positions(many, [LATER])[:, 0, 0]
    table = torch.corrcoef(torch.cat([later, other.start[:, 0]], 1).T)
    assert table[:2, 2:].abs().max() < 0.06


@pytest.mark.parametrize(
    ("height", "width"), [(4, 4), (3, 1), (4, 3)]
)  # of a digit on a canvas of 4 px
def test_the_nats_of_the_place_are_the_entropy_of_the_pixel_that_shows_it(height, width):
    one = torch.zeros(1, dtype=torch.long)
    world = World(
        torch.zeros(1, height, width).byte(), one, torch.zeros(1, 3, 4, 4).byte(), one, size=4
    )
    many = draw_clips(world, 200_000, seed=1, speed=0.3)
    pixel = positions(many, [LATER])[:, 0, 0].round().long()
    share = (pixel[:, 0] * 4 + pixel[:, 1]).bincount().double().div(len(many))
    entropy = -float(share.xlogy(share).sum())
    assert SharedFrames("position").nats(many) == pytest.approx(entropy, abs=4e-3)


def test_the_nats_of_frames_are_those_of_scenes_but_for_the_place(clips):
    for share in (
        "nothing",
        "digit",
        "digit%5",
        "digit_image",
        "background_image",
        "background_crop",
        "digit-background",
    ):
        assert SharedFrames(share).nats(clips) == math.fsum(
            nats_per_factor(clips.world, share).values()
        )
    place, room = (
        SharedFrames("position").nats(clips),
        clips.world.size - clips.world.digits.shape[1],
    )
    assert 2 * math.log(room) < place < 2 * math.log(room + 1)
    assert SharedFrames("digit-position").nats(clips) == pytest.approx(math.log(10) + place)
    assert (
        SharedFrames("position").nats(replace(clips, world=replace(clips.world, cells=7))) == place
    )
    with pytest.raises(ValueError, match="'position%2': got a position with a modulus"):
        shared_clip_nats(clips, "position%2")


@pytest.mark.parametrize(
    ("build", "error", "parts"),
    [
        (lambda: SharedFrames("colour"), ValueError, "colour"),
        (
            lambda: SharedFrames("digit-position%2"),
            ValueError,
            "'digit-position%2': got a position with a modulus, wanted none",
        ),
        (lambda: SharedFrames("digit", past=0), ValueError, "past"),
        (lambda: SharedFrames("digit", past=1.5), ValueError, "past"),
        (
            lambda: SharedFrames("digit")(torch.zeros(1, 3, 32, 32)),
            TypeError,
            "got Tensor, wanted moving_mnist.Clips of a digit each",
        ),
        (
            lambda: SharedFrames("digit")(
                draw_clips(load("clips", 32)[0].scenes.world, 2, 0, digits=2)
            ),
            TypeError,
            "got 2 digits",
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
def test_mistakes_are_told(build, error, parts):
    with pytest.raises(error, match=parts):
        build()


def test_the_data_say_what_the_later_frame_shows():
    train, test = load("clips", 32)
    split = train
    assert (
        len(train) == 8192
        and len(test) == 4096
        and set(split.labels) == {"digit", "background", "place"}
    )
    corner = positions(split.scenes[:50], [LATER])[:, 0, 0]
    torch.testing.assert_close(split.labels["place"][:50].double(), corner + 7)  # a digit of 14 px
    assert torch.equal(split.labels["digit"], split.scenes.digit[:, 0])
    assert torch.equal(
        split.images[:5], render_clips(split.scenes[:5], [LATER], dtype=torch.uint8)[:, 0]
    )
    seen = [set(map(tuple, part.scenes.world.digits.flatten(1).tolist())) for part in (train, test)]
    assert not seen[0] & seen[1], "train and test share no digit"


def test_a_run_reads_the_encoder_of_single_images_and_says_pixels():
    fields = {
        "view": "frames:position",
        "data": "clips",
        "size": 32,
        "steps": 3,
        "batch": 16,
        "width": 0.25,
    }
    row = run(Recipe(**fields, candidates=32, probe_images=96))
    assert (
        row["status"] == "done"
        and row["px_place"] > 0
        and {"acc_digit", "acc_background", "i_nce"} <= set(row)
    )
    assert "acc_place" not in row and row["true_nats"] == pytest.approx(
        2 * (math.log(18) + math.log(2) / 18)
    )
    assert parse("frames:position").channels == (30, 3)


def test_a_row_says_what_both_encoders_have_learned():
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
    for end in ("", "_past"):
        assert (
            0 <= row[f"acc_digit{end}"] <= 1
            and 0 <= row[f"knn_background{end}"] <= 1
            and row[f"px_place{end}"] > 0
        )
    assert (
        row["px_place"] != row["px_place_past"]
        and row["entropy_digit"] == row["entropy_digit_past"]
    )
    chain, pair = parse("frames:digit+crop:0.5"), parse("grey:1+crop:0.3/1|crop:0.2/1")
    assert (
        chain.beside == {"past": (0,)}
        and pair.beside == {}
        and parse("frames:digit|frames:all").beside == {"past": (2,)}
    )


def test_views_that_a_probe_reads_show_what_the_labels_speak_of():
    scenes = load("digits")[0].scenes[:16]
    view = SharedFactors("nothing").eval()
    views = view(scenes, torch.Generator().manual_seed(0))
    assert [i for i, shown in enumerate(views) if torch.equal(shown, still(scenes))] == list(
        view.readout
    )


def test_the_past_is_ten_frames_and_the_later_one_the_twentieth_as_in_the_paper():
    view = SharedFrames("all")
    assert (view.past, view.later) == (10, 20)
