"""Small data sets of clips on disk, and what their files hold."""

import torch
from safetensors.torch import load_file

SMALL = {"clips": 24, "shard": 5, "frames": 4, "size": 16, "digit": 8}
NAMES = [f"0000{i}.safetensors" for i in range(5)]


def state(folder):
    """The bytes of every file but the lock, which holds the last writer's name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def stamps(folder):
    """Inode and time of every shard: they change when it is written again."""
    found = {}
    for path in folder.glob("*.safetensors"):
        status = path.stat()
        found[path.name] = (status.st_ino, status.st_mtime_ns)
    return found


def stored(folder):
    """All tensors of all shards, concatenated."""
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def flip(path, position):
    """Change one bit of a byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
