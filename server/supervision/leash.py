"""First program of every child: ties the child to its parent, then becomes the real program.

    python -I -S leash.py PARENT_PID DEATH_SIGNAL UID:GID|- FD,FD...|- PROGRAM ARG...

Run by path, standard library only. It starts as the parent's user, because an unprivileged user
may not be able to read the interpreter, and changes user just before exec. On Linux the kernel
sends DEATH_SIGNAL when the parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG: cleared by a
change of user, kept over exec). Elsewhere nothing does; the next start finds what was left behind.

Descriptors that are to be kept become 3, 4, ... as sd_listen_fds(3) has it.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
LISTEN_FDS_START = 3


def _become(account: str) -> None:
    uid, gid = (int(part) for part in account.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with(parent: int, death_signal: int) -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


def _hand_over(descriptors: list[int]) -> None:
    """Renumber them, by way of numbers that are in nobody's way, and say whose they are."""
    free = LISTEN_FDS_START + len(descriptors)
    kept = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, free) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for number, each in enumerate(kept, LISTEN_FDS_START):
        os.dup2(each, number)
    os.environ["LISTEN_PID"] = str(os.getpid())


def main() -> None:
    parent, death_signal, account, descriptors, *command = sys.argv[1:]
    if account != "-":
        _become(account)
    _die_with(int(parent), int(death_signal))
    if descriptors != "-":
        _hand_over([int(each) for each in descriptors.split(",")])
    with contextlib.suppress(ValueError):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606  (that is its purpose)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        os._exit(127)


if __name__ == "__main__":
    main()
