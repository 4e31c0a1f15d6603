"""Starting what ours is measured beside: the C floor and the small servers in references/."""

import atexit
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from loadtest import process

REFERENCES = {  # program in references/ -> the package it shows, which names its figures
    "websockets_broadcast": "websockets",
    "picows_send": "picows",
    "starlette_loop": "starlette",
    "ws_loop": "ws",
}
ECHOES = {
    "websockets_echo": "websockets",
    "picows_echo": "picows",
    "starlette_echo": "starlette",
    "ws_echo": "ws",
}
FLOOR = "floor"
NODE = "node"
SOURCES = Path(__file__).parent  # of what is written in C
COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server. `speaks_websocket` is False for the floor, which has plain TCP only."""

    figure: str
    child: process.Process
    port: int

    @property
    def speaks_websocket(self) -> bool:
        return self.figure != FLOOR


def available(references: Mapping[str, str] = REFERENCES) -> tuple[list[str], list[str]]:
    """Those of the references whose package is installed, and notes on the others."""
    here = [module for module, package in references.items() if _installed(module, package)]
    gone = [package for module, package in references.items() if module not in here]
    return here, [f"{package} is not installed: not measured" for package in gone]


@cache
def _installed(module: str, package: str) -> bool:
    if (script := _node_script(module)) is None:
        return find_spec(package) is not None
    return shutil.which(NODE) is not None and _runs(NODE, str(script))


def _node_script(module: str) -> Path | None:
    """The reference's program where it is one for Node and no module of Python."""
    script = SOURCES / "references" / f"{module}.cjs"
    return script if script.exists() else None


def _runs(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def has_compiler() -> bool:
    """Whether programs in C can be made here."""
    return _compiler() is not None


def _compiler() -> str | None:
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


@cache
def compile_c(name: str) -> Path | None:
    """The program `name`.c, compiled once for this process; None where no C compiler is found."""
    if (compiler := _compiler()) is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="livesale-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program, source = folder / name, SOURCES / f"{name}.c"
    subprocess.run([compiler, "-O2", "-o", str(program), str(source)], check=True)
    return program


@asynccontextmanager
async def floor(program: Path) -> AsyncIterator[Peer]:
    """The compiled floor (floor.c), alone on the server's core."""
    port = process.free_port()
    log = program.with_suffix(".log")
    child = process.start(FLOOR, [str(program), str(port)], log=log, core=process.SERVER_CORE)
    async with _running(Peer(FLOOR, child, port)) as peer:
        yield peer


@asynccontextmanager
async def reference(module: str, folder: Path) -> AsyncIterator[Peer]:
    """One of REFERENCES or ECHOES, alone on the server's core; its log goes to `folder`."""
    port = process.free_port()
    script = _node_script(module)
    python = [sys.executable, "-m", f"loadtest.bench.references.{module}"]
    child = process.start(
        module,
        [*(python if script is None else [NODE, str(script)]), str(port)],
        log=folder / f"{module}.log",
        core=process.SERVER_CORE,
    )
    async with _running(Peer((REFERENCES | ECHOES)[module], child, port)) as peer:
        yield peer


@asynccontextmanager
async def _running(peer: Peer) -> AsyncIterator[Peer]:
    try:
        await process.listening(peer.child, peer.port)
        yield peer
    finally:
        peer.child.kill()
