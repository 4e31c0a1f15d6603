"""The `livesale` command: thin, each command loads only what it runs.

Faults the user can mend (`Misconfigured`) end in one line and exit code 2, never in a traceback.
"""

import asyncio
import contextlib
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server import config
from server.errors import LivesaleError, Misconfigured, Refused

if TYPE_CHECKING:
    from server.embedded.supervisor import Options

DESCRIPTORS_MAX = 200_000
EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="livesale",
    help="Livestream-selling (直播带货) real-time server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="Data directory of `livesale up`.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_DATA = Path(".livesale")


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0: any free one. Default: 8000 or the next free one."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="0.0.0.0 lets other devices connect.")] = None,
    data: DataOption = DEFAULT_DATA,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Web processes.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout.")
    ] = False,
) -> None:
    """Run everything here: Valkey, PostgreSQL, web, worker, with a demo show."""
    from server.embedded.report import Report
    from server.embedded.supervisor import Supervisor

    report = Report(sys.stdout, as_json=as_json)
    try:
        code = asyncio.run(Supervisor(_options(port, host, data, processes), report).run())
    except Misconfigured as error:
        report.error(str(error))
        code = EXIT_MISCONFIGURED
    raise typer.Exit(code)


def _options(port: int | None, host: str | None, data: Path, processes: int) -> "Options":
    """What to run; servers, secret and port that the environment gives are taken from there."""
    from server.embedded.supervisor import Options

    settings = config.load()
    given = settings.model_fields_set
    if port is None and "port" in given:
        port = settings.port
    return Options(
        data=data,
        host=host if host is not None else settings.host,
        port=port,
        processes=processes,
        redis_url=settings.redis_url if "redis_url" in given else "",
        database_url=settings.database_url if "database_url" in given else "",
        secret=settings.secret.get_secret_value(),
        set_drain="drain_seconds" not in given,
    )


@app.command()
def web() -> None:
    """Serve pages, HTTP API and WebSocket, against REDIS_URL and DATABASE_URL."""
    settings = config.load()
    _prepare(settings)
    _raise_descriptor_limit()
    from server.web import serve

    try:
        code = serve.run(settings)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from None
    raise typer.Exit(code)


def _raise_descriptor_limit() -> None:
    """A viewer needs a file descriptor: from the usual soft limit of 1,024 to what is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@app.command()
def worker() -> None:
    """Write orders into PostgreSQL, open and close sales, finish hosts' acts."""
    settings = config.load()
    _prepare(settings)
    from server.orders import app as orders

    raise typer.Exit(orders.run(settings))


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date, and nothing else."""
    settings = config.load()
    _prepare(settings)


def _prepare(settings: config.Settings) -> None:
    """Logging and tables, before a process starts its work."""
    from server.records import migrate as migrations
    from server.telemetry import logs

    logs.configure(settings.log_level, settings.log_json)
    migrations.upgrade(settings.database_url)


@app.command()
def token(
    role: Annotated[str, typer.Option(help="host, moderator or viewer.")],
    show: Annotated[str, typer.Option(help="A show's id; * for all shows of a host.")],
    sub: Annotated[str, typer.Option(help="The user's id.")],
    name: Annotated[str, typer.Option(help="Shown to others.")] = "",
    ttl: Annotated[int, typer.Option(min=1, help="Seconds until it expires.")] = 2 * 3600,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Print a signed token, made with LIVESALE_SECRET or the data directory's secret."""
    from server.web import auth

    secret = with_running(config.load(), data).require_secret()
    print(auth.issue(secret, user=sub, role=role, show=show, name=name, ttl_s=ttl))


@app.command()
def audit(
    as_json: JsonOption = False,
    show: Annotated[str | None, typer.Option(help="One show only.")] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Check that every unit is where it should be. Exit code 0: yes, 11: no, 2: cannot tell."""
    from server.audit import audit as books

    raise typer.Exit(books.run(with_running(config.load(), data), show, as_json))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A benchmark; `list` names them.")],
) -> None:
    """Measure: `livesale bench NAME [--json] [options of that benchmark]`."""
    from loadtest import bench as benchmarks

    raise typer.Exit(benchmarks.main([name, *context.args]))


@app.command("build-client")
def build_client() -> None:
    """Build the demo pages (client-demo/dist)."""
    from server.embedded import node

    node.run_script("build")


def with_running(settings: config.Settings, data: Path) -> config.Settings:
    """Settings; what the environment does not say comes from the data directory of `up`."""
    from server.embedded.data import DataDirectory

    directory = DataDirectory(data)
    running = directory.running()
    found = {
        "redis_url": running.redis_url if running else "",
        "database_url": running.database_url if running else "",
        "secret": directory.secret() if directory.has_secret() else "",
    }
    missing = {
        name: value
        for name, value in found.items()
        if value and name not in settings.model_fields_set
    }
    return config.load(**missing) if missing else settings


def main() -> None:
    """Entry point of the `livesale` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except LivesaleError as error:
        print(f"error: {error}", file=sys.stderr)
        usage = isinstance(error, Misconfigured | Refused)
        sys.exit(EXIT_MISCONFIGURED if usage else EXIT_FAILED)


if __name__ == "__main__":
    main()
