"""Time that processes spend outside the kernel, by looking 4,000 times in a second of theirs.

The kernel's own split of CPU time comes from its tick, 250 times a second and at fixed places of
whatever else goes by the clock, like bursts every 50 ms: between two runs it may differ by half.
Here perf_event_open(2) looks each 250 µs of a thread's CPU time, which is no multiple of anything.
Its ring is never read; how far it got on says how often the thread was found outside the kernel.
"""

import ctypes
import mmap
import os
import platform
import struct
from collections.abc import Callable
from contextlib import suppress

from loadtest import process

PERIOD_NS = 249_989  # of CPU time between two looks
_SYSCALLS = {"x86_64": 298, "aarch64": 241}  # perf_event_open
_SOFTWARE, _CPU_CLOCK = 1, 0
_FLAGS = 1 << 5 | 1 << 6  # exclude_kernel, exclude_hv
_RECORD_BYTES = 8  # a header, as nothing is asked for beside
_HEAD_AT = 1024  # perf_event_mmap_page.data_head


class Looks:
    """Looks at the main thread of a process. Raises OSError where that is not possible."""

    def __init__(self, pid: int) -> None:
        number = _SYSCALLS.get(platform.machine())
        if number is None or platform.system() != "Linux":
            raise OSError("no perf_event_open")
        # struct perf_event_attr, its first version: type, size, config, period, 2 x what to tell,
        # flags, and 3 fields that we do not need.
        told = struct.pack(
            "=IIQQQQQIIQ", _SOFTWARE, 64, _CPU_CLOCK, PERIOD_NS, 0, 0, _FLAGS, 0, 0, 0
        )
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(number, told, pid, -1, -1, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "perf_event_open")
        try:  # read-only: the kernel goes round and never waits for a reader
            self._page = mmap.mmap(fd, 2 * mmap.PAGESIZE, prot=mmap.PROT_READ)
        finally:
            os.close(fd)  # the map keeps it

    def us(self) -> float:
        """Time outside the kernel so far."""
        (head,) = struct.unpack_from("=Q", self._page, _HEAD_AT)
        return float(head // _RECORD_BYTES * PERIOD_NS / 1000)


def user_us(pid: int) -> Callable[[], float]:
    """Tells the µs that a process and its present descendants spent outside the kernel: by looks
    where they are allowed, else as the kernel's tick saw it."""
    with suppress(OSError):
        looks = [Looks(one) for one in process.family(pid)]
        return lambda: sum(look.us() for look in looks)
    return lambda: process.cpu(pid).user
