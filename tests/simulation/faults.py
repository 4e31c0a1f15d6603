"""What goes wrong in a run: kinds of faults drawn per seed, their instants drawn as they come.

Each seed draws a few kinds only (swarm testing): a run in which everything fails at once hides
what a rare pair of faults would show.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from tests.simulation.network import Weather
from tests.simulation.world import WebNode, WorkerNode, World

KINDS_MAX: Final = 4


class Faults:
    """Breaks things in a world until it is time to heal."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        every: dict[str, Callable[[], None]] = {
            "kill web": self._kill_web,
            "kill worker": self._kill_worker,
            "stop worker": self._stop_worker,
            "freeze web": self._freeze_web,
            "freeze worker": self._freeze_worker,
            "weather": self._weather,
            "cut redis": self._cut_redis,
            "script flush": self._flush_scripts,
            "out of memory": self._out_of_memory,
            "stop postgres": self._stop_postgres,
            "lose commit acks": self._lose_commit_acks,
            "stop redis": self._stop_redis,
            "restart redis": self._restart_redis,
            "lose redis": self._lose_redis,
            "power": self._cut_power,
        }
        names = self._rng.sample(sorted(every), self._rng.randint(0, KINDS_MAX))
        self._drawn = [every[name] for name in names]
        self._pauses = self._rng.choice([(0.02, 0.3), (0.1, 1.0), (0.5, 2.0)])
        world.note(f"faults: {', '.join(names) or 'none'}")

    async def run(self, until_s: float) -> None:
        """Faults until virtual time `until_s` (loop time)."""
        while (left := until_s - self._world.loop.now) > 0:
            await asyncio.sleep(min(left, self._rng.uniform(*self._pauses)))
            if self._drawn:
                self._rng.choice(self._drawn)()

    def heal(self) -> None:
        """From now on everything works; frozen processes wake by themselves."""
        world = self._world
        world.network.weather = Weather()
        world.postgres.lose_commit_ack = 0.0
        world.redis.model.out_of_memory = False
        if not world.redis.is_up:
            world.redis.start()
        world.postgres.start()

    # --- Processes ----------------------------------------------------------------------------

    def _kill_web(self) -> None:
        if nodes := self._world.webs:
            self._world.kill(self._rng.choice(nodes))
        self._world.loop.at(self._rng.uniform(0.05, 1.0), self._fill)

    def _kill_worker(self) -> None:
        if nodes := self._world.workers:
            self._world.kill(self._rng.choice(nodes))
        self._world.loop.at(self._rng.uniform(0.05, 1.0), self._fill)

    def _fill(self) -> None:
        """A supervisor starts what is missing."""
        while len(self._world.webs) < 2:
            self._world.start_web()
        while len(self._world.workers) < 2:
            self._world.start_worker()

    def _stop_worker(self) -> None:
        """SIGTERM; its successor comes at once, as in a rolling deploy."""
        if nodes := self._world.workers:
            node = self._rng.choice(nodes)
            self._world.note(f"stop {node.process.name}")
            self._world.loop.signal(node.process, signal.SIGTERM)
            self._world.start_worker()

    def _freeze_web(self) -> None:
        self._freeze(self._world.webs)

    def _freeze_worker(self) -> None:
        self._freeze(self._world.workers)

    def _freeze(self, nodes: "list[WebNode] | list[WorkerNode]") -> None:
        awake = [node for node in nodes if not node.process.is_frozen]
        if awake:
            self._world.freeze(self._rng.choice(awake), self._rng.choice([0.2, 1.0, 4.0, 8.0]))

    def _cut_power(self) -> None:
        """Everything but PostgreSQL dies at once: no hub is left that remembers its holds."""
        if not self._world.redis.is_up:
            return
        for node in (*self._world.webs, *self._world.workers):
            self._world.kill(node)
        self._lose_redis()
        self._world.loop.at(self._rng.uniform(0.05, 1.0), self._fill)

    # --- Network ------------------------------------------------------------------------------

    def _weather(self) -> None:
        rng = self._rng
        self._world.network.weather = Weather(
            lose_request=rng.choice([0.0, 0.02, 0.2]),
            lose_reply=rng.choice([0.0, 0.02, 0.2]),
            slow=rng.choice([0.02, 0.3]),
            slow_s=rng.choice([0.05, 0.5, 4.0]),
        )
        self._world.note(f"weather {self._world.network.weather}")
        self._world.loop.at(rng.uniform(0.1, 2.0), self._clear_up)

    def _clear_up(self) -> None:
        self._world.network.weather = Weather()

    # --- Redis --------------------------------------------------------------------------------

    def _cut_redis(self) -> None:
        self._world.note("cut all connections to redis")
        self._world.redis.cut()

    def _flush_scripts(self) -> None:
        self._world.redis.model.scripts.clear()

    def _out_of_memory(self) -> None:
        self._world.note("redis out of memory")
        self._world.redis.model.out_of_memory = True
        self._world.loop.at(self._rng.uniform(0.1, 1.5), self._memory_again)

    def _memory_again(self) -> None:
        self._world.redis.model.out_of_memory = False

    def _stop_redis(self) -> None:
        """Unreachable for a while, the same process."""
        if self._world.redis.is_up:
            self._world.note("redis unreachable")
            self._world.redis.stop()
            self._world.loop.at(self._rng.uniform(0.05, 2.0), self._reach_redis)

    def _reach_redis(self) -> None:
        if not self._world.redis.is_up:
            self._world.note("redis reachable")
            self._world.redis.is_up = True

    def _restart_redis(self) -> None:
        """Killed; the page cache kept what it had written."""
        self._crash_redis(0)

    def _lose_redis(self) -> None:
        """A power loss, an older copy, or nothing left at all."""
        model, rng = self._world.redis.model, self._rng
        young = model.written_since(self._world.network.wall_ms() - 2_000)
        whole = len(model.log)
        self._crash_redis(rng.choice([rng.randint(0, young), rng.randint(0, whole), whole]))

    def _crash_redis(self, lose: int) -> None:
        redis = self._world.redis
        if redis.is_up:
            self._world.note(f"redis dies; {lose} of {len(redis.model.log)} writes will be lost")
            redis.stop()
            self._world.loop.at(self._rng.uniform(0.02, 1.0), self._revive_redis, lose)

    def _revive_redis(self, lose: int) -> None:
        if not self._world.redis.is_up:
            self._world.redis.start(min(lose, len(self._world.redis.model.log)))
            self._world.note(f"redis is back as {self._world.redis.model.run_id[-4:].decode()}")

    # --- PostgreSQL ---------------------------------------------------------------------------

    def _stop_postgres(self) -> None:
        if self._world.postgres.is_up:
            self._world.note("postgres dies")
            self._world.postgres.stop()
            self._world.loop.at(self._rng.uniform(0.05, 3.0), self._revive_postgres)

    def _revive_postgres(self) -> None:
        self._world.note("postgres is back")
        self._world.postgres.start()

    def _lose_commit_acks(self) -> None:
        self._world.note("acknowledgements of commits get lost")
        self._world.postgres.lose_commit_ack = 0.5
        self._world.loop.at(self._rng.uniform(0.1, 2.0), self._commit_well)

    def _commit_well(self) -> None:
        self._world.postgres.lose_commit_ack = 0.0
