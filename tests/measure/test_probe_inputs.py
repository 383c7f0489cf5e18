"""What probes accept, and the errors for what they do not."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from synthetic import blobs

from infomin.measure import probe
from infomin.measure.estimator import nats
from infomin.measure.probe import knn
from infomin.training.step import Learner


def call_probe(name, **replaced):
    """Call a probe on 20 training and 8 test images, some arguments replaced."""
    x, y = blobs(20)
    arguments = {"train": x, "labels": y, "test": x[:8], "test_labels": y[:8]} | replaced
    return getattr(probe, name)(*arguments.values())


def valid_call(name, x, y):
    """A valid call of a probe or of `nats`, trained and tested on the same features."""
    if name == "nats":
        return partial(nats, [x, x], [x, x], candidates=len(x) // 2)
    targets = x[:, :2] if name == "localisation" else y
    return partial(getattr(probe, name), x, targets, x, targets)


@pytest.mark.parametrize("name", ["linear", "knn"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_may_have_any_integer_type(name, dtype):
    _, y = blobs(20)
    assert call_probe(name, labels=y.to(dtype), test_labels=y[:8].to(dtype)) == call_probe(name)


@pytest.mark.parametrize("name", ["linear", "knn", "localisation"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_features_may_have_any_floating_point_type(name, dtype):
    x = blobs(20)[0]
    targets = {"labels": x[:, :2], "test_labels": x[:8, :2]} if name == "localisation" else {}
    rounded = x.to(dtype)
    result = call_probe(name, train=rounded, test=rounded[:8], **targets)
    expected = call_probe(name, train=rounded.float(), test=rounded[:8].float(), **targets)
    assert result == pytest.approx(expected, abs=1e-3)
    mixed = call_probe(name, train=rounded, test=rounded[:8].float(), **targets)
    assert mixed == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["linear", "localisation", "nats"])
def test_probes_work_without_grad_mode_and_on_features_that_require_gradients(name):
    x, y = blobs(40)
    want = valid_call(name, x, y)()
    with torch.no_grad():
        assert valid_call(name, x, y)() == want
    leaf = x.clone().requires_grad_()
    assert valid_call(name, leaf, y)() == want and leaf.grad is None


@pytest.mark.parametrize("name", ["linear", "knn", "localisation", "nats"])
def test_autocast_around_a_probe_changes_no_bit(name):
    call = valid_call(name, *blobs(64))
    want = call()
    with torch.autocast("cpu", torch.bfloat16):
        assert call() == want


@pytest.mark.parametrize("name", ["linear", "knn", "localisation", "nats"])
def test_inference_tensors_are_accepted(name):
    with torch.inference_mode():
        x, y = blobs(64)
        x = x + 0
    assert math.isfinite(valid_call(name, x, y)())


@pytest.mark.parametrize("name", ["linear", "knn", "localisation", "nats"])
def test_values_far_from_those_of_training_are_no_nan(name):
    x, y = blobs(40)
    far = x.clone()
    far[:5] = 1e30
    if name == "nats":
        assert math.isfinite(nats([1e-30 * x] * 2, [far] * 2, candidates=40).value)
    else:
        targets = x[:, :2] if name == "localisation" else y
        assert math.isfinite(getattr(probe, name)(1e-30 * x, targets, far, targets))


@pytest.mark.parametrize("name", ["linear", "knn", "localisation", "nats"])
def test_probes_work_in_inference_mode_and_with_another_default_dtype(name):
    x, y = blobs(40)
    want = valid_call(name, x, y)()
    with torch.inference_mode():
        assert valid_call(name, 1 * x, 1 * y)() == want
    torch.set_default_dtype(torch.float64)
    try:
        assert float(valid_call(name, x, y)()) == pytest.approx(float(want), abs=0.1)
    finally:
        torch.set_default_dtype(torch.float32)


# Errors

NAN, NUMPY = torch.full((20, 8), torch.nan), np.zeros((20, 8), np.float32)
SHAPE = r"features must have the shape \[N, D\], got"
FLOATING = r"must be a floating-point tensor \[N, D\], got"


@pytest.mark.parametrize("name", ["linear", "knn", "localisation"])
@pytest.mark.parametrize(
    ("replaced", "error", "message"),
    [
        (
            {"labels": torch.zeros(19).long()},
            ValueError,
            "got 20 training features and 19 labels, 8 test features and 8 labels",
        ),
        (
            {"test_labels": torch.zeros(7).long()},
            ValueError,
            "got 20 training features and 20 labels, 8 test features and 7 labels",
        ),
        (
            {"test": torch.zeros(8, 7)},
            ValueError,
            r"must have the same number of columns, got features \[20, 8\] and \[8, 7\]",
        ),
        ({"test": torch.zeros(0, 8)}, ValueError, rf"test {SHAPE} \[0, 8\]"),
        ({"train": torch.zeros(20)}, ValueError, rf"training {SHAPE} \[20\]"),
        ({"train": torch.zeros(20, 2, 4)}, ValueError, rf"training {SHAPE} \[20, 2, 4\]"),
        ({"train": NAN}, ValueError, "training features must be finite, got 160 NaN or Inf"),
        ({"train": torch.zeros(20, 8).long()}, TypeError, f"{FLOATING} torch.int64"),
        ({"train": NUMPY}, TypeError, f"{FLOATING} ndarray"),
    ],
)
def test_wrong_features_and_numbers_of_labels_are_errors(name, replaced, error, message):
    if name == "localisation":
        positions = {"labels": torch.zeros(20), "test_labels": torch.zeros(8)}
        for argument, default in positions.items():
            values = replaced.get(argument, default).float()
            replaced = replaced | {argument: values[:, None].expand(-1, 2)}
    with pytest.raises(error, match=rf"probe\.{name}: .*{message}"):
        call_probe(name, **replaced)


@pytest.mark.parametrize("name", ["linear", "knn"])
@pytest.mark.parametrize(
    ("argument", "labels"), [("labels", "training labels"), ("test_labels", "test labels")]
)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda y: y[:, None],  # would be compared with the prediction of every image
            ValueError,
            r"must have the shape \[N\], got \[\d+, 1\]; pass one class per image",
        ),
        (lambda y: y - 4, ValueError, "must be 0 or more, got -4; drop images without a class"),
        (lambda y: y.float(), TypeError, r"must be an integer tensor \[N\], got torch.float32"),
        (lambda y: y.tolist(), TypeError, r"must be an integer tensor \[N\], got list"),
    ],
)
def test_labels_must_be_one_integer_per_image(name, argument, labels, change, error, message):
    y = torch.arange(20) % 4
    arguments = {"labels": y, "test_labels": y[:8]}
    arguments[argument] = change(arguments[argument])
    with pytest.raises(error, match=rf"probe\.{name}: {labels} {message}"):
        call_probe(name, **arguments)


@pytest.mark.parametrize("name", ["linear", "localisation"])
def test_too_few_images_to_hold_some_out_are_an_error(name):
    message = rf"probe\.{name}: need at least 5 training images \(20 % are held out\), got 4"
    with pytest.raises(ValueError, match=message):
        valid_call(name, *blobs(4))()


@pytest.mark.parametrize("neighbours", [0, -1, 2.5, None, True])
def test_neighbours_are_a_whole_number_above_0(neighbours):
    with pytest.raises(ValueError, match=rf"probe\.knn\(neighbours\): got {neighbours}, wanted"):
        knn(*blobs(8), *blobs(8), neighbours=neighbours)


@pytest.mark.parametrize("name", ["linear", "localisation"])
@pytest.mark.parametrize("penalties", [[], 0.1, [0.1, 0], [0.1, -1], [math.nan], ["a"], None])
def test_penalties_are_numbers_above_0(name, penalties):
    with pytest.raises(ValueError, match=rf"probe\.{name}\(penalties\): got .*, wanted"):
        valid_call(name, *blobs(20))(penalties=penalties)


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (torch.rand(4), TypeError),
        ([0, 1], TypeError),
        (torch.tensor([0, -1]), ValueError),
        (torch.zeros(2, 2).long(), ValueError),
        (torch.zeros(0).long(), ValueError),
    ],
)
def test_an_entropy_needs_classes(labels, error):
    with pytest.raises(error, match=r"probe\.entropy: (labels must|need at least one label)"):
        probe.entropy(labels)


class Returning(Learner):
    def __init__(self, features):
        super().__init__()
        self.returned = features

    def features(self, views):
        return self.returned(*views)


@pytest.mark.parametrize(
    ("features", "got"),
    [
        (lambda a, b: (a,), r"\[\[6, 3, 4, 4\]\] of 2 views"),
        (lambda a, b: (a, b, b), r"\[.*\] of 2 views"),
        (lambda a, b: a, "Tensor of 2 views"),
        (lambda a, b: None, "NoneType of 2 views"),
        (lambda a, b: (a, None), r"\[\[6, 3, 4, 4\], 'NoneType'\] of 2 views"),
        (lambda a, b: (a, b[:5]), r"\[\[6, 3, 4, 4\], \[5, 3, 4, 4\]\] of 2 views"),
        (lambda a, b: (a, b.sum()), r"\[\[6, 3, 4, 4\], \[\]\] of 2 views"),
    ],
)
def test_a_method_returns_features_of_each_image_for_each_view(features, got):
    with pytest.raises(TypeError, match=f"^features: got {got}, wanted a tuple of"):
        probe.extract_features(Returning(features), Doubling(), torch.rand(6, 3, 4, 4))


class Doubling(torch.nn.Module):
    def forward(self, batch, generator):
        return batch, batch


def test_features_of_no_image_or_of_unknown_precision_are_an_error():
    with pytest.raises(ValueError, match="features: need at least one image, got none"):
        probe.extract_features(Returning(None), Doubling(), torch.rand(0, 3, 4, 4))
    with pytest.raises(ValueError, match="features: precision: got 'fp16', wanted one of fp32"):
        probe.extract_features(
            Returning(None), Doubling(), torch.rand(1, 3, 4, 4), precision="fp16"
        )
