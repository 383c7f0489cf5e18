"""What cannot be done is told before it is begun: fields, views, scores."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from errors import RECIPE, TINY, told

import infomin
from infomin.__main__ import main
from infomin.training import loop


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """A sweep of one job on one core has one thread, as `run` has in these tests."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)


WHOLE = ("size", "dim", "steps", "batch", "candidates", "probe_images", "seed")


NUMBERS = ("width", "tau", "lr", "weight_decay", "warmup")


FIELDS = [
    ({"view": "colour:lab"}, ["'colour:lab'", "got 'colour'", "one of aug, bits, blur, color"]),
    ({"view": "color"}, ["'color'", "dial is missing", "the dial of color is", "color:lab"]),
    ({"view": "color:"}, ["'color:'", "dial is missing", "the dial of color is"]),
    ({"view": ""}, ["view ''", "wanted one of aug, bits, blur, color"]),
    ({"view": "color:lap"}, ["got 'lap'", "one of rgb, xyz", "lab, luv"]),
    ({"view": "color:LAB"}, ["got 'LAB'", "lab"]),
    ({"view": "color:lab/0-1"}, ["got '0-1'", "each channel once", "write for example '0-12'"]),
    ({"view": "shared:digits"}, ["'digits'", "got 'digits'", "digit, ", "background"]),
    ({"view": "shared:digit%1"}, ["'digit%1'", "got modulus '1'", "from 2"]),
    ({"view": "shared:digit-digit_image"}, ["names a factor twice", "keep the finer one"]),
    (
        {"view": "shared:digit+color:lab/0-1-2"},
        ["got 2 views and then 3", "wanted equally many", "or one"],
    ),
    ({"view": "shared:digit+colour:lab"}, ["got 'colour'", "one of aug, bits, blur, color"]),
    ({"data": "imagenet"}, ["data", "got 'imagenet'", "one of digits, photos"]),
    ({"encoder": "vgg"}, ["encoder", "got 'vgg'", "one of alexnet, resnet18"]),
    ({"method": "simclr9"}, ["method", "got 'simclr9'", "one of ", "infonce"]),
    ({"head": "big"}, ["head", "got 'big'", "one of none, linear, mlp"]),
    ({"optimizer": "adan"}, ["optimizer", "got 'adan'", "one of sgd, adamw, lars"]),
    ({"schedule": "linear"}, ["schedule", "got 'linear'", "one of cosine, step, constant"]),
    ({"precision": "fp16"}, ["precision", "got 'fp16'", "one of auto, fp32, bf16"]),
    ({"device": "gpu"}, ["device", "got 'gpu'", "one of auto, cpu, cuda"]),
    ({"size": 23}, ["size", "23", "24 to 96"]),
    ({"size": 97}, ["size", "97", "24 to 96"]),
    ({"batch": 1}, ["batch", "got 1", "wanted 2"]),
    ({"batch": 8193}, ["batch", "got 8193", "8192"]),
    ({"candidates": 65}, ["candidates", "must be 2 to 64", "got 65"]),
    (
        {"candidates": 1},
        ["candidates", "must be 2 or more", "got 1"],
    ),  # log 1 = 0: nothing could be measured
    ({"probe_images": 4097}, ["probe_images", "4097", "4096"]),
    ({"probe_images": 4, "candidates": 4}, ["probe_images", "4"]),
    ({"warmup": 1.5}, ["warmup", "0 to 1", "1.5"]),
    (
        {"view": "shared:digit", "data": "photos"},
        ["'shared:digit'", "got data 'photos'", "no known factors", "use data='digits'"],
    ),
    (
        {"view": "color:lab", "share_encoder": True},
        ["shared encoder", "same number of channels", "got (1, 2)", "give each view its own"],
    ),
    ({"view": "color:lab/012"}, ["got 1 view", "wanted 2 or more", "split the image"]),
    *(
        ({name: value}, [name, f"{value!r}", "wanted"])
        for name in WHOLE
        for value in (-1, 2.5, "3", None)
    ),
    *(
        ({name: value}, [name, f"{value!r}", "wanted"])
        for name in NUMBERS
        for value in (-1, "3", None, np.nan, np.inf)
    ),
    *(
        ({name: 0}, [name, "0", "wanted"])
        for name in ("size", "dim", "batch", "width", "tau", "lr", "probe_images")
    ),
    *(
        ({"share_encoder": value}, ["share_encoder", f"got {value!r}", "wanted"])
        for value in ("yes", 2)
    ),
    (
        {"view": "color:lab+color:lab"},
        ["ColorSplit takes images of 3 channels", "got views of 1, 2", "put it before"],
    ),
    *(
        (
            {"view": f"{first}+{second}"},
            ["takes images in [0, 1]", "got views with other values", "put it before the part"],
        )
        for first in (
            "frequency:1",
            "color:rgb/012",
            "crop:0.5+frequency:1",
            "frequency:1+crop:0.5",
        )
        for second in ("color:lab", "grey:0.2", "crop:0.5+jitter:1")
    ),
    (
        {"view": "color:lab+shared:digit"},
        ["second part must take images", "got one that takes scenes", "put it first"],
    ),
    *(({"view": value}, ["view", f"{value!r}", "wanted"]) for value in (None, 3)),
]


@pytest.mark.parametrize(
    ("wrong", "parts"),
    FIELDS,
    ids=[",".join(f"{k}={v}" for k, v in wrong.items()) for wrong, _ in FIELDS],
)
def test_a_wrong_field_is_told_before_anything_is_trained(monkeypatch, wrong, parts):
    monkeypatch.setattr(loop, "_train_step", lambda *_: pytest.fail("trained first"))
    told(parts, lambda: infomin.run(infomin.Recipe(**{**TINY, "view": "color:lab", **wrong})))


def test_an_unknown_field_is_named():
    told(["veiw"], lambda: infomin.Recipe(veiw="color:lab"))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"encoder": "alexnet"},
            ["alexnet", "63 px or more", "got 24x24", "use larger images or another encoder"],
        ),
        (
            {"view": "patch:8/32"},
            [
                "PatchPair",
                "40 px or more",
                "got 24x24",
                "use larger images",
            ],
        ),
    ],
)
def test_what_only_the_images_show_is_told_at_the_first_step(change, parts):
    told(parts, infomin.run, replace(RECIPE, **change))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys, tmp_path):
    told(["cuda", "cpu"], infomin.run, replace(RECIPE, device="cuda"))
    assert main(["run", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "cuda" in capsys.readouterr().err


LAB = infomin.views.parse("color:lab")


HALF = torch.rand(2, 3, 8, 8)


NAN = HALF.clone()


NAN[1, 2, 3, 4] = torch.nan


IMAGES = [
    (HALF[0, 0], ["ColorSplit", "[B, 3, H, W]", "got [8, 8]", "pass a batch"]),
    (
        HALF.movedim(1, 3),
        ["ColorSplit", "[B, 3, H, W]", "got [2, 8, 8, 3]", "permute the axes"],
    ),
    (HALF[:0], ["at least one", "got [0, 3, 8, 8]"]),
    (HALF.long(), ["uint8", "floating point", "got torch.int64", "images.to(torch.uint8)"]),
    (HALF.bool(), ["uint8", "got torch.bool"]),
    (HALF.numpy(), ["torch.Tensor", "got ndarray", "convert"]),
    (None, ["torch.Tensor", "got NoneType"]),
    (HALF * 255, ["in [0, 1]", "got [", "divide by 255 or pass uint8"]),
    (HALF - 0.5, ["in [0, 1]", "got [-0", "divide by 255"]),
    (NAN, ["finite", "got 1 ", "NaN", "repair or drop"]),
]


@pytest.mark.parametrize(("images", "parts"), IMAGES)
def test_wrong_images_are_told_by_the_view_that_was_written(images, parts):
    told(parts, LAB, images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_a_batch_of_one_is_a_batch(dtype):
    image = (HALF[:1] * (255 if dtype == torch.uint8 else 1)).to(dtype)
    for one, many in zip(LAB(image), LAB(image.repeat(2, 1, 1, 1)), strict=True):
        assert one.shape[0] == 1 and torch.equal(one, many[:1])
    assert infomin.infonce(torch.randn(1, 1)).item() == 0  # log 1


def test_scores_that_are_no_matrix():
    for scores in (torch.randn(4), torch.randn(4, 3), torch.randn(2, 4, 4)):
        told(
            ["infonce", "[B, K]", "K >= B", f"got {list(scores.shape)}", "partner"],
            infomin.infonce,
            scores,
        )
