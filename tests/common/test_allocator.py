"""Freed memory is reused by the next step instead of being requested from the system again."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from infomin.common import allocator

COUNT = """
import resource, torch
{setup}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):  # until the heap layout is stable
    a, b = torch.ones(2**24), torch.ones(2**23)
    del a, b
before = faults()
for _ in range(10):
    a, b = torch.ones(2**24), torch.ones(2**23)
    del a, b
print(faults() - before)
"""
KEEP_MEMORY = "import infomin; assert infomin.keep_memory()"
COMMAND = "from infomin.__main__ import main; main(['views'])"
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def page_faults(setup: str) -> int:
    """Page faults of a process while it allocates and frees 96 MiB ten times."""
    process = subprocess.run(
        [sys.executable, "-c", COUNT.format(setup=setup)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(process.stdout.splitlines()[-1])


@glibc
def test_freed_memory_is_used_again() -> None:
    assert page_faults(KEEP_MEMORY) < page_faults("") / 10


@glibc
def test_the_command_line_keeps_freed_memory() -> None:
    assert page_faults(COMMAND) < page_faults("") / 10


def test_nothing_happens_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_memory()
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Path())  # no mallopt, as with musl
    assert not allocator.keep_memory()
