"""What must be true at every moment of a run: checked after every command Redis carries out, and
on every fact it publishes."""

from typing import Final

import msgpack

from server.store import keys
from tests.simulation.world import SHOW, World

LIVE: Final = frozenset({"held", "confirmed", "paid", "fulfilled"})
_META: Final = keys.meta(SHOW).encode()
_CLAIMS: Final = keys.claims(SHOW).encode()


class Watch:
    """Looks over Redis' shoulder. `pools`: ids of the run's pools."""

    def __init__(self, world: World, pools: list[int]) -> None:
        self._world = world
        self._pools = pools
        self._newest: dict[str, tuple[int, int]] = {}  # state key -> (epoch, version)
        world.redis.on_command = self.check_units
        world.redis.on_fact = self.check_fact

    def check_units(self) -> None:
        """I2: Redis never has more to sell than what is left of its units."""
        data = self._world.redis.model.data
        meta = data.get(_META, {})
        if meta.get(b"gate") == b"rebuilding" or meta.get(b"run") != self._world.redis.model.run_id:
            return
        claims = [msgpack.unpackb(packed) for packed in data.get(_CLAIMS, {}).values()]
        for pool_id in self._pools:
            pool = data.get(keys.pool(SHOW, pool_id).encode())
            if pool is None:
                continue
            held = sum(claim[2] for claim in claims if claim[1] == pool_id and claim[0] in LIVE)
            available, units = int(pool[b"a"]), int(pool[b"n"])
            if available < 0 or available + held > units:
                self._world.fail(
                    f"I2 pool {pool_id}: {available} available and {held} held of {units}"
                )

    def check_fact(self, payload: bytes) -> None:
        """I11: what viewers are told adds up and never goes back."""
        fact = msgpack.unpackb(payload)
        if fact[0] != "s" or not fact[1].startswith("stock:"):
            return
        _, key, stock, _ = fact
        if stock["left"] < 0 or stock["left"] + stock["held"] + stock["sold"] != stock["total"]:
            self._world.fail(f"I11 viewers are told {stock}")
        version = (stock["epoch"], stock["version"])
        if version < self._newest.get(key, (0, 0)):
            self._world.fail(f"I11 {key} goes back from {self._newest[key]} to {version}")
        self._newest[key] = version
