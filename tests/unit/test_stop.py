"""The longest stop of a web process, by the bounds of its steps."""

from server.config import Settings
from server.web import app, serve

MAIN_LOOP_SECONDS = 0.1  # uvicorn looks that often whether it should stop


def test_stop_when_every_step_takes_its_bound_then_it_is_within_ten_seconds() -> None:
    drain_s = Settings().drain_seconds + serve.DRAIN_SLACK_SECONDS
    pools_s = 3 * app.CLOSE_SECONDS  # bus, PostgreSQL, Redis
    steps_s = drain_s + serve.HTTP_STOP_SECONDS + app.HUB_STOP_SECONDS + pools_s
    assert MAIN_LOOP_SECONDS + steps_s <= 9.5
