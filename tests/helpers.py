"""What several test files need: launched processes, a run that is cut, a game of seconds."""

import os
import subprocess
import sys
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as c10d

import infomin
from infomin.methods import Context
from infomin.networks import Encoders

GAME = {
    "data": "digits",
    "size": 24,
    "view": "crop:0.7",
    "mode": "semi-supervised",
    "steps": 12,
    "batch": 32,
    "width": 0.25,
    "dim": 16,
    "hidden": 4,
    "couplings": 3,
    "candidates": 64,
    "labels": 100,
    "labelled": 16,
    "weight": 1.0,
    "fresh_every": 10,
    "fresh_steps": 2,
    "optimizer": "adamw",
    "momentum": 0.5,
    "lr": 0.005,
    "lr_generator": 0.02,
    "lr_classifiers": 0.002,
    "schedule": "step",
    "schedule_generator": "step",
    "schedule_classifiers": "step",
    "weight_decay": 0.0001,
    "warmup": 0.0,
    "waits": 0,
    "precision": "fp32",
    "device": "cpu",
}


def launch(script, folder, world):
    """Run `script` with the path of a file in so many processes, and load the files they wrote.

    They are launched as by torchrun; this process holds the store, so the port needs no guess.
    """
    store = c10d.TCPStore(
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
    )
    shared = os.environ | {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            map(os.path.dirname, (os.path.dirname(infomin.__file__), __file__))
        ),
    }  # this copy, installed or not
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", script, folder / f"{rank}.pt"],
            text=True,
            stderr=subprocess.PIPE,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert said == [""] * world  # neither a failure nor a warning
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


class Cut(BaseException):
    """As when the process is killed: nothing that catches errors catches it."""


def cut_after(monkeypatch, calls, owner, name):
    """Let `owner.name` be called so many times, and break off after that."""
    left, act = [calls], getattr(owner, name)

    def acting(*args, **options):
        if left[0] == 0:
            raise Cut
        left[0] -= 1
        return act(*args, **options)

    monkeypatch.setattr(owner, name, acting)


def context(
    channels, encoder="tiny", width=1.0, shared=False, dim=64, head="linear", tau=0.1, **more
):
    """What a method is built from, for views of these channels; `more` replaces the rest."""
    facts = {
        "shapes": tuple((c, 32, 32) for c in channels),
        "tiles": (1,) * len(channels),
        "encoders": partial(Encoders, channels, encoder, width, shared),
        "images": 256,
        "batch": 32,
        "steps": 10,
        "processes": 1,
        "tasks": {},
    }
    return Context(**facts | {"dim": dim, "head": head, "tau": tau} | more)
