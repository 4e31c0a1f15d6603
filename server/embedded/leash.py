"""First program of every child: ties the child to its parent, then becomes the real program.

    python -I -S leash.py PARENT_PID DEATH_SIGNAL UID:GID|- PROGRAM ARG...

Run by path, standard library only. It starts as the parent's user, because an unprivileged user
may not be able to read the interpreter, and changes user just before exec. On Linux the kernel
sends DEATH_SIGNAL when the parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG: cleared by a
change of user, kept over exec). Elsewhere nothing does; the next start finds what was left behind.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


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


def main() -> None:
    parent, death_signal, account, *command = sys.argv[1:]
    if account != "-":
        _become(account)
    _die_with(int(parent), int(death_signal))
    with contextlib.suppress(ValueError):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606  (that is its purpose)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        os._exit(127)


if __name__ == "__main__":
    main()
