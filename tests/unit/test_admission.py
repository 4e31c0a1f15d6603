"""Caps, addresses and the Origin rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import clock
from server.config import Settings, load
from server.errors import Misconfigured
from server.web.admission import FREE_JOINS, Admission, origin_allowed, retry_after_s


def admission(**settings: object) -> Admission:
    return Admission(Settings(secret="x" * 32, **settings))  # type: ignore[arg-type]


# --- Caps -------------------------------------------------------------------------------------


def test_admit_when_the_process_is_full_then_the_reason_says_so() -> None:
    caps = admission(viewers_max=2)
    assert [caps.admit(a) for a in "abc"] == ["", "", "viewers_max"]
    caps.release("a")
    assert caps.admit("c") == ""
    assert caps.viewers == 2


def test_admit_when_an_address_has_its_share_then_others_still_come_in() -> None:
    caps = admission(viewers_per_address_max=1)
    assert [caps.admit(a) for a in ("a", "a", "b")] == ["", "address_max", ""]
    caps.release("a")
    assert caps.admit("a") == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_admit_when_one_customer_has_many_addresses_then_they_count_as_one(
    one: str, other: str, same: bool
) -> None:
    caps = admission(viewers_per_address_max=1)
    assert caps.admit(one) == ""
    assert caps.admit(other) == ("address_max" if same else "")
    caps.release(one)
    assert caps.admit(one) == ""


def test_proxy_when_a_dual_stack_socket_names_it_then_it_is_still_trusted() -> None:
    caps = admission(trusted_proxies="192.0.2.1")
    headers = [(b"x-forwarded-for", b"198.51.100.7")]
    assert caps.client_address("::ffff:192.0.2.1", headers) == "198.51.100.7"


def test_proxies_when_one_is_no_address_then_the_settings_say_so() -> None:
    with pytest.raises(Misconfigured, match="trusted_proxies"):
        load(trusted_proxies="10.0.0.0/8,nginx")


def test_admit_when_the_process_drains_then_nobody_comes_in() -> None:
    caps = admission()
    caps.draining = True
    assert caps.admit("a") == "draining"


def test_admit_when_joins_come_too_fast_then_until_the_next_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now[0])
    caps = admission(joins_per_second_max=2)
    assert [caps.admit("a") for _ in range(3)] == ["", "", "joins_rate"]
    now[0] = 500
    assert caps.admit("a") == ""


def test_admit_when_one_address_joins_very_often_then_half_of_the_rate_is_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now[0])
    caps = admission(joins_per_second_max=1_000)
    assert [caps.admit("a") for _ in range(1_000)].count("") == FREE_JOINS + 500
    assert [caps.admit(f"b{number}") for number in range(1_000)].count("") == 500 - FREE_JOINS
    now[0] = 1_000
    assert [caps.admit("a") for _ in range(1_000)].count("") == FREE_JOINS + 500


def test_open_when_an_address_has_its_share_of_connections_then_only_proxies_have_more() -> None:
    caps = admission(viewers_per_address_max=2, trusted_proxies="10.0.0.1")
    assert [caps.open("a") for _ in range(3)] == [True, True, False]
    assert caps.open("b")
    caps.closed("a")
    caps.closed("a")
    assert caps.open("a")
    assert all(caps.open("10.0.0.1") for _ in range(5))


def test_connection_when_places_are_free_or_spare_then_it_may_stay() -> None:
    caps = admission(viewers_max=10)
    assert caps.has_room_for_connection(521)
    assert not caps.has_room_for_connection(522)
    caps.admit("a")
    assert not caps.has_room_for_connection(521)


def test_retry_after_when_one_address_is_over_then_it_waits_longer() -> None:
    assert retry_after_s("address_max") > retry_after_s("viewers_max") > 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_counts_when_viewers_come_and_go_then_they_add_up(moves: list[tuple[str, bool]]) -> None:
    caps = admission(viewers_max=8, viewers_per_address_max=4)
    inside: list[str] = []
    for address, comes in moves:
        if comes and caps.admit(address) == "":
            inside.append(address)
        elif not comes and address in inside:
            inside.remove(address)
            caps.release(address)
        assert caps.viewers == len(inside) <= 8
        assert all(inside.count(one) <= 4 for one in "abc")


# --- Addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", ["198.51.100.7"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.2.3.4"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.1.1.1"], "10.0.0.1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_client_address_when_proxies_are_trusted_then_only_they_are_believed(
    peer: str, forwarded: list[str], address: str
) -> None:
    caps = admission(trusted_proxies="10.0.0.0/8")
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert caps.client_address(peer, headers) == address


def test_trusted_proxies_when_one_is_no_network_then_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        admission(trusted_proxies="nonsense")


# --- Origin -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "shop.example", True),
        ("http://shop.example", "shop.example", True),
        ("https://shop.example", "shop.example", True),  # TLS ended at a proxy
        ("http://shop.example:8000", "shop.example:8000", True),
        ("http://192.168.1.5:8000", "192.168.1.5:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://shop.example:80", "shop.example", True),
        ("http://Shop.Example", "shop.example", True),
        ("https://partner.example", "shop.example", True),
        ("https://partner.example:443", "shop.example", False),
        ("https://partner.example.evil.com", "shop.example", False),
        ("https://evil-partner.example", "shop.example", False),
        ("http://partner.example", "shop.example", False),
        ("https://PARTNER.example", "shop.example", False),
        ("http://shop.example:8001", "shop.example:8000", False),
        ("http://evil.com", "shop.example", False),
        ("http://user@shop.example", "shop.example", False),
        ("http://shop.example/path", "shop.example", False),
        ("http://shop.example", "", False),
        ("http://shop.example", "shop.example@evil.com", False),
        ("file://shop.example", "shop.example", False),
        ("null", "null", False),
        ("", "", False),
        ("://", "", False),
        ("http://", "", False),
        ("http://shop.example:99999", "shop.example:99999", False),
        ("http://[::1", "[::1", False),
    ],
)
def test_origin_when_a_page_asks_then_only_the_same_place_or_the_listed_may(
    origin: str | None, host: str, allowed: bool
) -> None:
    assert origin_allowed(origin, host, ("https://partner.example",)) is allowed


@given(st.text(max_size=40), st.text(max_size=40))
def test_origin_when_it_is_any_text_then_it_is_judged_without_an_error(
    origin: str, host: str
) -> None:
    origin_allowed(origin, host, ())
