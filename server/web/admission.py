"""Who may come in: connection caps, handshake rate, client addresses, the Origin rule.

All of it is counted and decided before a task, an ASGI scope or a handshake exists, so that a
refusal costs as little as possible. One `Admission` per process.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from server import clock
from server.config import Settings
from server.domain.rate_limit import BucketRule, TokenBucket

HTTP_CONNECTIONS_SPARE = 512  # connections kept for pages, API and health beside the viewers
FREE_JOINS = 100  # of one address within a second; those beyond share half of the process's rate
RETRY_AFTER_S = 2  # told with 503 by the caps on the whole process
RETRY_AFTER_ADDRESS_S = 10  # told with 503 by the cap on one address

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Admission:
    """Counts connections and says whether one more is welcome.

    Connections are counted from `open` to `closed`; viewers from the upgrade to the end of their
    connection (`admit`, `release`), also those whose handshake is refused later.
    """

    def __init__(self, settings: Settings) -> None:
        self.viewers = 0
        self.draining = False
        self._viewers_max = settings.viewers_max
        self._per_address_max = settings.viewers_per_address_max
        self._by_address: dict[str, int] = {}
        self._open: dict[str, int] = {}  # connections of each peer that are no viewers (yet)
        rate = settings.joins_per_second_max
        self._joins_rule = BucketRule(rate, rate)
        self._joins = TokenBucket(self._joins_rule, clock.monotonic_ms())
        self._crowd_rule = BucketRule(rate / 2, max(1.0, rate / 2))
        self._crowd = TokenBucket(self._crowd_rule, clock.monotonic_ms())
        self._second = 0
        self._joined: dict[str, int] = {}  # handshakes of each address within this second
        self._trusted = parse_networks(settings.trusted_proxies)

    @property
    def is_full(self) -> bool:
        """No viewer would be let in now."""
        return self.viewers >= self._viewers_max

    def has_room_for_connection(self, connections: int) -> bool:
        """May one more connection stay beside `connections` that are no viewers (yet)?

        A rush of joins may fill the viewers' places; pages and health checks keep a few more.
        """
        return connections + self.viewers < self._viewers_max + HTTP_CONNECTIONS_SPARE

    def open(self, peer: str) -> bool:
        """Count one more connection from `peer` in; may it stay? So many silent ones of one
        address would leave no descriptor for the others. A trusted proxy is not bounded."""
        counted = counted_as(peer)
        self._open[counted] = self._open.get(counted, 0) + 1
        return self._open[counted] <= self._per_address_max or self._is_trusted(peer)

    def closed(self, peer: str) -> None:
        """A connection that `open` counted in ended, or has become a viewer's."""
        _count_out(self._open, peer)

    def admit(self, address: str) -> str:
        """'' when one more viewer from `address` is counted in, else why not.

        Reasons: draining, viewers_max, joins_rate, address_max.
        """
        if self.draining:
            return "draining"
        if self.is_full:
            return "viewers_max"
        counted = counted_as(address)
        if self._by_address.get(counted, 0) >= self._per_address_max:
            return "address_max"
        if not self._may_join(counted):
            return "joins_rate"
        self.viewers += 1
        self._by_address[counted] = self._by_address.get(counted, 0) + 1
        return ""

    def _may_join(self, address: str) -> bool:
        """One more handshake this second? An address that makes very many leaves half to others."""
        now_ms = clock.monotonic_ms()
        if int(now_ms) // 1_000 != self._second:
            self._second = int(now_ms) // 1_000
            self._joined.clear()
        joined = self._joined.get(address, 0)
        if joined >= FREE_JOINS and self._crowd.take(self._crowd_rule, now_ms):
            return False
        if self._joins.take(self._joins_rule, now_ms):
            return False
        self._joined[address] = joined + 1
        return True

    def release(self, address: str) -> None:
        """A viewer that `admit` counted in is gone. Exactly once per viewer."""
        self.viewers -= 1
        _count_out(self._by_address, address)

    def client_address(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Address of the client: the peer, or what trusted proxies say in X-Forwarded-For.

        The header is read from the right; the first address that is no trusted proxy counts
        (what stands left of it, the client may have written itself).
        """
        if not self._trusted or not self._is_trusted(peer):
            return peer
        named = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        for hop in reversed(named.decode("latin-1").split(",")):
            hop = hop.strip()
            if not is_address(hop):
                return peer
            if not self._is_trusted(hop):
                return hop
        return peer

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        plain = getattr(parsed, "ipv4_mapped", None) or parsed  # as a dual-stack socket names IPv4
        return any(plain in network for network in self._trusted)


def _count_out(counts: dict[str, int], address: str) -> None:
    """One less of this address, and no entry for none."""
    counted = counted_as(address)
    left = counts[counted] - 1
    if left:
        counts[counted] = left
    else:
        del counts[counted]


def counted_as(address: str) -> str:
    """What the cap on one address counts: an IPv6 address by its /64, which one customer has
    whole (RFC 6177), and an IPv4 address as such, also as a dual-stack socket names it."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


def retry_after_s(reason: str) -> int:
    """Seconds for the Retry-After of a 503 with this reason of `Admission.admit`."""
    return RETRY_AFTER_ADDRESS_S if reason == "address_max" else RETRY_AFTER_S


def parse_networks(
    values: Iterable[str],
) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Addresses and networks of trusted proxies. Raises ValueError on anything else."""
    return tuple(ipaddress.ip_network(value, strict=False) for value in values)


def is_address(text: str) -> bool:
    """True for the text form of an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def origin_allowed(origin: str | None, host: str, allowed: tuple[str, ...]) -> bool:
    """May a page of `origin` open a WebSocket on `host` (the request's Host header)?

    None (no browser) may; `null` and anything that is not scheme://host[:port] may not. A page of
    the same host and port may, and those listed exactly in `allowed`. No patterns, no prefixes.
    """
    if origin is None:
        return True
    if origin in allowed:
        return True
    place = _host_and_port(origin)
    return place is not None and place == _host_and_port(f"{origin.partition(':')[0]}://{host}")


def _host_and_port(origin: str) -> tuple[str, int] | None:
    """Host (lower case) and port of an origin, None when it is not a well-formed one."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    whole = f"{parts.scheme}://{parts.netloc}".lower() == origin.lower()
    plain = whole and "@" not in parts.netloc
    if not plain or parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port is None:
        return None
    return parts.hostname, port
