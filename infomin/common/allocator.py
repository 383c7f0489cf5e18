"""Memory that a step has freed is there for the next one.

The allocator of glibc hands large blocks back to the system as soon as they are freed, and has every page of the next ones made
anew, filled with zeros. A training step frees and allocates the same sizes over and over; on virtual machines, where a new page
is dear, that costs more than many of its operations.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of glibc's malloc.h, without the M_


def keep_memory() -> bool:
    """Have this process keep what it frees, up to the most it ever held at once; True where that could be done.

    A setting of the process, all libraries in it included, from now on to its end; runs and games make it. No number changes.
    Where the C library is not glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
