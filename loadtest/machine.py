"""What the numbers were measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("uvloop", "uvicorn", "starlette", "websockets", "picows", "redis", "asyncpg", "msgspec")


def facts() -> dict[str, object]:
    """Processor, kernel, versions, and how busy the machine was when asked."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 2),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
