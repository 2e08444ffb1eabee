"""What becomes of the memory that arrays give back."""

import ctypes
import platform

KEPT = 64 * 2**20  # bytes of free memory that stay with the process
IN_HEAP = 32 * 2**20  # bytes; larger arrays are mapped, and unmapped, one by one
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process, and those that it forks, reuse freed memory instead of returning it to the system.

    Else the system takes a frame's arrays back as they are freed, and clears the same pages for the next frame. The limits are
    those that glibc ends at by itself once a program has freed a block of 32 MB; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        c_library.mallopt(M_MMAP_THRESHOLD, IN_HEAP)
        c_library.mallopt(M_TRIM_THRESHOLD, KEPT)
