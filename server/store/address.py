"""Where Redis is: one server, a primary that Sentinels name, or a Cluster.

| URL | means |
|---|---|
| redis://user:password@host:6379/0, rediss://..., unix:///path?db=0 | one server |
| redis+sentinel://user:password@host:26379,host:26379/service/0 | the primary of `service` |
| redis+cluster://user:password@host:6379,host:6379 | a Cluster; some of its nodes |

rediss+sentinel and rediss+cluster are the same over TLS. User, password and the query (redis-py's
names: ssl_ca_certs=...) are those of the servers; Sentinels are asked without a password, or with
`sentinel_username` and `sentinel_password` of the query.
"""

import re
from typing import Any, Final, Literal, NamedTuple

from redis.asyncio.connection import parse_url

Place = tuple[str, int]  # host and port of one server
Kind = Literal["server", "sentinel", "cluster"]

_SEVERAL: Final = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://"
    r"(?P<user>[^@/?]*@)?(?P<hosts>[^@/?]+)(/(?P<path>[^?]*))?(?P<query>\?.*)?"
)
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_SENTINEL_OPTIONS: Final = "sentinel_"


class RedisAddress(NamedTuple):
    """`places`: Sentinels, or nodes of the Cluster; none for one server, which `options` name.

    `options` are redis-py's for a connection to a server, `sentinel_options` to a Sentinel.
    """

    kind: Kind
    places: tuple[Place, ...]
    service: str
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def parse_address(url: str) -> RedisAddress:
    """Raises ValueError, which says what is wrong but never repeats the password."""
    parts = _SEVERAL.fullmatch(url)
    if parts is None:
        if re.match(r"rediss?\+", url):
            raise ValueError("not redis+sentinel://host,host/service or redis+cluster://host,host")
        return RedisAddress("server", (), "", {**parse_url(url)}, {})
    is_sentinel = parts["kind"] == "sentinel"
    service, _, database = (parts["path"] or "").partition("/")
    if is_sentinel != bool(service) or (database and not database.isdigit()):
        raise ValueError("the path is /service or /service/database for Sentinel, else empty")
    server = f"{parts['scheme']}://{parts['user'] or ''}{{}}/{database}{parts['query'] or ''}"
    found = [parse_url(server.format(host)) for host in parts["hosts"].split(",")]
    places = tuple((each["host"], each.get("port", _PORTS[parts["kind"]])) for each in found)
    options = {k: v for k, v in found[0].items() if k not in ("host", "port")}
    asking = {k: options.pop(k) for k in list(options) if k.startswith(_SENTINEL_OPTIONS)}
    return RedisAddress(
        "sentinel" if is_sentinel else "cluster",
        places,
        service,
        options,
        {k.removeprefix(_SENTINEL_OPTIONS): v for k, v in asking.items()},
    )
