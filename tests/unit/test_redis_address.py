"""The forms of the Redis URL."""

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from server.store.address import parse_address


def test_address_when_it_is_one_server_then_redis_pys_own_forms_hold() -> None:
    address = parse_address("redis://me:pass%20word@example.test:7000/3")
    assert (address.kind, address.places) == ("server", ())
    assert address.options == {
        "host": "example.test",
        "port": 7000,
        "db": 3,
        "username": "me",
        "password": "pass word",
    }
    assert parse_address("unix:///run/v.sock").options["connection_class"] is (
        UnixDomainSocketConnection
    )


def test_address_when_it_is_a_cluster_then_every_node_is_a_place() -> None:
    address = parse_address("rediss+cluster://:secret@a.test:7000,b.test,[::1]:7002?ssl_ca_certs=x")
    assert address.kind == "cluster"
    assert address.places == (("a.test", 7000), ("b.test", 6379), ("::1", 7002))
    assert address.options == {
        "password": "secret",
        "ssl_ca_certs": "x",
        "connection_class": SSLConnection,
    }


def test_address_when_it_is_sentinel_then_service_database_and_both_passwords_are_known() -> None:
    address = parse_address("redis+sentinel://u:p@a.test,b.test:27000/shop/2?sentinel_password=s")
    assert (address.kind, address.service) == ("sentinel", "shop")
    assert address.places == (("a.test", 26379), ("b.test", 27000))
    assert address.options == {"username": "u", "password": "p", "db": 2}
    assert address.sentinel_options == {"password": "s"}


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:secret@a.test",
        "redis+sentinel://:secret@a.test/shop/two",
        "redis+cluster://:secret@a.test/1",
        "redis+cluster://:secret@",
        "redis+ring://:secret@a.test",
        "http://:secret@a.test",
    ],
)
def test_address_when_it_is_wrong_then_it_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_address(url)
    assert "secret" not in str(refusal.value)
