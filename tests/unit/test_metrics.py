"""Metrics: what is counted is what is exposed, and everything has a name and a help text."""

from prometheus_client import REGISTRY

from server.telemetry import metrics


def test_tally_when_it_counted_then_the_exposition_says_so() -> None:
    before = metrics.commands.count("time")
    metrics.commands.add("time")
    metrics.commands.add("time", 2)
    assert metrics.commands.count("time") == before + 3
    line = f'livesale_commands_total{{command="time"}} {before + 3}.0'
    assert line in metrics.exposition().decode().splitlines()


def test_metrics_when_they_are_ours_then_they_are_named_and_explained() -> None:
    ours = [family for family in REGISTRY.collect() if family.name.startswith("livesale")]
    assert len(ours) >= 12
    assert all(family.documentation for family in ours)


def test_gauge_when_it_is_watched_then_it_is_read_at_scrape_time() -> None:
    reading = [1.0]
    metrics.watch_gauge(metrics.rooms, lambda: reading[0])
    reading[0] = 7.0
    assert "livesale_rooms 7.0" in metrics.exposition().decode().splitlines()
