"""Starting what ours is measured beside: the C floor and the small servers in references/."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from loadtest import process

REFERENCES = {  # module in loadtest/references -> the package it shows, which names its figures
    "websockets_broadcast": "websockets",
    "picows_send": "picows",
    "starlette_loop": "starlette",
}
ECHOES = {
    "websockets_echo": "websockets",
    "picows_echo": "picows",
    "starlette_echo": "starlette",
}
FLOOR = "floor"
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
    """Modules of references whose package is installed, and notes on the others."""
    here = [module for module, package in references.items() if find_spec(package)]
    gone = [package for module, package in references.items() if module not in here]
    return here, [f"{package} is not installed: not measured" for package in gone]


def compile_c(name: str, folder: Path) -> Path | None:
    """The program `name`.c compiled to `folder`, once; None where no C compiler is found."""
    program = folder / name
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    if not program.exists():
        source = SOURCES / f"{name}.c"
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
    child = process.start_module(
        module,
        f"loadtest.references.{module}",
        str(port),
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
