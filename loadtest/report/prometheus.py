"""The run under way for a Prometheus scrape: gauges of its last second, on this machine only."""

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from loadtest.report.summary import Second, Summary

PREFIX = "livesale_loadtest_"


class Scrape:
    """A view that answers `GET http://127.0.0.1:PORT/metrics` until it is closed.

    Raises OSError when the port is taken. Port 0 takes a free one; `port` says which.
    """

    def __init__(self, port: int) -> None:
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._latency = Gauge(
            f"{PREFIX}latency_seconds", "Latency within the last second",
            ("measure", "quantile"), registry=self._registry,
        )  # fmt: skip
        self._phase = Gauge(
            f"{PREFIX}phase", "1 in this phase", ("phase",), registry=self._registry
        )
        self._exit = Gauge(f"{PREFIX}exit_code", "Exit code; -1: running", registry=self._registry)
        self._exit.set(-1)
        self._server, self._thread = start_http_server(port, "127.0.0.1", self._registry)
        self.port = self._server.server_port

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            told = f"{name} of the last second"
            self._gauges[name] = Gauge(f"{PREFIX}{name}", told, registry=self._registry)
        return self._gauges[name]

    def pulse(self, second: Second) -> None:
        self._phase.clear()
        self._phase.labels(second.phase).set(1)
        for name, value in second.values.items():
            self._gauge(name).set(value)
        for name, (half, most) in second.quick.items():
            self._latency.labels(name, "0.5").set(half / 1000)
            self._latency.labels(name, "0.99").set(most / 1000)

    def note(self, text: str) -> None:
        """Prose is nothing for a scrape."""

    def done(self, summary: Summary) -> None:
        self._exit.set(summary.exit)

    def close(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
