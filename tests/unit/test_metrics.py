"""Metrics: what is counted is what is exposed, and everything has a name and a help text."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import PROCESS_COLLECTOR, REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from server import errors, reference
from server.telemetry import metrics
from server.telemetry.metrics import Spread
from tests.scrape import value


@pytest.fixture
def spread() -> Iterator[Spread]:
    spread = Spread("livesale_test_seconds", "Of a test", (0.1, 1))
    yield spread
    REGISTRY.unregister(spread)


def test_tally_when_it_counted_then_the_exposition_says_so() -> None:
    before = metrics.commands.count("time")
    metrics.commands.add("time")
    metrics.commands.add("time", 2)
    assert metrics.commands.count("time") == before + 3
    line = f'livesale_commands_total{{command="time"}} {before + 3}.0'
    assert line in metrics.exposition().decode().splitlines()


def test_spread_when_it_measured_then_prometheus_reads_a_histogram(spread: Spread) -> None:
    for seconds in (0.05, 0.1, 0.11, 1, 7):
        spread.observe(seconds)
    bucket = "livesale_test_seconds_bucket"
    assert [value(bucket, le=le) for le in ("0.1", "1.0", "+Inf")] == [2, 4, 5]
    assert value("livesale_test_seconds_count") == 5
    assert value("livesale_test_seconds_sum") == pytest.approx(8.26)


def test_exposition_when_it_is_parsed_then_all_of_ours_is_there() -> None:
    text = metrics.exposition().decode()
    read = {family.name: family for family in text_string_to_metric_families(text)}
    for family in REGISTRY.collect():
        if family.name.startswith("livesale_"):
            assert read[family.name].type == family.type
            assert read[family.name].documentation == family.documentation


def test_process_metrics_when_compared_then_they_are_what_prometheus_itself_would_tell() -> None:
    ours = {family.name: family for family in metrics.own_process.collect()}
    theirs = {family.name: family for family in PROCESS_COLLECTOR.collect()}
    assert theirs.keys() == ours.keys()
    for name, family in theirs.items():
        assert ours[name].type == family.type
        assert ours[name].samples[0].name == family.samples[0].name
        assert ours[name].samples[0].value == pytest.approx(family.samples[0].value, rel=0.1)


def test_process_metrics_when_descriptors_are_opened_then_they_are_counted() -> None:
    before = value("process_open_fds")
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(open(os.devnull))
        assert value("process_open_fds") - before == 100


def test_metrics_when_they_are_ours_then_they_are_named_and_explained() -> None:
    ours = [family for family in REGISTRY.collect() if family.name.startswith("livesale")]
    assert len(ours) >= 25
    assert all(family.documentation for family in ours)


def test_labels_when_they_name_a_close_then_it_is_one_of_the_table() -> None:
    named = {
        sample.labels["reason"] for family in metrics.closes.collect() for sample in family.samples
    }
    assert named <= set(errors.CLOSES)


def test_gauge_when_it_is_watched_then_it_is_read_at_scrape_time() -> None:
    reading = [1.0]
    metrics.watch_gauge(metrics.rooms, lambda: reading[0])
    reading[0] = 7.0
    assert "livesale_rooms 7.0" in metrics.exposition().decode().splitlines()


def test_operations_when_they_name_a_metric_then_it_exists() -> None:
    text = (Path(__file__).resolve().parents[2] / "OPERATIONS.md").read_text()
    named = set(re.findall(r"\blivesale_[a-z_]+", text))
    known = {
        name + suffix
        for name in re.findall(r"`(livesale_[a-z_]+)`", reference.metrics())
        for suffix in ("", "_total", "_bucket", "_count", "_sum")
    }
    assert named <= known
