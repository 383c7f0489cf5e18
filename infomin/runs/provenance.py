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
    """What a row says of where it comes from: `device_used`, `threads`, `processes`, `host`, `commit` and versions."""
    chip = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    )
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
    """Return the commit of this code, marked if it was changed since; None where it is not under git."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(
                ["git", *words],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                check=False,
            ).stdout.strip()
        except OSError:  # no git
            return ""

    tracked = git(
        "ls-files", Path(__file__).name
    )  # an installed copy may lie inside a repository that is not ours
    return (
        git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or None
        if tracked
        else None
    )
