"""Every Redis key and channel, one function each; nothing else builds a key.

All keys of a show carry the hash tag `{show_id}`, so that one script may touch them in a Cluster.

| key | type | holds |
|---|---|---|
| ls:{S}:meta | hash | gate (scheduled, open, paused, ended, rebuilding), stock epoch, run, ... |
| ls:{S}:pool:P | hash | one pool; its fields are in server/store/lua/_pool.lua |
| ls:{S}:buyers:P | hash | buyer -> units accepted in pool P |
| ls:{S}:claims | hash | buyer NUL claim-id-16-bytes -> packed claim state or refusal |
| ls:{S}:refusals | list | fields of refusals in claims, the first refused first |
| ls:{S}:orders | stream | accepted takes for the order worker; never trimmed by length |
| ls:{S}:applied | hash | give, act, payment, event:act or line:id -> result: never done twice |
| ls:{S}:evidence | hash | while the stock is rebuilt: what hubs know of claims (lua/present.lua) |
| ls:{S}:presented | set | hubs that have presented all they know |
| ls:{S}:room | hash | epoch, seq of events; v of state values; likes, online, sweep, digest:<key> |
| ls:{S}:events | stream | the last HISTORY_EVENTS_MAX events; entry id is `seq-0` |
| ls:{S}:state | hash | state key -> packed newest value |
| ls:{S}:chat | list | the last RECENT_CHAT_MAX lines, packed |
| ls:{S}:like_batches | hash | hub -> number of its last like batch applied |
| ls:{S}:presence | hash | hub -> here or gone:report number:anonymous:users:expires at ms |
| ls:{S}:people | hash | user -> hubs where the user is; gone 10 min after the last report |
| ls:{S}:counts | hash | hub:lines, hub:claims -> its totals; gone 7 days after the show's end |
| ls:{S}:policy | hash | chat policy: slow, words, mute:<user> until ms, ban:<user> since, version |
| ls:{S}:lease | string | the order worker that consumes this show |
| ls:{S}:fence | string | written behind a batch that waits for a replica |
"""

ORDER_GROUP = "pg"
PREFIX = "ls:{"  # of every key and channel; in a Cluster a command goes where its first one is


def _key(show_id: str, name: str) -> str:
    return f"{PREFIX}{show_id}}}:{name}"


def meta(show_id: str) -> str:
    return _key(show_id, "meta")


def pool(show_id: str, pool_id: int) -> str:
    return _key(show_id, f"pool:{pool_id}")


def buyers(show_id: str, pool_id: int) -> str:
    return _key(show_id, f"buyers:{pool_id}")


def claims(show_id: str) -> str:
    return _key(show_id, "claims")


def refusals(show_id: str) -> str:
    return _key(show_id, "refusals")


def orders(show_id: str) -> str:
    return _key(show_id, "orders")


def applied(show_id: str) -> str:
    return _key(show_id, "applied")


def evidence(show_id: str) -> str:
    return _key(show_id, "evidence")


def presented(show_id: str) -> str:
    return _key(show_id, "presented")


def room(show_id: str) -> str:
    return _key(show_id, "room")


def events(show_id: str) -> str:
    return _key(show_id, "events")


def state(show_id: str) -> str:
    return _key(show_id, "state")


def chat(show_id: str) -> str:
    return _key(show_id, "chat")


def like_batches(show_id: str) -> str:
    return _key(show_id, "like_batches")


def presence(show_id: str) -> str:
    return _key(show_id, "presence")


def people(show_id: str) -> str:
    return _key(show_id, "people")


def counts(show_id: str) -> str:
    return _key(show_id, "counts")


def policy(show_id: str) -> str:
    return _key(show_id, "policy")


def lease(show_id: str) -> str:
    return _key(show_id, "lease")


def fence(show_id: str) -> str:
    return _key(show_id, "fence")


def bus_channel(show_id: str) -> str:
    """Sharded channel of everything that all hubs of a show must hear."""
    return _key(show_id, "bus")


def hub_channel(show_id: str, hub_id: str) -> str:
    """Sharded channel of one hub in one show: what only its own buyers need."""
    return _key(show_id, f"hub:{hub_id}")


def claim_field(buyer: str, claim_id: bytes) -> bytes:
    """Field of the claims hash. `claim_id`: 16 bytes. NUL cannot occur in a buyer's id."""
    return buyer.encode() + b"\0" + claim_id
