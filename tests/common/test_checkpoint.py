"""State that comes back bit by bit, and files that are refused instead."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from infomin.common import checkpoint
from infomin.common.checkpoint import load, save

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.999)),
    "amsgrad": lambda p: torch.optim.AdamW(
        [{"params": p[:1]}, {"params": p[1:], "lr": 1e-3}], amsgrad=True
    ),
    "plain": lambda p: torch.optim.SGD(p, lr=0.1),
}


def build(seed, optimizer="adam", width=4, memory_format=torch.channels_last):
    """A run's state, not yet stepped: network with batch statistics, optimiser, schedule, generator, plain values."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(9 * width, 2)
    )
    net = net.to(memory_format=memory_format)
    opt = OPTIMIZERS[optimizer](list(net.parameters()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
    order = torch.Generator().manual_seed(seed)
    return {
        "net": net,
        "opt": opt,
        "schedule": schedule,
        "order": order,
        "step": seed,
        "queue": torch.zeros(4),
    }


def advance(state, steps):
    for _ in range(steps):
        x = torch.rand(6, 3, 5, 5, generator=state["order"])
        state["opt"].zero_grad()
        state["net"](x.contiguous(memory_format=torch.channels_last)).pow(2).mean().backward()
        state["opt"].step()
        state["schedule"].step()
        state = state | {"step": state["step"] + 1, "queue": state["queue"] + x[:4, 0, 0, 0]}
    return state


def moments(optimizer):
    return [
        t for per in optimizer.state.values() for t in per.values() if isinstance(t, torch.Tensor)
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stop_and_go_is_bit_equal(tmp_path, optimizer):
    through = advance(build(0, optimizer), 3)
    checkpoint.save(tmp_path / "c.pt", through)
    resumed = build(1, optimizer)
    assert checkpoint.fingerprint(resumed) != checkpoint.fingerprint(through)
    resumed |= checkpoint.load(tmp_path / "c.pt", resumed)
    assert checkpoint.fingerprint(resumed) == checkpoint.fingerprint(through)
    through, resumed = advance(through, 4), advance(resumed, 4)
    assert checkpoint.fingerprint(resumed) == checkpoint.fingerprint(through)
    assert resumed["step"] == 7 and type(resumed["step"]) is int


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_of_weights_and_moments_comes_back(tmp_path, memory_format):
    before = advance(build(0, memory_format=memory_format), 1)
    checkpoint.save(tmp_path / "c.pt", before)
    after = build(1, memory_format=memory_format)
    checkpoint.load(tmp_path / "c.pt", after)
    want = [t.stride() for t in [*before["net"].parameters(), *moments(before["opt"])]]
    assert [t.stride() for t in [*after["net"].parameters(), *moments(after["opt"])]] == want
    assert before["net"][0].weight.is_contiguous(memory_format=memory_format)


def test_plain_values_are_returned_and_not_changed_in_place(tmp_path):
    state = {
        "step": 3,
        "best": None,
        "lr": 0.1,
        "nested": {"list": [1, (2, "x")], 0: torch.arange(3)},
        "queue": torch.ones(1),
    }
    checkpoint.save(tmp_path / "c.pt", state)
    other = {"step": 0, "best": 1.0, "lr": 0.0, "nested": {}, "queue": torch.zeros(1)}
    got = checkpoint.load(tmp_path / "c.pt", other)
    assert checkpoint.fingerprint(got) == checkpoint.fingerprint(state) and got["nested"][
        "list"
    ] == [1, (2, "x")]
    assert other["step"] == 0 and other["queue"].item() == 0 and got["queue"].item() == 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.float64(1), "numpy.float64"),
        (np.zeros(2), "numpy.ndarray"),
        ({"deep": [range(3)]}, "range"),
        (print, "builtin"),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_when_it_is_saved(tmp_path, value, kind):
    with pytest.raises(TypeError, match=rf"state\['x'\].* is a .*{kind}.*convert it"):
        checkpoint.save(tmp_path / "c.pt", {"x": value})
    assert not os.listdir(tmp_path)


WRONG = {
    "missing": (lambda s: s | {"head": nn.Linear(2, 2)}, "head: missing, wanted stateful"),
    "unknown": (
        lambda s: {k: v for k, v in s.items() if k != "order"},
        "order: stateful, wanted no such part",
    ),
    "width": (
        lambda s: s | {"net": build(0, width=5)["net"]},
        r"net\.0\.weight: float32 \[4, 3, 3, 3\], wanted float32 \[5, ",
    ),
    "layer": (
        lambda s: s | {"net": s["net"][:3]},
        r"net\.3\.weight: float32 \[2, 36\], wanted no such part",
    ),
    "dtype": (
        lambda s: s | {"net": copy.deepcopy(s["net"]).double()},
        r"net\.0\.weight: float32 .*, wanted float64",
    ),
    "queue": (
        lambda s: s | {"queue": torch.zeros(5)},
        r"queue: float32 \[4\], wanted float32 \[5\]",
    ),
    "swapped": (
        lambda s: s | {"opt": torch.optim.Adam(list(s["net"].parameters())[::-1])},
        r"parameter 0 of opt: float32 \[4, ",
    ),
    "fewer": (
        lambda s: s | {"opt": torch.optim.Adam(s["net"][:1].parameters())},
        "parameter 2 of opt: .*no such part",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_state_is_refused_before_anything_is_loaded(tmp_path, case):
    checkpoint.save(tmp_path / "c.pt", advance(build(0), 1))
    change, message = WRONG[case]
    state = change(build(1))
    before = checkpoint.fingerprint(state)
    with pytest.raises(
        ValueError,
        match=rf"c\.pt: got the checkpoint of something else, .*{message}.*; delete it and run",
    ):
        checkpoint.load(tmp_path / "c.pt", state)
    assert checkpoint.fingerprint(state) == before


class Stubborn:
    def state_dict(self):
        return {}

    def load_state_dict(self, _):
        raise KeyError("head")


def test_a_thing_that_does_not_take_its_state_back_is_named(tmp_path):
    checkpoint.save(tmp_path / "c.pt", {"bank": Stubborn()})
    with pytest.raises(
        ValueError,
        match=r"c\.pt: Stubborn 'bank' did not take its state back \('head'\).*delete it",
    ):
        checkpoint.load(tmp_path / "c.pt", {"bank": Stubborn()})


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, part):
    path = tmp_path / "c.pt"
    checkpoint.save(path, build(0))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(
        ValueError,
        match=r"c\.pt: wanted a whole checkpoint, got one that cannot be read .*; delete it and run",
    ):
        checkpoint.load(path, build(0))


def test_no_flipped_bit_passes_for_a_number(tmp_path):
    path, want = tmp_path / "c.pt", {"x": torch.arange(40.0)}
    checkpoint.save(path, want)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            got = checkpoint.load(path, {"x": torch.zeros(40)})
        except ValueError as error:
            assert "delete it and run the same command again" in str(error)
            refused += 1
        else:  # a byte between the parts, which nobody reads
            assert torch.equal(got["x"], want["x"])
    assert refused > 50


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", ["pickle", "checkpoint"])
def test_nothing_is_ever_unpickled(tmp_path, kind, protocol):
    path, bomb = tmp_path / "c.pt", tmp_path / "bomb"
    data = {"state": {"x": Malicious(bomb)}, "layout": {"x": "plain"}}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(data, protocol=protocol))
    else:
        torch.save(data, path, pickle_protocol=protocol)
    with pytest.raises(
        ValueError, match=r"c\.pt: wanted a whole checkpoint, got .*; delete it and run"
    ) as error:
        checkpoint.load(path, {"x": 0})
    assert not bomb.exists()
    assert (
        error.value.__cause__ is None and error.value.__suppress_context__
    )  # torch's advice would be weights_only=False
    with path.open("rb") as file:  # which does harm, with these very bytes
        pickle.load(file) if kind == "pickle" else torch.load(file, weights_only=False)
    assert bomb.exists()


def test_a_foreign_file_is_refused_and_a_missing_one_is_missing(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="infomin did not write it"):
        checkpoint.load(tmp_path / "c.pt", {"x": torch.zeros(1)})
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.pt", {})


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"step": 1})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write c\.pt in .*No space left on device"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path, {"step": 0}) == {"step": 1} and os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.uint8, torch.bool, torch.int64]
)
def test_a_fingerprint_sees_every_bit_but_not_the_layout(dtype):
    x = torch.arange(48).reshape(2, 3, 4, 2).to(dtype)
    prints = {
        checkpoint.fingerprint({"x": y})
        for y in (x, x.clone(memory_format=torch.channels_last), x.mT.contiguous().mT)
    }
    assert len(prints) == 1
    flipped = x.clone()
    flipped.view(-1).view(torch.uint8)[-1] ^= 1
    others = [
        {"x": flipped},
        {"y": x},
        {"x": x.reshape(2, 3, 8)},
        {"x": x.tolist()},
        {"x": [x]},
        {"x": x, "step": 0},
    ]
    assert len({checkpoint.fingerprint(other) for other in others} | prints) == 1 + len(others)


def test_a_fingerprint_does_not_depend_on_the_order():
    a, b = torch.zeros(2), torch.ones(2)
    one, other, swapped = (
        checkpoint.fingerprint(state)
        for state in ({"a": a, "b": b}, {"b": b, "a": a}, {"a": b, "b": a})
    )
    assert one == other != swapped


def test_a_plain_tensor_comes_back_on_the_device_of_the_one_that_is_given(tmp_path):
    """`meta` is a device that every machine has."""
    save(tmp_path / "checkpoint.pt", {"here": torch.ones(2), "there": torch.ones(2)})
    found = load(
        tmp_path / "checkpoint.pt", {"here": torch.zeros(2), "there": torch.zeros(2, device="meta")}
    )
    assert torch.equal(found["here"], torch.ones(2)) and found["there"].device.type == "meta"


def test_a_part_of_a_state_is_loaded_alone_and_has_to_be_there(tmp_path):
    net = nn.Linear(2, 3)
    solver = torch.optim.AdamW(net.parameters())
    save(tmp_path / "checkpoint.pt", {"net": net, "solver": solver, "step": 7})
    other = nn.Linear(2, 3)
    assert load(tmp_path / "checkpoint.pt", {"net": other}, part=True) == {} and torch.equal(
        other.weight, net.weight
    )
    assert load(tmp_path / "checkpoint.pt", {"step": 0}, part=True) == {"step": 7}
    for wrong in (
        {"net": nn.Linear(2, 4)},
        {"net": nn.Sequential(nn.Linear(2, 3))},
        {"network": other},
        {"net": net, "x": 1},
    ):
        with pytest.raises(ValueError, match="got the checkpoint of something else"):
            load(tmp_path / "checkpoint.pt", wrong, part=True)
    with pytest.raises(ValueError, match=r"got the checkpoint of something else, .*solver"):
        load(tmp_path / "checkpoint.pt", {"net": other})
