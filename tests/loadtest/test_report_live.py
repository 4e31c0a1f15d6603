"""Those who watch a run: a terminal, a pipe, JSON lines, a scrape."""

import io
import json
import urllib.request
from pathlib import Path

import pytest

from loadtest.report import live, prometheus, summary
from loadtest.report.summary import Second, Summary

GOLDEN = Path(__file__).with_name("golden")


def golden(name: str) -> Summary:
    return summary.read((GOLDEN / f"{name}.json").read_bytes())


def seconds(count: int) -> list[Second]:
    return [
        Second(
            "measure", float(t), t / count, {"open": 1000.0 + t, "held": 3.0},
            {"held": 3 * t}, {"stale": (20.0, 80.0)},
        )
        for t in range(count)
    ]  # fmt: skip


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(view: live.View, name: str = "threshold") -> None:
    for second in seconds(12):
        view.pulse(second)
    view.note("web-1 killed [red]not markup[/red]")
    view.done(golden(name))


def test_view_when_piped_then_plain_lines_every_five_seconds() -> None:
    out = io.StringIO()
    shown(live.view("en", stream=out))
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert [line.split(" s ")[0].strip() for line in lines[:3]] == ["0.0", "5.0", "10.0"]
    assert "open 1,005" in lines[1]
    assert "stale p99 80 ms" in lines[1]
    assert lines[4].startswith("Threshold missed: ")
    assert any(line.startswith("  ✗") for line in lines[5:])


def test_view_when_a_terminal_then_a_picture_and_the_verdict_stays() -> None:
    out = Tty()
    shown(live.view("zh", stream=out))
    assert "测量" in out.getvalue()
    assert "[red]not markup[/red]" in out.getvalue()
    assert "未达标" in out.getvalue()


def test_view_when_json_then_one_object_per_line() -> None:
    out = io.StringIO()
    shown(live.view(as_json=True, stream=out), "pass")
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["progress"] * 12 + ["note", "done"]
    assert events[3]["values"]["open"] == 1003.0
    assert (events[-1]["verdict"], events[-1]["exit"]) == ("pass", 0)


@pytest.mark.parametrize("name", ["pass", "threshold", "audit", "invalid", "empty", "rehearsal"])
def test_view_when_done_then_every_verdict_has_its_line(name: str) -> None:
    out = io.StringIO()
    live.Plain(out, "zh").done(golden(name))
    assert len(out.getvalue().splitlines()[0]) > 10


def test_spark_when_values_vary_then_heights_do() -> None:
    assert live.spark([0, 4, 8]) == "▁▅█"
    assert live.spark([]) == ""
    assert live.spark([0, 0]) == "▁▁"


def test_scrape_when_asked_then_gauges_of_the_last_second() -> None:
    view = prometheus.Scrape(0)
    try:
        shown(view)
        address = f"http://127.0.0.1:{view.port}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
    finally:
        view.close()
    assert "livesale_loadtest_open 1011.0" in text
    assert 'livesale_loadtest_latency_seconds{measure="stale",quantile="0.99"} 0.08' in text
    assert 'livesale_loadtest_phase{phase="measure"} 1.0' in text
    assert "livesale_loadtest_exit_code 10.0" in text
