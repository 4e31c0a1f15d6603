"""The worker's own /metrics."""

import socket
import urllib.request

import pytest

from server.errors import Misconfigured
from server.orders import app
from tests.live import free_port


def test_metrics_when_a_port_is_set_then_loopback_serves_them() -> None:
    port = free_port()
    with (
        app.metrics_served(port),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer,
    ):
        assert b"livesale_orders_stored" in answer.read()


def test_metrics_when_the_port_is_taken_then_the_setting_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match="WORKER_METRICS_PORT"), app.metrics_served(port):
            pass
