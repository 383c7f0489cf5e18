"""A flow travels as one file, and a file that is not whole, not ours or not of this version says so."""

import json
import os
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from infomin.views import flow_parts
from infomin.views.flow import FlowSplit, PixelFlow, learned

torch.set_num_threads(1)
IMAGES = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def wild(**settings: Any) -> PixelFlow:
    flow, g = PixelFlow(**settings), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=g))
    return flow


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a small flow."""
    wild(couplings=2, hidden=2).save(tmp_path / "small.safetensors", data="digits", seed=0)
    return tmp_path / "small.safetensors"


def facts_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    facts: dict[str, Any] = json.loads(
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][
            "infomin.PixelFlow"
        ]
    )
    return facts


def rewrite(path: Path, change: Callable[[dict, dict], None], sealed: bool = True) -> None:
    """Change metadata or tensors, and write the file with the checksum that then is right, unless not sealed."""
    tensors, facts = safetensors.torch.load(path.read_bytes()), facts_of(path)
    change(facts, tensors)
    if sealed:
        del facts["sha256"]
        facts["sha256"] = flow_parts.fingerprint(
            {"facts": json.dumps(facts, sort_keys=True), "tensors": tensors}
        )
    path.write_bytes(safetensors.torch.save(tensors, {"infomin.PixelFlow": json.dumps(facts)}))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"channels": 5, "couplings": 3, "hidden": 7, "depth": 2},
        {"volume_preserving": False, "space": "ydbdr", "depth": 0},
        {"order": ((1, 2), (0,)), "seed": 9},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flow_comes_back_bit_by_bit(tmp_path: Path, settings: dict, dtype: torch.dtype) -> None:
    flow = wild(**settings).to(dtype)
    flow.save(tmp_path / "new" / "learned.safetensors")
    again = PixelFlow.load(str(tmp_path / "new" / "learned.safetensors"))
    assert again.config == flow.config and repr(again) == repr(flow) and again.provenance == {}
    ours, theirs = flow.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )
    assert all(p.dtype == dtype and p.requires_grad for p in again.parameters())
    x = torch.rand(2, flow.channels, 6, 5)
    assert torch.equal(again(x), flow(x)) and torch.equal(again.log_det(x), flow.log_det(x))


def test_loading_draws_nothing_from_the_global_state(small: Path) -> None:
    before = torch.get_rng_state()
    PixelFlow.load(small)
    assert torch.equal(torch.get_rng_state(), before)


def test_provenance_travels_and_the_same_flow_gives_the_same_bytes(tmp_path: Path) -> None:
    told = {
        "commit": "1a2b3c",
        "recipe": {"view": "color:lab"},
        "data": "stl10",
        "seed": 0,
        "metrics": {"i_nce": 1.5},
    }
    flow = wild()
    flow.save(tmp_path / "a", **told)
    flow.save(tmp_path / "b", **dict(reversed(told.items())))
    assert PixelFlow.load(tmp_path / "a").provenance == told
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    facts = facts_of(tmp_path / "a")
    assert facts["version"] == 1 and facts["config"]["couplings"] == 4  # any program can read them
    assert (
        set(facts) == {"version", "config", "provenance", "sha256"} and len(facts["sha256"]) == 64
    )
    flow.save(
        tmp_path / "c", table={10: "ten", 9: "nine"}
    )  # JSON's keys are words, and their order is another
    assert PixelFlow.load(tmp_path / "c").provenance == {"table": {"10": "ten", "9": "nine"}}


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "object"),
        (torch.tensor(3), "Tensor"),
        ({"i_nce": torch.tensor(3)}, "dict"),
        (LOOP, "list"),
    ],
)
def test_a_provenance_that_cannot_be_written_is_named_and_leaves_the_older_file(
    small: Path, value: Any, what: str
) -> None:
    before = small.read_bytes()
    said = rf"PixelFlow\.save\(metrics\): got a {what} \(.*\), wanted what JSON has a word for; pass words, plain numbers"
    with pytest.raises(ValueError, match=said):
        wild().save(small, data="digits", metrics=value)
    assert small.read_bytes() == before and os.listdir(small.parent) == [small.name]


def test_a_write_that_fails_leaves_the_older_file(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        OSError, match=r"cannot write small.safetensors.*what was there is as it was"
    ):
        wild().save(small)
    assert small.read_bytes() == before and os.listdir(small.parent) == [small.name]


def test_a_flipped_bit_anywhere_is_an_error(small: Path) -> None:
    whole = small.read_bytes()
    PixelFlow.load(small)
    for at in range(len(whole)):
        small.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(
            ValueError,
            match=r"small.safetensors: got .*, wanted|small.safetensors: got a wrong checksum",
        ):
            PixelFlow.load(small)


def test_a_flipped_bit_of_a_weight_is_told_by_the_checksum(small: Path) -> None:
    whole = small.read_bytes()
    small.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        ValueError,
        match=r"got a wrong checksum, so some of its bytes are not .*; copy it anew from where it was learned",
    ):
        PixelFlow.load(small)


def test_a_truncated_file_is_an_error(small: Path) -> None:
    whole = small.read_bytes()
    for length in range(0, len(whole), 7):
        small.write_bytes(whole[:length])
        with pytest.raises(
            ValueError,
            match=r"got a file that cannot be read .*, wanted a whole safetensors file; copy it anew",
        ):
            PixelFlow.load(small)


def test_another_kind_of_file_is_an_error_and_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name, data in (("trap", pickle.dumps(Trap())), ("text", b"{}" * 100), ("zero", bytes(64))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}: got a file that cannot be read"):
            PixelFlow.load(tmp_path / name)
    torch.save(Trap(), tmp_path / "torch")
    with pytest.raises(ValueError, match="torch: got a file that cannot be read"):
        PixelFlow.load(tmp_path / "torch")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        PixelFlow.load(tmp_path / "nowhere")


@pytest.mark.parametrize("facts", [None, {}, {"format": "pt"}])
def test_a_file_of_another_program_is_an_error(tmp_path: Path, facts: dict | None) -> None:
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "other", facts)
    with pytest.raises(
        ValueError,
        match=r"other: got a safetensors file of another program, wanted one that PixelFlow.save wrote",
    ):
        PixelFlow.load(tmp_path / "other")


def damage(what: str, facts: dict, tensors: dict) -> None:
    name = "couplings.1.transform_net.weights.0"
    if what == "version":
        facts["version"] = 2
    elif what == "missing":
        del tensors[name]
    elif what == "unexpected":
        tensors["bias"] = torch.zeros(1)
    elif what == "shape":
        tensors[name] = tensors[name].T.contiguous()[:1]
    elif what == "argument":
        facts["config"]["width"] = 3
    elif what == "value":
        facts["config"]["space"] = "cmyk"
    elif what == "provenance":
        facts["provenance"] = {}
    elif what == "config":
        facts["config"]["volume_preserving"] = False


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("version", r"got version 2 of the format, wanted 1; take the infomin that wrote it"),
        ("missing", r"couplings.1.transform_net.weights.0: missing, wanted \[2, 2\]; copy it anew"),
        (
            "unexpected",
            r"got other parameters than its configuration has, bias: \[1\], wanted no such parameter; copy",
        ),
        ("shape", r"couplings.1.transform_net.weights.0: \[1, 2\], wanted \[2, 2\]"),
        (
            "argument",
            r"got \{.*'width': 3\} \(.*unexpected keyword argument 'width'.*\), wanted the arguments of PixelFlow; copy",
        ),
        ("value", r"got 'cmyk', wanted one of rgb.*wanted the arguments of PixelFlow"),
        (
            "config",
            r"got other parameters than its configuration has, couplings.0.transform_net.weights.1: \[1, 2\], wanted \[2, 2\]",
        ),
    ],
)
def test_a_file_with_other_contents_is_an_error_that_names_them(
    small: Path, what: str, message: str
) -> None:
    rewrite(small, lambda *parts: damage(what, *parts))
    with pytest.raises(
        ValueError, match=rf"small.safetensors: got .*{message.removeprefix('got ')}"
    ):
        PixelFlow.load(small)


@pytest.mark.parametrize("what", ["missing", "unexpected", "shape", "config", "provenance"])
def test_the_checksum_covers_names_shapes_configuration_and_provenance(
    small: Path, what: str
) -> None:
    rewrite(small, lambda *parts: None, sealed=False)
    PixelFlow.load(small)
    rewrite(small, lambda *parts: damage(what, *parts), sealed=False)
    with pytest.raises(ValueError, match="got a wrong checksum"):
        PixelFlow.load(small)


def test_the_word_gives_frozen_views(tmp_path: Path) -> None:
    flow = wild(space="lab")
    flow.save(tmp_path / "a.b.safetensors")
    view = learned(f"{tmp_path}/a.b.safetensors")
    assert isinstance(view, FlowSplit) and view.channels == (1, 2)
    assert not view.training and not any(module.training for module in view.modules())
    assert list(view.parameters()) and not any(p.requires_grad for p in view.parameters())
    assert all(map(torch.equal, view(IMAGES), FlowSplit(flow)(IMAGES)))
    wild(channels=4).save(tmp_path / "four")
    with pytest.raises(ValueError, match=r"got '0-12', wanted the channels 0 to 3"):
        learned(str(tmp_path / "four"))


def test_the_digest_of_a_learned_view_is_that_of_what_stands_in_its_file(tmp_path):
    one, same, other = (tmp_path / f"{name}.safetensors" for name in ("one", "same", "other"))
    (
        PixelFlow(hidden=2).save(one),
        PixelFlow(hidden=2).save(same),
        PixelFlow(hidden=2, seed=1).save(other),
    )
    assert (
        learned(str(one)).digest
        == learned(str(same)).digest
        == sha256(one.read_bytes()).hexdigest()
    )
    assert learned(str(other)).digest != learned(str(one)).digest
