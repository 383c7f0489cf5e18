"""Digests of data on disk: other files are another run."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from picture_files import noise

from infomin import Recipe
from infomin.data import digests
from infomin.data.digests import clip_sources, data_digest


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("clips:mnist@photos", ("mnist", "photos")),
        ("clips:folder:a@b@photos", ("folder:a@b", "photos")),
        ("clips:digits@folder:/x@photos", ("digits", "folder:/x@photos")),
        ("clips:folder:a@photosets@stl10", ("folder:a@photosets", "stl10")),
        ("clips:mnist@fotos", ("mnist", "fotos")),
        ("clips:mnist", ("mnist", "")),
        ("clips:@photos", ("", "photos")),
    ],
)
def test_a_path_may_contain_an_at_sign(name, pair):
    assert clip_sources(name) == pair


def test_other_files_are_another_run(numbered_files, tmp_path):
    def key():
        return Recipe(data=f"folder:{tmp_path}").key

    first = key()
    assert key() == first
    keys = [first]
    shutil.copy(numbered_files[0], tmp_path / "a" / "more.png")
    keys.append(key())
    noise(99, 99).save(tmp_path / "a" / "more.png")
    keys.append(key())
    numbered_files[0].unlink()
    keys.append(key())
    assert len(set(keys)) == 4
    shutil.copytree(tmp_path, tmp_path.parent / "moved", dirs_exist_ok=True)
    digest = data_digest(f"folder:{tmp_path}")
    assert digest == data_digest(f"folder:{tmp_path.parent}/moved")
    assert digest != data_digest("folder:nowhere")
    os.symlink("nowhere.png", tmp_path / "a" / "link.png")  # an error only when it is read
    assert key() not in keys


def name_of(kind, folder):
    """A data set that reads this folder."""
    words = {"folder": "folder:{}", "background": "clips:digits@folder:{}"}
    words |= {"idx": "clips:idx:{}@photos", "file": "clips:idx:{}/a-images-idx3@photos"}
    return words[kind].format(folder)


@pytest.fixture(params=["folder", "background", "idx", "file"])
def many_files(request, tmp_path, monkeypatch):
    """A data set of 120 files, the first of 30 kB, and their paths; contents do not matter."""
    monkeypatch.setattr(digests, "AT_A_TIME", 50)
    ending = "-idx3" if request.param in ("idx", "file") else ".png"
    names = ["a-images", *(f"b/{n}" if ending == ".png" else f"{n}" for n in range(119))]
    paths = [tmp_path / f"{name}{ending}" for name in names]
    (tmp_path / "b").mkdir()
    for n, path in enumerate(paths):
        path.write_bytes(bytes(30_000 if n == 0 else 10))
    return name_of(request.param, tmp_path), paths


@pytest.mark.parametrize("byte", [0, 15_000, 29_999])
@pytest.mark.parametrize("known", [False, True], ids=["first run", "second run"])
def test_any_byte_of_any_file_is_another_run(many_files, own_cache, byte, known):
    """Also if its size and the time of its last change are the same."""
    name, paths = many_files
    digests = [data_digest(name)]
    for path in (paths[0], paths[1], paths[77], paths[-1]):
        before, content = path.stat(), bytearray(path.read_bytes())
        content[byte % len(content)] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if not known:
            shutil.rmtree(own_cache)
        digests.append(data_digest(name))
    assert len(set(digests)) == 5


def test_a_change_at_once_is_noticed(tmp_path):
    """File systems store times in coarse steps, in which a file could change twice."""
    path, found = tmp_path / "x.png", set()
    path.write_bytes(b"first")
    os.utime(path, ns=(0, 0))
    for n in range(20):
        found.add(data_digest(f"folder:{tmp_path}"))
        path.write_bytes(b"%05d" % n)
        os.utime(path, ns=(0, 0))
    assert len(found) == 20


def test_files_that_did_not_change_are_not_read_again(many_files, monkeypatch):
    name, paths = many_files
    digest, read, hashed = data_digest(name), [], digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: read.append(path) or hashed(path))
    assert data_digest(name) == digest and not read
    paths[5].touch()
    assert data_digest(name) == digest and read == [str(paths[5])]
    shutil.copy2(paths[7], paths[7].with_name("copy"))
    (paths[7].with_name("copy")).replace(paths[7])
    assert data_digest(name) == digest and read == [str(paths[5]), str(paths[7])]


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a text": lambda content: b"a text",
    "another hash": lambda content: content[:-20] + b"0" * 10 + content[-10:],
    "another structure": lambda content: b"[" * 100_000,
    "no text": lambda content: b"\xff\n" + content,
}


@pytest.mark.parametrize("damage", [*DAMAGE, "a folder", "read-only"])
def test_without_its_cache_a_digest_is_the_same(many_files, own_cache, damage, monkeypatch):
    name, _ = many_files
    digest = data_digest(name)
    (memory,) = own_cache.rglob("*.json")
    if damage in DAMAGE:
        memory.write_bytes(DAMAGE[damage](memory.read_bytes()))
    elif damage == "a folder":
        memory.unlink()
        memory.mkdir()
    else:
        (own_cache / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache / "file"))
    assert data_digest(name) == digest == data_digest(name)


def test_processes_share_the_cache(many_files):
    name, paths = many_files
    digest = data_digest(name)
    paths[3].touch()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(data_digest, [name] * 8)) == {digest}


def test_files_that_a_limit_makes_unreadable_are_another_run(many_files, monkeypatch):
    name, _ = many_files
    digest = data_digest(name)
    monkeypatch.setenv("INFOMIN_MAX_PIXELS", "1000")
    assert (data_digest(name) == digest) == ("idx" in name)
    monkeypatch.setenv("INFOMIN_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="INFOMIN_MAX_PIXELS: got 'many', wanted a whole number"):
        data_digest("folder:nowhere")


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "z.png")
    assert len(data_digest(f"folder:{tmp_path}")) == 64
