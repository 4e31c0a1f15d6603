"""`livesale loadtest`: what was asked, whether it is allowed, and the exit code.

0 pass, 2 wrong usage, 10 a threshold, 11 the audit, 12 invalid (the load tester was too slow),
130 interrupted (the report is still written). Figures go to standard output, faults of usage to
standard error.
"""

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from loadtest import scenario as scenarios
from loadtest.scenario import Scenario, Usage

EXIT_OK, EXIT_USAGE, EXIT_INTERRUPTED = 0, 2, 130
DESCRIPTORS_SPARE: Final = 200  # of a process, besides its connections
MISSING: Final = "{} is missing: pip install 'livesale[loadtest,embedded]'"
EPILOG: Final = """\
livesale loadtest list              presets
livesale loadtest show PRESET       a preset's TOML, to start a file of your own from
livesale loadtest compare A B       two summary.json, or two folders of runs
"""


def main(arguments: Sequence[str]) -> int:
    """The command line behind `livesale loadtest`; the exit status."""
    try:
        return _dispatched(list(arguments))
    except Usage as error:
        print(f"livesale loadtest: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("loadtest", "server")):
            raise
        print(MISSING.format(error.name), file=sys.stderr)
        return EXIT_USAGE


def _dispatched(arguments: list[str]) -> int:
    match arguments:
        case ["list"]:
            for name in scenarios.presets():
                title = scenarios.load(name).title
                print(f"{name:<16} {title.get('zh', '')} · {title.get('en', '')}")
            return EXIT_OK
        case ["show", name]:
            print(scenarios.path_of(name).read_text(), end="")
            return EXIT_OK
        case ["compare", a, b]:
            from loadtest.report import compare

            return compare.main(a, b)
        case ["--rehearse", "-"]:
            from loadtest import rehearsal

            return rehearsal.main()
        case _:
            return _tested(_parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="livesale loadtest",
        description="Test a livesale the way a flash sale does, and audit what came of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("scenario", metavar="PRESET|FILE", help="`list` names the presets")
    whom = parser.add_argument_group("whom", "without any: the `livesale up` that runs in --data")
    where = whom.add_mutually_exclusive_group()
    where.add_argument("--up", action="store_true", help="start a livesale, stop it at the end")
    where.add_argument("--url", action="append", default=[], help="one for each room")
    whom.add_argument("--data", type=Path, default=Path(".livesale"), metavar="DIR")
    whom.add_argument("--redis-url", default="", metavar="URL", help="to audit, with the next")
    whom.add_argument("--database-url", default="", metavar="URL")
    whom.add_argument(
        "--tokens", type=Path, metavar="FILE", help="instead of LIVESALE_SECRET: one a line"
    )
    whom.add_argument("--i-own-this-host", action="store_true", help="it is not this machine")
    what = parser.add_argument_group("what")
    what.add_argument("--seconds", type=float, metavar="S", help="of the measured part")
    what.add_argument("--loaders", type=int, metavar="N", help="processes; 0: by cores")
    what.add_argument("--seed", type=int, metavar="N")
    what.add_argument(
        "--set", action="append", default=[], metavar="PLACE=VALUE",
        help="change the scenario: crowd.0.count=50",
    )  # fmt: skip
    told = parser.add_argument_group("told")
    told.add_argument("--out", type=Path, metavar="DIR", help="loadtest-out/NAME-TIME/")
    told.add_argument("--junit", type=Path, metavar="FILE")
    told.add_argument("--prometheus", type=int, metavar="PORT", help="on 127.0.0.1; 0: a free one")
    told.add_argument("--lang", choices=["zh", "en"], default=_language())
    told.add_argument("--json", action="store_true", dest="as_json", help="JSON lines")
    told.add_argument(
        "--abort-on-fail", action="store_true",
        help="end at the first finding, maximum beyond its limit, or p99 missed for three seconds",
    )  # fmt: skip
    return parser


def _language() -> str:
    """zh where the environment speaks Chinese (POSIX: LC_ALL before LANG)."""
    said = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG", "")
    return "zh" if said.startswith("zh") else "en"


# --- What was asked ------------------------------------------------------------------------------


def _asked_scenario(asked: argparse.Namespace) -> Scenario:
    """The scenario with what the command line changes. Raises Usage."""
    changes: dict[str, str] = {}
    for each in asked.set:
        where, equals, value = each.partition("=")
        if not (where and equals):
            raise Usage(f"--set {each}: write PLACE=VALUE")
        changes[where] = value
    for name in ("seconds", "loaders", "seed"):
        if (value := getattr(asked, name)) is not None:
            changes[name] = repr(value)
    scenario = scenarios.load(asked.scenario, changes)
    if asked.up:
        return scenario
    if parts := scenario.parts():
        raise Usage(f"faults of {', '.join(parts)} need --up: only what we start is broken")
    scenario = msgspec.structs.replace(scenario, rooms=max(1, len(asked.url)))
    scenarios.require_possible(scenario)
    return scenario


def _require_descriptors(scenario: Scenario) -> None:
    """Raise the soft limit; every process of ours inherits it. Raises Usage when it is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loaders = scenario.processes
    needed = max(-(-scenario.sockets // loaders), -(-scenario.sockets // scenario.rooms))
    needed += DESCRIPTORS_SPARE
    if hard == resource.RLIM_INFINITY or hard > soft:
        wanted = needed if hard == resource.RLIM_INFINITY else hard
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    if (soft := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) < needed:
        raise Usage(
            f"{needed} files may have to be open in one process, {soft} are allowed: "
            "more with ulimit -n, or use more --loaders and rooms"
        )


# --- Doing it ------------------------------------------------------------------------------------


def _tested(asked: argparse.Namespace) -> int:
    """Run it; the exit status."""
    from loadtest import execution  # needs the extra: `list` and `show` do not

    scenario = _asked_scenario(asked)
    _require_descriptors(scenario)
    try:
        return uvloop.run(execution.run(asked, scenario))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return EXIT_INTERRUPTED
