"""Children of a benchmark: start and end them by pid, read their CPU time and memory."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psutil

from server.supervision.child import LEASH, Child, becomes_ready, open_log, until

Process: TypeAlias = Child
STOP_SECONDS = 15.0
START_SECONDS = 30.0

# Read once, because pinning ourselves changes it.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORE = CORES[0]  # for the process that is measured alone
LOADER_CORE = CORES[-1]  # for everything else


class Cpu(NamedTuple):
    """CPU time in µs. `total` is exact where the kernel counts ns; the split is by its ticks."""

    total: float
    user: float
    system: float

    def since(self, earlier: "Cpu") -> "Cpu":
        """What was used between two readings."""
        return Cpu(*(now - then for now, then in zip(self, earlier, strict=True)))

    def plus(self, other: "Cpu") -> "Cpu":
        """The sum of two uses."""
        return Cpu(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def user_share(self) -> float:
        """Part of the time spent outside the kernel, 0 to 1. Readings have 10 ms steps."""
        ticks = self.user + self.system
        return self.user / ticks if ticks else 0.0


ZERO = Cpu(0.0, 0.0, 0.0)


def cpu(pid: int) -> Cpu:
    """CPU time used so far by one process and its present descendants (PostgreSQL has many)."""
    family = [psutil.Process(pid)]
    family += family[0].children(recursive=True)
    total = ZERO
    for process in family:
        try:
            total = total.plus(_cpu_of_one(process))
        except psutil.NoSuchProcess:  # a worker that ended between the listing and now
            continue
    return total


def _cpu_of_one(process: psutil.Process) -> Cpu:
    times = process.cpu_times()
    user, system = times.user * 1e6, times.system * 1e6
    return Cpu(_exact_us(process.pid) or user + system, user, system)


def _exact_us(pid: int) -> float:
    """Time on a core in µs from the scheduler (Linux, all threads); 0 where it is not told."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1000
    except (OSError, IndexError, ValueError):
        return 0.0


def waited_us(pid: int) -> float:
    """Time in µs that the main thread was ready and the core was busy with others; 0: not told."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1000
    except (OSError, IndexError, ValueError):
        return 0.0


def rss_kb(pid: int) -> float:
    """Resident memory of one process in KiB."""
    return psutil.Process(pid).memory_info().rss / 1024


def pin(pid: int, core: int) -> None:
    """Tie a process (0: this one) to one core; nothing happens where that is not possible."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core})


def give_way(pid: int, nice: int) -> None:
    """Let others go before a process that has just started, as far as the system allows: by
    itself (setpriority(2)) and, where each session counts as one, as a session (sched(7))."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def free_port() -> int:
    """A port on loopback that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    core: int | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Start a child that ends with us, on one core if asked."""
    child = Child.spawn(
        name, command, log=log, death_signal=signal.SIGKILL, cwd=cwd, environment=environment
    )
    if core is not None:
        pin(child.pid, core)
    return child


async def start_talking(
    command: Sequence[str], *, log: Path, core: int | None = None, limit: int = 1 << 16
) -> asyncio.subprocess.Process:
    """Start a child that ends with us and is spoken to over its stdin and stdout; what it says on
    stderr goes to `log`. `limit`: bytes that may wait to be read."""
    leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(int(signal.SIGKILL))]
    with open_log(log) as errors:
        child = await asyncio.create_subprocess_exec(
            *leash, "-", "-", *command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
            limit=limit, start_new_session=True,
        )  # fmt: skip
    if core is not None:
        pin(child.pid, core)
    return child


def cpu_of(pid: int) -> float:
    """CPU time in µs used so far by one process; 0 when it is gone."""
    try:
        return _cpu_of_one(psutil.Process(pid)).total
    except psutil.NoSuchProcess:
        return 0.0


def family(pid: int) -> list[int]:
    """A process and its present descendants (PostgreSQL has many, each in a session of its own)."""
    try:
        first = psutil.Process(pid)
        return [pid, *(each.pid for each in first.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def send_all(pids: Sequence[int], number: signal.Signals) -> None:
    """A signal to each of them that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def listening(child: Process, port: int, *, sockets: int = 1) -> None:
    """Wait until `child` accepts connections, on so many sockets that share the port.

    Raises RuntimeError with its last log lines.
    """

    async def ready() -> bool:
        return await _accepts(port) and (sockets == 1 or _listeners(child.pid, port) >= sockets)

    if not await becomes_ready(ready, lambda: child.status is None, START_SECONDS):
        raise RuntimeError(f"{child.name} did not start:\n{child.last_words()}")


def _listeners(pid: int, port: int) -> int:
    """Sockets of a process on which somebody listens at `port`."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_LISTEN and each.laddr[1] == port for each in found)


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll `condition`. Raises TimeoutError saying `what` did not come about."""
    if not await until(condition, seconds):
        raise TimeoutError(f"not within {seconds:g} s: {what}")


async def wait_for_answer(
    condition: Callable[[], Awaitable[bool]], seconds: float, what: str
) -> None:
    """Like `wait_for` for a condition that has to ask."""
    if not await becomes_ready(condition, lambda: True, seconds):
        raise TimeoutError(f"not within {seconds:g} s: {what}")


async def stop(child: Process) -> None:
    """End one child: SIGTERM, after a while SIGKILL to its own process session only."""
    await child.stop(signal.SIGTERM, STOP_SECONDS)
