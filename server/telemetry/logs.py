"""Set-up of logging: structlog for us, and the standard library's loggers into the same lines.

Every line has `timestamp` (UTC, ISO 8601), `level`, `logger` where it came through the standard
library (uvicorn, asyncio, alembic), `event`, then its fields; as one JSON object, or as text for
people. Lines go to stderr. Never logged: tokens, addresses, what people wrote.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

# Their INFO lines would repeat ours, or come once per connection.
QUIET: Final = ("uvicorn.error", "uvicorn.access", "alembic", "websockets", "asyncio")

_SHARED: Final[Sequence[Processor]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def configure(level: str, json: bool, stream: TextIO | None = None, *, process: int = 0) -> None:
    """Set up logging for this process; call once, in the composition root.

    `level`: debug, info, warning or error. `json`: one object a line, else text. `process`: which
    of several, said in each line; 0: the only one.
    """
    if process:
        structlog.contextvars.bind_contextvars(process=process)
    output = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    rendering = _rendering(json)
    structlog.configure(
        processors=[*_SHARED, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    _route_stdlib(number, rendering, output)


def _rendering(json: bool) -> Sequence[Processor]:
    if json:
        to_json = structlog.processors.JSONRenderer(ensure_ascii=False)
        return (structlog.processors.format_exc_info, to_json)
    plain = structlog.dev.plain_traceback
    return (structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain, pad_event_to=0),)


def _route_stdlib(level: int, rendering: Sequence[Processor], output: TextIO) -> None:
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_SHARED],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
