"""The `livesale` command: thin, each command loads only what it runs.

Faults the user can mend (`Misconfigured`) end in one line and exit code 2, never in a traceback.
"""

import asyncio
import contextlib
import resource
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server import config
from server.errors import LivesaleError, Misconfigured, Refused

if TYPE_CHECKING:
    from server.domain.identity import Identity
    from server.embedded.supervisor import Options
    from server.orders.operator import ByHand

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
ProcessesOption = Annotated[
    int, typer.Option(min=0, max=64, help="Web processes. 0: one for each core but one.")
]
DEFAULT_DATA = Path(".livesale")


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="0: any free one. Default: 8000 or the next free one."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="0.0.0.0 lets other devices connect.")] = None,
    data: DataOption = DEFAULT_DATA,
    processes: ProcessesOption = 0,
    durability: Annotated[
        str | None, typer.Option(help="fast, strict or none (docs/GUARANTEES.md). Default: fast.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout.")
    ] = False,
) -> None:
    """Run everything here: Valkey, PostgreSQL, web, worker, with a demo show."""
    from server.embedded.report import Report
    from server.embedded.supervisor import Supervisor

    report = Report(sys.stdout, as_json=as_json)
    try:
        options = _options(port, host, data, processes, durability)
        code = asyncio.run(Supervisor(options, report).run())
    except Misconfigured as error:
        report.error(str(error))
        code = EXIT_MISCONFIGURED
    raise typer.Exit(code)


def _options(
    port: int | None, host: str | None, data: Path, processes: int, durability: str | None
) -> "Options":
    """What to run; what the environment gives (servers, secret, port, ...) is taken from there."""
    from server.embedded.supervisor import Options

    settings = config.load(**({"durability": durability} if durability else {}))
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
        durability=settings.durability,
        set_drain="drain_seconds" not in given,
    )


@app.command()
def web(
    processes: ProcessesOption = 1,
    process: Annotated[
        int, typer.Option(hidden=True, help="Which of several this one is; 0: the only one.")
    ] = 0,
) -> None:
    """Serve pages, HTTP API and WebSocket, against REDIS_URL and DATABASE_URL."""
    settings = config.load()
    count = processes or _processes_by_cores()
    _raise_descriptor_limit()
    if count > 1 and not process:
        raise typer.Exit(_keep_processes(settings, count))
    _prepare(settings, process)
    from server.web import serve

    raise typer.Exit(serve.run(settings))


def _processes_by_cores() -> int:
    from server.web.processes import processes_by_cores

    return processes_by_cores()


def _keep_processes(settings: config.Settings, count: int) -> int:
    from server.telemetry import logs
    from server.web import processes

    logs.configure(settings.log_level, settings.log_json)
    return processes.run(settings, count)


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


def _prepare(settings: config.Settings, process: int = 0) -> None:
    """Logging and tables, before a process starts its work."""
    from server.records import migrate as migrations
    from server.telemetry import logs

    logs.configure(settings.log_level, settings.log_json, process=process)
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
    repair: Annotated[
        bool, typer.Option("--repair", help="Finish what is pending; make Redis follow the books.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Check that every unit is where it should be. Exit code 0: yes, 11: no, 2: cannot tell."""
    settings = with_running(config.load(), data)
    if repair:
        from server.orders import repair as repairing
        from server.telemetry import logs

        logs.configure(settings.log_level, settings.log_json)
        raise typer.Exit(repairing.run(settings, show, as_json))
    from server.audit import command

    raise typer.Exit(command.run(settings, show, as_json))


@app.command()
def reconcile(
    show: Annotated[
        str | None, typer.Option(help="This show, whatever its state; else all that need it.")
    ] = None,
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Rebuild the stock of shows in Redis from PostgreSQL, as every start of Redis does."""
    from server.orders import reconcile_command
    from server.telemetry import logs

    settings = with_running(config.load(), data)
    logs.configure(settings.log_level, settings.log_json)  # to stderr: stdout has the answer
    raise typer.Exit(reconcile_command.run(settings, show, as_json))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A benchmark; `list` names them.")],
) -> None:
    """Measure: `livesale bench NAME [--json] [options of that benchmark]`."""
    from loadtest.bench import command

    raise typer.Exit(command.main([name, *context.args]))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def loadtest(context: typer.Context) -> None:
    """Test how a flash sale holds, and audit it: `livesale loadtest PRESET|FILE` (or --help)."""
    from loadtest import command

    raise typer.Exit(command.main(context.args))


@app.command("build-client")
def build_client() -> None:
    """Build the demo pages (client-demo/dist)."""
    from server.embedded import node

    node.run_script("build")


# --- Payments, webhooks and dead letters: by hand, for every show --------------------------------

payments = typer.Typer(help="What was paid, and refunds that need a hand.", no_args_is_help=True)
webhooks = typer.Typer(help="Where a show's events are told to.", no_args_is_help=True)
dead_letters = typer.Typer(help="Takes that could not be booked.", no_args_is_help=True)
app.add_typer(payments, name="payments")
app.add_typer(webhooks, name="webhooks")
app.add_typer(dead_letters, name="dead-letters")

ShowOption = Annotated[str, typer.Option("--show", metavar="ID", help="The show.")]
Number = Annotated[int, typer.Argument(min=1)]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=200, help="Newest first.")]
PaymentArgument = Annotated[uuid.UUID, typer.Argument(metavar="PAYMENT", help="A payment's id.")]


@payments.command("list")
def list_payments(
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Only late payments and refunds under way.")
    ] = False,
    refused: Annotated[
        bool, typer.Option("--refused", help="Only refunds that their provider refuses.")
    ] = False,
    show: Annotated[str | None, typer.Option(help="One show only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Newest first.")] = 100,
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """List payments, newest first."""
    from server.orders import payments_report

    settings = with_running(config.load(), data)
    which = {"show_id": show, "unfinished": unfinished, "refused": refused, "limit": limit}
    payments_report.run_list(settings.database_url, as_json=as_json, **which)


@payments.command("show")
def show_payment(
    payment: PaymentArgument, as_json: JsonOption = False, data: DataOption = DEFAULT_DATA
) -> None:
    """Show one and all that happened to it."""
    from server.orders import payments_report

    settings = with_running(config.load(), data)
    payments_report.run_show(settings.database_url, payment, as_json=as_json)


@payments.command("refund-again")
def refund_again(
    payment: Annotated[
        uuid.UUID | None,
        typer.Argument(metavar="PAYMENT", help="Default: all that were refused."),
    ] = None,
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Have the provider asked again, now."""
    _by_hand(
        lambda acts, who: (
            acts.refunds.again(who, payment) if payment else acts.refunds.all_again(who)
        ),
        data,
        as_json,
    )


@payments.command("refunded-by-hand")
def refunded_by_hand(
    payment: PaymentArgument,
    note: Annotated[str, typer.Option(help="How the money went back; kept in the audit log.")],
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Settle a refund that was refused: the money went back another way; or one made twice."""
    _by_hand(lambda acts, who: acts.refunds.by_hand(who, payment, note), data, as_json)


@webhooks.command("list")
def list_webhooks(
    show: ShowOption, as_json: JsonOption = False, data: DataOption = DEFAULT_DATA
) -> None:
    """List the endpoints of a show."""
    _by_hand(lambda acts, who: acts.webhooks.list_all(who, show), data, as_json)


@webhooks.command("add")
def add_webhook(
    url: str,
    show: ShowOption,
    topic: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: all.")] = None,
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Tell URL what happens; prints the secret that its messages are signed with."""
    from server.acts.messages import CreateWebhook
    from server.web.endpoint import to_struct

    body = to_struct({"url": url, "topics": topic or []}, CreateWebhook)
    _by_hand(lambda acts, who: acts.webhooks.create(who, show, body), data, as_json)


@webhooks.command("remove")
def remove_webhook(webhook: Number, show: ShowOption, data: DataOption = DEFAULT_DATA) -> None:
    """Send nothing more to an endpoint."""
    _by_hand(lambda acts, who: acts.webhooks.remove(who, show, webhook), data, as_json=False)


@webhooks.command("log")
def webhook_log(
    webhook: Number,
    show: ShowOption,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Show what was sent to an endpoint, newest first."""
    from server.acts.messages import DeliveriesQuery
    from server.web.endpoint import to_struct

    query = to_struct({"status": status, "limit": limit}, DeliveriesQuery)
    _by_hand(lambda acts, who: acts.webhooks.deliveries(who, show, webhook, query), data, as_json)


@webhooks.command("resend")
def resend_webhook(
    webhook: Number,
    show: ShowOption,
    delivery: Annotated[int | None, typer.Option(help="Default: all that failed.")] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Send a delivery again, or everything that failed."""
    _by_hand(
        lambda acts, who: acts.webhooks.resend(who, show, webhook, delivery), data, as_json=False
    )


@dead_letters.command("list")
def list_dead_letters(
    show: ShowOption,
    status: Annotated[str | None, typer.Option(help="parked, redriven or given_back.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """List the dead letters of a show, newest first."""
    from server.acts.messages import DeadLettersQuery
    from server.web.endpoint import to_struct

    query = to_struct({"status": status, "limit": limit}, DeadLettersQuery)
    _by_hand(lambda acts, who: acts.dead_letters.list_all(who, show, query), data, as_json)


@dead_letters.command("show")
def show_dead_letter(letter: Number, show: ShowOption, data: DataOption = DEFAULT_DATA) -> None:
    """Show one, its content included, as JSON."""
    _by_hand(lambda acts, who: acts.dead_letters.show(who, show, letter), data, as_json=True)


@dead_letters.command("redrive")
def redrive_dead_letter(
    letter: Number, show: ShowOption, as_json: JsonOption = False, data: DataOption = DEFAULT_DATA
) -> None:
    """Book it at its own place: its claim is confirmed."""
    _by_hand(lambda acts, who: acts.dead_letters.redrive(who, show, letter), data, as_json)


@dead_letters.command("give-back")
def give_back_dead_letter(
    letter: Number, show: ShowOption, as_json: JsonOption = False, data: DataOption = DEFAULT_DATA
) -> None:
    """Return its units to the sale: its claim is released."""
    _by_hand(lambda acts, who: acts.dead_letters.give_back(who, show, letter), data, as_json)


def _by_hand(
    act: "Callable[[ByHand, Identity], Awaitable[Any]]", data: Path, as_json: bool
) -> None:
    """Do it as the operator and print the answer."""
    from server.orders import operator
    from server.telemetry import logs

    settings = with_running(config.load(), data)
    logs.configure(settings.log_level, settings.log_json)  # to stderr: stdout has the answer
    operator.run(settings, lambda acts: act(acts, operator.OPERATOR), as_json=as_json)


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
