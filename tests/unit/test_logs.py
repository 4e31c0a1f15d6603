"""One schema for our own lines and those of the standard library's loggers."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from server.telemetry import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Puts the root logger and structlog back as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_when_both_kinds_of_loggers_write_then_the_same_fields() -> None:
    out = io.StringIO()
    logs.configure("info", json=True, stream=out)
    structlog.get_logger().info("sale_opened", show_id="demo", title="秒杀")
    logging.getLogger("somewhere").warning("it %s", "happened")
    ours, theirs = lines(out)
    assert (ours["event"], ours["level"], ours["title"]) == ("sale_opened", "info", "秒杀")
    assert (theirs["event"], theirs["level"]) == ("it happened", "warning")
    assert theirs["logger"] == "somewhere"
    assert str(ours["timestamp"]).endswith("Z")
    assert set(ours) - {"show_id", "title"} == set(theirs) - {"logger"}


def test_json_when_an_exception_is_logged_then_one_line_with_its_traceback() -> None:
    out = io.StringIO()
    logs.configure("info", json=True, stream=out)
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("somewhere").exception("failed too")
    for line in lines(out):
        assert "ValueError: bad" in str(line["exception"])


def test_level_when_warning_then_info_is_left_out() -> None:
    out = io.StringIO()
    logs.configure("warning", json=True, stream=out)
    structlog.get_logger().info("quiet")
    logging.getLogger("somewhere").info("quiet")
    assert out.getvalue() == ""


def test_level_when_debug_then_uvicorn_is_still_quiet_per_connection() -> None:
    out = io.StringIO()
    logs.configure("debug", json=True, stream=out)
    logging.getLogger("uvicorn.error").info("connection open")
    assert out.getvalue() == ""


def test_text_when_an_exception_is_logged_then_its_traceback_is_readable() -> None:
    out = io.StringIO()
    logs.configure("info", json=False, stream=out)
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger().exception("failed", show_id="demo")
    text = out.getvalue()
    assert "failed" in text
    assert "show_id=demo" in text
    assert "\nValueError: bad" in text
