"""Where a row comes from: machine, versions, commit."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..common.distributed import world_size
from ..version import __version__


def fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def describe_provenance(device: torch.device) -> dict[str, Any]:
    """Where a row comes from: `device_used`, `threads`, `processes`, `host`, `commit`, versions."""
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
    else:
        chip = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return {
        "device_used": device.type,
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "host": f"{chip}, {os.cpu_count()} cores",
        "commit": commit(),
        "infomin": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@cache
def commit() -> str | None:
    """The commit of this code, marked `-dirty` if files changed since; None outside of git."""

    def git(*words: str) -> str:
        folder = Path(__file__).parent
        try:
            done = subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=False
            )
        except OSError:  # no git
            return ""
        return done.stdout.strip()

    if not git("ls-files", Path(__file__).name):  # installed inside a repository that is not ours
        return None
    return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or None
