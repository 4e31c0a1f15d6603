"""A Redis stream with consumer groups, as the server's scripts and its order worker use it."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from redis.exceptions import ResponseError

EntryId = tuple[int, int]
FIRST: EntryId = (0, 0)
LAST: EntryId = (2**64, 0)


@dataclass(slots=True)
class Pending:
    """An entry that a consumer read and did not acknowledge. `since`: ms."""

    consumer: bytes
    since: int
    deliveries: int


@dataclass(slots=True)
class Group:
    """A consumer group; `pending` is kept in order of ids."""

    last: EntryId
    pending: dict[EntryId, Pending] = field(default_factory=dict)
    consumers: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Stream:
    """`ids` in rising order; `fields` of each flat, as sent."""

    ids: list[EntryId] = field(default_factory=list)
    fields: dict[EntryId, list[bytes]] = field(default_factory=dict)
    last: EntryId = FIRST
    groups: dict[bytes, Group] = field(default_factory=dict)

    # --- Entries ------------------------------------------------------------------------------

    def next_id(self, word: bytes, now_ms: int) -> EntryId:
        """The id a new entry gets for XADD's `word`. Raises ResponseError."""
        if word == b"*":
            return max((now_ms, 0), (self.last[0], self.last[1] + 1))
        entry_id = to_id(word)
        if entry_id <= self.last:
            raise ResponseError(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item"
            )
        return entry_id

    def add(self, entry_id: EntryId, fields: list[bytes]) -> None:
        insort(self.ids, entry_id)
        self.fields[entry_id] = fields
        self.last = entry_id

    def trim(self, most: int) -> None:
        for entry_id in self.ids[: max(0, len(self.ids) - most)]:
            self.delete(entry_id)

    def delete(self, entry_id: EntryId) -> bool:
        if self.fields.pop(entry_id, None) is None:
            return False
        self.ids.remove(entry_id)
        return True

    def between(self, low: bytes, high: bytes) -> list[EntryId]:
        """Ids from `low` to `high` as XRANGE writes them: -, +, an id, ( before an open end."""
        start, start_open = _end(low, FIRST)
        stop, stop_open = _end(high, LAST)
        first = (bisect_right if start_open else bisect_left)(self.ids, start)
        end = (bisect_left if stop_open else bisect_right)(self.ids, stop)
        return self.ids[first:end]

    def entry(self, entry_id: EntryId) -> list[object]:
        return [from_id(entry_id), list(self.fields[entry_id])]

    # --- Groups -------------------------------------------------------------------------------

    def read_new(self, name: bytes, consumer: bytes, count: int, now_ms: int) -> list[object]:
        """XREADGROUP with >: entries nobody has read; they become pending."""
        group = self.groups[name]
        group.consumers.add(consumer)
        first = bisect_right(self.ids, group.last)
        found = self.ids[first : first + count]
        for entry_id in found:
            group.pending[entry_id] = Pending(consumer, now_ms, 1)
            group.last = entry_id
        return [self.entry(entry_id) for entry_id in found]

    def acknowledge(self, name: bytes, entry_id: EntryId) -> bool:
        group = self.groups.get(name)
        return group is not None and group.pending.pop(entry_id, None) is not None

    def autoclaim(
        self, name: bytes, consumer: bytes, idle_ms: int, start: EntryId, count: int, now_ms: int
    ) -> list[object]:
        """XAUTOCLAIM: [next id, entries, ids whose entries are gone]."""
        group = self.groups[name]
        group.consumers.add(consumer)
        claimed: list[object] = []
        gone: list[bytes] = []
        waiting = iter(sorted(entry_id for entry_id in group.pending if entry_id >= start))
        for entry_id in _at_most(waiting, 10 * count):
            pending = group.pending[entry_id]
            if entry_id not in self.fields:
                del group.pending[entry_id]
                gone.append(from_id(entry_id))
            elif now_ms - pending.since >= idle_ms:
                pending.consumer, pending.since = consumer, now_ms
                pending.deliveries += 1
                claimed.append(self.entry(entry_id))
            if len(claimed) + len(gone) == count:
                break
        return [from_id(next(waiting, FIRST)), claimed, gone]


def _at_most(ids: Iterator[EntryId], count: int) -> Iterator[EntryId]:
    for _, entry_id in zip(range(count), ids, strict=False):
        yield entry_id


def to_id(word: bytes, missing: int = 0) -> EntryId:
    """`word` as ms-seq, or ms alone. Raises ResponseError."""
    ms, _, seq = word.partition(b"-")
    try:
        return int(ms), int(seq) if seq else missing
    except ValueError:
        raise ResponseError("ERR Invalid stream ID specified as stream command argument") from None


def from_id(entry_id: EntryId) -> bytes:
    return b"%d-%d" % entry_id


def _end(word: bytes, whole: EntryId) -> tuple[EntryId, bool]:
    if word in (b"-", b"+"):
        return (FIRST if word == b"-" else LAST), False
    is_open = word.startswith(b"(")
    return to_id(word.removeprefix(b"("), 0 if whole is FIRST else 2**64 - 1), is_open
