"""State is restored bit for bit; files that do not fit or are damaged are refused."""

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
    """A run's initial state: network, optimiser, schedule, generator and plain values."""
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
    values = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in values if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_is_bit_equal(tmp_path, optimizer):
    uninterrupted = advance(build(0, optimizer), 3)
    checkpoint.save(tmp_path / "c.pt", uninterrupted)
    resumed = build(1, optimizer)
    assert checkpoint.fingerprint(resumed) != checkpoint.fingerprint(uninterrupted)
    resumed |= checkpoint.load(tmp_path / "c.pt", resumed)
    assert checkpoint.fingerprint(resumed) == checkpoint.fingerprint(uninterrupted)
    uninterrupted, resumed = advance(uninterrupted, 4), advance(resumed, 4)
    assert checkpoint.fingerprint(resumed) == checkpoint.fingerprint(uninterrupted)
    assert resumed["step"] == 7 and type(resumed["step"]) is int


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_of_weights_and_moments_is_restored(tmp_path, memory_format):
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
    assert checkpoint.fingerprint(got) == checkpoint.fingerprint(state)
    assert got["nested"]["list"] == [1, (2, "x")]
    assert other["step"] == 0 and other["queue"].item() == 0 and got["queue"].item() == 1


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (np.float64(1), "numpy.float64"),
        (np.zeros(2), "numpy.ndarray"),
        ({"deep": [range(3)]}, "range"),
        (print, "builtin"),
    ],
)
def test_values_that_cannot_be_loaded_are_refused_by_save(tmp_path, value, type_name):
    with pytest.raises(TypeError, match=rf"state\['x'\].* must be .*got .*{type_name}.*convert it"):
        checkpoint.save(tmp_path / "c.pt", {"x": value})
    assert not os.listdir(tmp_path)


WRONG = {
    "missing": (lambda s: s | {"head": nn.Linear(2, 2)}, "head: got nothing, wanted stateful"),
    "unknown": (
        lambda s: {k: v for k, v in s.items() if k != "order"},
        "order: got stateful, wanted nothing",
    ),
    "width": (
        lambda s: s | {"net": build(0, width=5)["net"]},
        r"net\.0\.weight: got float32 \[4, 3, 3, 3\], wanted float32 \[5, ",
    ),
    "layer": (
        lambda s: s | {"net": s["net"][:3]},
        r"net\.3\.weight: got float32 \[2, 36\], wanted nothing",
    ),
    "dtype": (
        lambda s: s | {"net": copy.deepcopy(s["net"]).double()},
        r"net\.0\.weight: got float32 .*, wanted float64",
    ),
    "queue": (
        lambda s: s | {"queue": torch.zeros(5)},
        r"queue: got float32 \[4\], wanted float32 \[5\]",
    ),
    "swapped": (
        lambda s: s | {"opt": torch.optim.Adam(list(s["net"].parameters())[::-1])},
        r"parameter 0 of opt: got float32 \[4, ",
    ),
    "fewer": (
        lambda s: s | {"opt": torch.optim.Adam(s["net"][:1].parameters())},
        "parameter 2 of opt: .*wanted nothing",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_state_is_refused_before_anything_is_loaded(tmp_path, case):
    checkpoint.save(tmp_path / "c.pt", advance(build(0), 1))
    change, message = WRONG[case]
    state = change(build(1))
    before = checkpoint.fingerprint(state)
    expected = rf"c\.pt: got the checkpoint of something else, .*{message}.*; delete it and run"
    with pytest.raises(ValueError, match=expected):
        checkpoint.load(tmp_path / "c.pt", state)
    assert checkpoint.fingerprint(state) == before


class Stubborn:
    def state_dict(self):
        return {}

    def load_state_dict(self, _):
        raise KeyError("head")


def test_an_entry_that_rejects_its_saved_state_is_named(tmp_path):
    checkpoint.save(tmp_path / "c.pt", {"bank": Stubborn()})
    message = r"c\.pt: Stubborn 'bank' rejected its saved state \('head'\).*delete it"
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path / "c.pt", {"bank": Stubborn()})


UNREADABLE = r"c\.pt: wanted a whole checkpoint, got one that cannot be read .*; delete it and run"


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "c.pt"
    checkpoint.save(path, build(0))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=UNREADABLE):
        checkpoint.load(path, build(0))


def test_no_flipped_bit_is_read_as_another_number(tmp_path):
    path, want = tmp_path / "c.pt", {"x": torch.arange(40.0)}
    checkpoint.save(path, want)
    data = path.read_bytes()
    refused = 0
    for i in range(0, len(data), 7):
        path.write_bytes(data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :])
        try:
            got = checkpoint.load(path, {"x": torch.zeros(40)})
        except ValueError as error:
            assert "delete it and run the same command again" in str(error)
            refused += 1
        else:  # a padding byte that is not read
            assert torch.equal(got["x"], want["x"])
    assert refused > 50


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("file_format", ["pickle", "checkpoint"])
def test_nothing_is_ever_unpickled(tmp_path, file_format, protocol):
    path, bomb = tmp_path / "c.pt", tmp_path / "bomb"
    data = {"state": {"x": Malicious(bomb)}, "layout": {"x": "plain"}}
    if file_format == "pickle":
        path.write_bytes(pickle.dumps(data, protocol=protocol))
    else:
        torch.save(data, path, pickle_protocol=protocol)
    with pytest.raises(ValueError, match=UNREADABLE) as error:
        checkpoint.load(path, {"x": 0})
    assert not bomb.exists()
    # no cause is shown: torch's message advises weights_only=False
    assert error.value.__cause__ is None and error.value.__suppress_context__
    with path.open("rb") as file:  # unpickling these bytes is indeed harmful
        pickle.load(file) if file_format == "pickle" else torch.load(file, weights_only=False)
    assert bomb.exists()


def test_foreign_and_missing_files_are_errors(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="infomin did not write it"):
        checkpoint.load(tmp_path / "c.pt", {"x": torch.zeros(1)})
    with pytest.raises(FileNotFoundError, match=r"none\.pt: wanted a checkpoint, got no file; del"):
        checkpoint.load(tmp_path / "none.pt", {})


@pytest.mark.parametrize("change", ["complex", "half", "shape", "absent"])
def test_a_file_that_does_not_hold_what_it_declares_is_refused(tmp_path, change):
    path, net = tmp_path / "c.pt", torch.nn.Linear(2, 3)
    state = {"net": net, "queue": torch.zeros(3)}
    checkpoint.save(path, state)
    saved = torch.load(path, weights_only=True)
    changes = {
        "complex": lambda x: x.to(torch.complex64),
        "half": lambda x: x.half(),
        "shape": lambda x: x[:1],
    }
    for part, name in ((saved["state"]["net"], "bias"), (saved["state"], "queue")):
        before = part.pop(name)
        if change in changes:
            part[name] = changes[change](before)
        torch.save(saved, path)
        with pytest.raises(ValueError, match=rf"(?s)c\.pt: .*{name}"):
            checkpoint.load(path, state)
        part[name] = before


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"step": 1})

    def disk_full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match=r"cannot write c\.pt in .*No space left on device"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path, {"step": 0}) == {"step": 1} and os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.uint8, torch.bool, torch.int64]
)
def test_a_fingerprint_depends_on_every_bit_but_not_on_the_memory_format(dtype):
    x = torch.arange(48).reshape(2, 3, 4, 2).to(dtype)
    equal = (x, x.clone(memory_format=torch.channels_last), x.mT.contiguous().mT)
    fingerprints = {checkpoint.fingerprint({"x": y}) for y in equal}
    assert len(fingerprints) == 1
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
    fingerprints |= {checkpoint.fingerprint(other) for other in others}
    assert len(fingerprints) == 1 + len(others)


def test_a_fingerprint_does_not_depend_on_the_order():
    a, b = torch.zeros(2), torch.ones(2)
    fingerprint = checkpoint.fingerprint({"a": a, "b": b})
    assert fingerprint == checkpoint.fingerprint({"b": b, "a": a})
    assert fingerprint != checkpoint.fingerprint({"a": b, "b": a})


def test_a_plain_tensor_is_loaded_to_the_device_of_the_tensor_in_the_state(tmp_path):
    """`meta` is a device that every machine has."""
    path = tmp_path / "checkpoint.pt"
    save(path, {"cpu": torch.ones(2), "meta": torch.ones(2)})
    loaded = load(path, {"cpu": torch.zeros(2), "meta": torch.zeros(2, device="meta")})
    assert torch.equal(loaded["cpu"], torch.ones(2)) and loaded["meta"].device.type == "meta"


@pytest.mark.parametrize("part", [("net",), ("net.head",), ("net.solver",), ("net", "net.head.x")])
def test_names_with_dots_can_be_loaded_in_parts(tmp_path, part):
    """Also where one name begins as another does."""

    def state():
        net = nn.Linear(2, 3)
        solver = torch.optim.AdamW(net.parameters())
        head, other = nn.Linear(3, 1), nn.Linear(1, 1)
        return {"net": net, "net.head": head, "net.head.x": other, "net.solver": solver}

    saved, loaded = state(), state()
    save(tmp_path / "checkpoint.pt", saved)
    assert load(tmp_path / "checkpoint.pt", {name: loaded[name] for name in part}, part=True) == {}
    for name in part:
        prints = [checkpoint.fingerprint({"it": state[name]}) for state in (loaded, saved)]
        assert prints[0] == prints[1]


def test_part_of_a_state_can_be_loaded_if_it_was_saved(tmp_path):
    net = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(net.parameters())
    save(tmp_path / "checkpoint.pt", {"net": net, "solver": optimizer, "step": 7})
    other = nn.Linear(2, 3)
    assert load(tmp_path / "checkpoint.pt", {"net": other}, part=True) == {}
    assert torch.equal(other.weight, net.weight)
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
