"""Keep freed memory in the process, so that the next training step can reuse it.

By default glibc returns large blocks to the system as soon as they are freed, and every new block
is faulted in page by page, filled with zeros. A training step frees and allocates the same sizes
over and over. On virtual machines, where page faults are expensive, this costs more than many of
the step's operations.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h


def keep_memory() -> bool:
    """Let this process keep freed memory, up to its peak usage; return True if that worked.

    The setting applies to the whole process, including all its libraries, until it ends. The
    command line and the workers of sweeps do this; call it yourself in a notebook. It changes no
    result. Without glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
