"""Downloads: complete sets are left alone, damaged ones are not, and failures say what to do."""

import hashlib
import io
import tarfile
import urllib.error
from functools import partial

import pytest
from torchvision.datasets import utils

from infomin.data import downloads, stl10_cifar10
from infomin.data.commands import fetch


@pytest.fixture
def no_network(monkeypatch):
    """Refuse every request; returns the list of them."""
    requests = []

    def refuse(request, *_, **__):
        requests.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(utils.urllib.request, "urlopen", refuse)
    return requests


@pytest.mark.parametrize("name", downloads.SETS)
def test_without_a_network_it_says_why_and_what_to_do(name, tmp_path, no_network, capsys):
    assert fetch([name], str(tmp_path / "new")) == 2
    err = capsys.readouterr().err
    assert f"{name}: cannot be downloaded to {tmp_path / 'new'} (" in err or err.startswith(
        "Downlo"
    )
    assert "no network" in err and "; check the network and the disk, then run this again" in err
    assert no_network


def test_a_complete_set_is_left_alone_and_a_damaged_one_is_not(
    tmp_path, no_network, monkeypatch, capsys
):
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = 3073
        tar.addfile(member, io.BytesIO(bytes(3073)))
    whole, url = archive.read_bytes(), stl10_cifar10.CIFAR10[0]
    monkeypatch.setattr(downloads, "CIFAR10", (url, hashlib.md5(whole).hexdigest()))
    monkeypatch.setenv("INFOMIN_DATA", str(tmp_path))
    for _ in range(2):
        assert fetch(["cifar10"]) == 0 and no_network == []
    assert f"cifar10: complete in {tmp_path}" in capsys.readouterr().out
    archive.write_bytes(whole[:-1])
    assert fetch(["cifar10"]) == 2 and no_network[0] == url


@pytest.mark.parametrize("again", ["whole", "cut"])
def test_half_unpacked_digits_are_unpacked_again(again, tmp_path, monkeypatch, capsys):
    raw, calls = tmp_path / "MNIST" / "raw", []
    file = raw / "t10k-images-idx3-ubyte"
    whole = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8])

    def mnist(root, download):
        calls.append((root, download, file.exists()))
        raw.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_bytes(whole if again == "whole" else whole[:-1])

    mnist.__name__ = "MNIST"
    monkeypatch.setitem(downloads.SETS, "mnist", partial(downloads._idx, mnist))
    raw.mkdir(parents=True)
    file.write_bytes(whole[:-1])
    status = fetch(["mnist"], str(tmp_path))
    assert calls == [(tmp_path, True, False)]
    out, err = capsys.readouterr()
    if again == "whole":
        assert status == 0 and "complete" in out
    else:
        assert status == 2 and f"({file} is damaged); check" in err


def test_one_failed_download_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    roots = []

    def fail(root):
        raise RuntimeError("File not found\nor corrupted.")

    monkeypatch.setitem(downloads.SETS, "mnist", fail)
    monkeypatch.setitem(downloads.SETS, "stl10", roots.append)
    assert fetch(["mnist", "stl10", "stl10"], str(tmp_path)) == 2
    out, err = capsys.readouterr()
    assert roots == [tmp_path]
    assert "mnist: cannot be downloaded" in err and "(File not found or corrupted.)" in err
    assert out == f"stl10: complete in {tmp_path}\n"


def test_an_unknown_set_is_a_mistake_that_lists_the_known_ones(no_network):
    with pytest.raises(ValueError, match="got 'imagenet', wanted one of stl10, cifar10, mnist, fa"):
        fetch(["stl10", "imagenet"])
    assert no_network == []  # not even the known one
