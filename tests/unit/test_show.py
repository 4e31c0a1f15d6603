"""The life of a show: which act is allowed when."""

import pytest

from server.domain.show import ShowAct, ShowStatus, next_status, require_running
from server.errors import Refused

TABLE: dict[tuple[ShowStatus, ShowAct], str] = {
    ("scheduled", "start"): "live",
    ("scheduled", "pause"): "!show_not_live",
    ("scheduled", "resume"): "!show_not_live",
    ("scheduled", "end"): "ended",
    ("live", "start"): "live",
    ("live", "pause"): "paused",
    ("live", "resume"): "live",
    ("live", "end"): "ended",
    ("paused", "start"): "!conflict",
    ("paused", "pause"): "paused",
    ("paused", "resume"): "live",
    ("paused", "end"): "ended",
    ("ended", "start"): "!show_ended",
    ("ended", "pause"): "!show_ended",
    ("ended", "resume"): "!show_ended",
    ("ended", "end"): "ended",
}


@pytest.mark.parametrize(("status", "act"), TABLE)
def test_show_when_an_act_comes_then_the_table_says_what(status: ShowStatus, act: ShowAct) -> None:
    expected = TABLE[status, act]
    if expected.startswith("!"):
        with pytest.raises(Refused, match=expected[1:]):
            next_status(status, act)
    else:
        assert next_status(status, act) == expected


@pytest.mark.parametrize(
    ("status", "name"),
    [("scheduled", "show_not_live"), ("paused", "show_paused"), ("ended", "show_ended")],
)
def test_sale_when_the_show_does_not_run_then_it_may_not_start(
    status: ShowStatus, name: str
) -> None:
    with pytest.raises(Refused, match=name):
        require_running(status)
    require_running("live")
