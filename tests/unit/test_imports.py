"""Imports go down only, and each outside library has one home (ARCHITECTURE.md, "Layers")."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Lower number = lower layer. Packages on one layer never import each other.
LAYERS = {
    "errors": 0, "limits": 0, "clock": 0, "memory": 0, "config": 0, "telemetry": 0,
    "domain": 1, "supervision": 1,
    "protocol": 2,
    "hub": 3, "store": 3, "records": 3, "payments": 3, "webhooks": 3,
    "acts": 4, "audit": 4,
    "web": 5, "orders": 5,
    "embedded": 6, "reference": 6,
    "cli": 7,
}  # fmt: skip
LEAVES_MAY_IMPORT = {"config": {"errors", "limits"}, "telemetry": {"errors", "limits"}}
ONLY_IN = {
    "redis": {"store", "embedded"},
    "asyncpg": {"records", "embedded"},
    "sqlalchemy": {"records"},
    "alembic": {"records"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "uvloop": {"web", "orders"},
    "stripe": {"payments"},
    "aiohttp": {"webhooks", "payments"},
    "standardwebhooks": {"webhooks", "payments"},
    "typer": {"cli"},
}


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names imported anywhere in `path`, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "server":
                for alias in node.names:
                    yield f"server.{alias.name}", node.lineno
            elif node.module:
                yield node.module, node.lineno


def server_modules() -> list[Path]:
    return sorted((ROOT / "server").rglob("*.py"))


def package_of(path: Path) -> str:
    first = path.relative_to(ROOT / "server").parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", server_modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_when_it_imports_then_only_from_lower_layers(path: Path) -> None:
    here = package_of(path)
    if here == "__init__":
        return
    for name, line in imports_of(path):
        parts = name.split(".")
        if parts[0] == "server" and len(parts) > 1 and parts[1] != here:
            there = parts[1]
            if LAYERS[here] == 0:
                allowed = there in LEAVES_MAY_IMPORT.get(here, set())
            else:
                allowed = LAYERS[there] < LAYERS[here]
            assert allowed, f"{path}:{line}: {here} must not import {name}"
        if parts[0] == "loadtest":
            assert here == "cli", f"{path}:{line}: only the cli may import loadtest"
        home = ONLY_IN.get(parts[0])
        assert home is None or here in home, f"{path}:{line}: {parts[0]} belongs in {home}"


WIRE = ("server.protocol", "server.limits", "server.clock", "server.errors")
KEYS = ("server.store.keys",)  # names of keys, nothing that does anything with them
LOADTEST_MAY_IMPORT = {  # besides the wire
    "stand.py": ("server.embedded", "server.store"),  # starts a livesale
    "process.py": ("server.supervision",),
    "target.py": ("server.embedded", "server.config"),  # finds the one that runs here
    "measures/witness.py": KEYS,
    "audit/books.py": KEYS,
    "bench/orders.py": ("server.store",),  # these two measure one part from within
    "bench/script.py": ("server.store",),
}


def names_of(path: Path) -> Iterator[tuple[str, int]]:
    """Like `imports_of`, each imported name with its module: server.store.keys."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)


def test_loadtest_when_it_imports_the_server_then_only_the_wire() -> None:
    for path in sorted((ROOT / "loadtest").rglob("*.py")):
        inside = path.relative_to(ROOT / "loadtest").as_posix()
        allowed = WIRE + LOADTEST_MAY_IMPORT.get(inside, ())
        for name, line in names_of(path):
            if name.startswith("server"):
                assert name.startswith(allowed), f"{path}:{line}: {name}"


def test_loadtest_audit_when_it_judges_the_server_then_it_shares_only_names_with_it() -> None:
    for path in sorted((ROOT / "loadtest" / "audit").rglob("*.py")):
        for name, line in names_of(path):
            assert not name.startswith(("server.audit", "server.records", "loadtest.bench")), (
                f"{path}:{line}: {name}"
            )
