"""Flows in files: exact round trips, and errors for damaged, foreign or outdated files."""

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
from infomin.views.flow import FlowSplit, PixelFlow

torch.set_num_threads(1)
IMAGES = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def random_flow(**settings: Any) -> PixelFlow:
    """A flow whose weights and biases are all random."""
    flow, g = PixelFlow(**settings), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=g))
    return flow


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The file of a small flow."""
    random_flow(couplings=2, hidden=2).save(tmp_path / "small.safetensors", data="digits", seed=0)
    return tmp_path / "small.safetensors"


def read_metadata(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    header_length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + header_length])["__metadata__"]
    metadata: dict[str, Any] = json.loads(entries["infomin.PixelFlow"])
    return metadata


def rewrite(path: Path, change: Callable[[dict, dict], None], update_checksum: bool = True) -> None:
    """Change metadata or tensors of a file."""
    tensors, metadata = safetensors.torch.load(path.read_bytes()), read_metadata(path)
    change(metadata, tensors)
    if update_checksum:
        del metadata["sha256"]
        metadata["sha256"] = flow_parts.fingerprint(
            {"facts": json.dumps(metadata, sort_keys=True), "tensors": tensors}
        )
    path.write_bytes(safetensors.torch.save(tensors, {"infomin.PixelFlow": json.dumps(metadata)}))


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
def test_a_round_trip_is_exact(tmp_path: Path, settings: dict, dtype: torch.dtype) -> None:
    flow = random_flow(**settings).to(dtype)
    flow.save(tmp_path / "new" / "learned.safetensors")
    loaded = PixelFlow.load(str(tmp_path / "new" / "learned.safetensors"))
    assert loaded.config == flow.config and repr(loaded) == repr(flow) and loaded.provenance == {}
    saved_state, loaded_state = flow.state_dict(), loaded.state_dict()
    assert saved_state.keys() == loaded_state.keys()
    assert all(torch.equal(saved_state[name], loaded_state[name]) for name in saved_state)
    assert all(p.dtype == dtype and not p.requires_grad for p in loaded.parameters())
    x = torch.rand(2, flow.channels, 6, 5)
    assert torch.equal(loaded(x), flow(x)) and torch.equal(loaded.log_det(x), flow.log_det(x))


def test_loading_leaves_the_global_generator_alone(small: Path) -> None:
    before = torch.get_rng_state()
    PixelFlow.load(small)
    assert torch.equal(torch.get_rng_state(), before)


def test_provenance_is_kept_and_the_same_flow_gives_the_same_bytes(tmp_path: Path) -> None:
    provenance = {
        "commit": "1a2b3c",
        "recipe": {"view": "color:lab"},
        "data": "stl10",
        "seed": 0,
        "metrics": {"i_nce": 1.5},
    }
    flow = random_flow()
    flow.save(tmp_path / "a", **provenance)
    flow.save(tmp_path / "b", **dict(reversed(provenance.items())))
    assert PixelFlow.load(tmp_path / "a").provenance == provenance
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    metadata = read_metadata(tmp_path / "a")  # plain JSON, which any program can read
    assert metadata["version"] == 1 and metadata["config"]["couplings"] == 4
    assert set(metadata) == {"version", "config", "provenance", "sha256"}
    assert len(metadata["sha256"]) == 64
    flow.save(
        tmp_path / "c", table={10: "ten", 9: "nine"}
    )  # keys become text, which sorts otherwise
    assert PixelFlow.load(tmp_path / "c").provenance == {"table": {"10": "ten", "9": "nine"}}


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        (object(), "object"),
        (torch.tensor(3), "Tensor"),
        ({"i_nce": torch.tensor(3)}, "dict"),
        (LOOP, "list"),
    ],
)
def test_a_provenance_that_is_not_json_is_named_and_leaves_the_existing_file(
    small: Path, value: Any, type_name: str
) -> None:
    before = small.read_bytes()
    message = (
        rf"PixelFlow\.save\(metrics\): got {type_name} \(.*\), wanted something JSON can "
        "represent; pass text, plain numbers"
    )
    with pytest.raises(ValueError, match=message):
        random_flow().save(small, data="digits", metrics=value)
    assert small.read_bytes() == before and os.listdir(small.parent) == [small.name]


def test_a_write_that_fails_leaves_the_existing_file(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        OSError, match=r"cannot write small.safetensors.*existing files are unchanged"
    ):
        random_flow().save(small)
    assert small.read_bytes() == before and os.listdir(small.parent) == [small.name]


def test_a_flipped_bit_anywhere_is_an_error(small: Path) -> None:
    whole = small.read_bytes()
    PixelFlow.load(small)
    for i, byte in enumerate(whole):
        small.write_bytes(whole[:i] + bytes([byte ^ 1 << i % 8]) + whole[i + 1 :])
        with pytest.raises(
            ValueError,
            match=r"small.safetensors: got .*, wanted|small.safetensors: got a wrong checksum",
        ):
            PixelFlow.load(small)


def test_the_checksum_detects_a_flipped_bit_of_a_weight(small: Path) -> None:
    whole = small.read_bytes()
    small.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        ValueError,
        match=r"got a wrong checksum: the file has changed since it was written; copy the file",
    ):
        PixelFlow.load(small)


def test_a_truncated_file_is_an_error(small: Path) -> None:
    whole = small.read_bytes()
    for length in range(0, len(whole), 7):
        small.write_bytes(whole[:length])
        with pytest.raises(
            ValueError,
            match=r"got a file that cannot be read .*, wanted a complete safetensors file; copy",
        ):
            PixelFlow.load(small)


def test_other_files_are_errors_and_nothing_is_unpickled(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_file_from_another_program_is_an_error(tmp_path: Path, metadata: dict | None) -> None:
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "other", metadata)
    message = "other: got a safetensors file from another program, wanted one that PixelFlow.save"
    with pytest.raises(ValueError, match=message):
        PixelFlow.load(tmp_path / "other")


def damage(what: str, metadata: dict, tensors: dict) -> None:
    name = "couplings.1.transform_net.weights.0"
    if what == "version":
        metadata["version"] = 2
    elif what == "missing":
        del tensors[name]
    elif what == "unexpected":
        tensors["bias"] = torch.zeros(1)
    elif what == "shape":
        tensors[name] = tensors[name].T.contiguous()[:1]
    elif what == "argument":
        metadata["config"]["width"] = 3
    elif what == "value":
        metadata["config"]["space"] = "cmyk"
    elif what in ("NaN", "Inf"):
        tensors[name][0, 0] = float(what)
    elif what in ("complex64", "int64"):
        tensors[name] = tensors[name].to(getattr(torch, what))
    elif what == "couplings":
        metadata["config"]["couplings"] = 900
    elif what == "hidden":
        metadata["config"].update(hidden=90_000, depth=2)
    elif what == "list":
        metadata["config"] = [1, 2]
    elif what == "empty":
        del metadata["config"]
    elif what == "provenance":
        metadata["provenance"] = {}
    elif what == "config":
        metadata["config"]["volume_preserving"] = False


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "version",
            r"got version 2 of the format, wanted 1; use the version of infomin that wrote",
        ),
        (
            "missing",
            r"couplings.1.transform_net.weights.0: missing, wanted \[2, 2\]; copy the file",
        ),
        (
            "unexpected",
            r"got parameters that do not match its configuration, "
            r"bias: \[1\], wanted no such parameter; copy",
        ),
        ("shape", r"couplings.1.transform_net.weights.0: \[1, 2\], wanted \[2, 2\]"),
        (
            "argument",
            r"got the configuration \{.*'width': 3\} \(.*unexpected keyword argument 'width'.*\), "
            "wanted the arguments of PixelFlow; copy",
        ),
        ("value", r"got 'cmyk', wanted one of rgb.*wanted the arguments of PixelFlow"),
        *(
            (what, r"got parameters that are not finite floating-point numbers, couplings.1.trans")
            for what in ("NaN", "Inf", "complex64", "int64")
        ),
        # before gigabytes are taken
        ("couplings", r"got the configuration .* \(2700 parameters or more, but the file has 18\)"),
        ("hidden", r"got the configuration .* parameters or more, but the file has 18\)"),
        ("list", r"got the configuration \[1, 2\]"),
        ("empty", r"got the configuration \{\}"),
        (
            "config",
            r"got parameters that do not match its configuration, "
            r"couplings.0.transform_net.weights.1: \[1, 2\], wanted \[2, 2\]",
        ),
    ],
)
def test_a_file_with_wrong_contents_is_an_error_that_names_them(
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
    rewrite(small, lambda *parts: None, update_checksum=False)
    PixelFlow.load(small)
    rewrite(small, lambda *parts: damage(what, *parts), update_checksum=False)
    with pytest.raises(ValueError, match="got a wrong checksum"):
        PixelFlow.load(small)


def test_a_dial_gives_a_frozen_view(tmp_path: Path) -> None:
    flow = random_flow(space="lab")
    flow.save(tmp_path / "a.b.safetensors")
    view = FlowSplit.from_dial(f"{tmp_path}/a.b.safetensors")
    assert isinstance(view, FlowSplit) and view.channels == (1, 2)
    assert not view.training and not any(module.training for module in view.modules())
    assert list(view.parameters()) and not any(p.requires_grad for p in view.parameters())
    assert all(map(torch.equal, view(IMAGES), FlowSplit(flow)(IMAGES)))
    random_flow(channels=4).save(tmp_path / "four")
    with pytest.raises(ValueError, match=r"got '0-12', wanted groups of the channels 0 to 3"):
        FlowSplit.from_dial(str(tmp_path / "four"))


def test_the_digest_of_a_learned_view_is_that_of_its_file(tmp_path):
    one, same, other = (tmp_path / f"{name}.safetensors" for name in ("one", "same", "other"))
    PixelFlow(hidden=2).save(one)
    PixelFlow(hidden=2).save(same)
    PixelFlow(hidden=2, seed=1).save(other)
    digests = {file: FlowSplit.from_dial(str(file)).digest for file in (one, same, other)}
    assert digests[one] == digests[same] == sha256(one.read_bytes()).hexdigest()
    assert digests[other] != digests[one]


class Views(torch.utils.data.Dataset):
    """The views of one image, made in a worker."""

    def __init__(self, view: FlowSplit) -> None:
        self.view = view

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
        return self.view(IMAGES[i])


def test_a_loaded_flow_is_frozen_unless_it_is_to_be_trained(small: Path) -> None:
    flow, trainable = PixelFlow.load(small), PixelFlow.load(small, trainable=True)
    assert not any(p.requires_grad for p in flow.parameters())
    assert all(p.requires_grad for p in trainable.parameters())
    assert torch.equal(flow(IMAGES), trainable(IMAGES))
    # workers cannot send tensors that require a gradient
    first, rest = next(iter(torch.utils.data.DataLoader(Views(FlowSplit(flow)), 2, num_workers=1)))
    assert torch.equal(torch.cat([first, rest], 1), flow(IMAGES))
