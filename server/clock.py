"""The only source of time and randomness for the server (tests replace it at this one place).

Three clocks, never mixed:

- `now_ms()`: wall time of this process, for logs and tokens only;
- `monotonic_ms()`: durations inside this process;
- Redis time (server/store/redis_clock.py): sale windows and everything told to viewers.
"""

import os
import random
import time
import uuid

import uuid_utils


def now_ms() -> int:
    """Wall time of this process in ms since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> float:
    """Milliseconds that never go backwards; only differences mean something."""
    return time.monotonic_ns() / 1_000_000


def new_uuid7() -> uuid.UUID:
    """A time-ordered UUID (RFC 9562 section 5.7), as standard library type."""
    return uuid.UUID(bytes=uuid_utils.uuid7().bytes)


def new_short_id(length: int = 12) -> str:
    """A random id of `length` characters a-z0-9, unguessable from 12 up (62 bits)."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(alphabet[b % 36] for b in os.urandom(length))


def random_bytes(count: int) -> bytes:
    """`count` bytes that nobody can guess."""
    return os.urandom(count)


def sample(population: int, count: int) -> list[int]:
    """`count` different indexes below `population`, evenly drawn, in rising order."""
    return sorted(random.sample(range(population), count))


def jittered(base_ms: int, spread: float = 0.5) -> int:
    """`base_ms` spread evenly over ±`spread` of itself, so that clients do not return together."""
    return round(base_ms * (1 + spread * (2 * random.random() - 1))) or 1
