"""Servers left behind by a supervisor that was killed, found by pid file and stopped.

A pid file alone proves nothing: after a reboot the number may belong to any process. So the
process's command line is read and must name the program. Called only with the data directory's
lock held, so what is found belongs to nobody.
"""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from server.supervision.child import until

STOP_SECONDS = 20.0


async def stop_remains(pid_file: Path, program: str, number: signal.Signals) -> None:
    """Stop the process named by `pid_file` if it runs `program`; then remove the file."""
    pid = read_pid(pid_file)
    if pid is not None and program in command_of(pid):
        _send(pid, number)
        if not await until(lambda: not command_of(pid), STOP_SECONDS):
            _send(pid, signal.SIGKILL)
            await until(lambda: not command_of(pid), STOP_SECONDS)
    _forget(pid_file)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _forget(pid_file: Path) -> None:
    pid_file.unlink(missing_ok=True)


def read_pid(pid_file: Path) -> int | None:
    """The number in the file's first line; None without a file or a number."""
    try:
        first = pid_file.read_text(errors="replace").split("\n", 1)[0].strip()
    except OSError:
        return None
    return int(first) if first.isdigit() else None


def command_of(pid: int) -> str:
    """The command line of a running process; empty when there is none (or only a zombie)."""
    if Path("/proc/self").exists():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return raw.replace(b"\0", b" ").decode(errors="replace")
    ps = ["ps", "-p", str(pid), "-o", "command="]
    return subprocess.run(ps, capture_output=True, text=True).stdout.strip()  # noqa: S603
