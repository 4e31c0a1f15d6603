"""Servers that are broken on purpose: copies of the project, each with one promise taken out.

A load tester that calls them sound is worth nothing. Every breakage is a few texts replaced;
test_broken.py says how the load tester must call it.
"""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

PROJECT: Final = Path(__file__).parents[2]


class Edit(NamedTuple):
    """`text`, which is in `file` exactly once, and what stands in its place."""

    file: str
    text: str
    instead: str


class Breakage(NamedTuple):
    """A defect of a server."""

    name: str
    edits: tuple[Edit, ...]


# One take leaves its unit where it was, and nothing behind it minds: neither the order worker's
# guard nor the table's own.
OVERSELLS: Final = Breakage(
    "oversells_by_one",
    (
        Edit(
            "server/store/lua/claim_batch.lua",
            "pool.q + 1, pool.a - quantity, units",
            "pool.q + 1, pool.a - (pool.q == 4 and 0 or quantity), units",
        ),
        Edit(
            "server/records/sql/orders.sql",
            "p.initial + p.restocked - p.lowered - p.reserved - p.sold - p.dead AS room,",
            "p.initial + p.restocked - p.lowered - p.reserved - p.sold - p.dead + 1 AS room,",
        ),
        Edit(
            "server/records/migrations/0001_initial.sql",
            "CHECK (reserved + sold + dead <= initial + restocked - lowered)",
            "CHECK (reserved + sold + dead <= initial + restocked - lowered + 1)",
        ),
    ),
)

# The buyer of the fifth unit is never told that the order is stored: the news is dropped, and
# whoever looks the claim up is told that it is held.
DROPS_CONFIRMATION: Final = Breakage(
    "drops_one_confirmation",
    (
        Edit(
            "server/hub/claims.py",
            "        for buyer, state in orders:\n            if self._in_flight",
            "        for buyer, state in orders:\n            if state.seq == 5:\n"
            "                continue\n            if self._in_flight",
        ),
        Edit(
            "server/store/stock.py",
            "            packing.unpack_claim_state(claim_id, packed) if packed else None\n"
            "            for (_, claim_id), packed in zip(claims, found, strict=True)",
            "            packing.unpack_claim_state(\n"
            "                claim_id,\n"
            '                packed.replace(b"\\xa9confirmed", b"\\xa4held")\n'
            "                if packing.unpack_raw(packed)[6:7] == [5] else packed,\n"
            "            ) if packed else None\n"
            "            for (_, claim_id), packed in zip(claims, found, strict=True)",
        ),
    ),
)

# The buyer of the fifth unit is hung up on when the order is stored, and kept out from then on.
HANGS_UP: Final = Breakage(
    "hangs_up_on_one_buyer",
    (
        Edit(
            "server/hub/claims.py",
            "        for buyer, state in orders:\n            if self._in_flight",
            "        for buyer, state in orders:\n            if state.seq == 5:\n"
            "                self.room.hub.kept_out = buyer\n"
            "                for viewer in tuple(self.room.viewers_of(buyer)):\n"
            "                    viewer.close(1013)\n"
            "                continue\n            if self._in_flight",
        ),
        Edit(
            "server/hub/room.py",
            "        if viewer.user is None:\n            self.hub.count_user(user)\n",
            '        if user == getattr(self.hub, "kept_out", ""):\n'
            '            raise Refused("too_many_connections")\n'
            "        if viewer.user is None:\n            self.hub.count_user(user)\n",
        ),
    ),
)

# Every third tick carries the first version of the stock again.
COUNTER_BACK: Final = Breakage(
    "sends_a_counter_backwards",
    (
        Edit(
            "server/hub/room.py",
            "            state=changes.state,\n",
            "            state={\n"
            '                key: {**value, "version": 1}\n'
            '                if key.startswith("stock:") and self.tick % 3 == 0 else value\n'
            "                for key, value in changes.state.items()\n"
            "            },\n",
        ),
    ),
)

# The hub that started first hears everything one second late.
LATE_ROOM: Final = Breakage(
    "delays_one_room",
    (
        Edit(
            "server/hub/feed.py",
            "                    self._hub.take_fact(show_id, fact)\n",
            "                    asyncio.get_running_loop().call_later(\n"
            "                        LATE_S, self._hub.take_fact, show_id, fact\n"
            "                    )\n",
        ),
        Edit(
            "server/hub/feed.py",
            "CLOCK_SECONDS: Final = 10\n",
            "CLOCK_SECONDS: Final = 10\n"
            "from pathlib import Path\n"
            'FIRST = Path(__file__).with_name("first")\n'
            "LATE_S = 0.0 if FIRST.exists() else 1.0\n"
            "FIRST.touch()\n",
        ),
    ),
)

# Claims gather for a while, and then those of bots go to the front.
BOTS_FIRST: Final = Breakage(
    "serves_bots_first",
    (
        Edit(
            "server/hub/claims.py",
            "                batch = self._next_batch()\n",
            "                await asyncio.sleep(0.15)\n"
            "                ordered = sorted(\n"
            '                    self._queue, key=lambda each: "-x" not in each[2].buyer\n'
            "                )\n"
            "                self._queue.clear()\n"
            "                self._queue.extend(ordered)\n"
            "                batch = self._next_batch()\n",
        ),
    ),
)

ALL: Final = (OVERSELLS, DROPS_CONFIRMATION, HANGS_UP, COUNTER_BACK, LATE_ROOM, BOTS_FIRST)


def broken(folder: Path, *breakages: Breakage) -> Path:
    """A copy of the server in `folder` with these defects. ValueError when a text is not there."""
    shutil.copytree(
        PROJECT / "server", folder / "server", ignore=shutil.ignore_patterns("__pycache__")
    )
    for edit in (edit for breakage in breakages for edit in breakage.edits):
        path = folder / edit.file
        path.write_text(edited(edit, path.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


def edited(edit: Edit, whole: str) -> str:
    """`whole` with its edit. ValueError when the text is not there exactly once."""
    if whole.count(edit.text) != 1:
        raise ValueError(f"{edit.file} has this {whole.count(edit.text)} times: {edit.text}")
    return whole.replace(edit.text, edit.instead)
