"""Starting what ours is measured beside: the C floor and the small servers in references/."""

import shutil
import subprocess
from collections.abc import AsyncIterator
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
FLOOR = "floor"
FLOOR_SOURCE = Path(__file__).with_name("floor.c")
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


def available() -> tuple[list[str], list[str]]:
    """Modules of references whose package is installed, and notes on the others."""
    here = [module for module, package in REFERENCES.items() if find_spec(package)]
    gone = [package for module, package in REFERENCES.items() if module not in here]
    return here, [f"{package} is not installed: not measured" for package in gone]


def compile_floor(folder: Path) -> Path | None:
    """The compiled floor in `folder`; None where no C compiler is found."""
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        return None
    program = folder / "floor"
    subprocess.run([compiler, "-O2", "-o", str(program), str(FLOOR_SOURCE)], check=True)
    return program


@asynccontextmanager
async def floor(program: Path) -> AsyncIterator[Peer]:
    """The compiled floor, alone on the server's core."""
    port = process.free_port()
    log = program.with_suffix(".log")
    child = process.start(FLOOR, [str(program), str(port)], log=log, core=process.SERVER_CORE)
    async with _running(Peer(FLOOR, child, port)) as peer:
        yield peer


@asynccontextmanager
async def reference(module: str, folder: Path) -> AsyncIterator[Peer]:
    """One of REFERENCES, alone on the server's core; its log goes to `folder`."""
    port = process.free_port()
    child = process.start_module(
        module,
        f"loadtest.references.{module}",
        str(port),
        log=folder / f"{module}.log",
        core=process.SERVER_CORE,
    )
    async with _running(Peer(REFERENCES[module], child, port)) as peer:
        yield peer


@asynccontextmanager
async def _running(peer: Peer) -> AsyncIterator[Peer]:
    try:
        await process.listening(peer.child, peer.port)
        yield peer
    finally:
        peer.child.kill()
