"""Which URLs may be told: only public addresses, whatever a name or a number resolves to.

A merchant's URL is used from inside of the operator's network, so it must not reach what only that
network can reach (server-side request forgery, OWASP). It is checked when it is registered, for a
clear answer, and again for every connection on the very address that is connected to
(send.py), because a name may resolve to something else by then.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Protocol

from yarl import URL

from server import limits
from server.errors import LivesaleError

PORTS_BELOW_1024: Final = frozenset({80, 443})  # no mail server, no SSH
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_NOT_PUBLIC_V4: Final = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata
    IPv4Network("168.63.129.16/32"),  # a cloud's wire server
)
# Hosts that resolvers read as IPv4 addresses in decimal, octal or hex (WHATWG URL, "ends in a
# number"); a real top-level domain is never a number.
_NUMBER: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")


class TargetRefused(LivesaleError):
    """This URL or address is not told anything. The message says why, without the address."""


class Resolver(Protocol):
    """Looks names up."""

    async def addresses(self, host: str, port: int) -> list[str]:
        """All addresses of `host`. Raises OSError when there are none or nobody answers."""
        ...


async def require_target(url: str, resolver: Resolver, *, allow_private: bool) -> None:
    """Raises TargetRefused unless `url` is well formed and every address of its host is public."""
    parsed = parse_target(url, allow_private=allow_private)
    assert parsed.host is not None
    assert parsed.port is not None
    try:
        found = [str(ip_address(parsed.host))]
    except ValueError:
        try:
            found = await resolver.addresses(parsed.host, parsed.port)
        except OSError:
            raise TargetRefused("the host's name cannot be resolved") from None
    if not allow_private:
        for address in found:
            require_public(address)


def parse_target(url: str, *, allow_private: bool) -> URL:
    """The URL, as it will be used. Raises TargetRefused for what its text alone tells."""
    try:
        parsed = URL(url)
        port = parsed.port
    except ValueError:
        raise TargetRefused("not a URL") from None
    if len(url) > limits.URL_CHARS_MAX or parsed.scheme not in ("http", "https"):
        raise TargetRefused("only http:// and https:// URLs")
    if not parsed.host or not port:
        raise TargetRefused("the URL names no host")
    if parsed.user is not None or parsed.password is not None:
        raise TargetRefused("no user or password in the URL: messages are signed")
    if parsed.fragment:
        raise TargetRefused("no fragment in the URL")
    if not allow_private and port < 1024 and port not in PORTS_BELOW_1024:
        raise TargetRefused("ports below 1024 other than 80 and 443 are not used")
    _refuse_numbers(parsed.host)
    return parsed


def _refuse_numbers(host: str) -> None:
    """Raises TargetRefused for an address in a form other than the usual one."""
    try:
        ip_address(host)
    except ValueError:
        if _NUMBER.match(host.rstrip(".").rpartition(".")[2]):
            raise TargetRefused("write the address as four decimal numbers") from None


def require_public(address: str) -> None:
    """Raises TargetRefused unless `address` (as a socket has it) is one of the public internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        raise TargetRefused("not an IP address") from None
    if not (_is_public_v4(parsed) if isinstance(parsed, IPv4Address) else _is_public_v6(parsed)):
        raise TargetRefused("the host's address is not public")


def _is_public_v4(address: IPv4Address) -> bool:
    """Not private, loopback, link-local, carrier-grade NAT, multicast, reserved or unspecified."""
    if address.is_multicast or any(address in network for network in _NOT_PUBLIC_V4):
        return False
    return address.is_global


def _is_public_v6(address: IPv6Address) -> bool:
    """A global unicast address; one that carries an IPv4 address is as public as that."""
    if carried := _carried_v4(address):
        return _is_public_v4(carried)
    return address in _GLOBAL_V6 and address.is_global


def _carried_v4(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
