"""Reading clips from disk: items, workers, ranks and previews."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import NAMES, stored
from torch.utils.data import DataLoader, DistributedSampler

from infomin.data.shards import ClipShards, preview, verify

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("no_fsync")
FORK = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def same(one, other):
    (frames, labels), (other_frames, other_labels) = one, other
    same_labels = all(torch.equal(labels[name], other_labels[name]) for name in ClipShards.LABELS)
    return torch.equal(frames, other_frames) and same_labels


def test_an_item_is_a_clip_and_its_labels(made):
    data, expected = ClipShards(made), stored(made)
    assert len(data) == 24 and data.config["frames"] == 4
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    for i in [*order, np.int64(3), torch.tensor(4)]:
        frames, labels = data[i]
        assert frames.dtype == torch.uint8 and torch.equal(frames, expected["frames"][i])
        assert list(labels) == ["digit", "background", "positions"]
        assert all(torch.equal(label, expected[name][i]) for name, label in labels.items())
    assert same(data[-1], data[23]) and same(data[-24], data[0]) and len(list(data)) == 24
    for i in (24, -25):
        with pytest.raises(IndexError, match=f"got the index {i}, wanted -24 to 23"):
            data[i]
    with pytest.raises(TypeError):
        data[1.5]


def test_an_item_is_a_copy(made):
    """Writing to it changes no later read, and sending it sends no more than it."""
    data = ClipShards(made)
    frames, labels = data[7]
    assert frames.untyped_storage().nbytes() == frames.numel()
    for value in (frames, *labels.values()):
        value.fill_(1)
    assert not same(data[7], (frames, labels)) and same(data[7], ClipShards(made)[7])


def test_nothing_is_unpickled_and_no_open_file_is_pickled(made, monkeypatch):
    data = ClipShards(made)
    assert data._open == {} and data[0] and data[12] and set(data._open) == {0, 2}
    pickled = pickle.dumps(data)
    again = pickle.loads(pickled)
    assert len(pickled) < 2000 and again._open == {} and same(again[12], data[12])
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(torch, "load", None)
    assert verify(made) == [] and len(list(ClipShards(made))) == 24


@FORK
# On a machine of one core.
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (1, "spawn")])
def test_workers_read_each_clip_once(made, workers, start):
    data, expected = ClipShards(made), stored(made)
    assert data[0] and data._open  # so that forked workers inherit an open shard
    loader = DataLoader(data, batch_size=7, num_workers=workers, multiprocessing_context=start)
    frames, labels = zip(*loader, strict=True)
    assert torch.equal(torch.cat(frames), expected["frames"])
    assert [len(batch) for batch in frames] == [7, 7, 7, 3]
    for name in ClipShards.LABELS:
        assert torch.equal(torch.cat([batch[name] for batch in labels]), expected[name])


@pytest.mark.parametrize("epoch", [0, 1])
def test_ranks_share_the_clips(made, epoch):
    data, read, order = ClipShards(made), [], []
    for rank in range(3):
        sampler = DistributedSampler(data, num_replicas=3, rank=rank, shuffle=True, seed=5)
        sampler.set_epoch(epoch)
        order += list(sampler)
        for frames, _ in DataLoader(ClipShards(made), batch_size=3, sampler=sampler):
            read += list(frames)
        assert len(order) == 8 * (rank + 1)
    assert sorted(order) == list(range(24))
    assert torch.equal(torch.stack(read), stored(made)["frames"][order])


# Previews


@pytest.mark.parametrize("clips", [1, 3, 8, 99])
def test_a_sheet_shows_each_clip_in_a_row(made, tmp_path, clips):
    path, n = tmp_path / "new" / "sheet.PNG", min(clips, 24)
    preview(made, path, clips)
    pixels = torch.from_numpy(np.array(Image.open(path)))
    assert pixels.shape == (2 + 18 * n, 2 + 18 * 4, 3)
    cells = pixels[2:, 2:].unflatten(0, (n, 18)).unflatten(2, (4, 18)).permute(0, 2, 4, 1, 3)
    assert torch.equal(cells[..., :16, :16], stored(made)["frames"][:n])
    assert (cells[..., 16:, :] == 255).all() and (pixels[:2] == 255).all()


@pytest.mark.parametrize(("clips", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (8, 2, 4)])
def test_a_gif_moves(made, tmp_path, clips, rows, columns):
    preview(made, tmp_path / "clips.gif", clips)
    gap = 2 if clips > 1 else 0
    expected = stored(made)["frames"][0].numpy().astype(float)
    with Image.open(tmp_path / "clips.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (4, 100, 0)
        assert gif.size == (gap + (16 + gap) * columns, gap + (16 + gap) * rows)
        for t in range(4):
            gif.seek(t)
            pixels = np.array(gif.convert("RGB"))[gap : gap + 16, gap : gap + 16]
            shown = pixels.transpose(2, 0, 1).astype(float)
            errors = [np.abs(shown - frame).mean() for frame in expected]
            assert errors[t] < 5 and errors[t] == min(errors)  # a GIF has 256 colours


def test_impossible_previews_are_errors(made, copy, tmp_path):
    with pytest.raises(ValueError, match=r"preview\(path\): got '.jpg', wanted one of .gif, .png"):
        preview(made, tmp_path / "clips.jpg")
    with pytest.raises(ValueError, match=r"preview\(clips\): got 0"):
        preview(made, tmp_path / "clips.gif", 0)
    (copy / NAMES[0]).unlink()
    with pytest.raises(ValueError, match="is missing; run the command that wrote it again"):
        preview(copy, tmp_path / "clips.gif")
    assert not list(tmp_path.glob("clips.*"))
