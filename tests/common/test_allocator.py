"""Memory that is freed is there for the next step, and is not asked of the system again."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from infomin.common import allocator
from infomin.common.distributed import setup_device

COUNT = """
import resource, torch
{first}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):  # until the heap has found its layout
    a, b = torch.ones(2**24), torch.ones(2**23)
    del a, b
before = faults()
for _ in range(10):
    a, b = torch.ones(2**24), torch.ones(2**23)
    del a, b
print(faults() - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")


def pages(first: str) -> int:
    """Pages that a process asks of the system while it makes 96 MiB ten times."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(first=first)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@glibc
def test_freed_memory_is_used_again() -> None:
    given_back, kept = (
        pages(""),
        pages("from infomin.common import allocator; assert allocator.keep_memory()"),
    )
    assert kept < given_back / 10


@glibc
def test_a_run_keeps_what_it_frees() -> None:
    assert (
        pages("from infomin.common.distributed import setup_device; setup_device('cpu')")
        < pages("") / 10
    )


def test_where_the_library_is_another_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_memory()
    assert setup_device("cpu").type == "cpu"
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Path())  # has no mallopt, like musl
    assert not allocator.keep_memory()
