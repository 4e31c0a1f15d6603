"""Several Valkeys as one, for tests: a Cluster of three primaries with a replica each, and a
primary with a replica that three Sentinels watch. On loopback ports: neither works over unix
sockets."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis

from server.embedded.binaries import Binary
from server.embedded.valkey import ValkeyServer
from server.store import keys
from server.store.cluster import slot_of
from server.supervision.child import Child
from tests.conftest import make_valkey
from tests.live import until_answer

SLOTS = 16384
PORT_MIN, PORT_MAX = 17_000, 20_000
BUS_PORT = 10_000  # so far above a node's port is the one of the Cluster's own talk
NODE_TIMEOUT_MS = 1_000
SERVICE = "livesale"
STOP_SECONDS = 5.0

_SENTINEL = """
port {port}
bind 127.0.0.1
dir {folder}
daemonize no
sentinel monitor {service} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 4000
"""


def free_ports() -> Iterator[int]:
    """Ports that nobody uses, neither themselves nor as a node's second one."""
    start = PORT_MIN + os.getpid() % 97 * 30  # so that two runs rarely meet
    for port in [*range(start, PORT_MAX), *range(PORT_MIN, start)]:
        if _is_free(port) and _is_free(port + BUS_PORT):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@dataclass
class Node:
    """One server, and its admin connection."""

    port: int
    server: ValkeyServer

    async def ask(self, *words: Any) -> Any:
        client = aioredis.Redis(port=self.port, protocol=2)
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    async def node_id(self) -> str:
        return str((await self.ask("CLUSTER", "MYID")).decode())

    async def info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("INFO", section)
        return found


async def start_node(binary: Binary, folder: Path, port: int, **config: str) -> Node:
    more = {"port": str(port), "bind": "127.0.0.1", "repl_diskless_sync_delay": "0", **config}
    node = Node(port, make_valkey(binary, folder / str(port), **more))
    await node.server.start()
    return node


@dataclass
class ValkeyCluster:
    """Three primaries with a third of the slots each, and one replica of each."""

    nodes: list[Node]
    dead: list[Node] = field(default_factory=list)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])

    @classmethod
    async def start(cls, binary: Binary, folder: Path) -> "ValkeyCluster":
        ports = free_ports()
        config = {
            "cluster_enabled": "yes",
            "cluster_node_timeout": str(NODE_TIMEOUT_MS),
            "cluster_require_full_coverage": "no",
        }
        starting = (start_node(binary, folder, next(ports), **config) for _ in range(6))
        cluster = cls(list(await asyncio.gather(*starting)))
        await cluster._join()
        return cluster

    async def _join(self) -> None:
        first = self.nodes[0]
        for number, node in enumerate(self.nodes[:3]):
            bounds = (SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
            await node.ask("CLUSTER", "ADDSLOTSRANGE", *bounds)
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            await node.ask("CLUSTER", "MEET", "127.0.0.1", first.port)
        for node in self.nodes:
            await until_answer(lambda n=node: self._knows_all(n), f"{node.port} knows all")  # type: ignore[misc]
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            await replica.ask("CLUSTER", "REPLICATE", await primary.node_id())
        await self.healthy()

    async def _knows_all(self, node: Node) -> bool:
        known = (await node.ask("CLUSTER", "NODES")).decode()
        return len(known.splitlines()) == len(self.nodes) and "handshake" not in known

    async def healthy(self) -> None:
        """Every primary has a replica in sync, and every node sees all slots served."""

        async def is_healthy() -> bool:
            for node in self.nodes:
                info = (await node.ask("CLUSTER", "INFO")).decode()
                if f"cluster_state:ok\r\ncluster_slots_assigned:{SLOTS}" not in info:
                    return False
                role = await node.info("replication")
                if role["role"] == "slave" and role["master_link_status"] != "up":
                    return False
                if role["role"] == "master" and role["connected_slaves"] != 1:
                    return False
            return True

        await until_answer(is_healthy, "a healthy cluster")

    async def primary_of(self, show_id: str) -> Node:
        """The running server that has the show's slot and says so itself."""
        slot = slot_of(keys.meta(show_id))
        for node in await self.primaries():
            own = next(
                line
                for line in (await node.ask("CLUSTER", "NODES")).decode().splitlines()
                if "myself" in line
            )
            for span in own.split()[8:]:
                first, _, last = span.partition("-")
                if not span.startswith("[") and int(first) <= slot <= int(last or first):
                    return node
        raise LookupError(f"nobody serves slot {slot}")

    async def primaries(self) -> list[Node]:
        alive = [node for node in self.nodes if node not in self.dead]
        return [n for n in alive if (await n.info("replication"))["role"] == "master"]

    async def replica_of(self, primary: Node) -> Node:
        for node in self.nodes:
            if (await node.info("replication")).get("master_port") == primary.port:
                return node
        raise LookupError(f"{primary.port} has no replica")

    async def move(self, show_id: str) -> tuple[Node, Node]:
        """Give the show's slot with all its keys to another primary: (from, to)."""
        source, target = await self.begin_move(show_id)
        await self.carry(show_id, source, target)
        await self.end_move(show_id, source, target)
        return source, target

    async def begin_move(self, show_id: str) -> tuple[Node, Node]:
        slot, source = slot_of(keys.meta(show_id)), await self.primary_of(show_id)
        target = next(node for node in await self.primaries() if node is not source)
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", await source.node_id())
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", await target.node_id())
        return source, target

    async def carry(self, show_id: str, source: Node, target: Node, *names: str) -> None:
        """Migrate these keys, or all that are left."""
        slot = slot_of(keys.meta(show_id))
        to = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS")
        if names:
            await source.ask(*to, *names)
            return
        while found := await source.ask("CLUSTER", "GETKEYSINSLOT", slot, 5):
            await source.ask(*to, *found)

    async def end_move(self, show_id: str, source: Node, target: Node) -> None:
        for node in (target, source):
            slot = slot_of(keys.meta(show_id))
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", await target.node_id())

    async def kill(self, node: Node) -> None:
        node.server.kill()
        await node.server.stop()
        self.dead.append(node)

    async def revive(self) -> None:
        while self.dead:
            await self.dead.pop().server.start()
        await self.healthy()

    async def served_by_another(self, show_id: str, old: Node) -> None:
        """Wait until a replica took the place of the show's primary."""

        async def is_served() -> bool:
            try:
                return await self.primary_of(show_id) is not old
            except LookupError:
                return False

        await until_answer(is_served, f"a new primary for {show_id}")

    async def stop(self) -> None:
        for node in self.nodes:
            node.server.kill()
            await node.server.stop()


@dataclass
class WatchedPair:
    """A primary and its replica, watched by three Sentinels of which two must agree."""

    nodes: list[Node]
    sentinels: list[tuple[int, Child]]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port, _ in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @classmethod
    async def start(cls, binary: Binary, folder: Path) -> "WatchedPair":
        ports = free_ports()
        primary = await start_node(binary, folder, next(ports))
        second = {"replicaof": f"127.0.0.1 {primary.port}"}
        replica = await start_node(binary, folder, next(ports), **second)
        pair = cls([primary, replica], [])
        for _ in range(3):
            port = next(ports)
            file = folder / f"sentinel-{port}.conf"
            settings = {"port": port, "primary": primary.port, "service": SERVICE}
            file.write_text(_SENTINEL.format(folder=folder, **settings))
            words = [str(binary.path), str(file), "--sentinel"]
            child = Child.spawn("sentinel", words, log=folder / f"sentinel-{port}.log")
            pair.sentinels.append((port, child))
        for port, _ in pair.sentinels:
            await until_answer(lambda p=port: pair._watches(p), f"sentinel {port}")  # type: ignore[misc]
        return pair

    async def _watches(self, port: int) -> bool:
        """It knows the replica and the two other Sentinels."""
        client = aioredis.Redis(port=port)
        try:
            state: Any = await client.sentinel_master(SERVICE)
        except (OSError, aioredis.RedisError):
            return False
        finally:
            await client.aclose()
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)

    async def promoted(self) -> None:
        """Wait until the replica is a primary."""

        async def is_primary() -> bool:
            return bool((await self.nodes[1].info("replication"))["role"] == "master")

        await until_answer(is_primary, "the replica promoted")

    async def stop(self) -> None:
        for _, child in self.sentinels:
            await child.stop(signal.SIGKILL, STOP_SECONDS)
        for node in self.nodes:
            node.server.kill()
            await node.server.stop()
