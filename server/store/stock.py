"""The stock of a show: claims, takes, gives and what PostgreSQL decided about them.

Takes go Redis first, then PostgreSQL; gives the other way round. Every method may be called again
with the same arguments after StoreUnavailable (effect unknown): the scripts are idempotent.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from server import limits
from server.errors import ERRORS_BY_CODE, Refused
from server.protocol.messages import ClaimState
from server.store import keys, packing
from server.store.client import command
from server.store.cut import read_cut, scan_hash
from server.store.durability import Replicas
from server.store.scripts import Scripts
from server.store.types import (
    ACCEPTED,
    ACCEPTED_BEFORE,
    EVERY_HUB,
    Applied,
    AuditCut,
    ClaimAnswer,
    ClaimBatchAnswer,
    ClaimRequest,
    Confirmation,
    Give,
    PoolCounters,
    PoolLevel,
    RememberedClaim,
    Retake,
    SaleProjection,
    Settled,
    ShowProjection,
    TakeAnswer,
)

_GATES: Final = {"scheduled": "scheduled", "live": "open", "paused": "paused", "ended": "ended"}
_LEVEL_FIELDS: Final = 4  # available, version, price, price version
_UNKNOWN: Final = (-1, 0, 0, 0)


class Stock:
    """Stock of every show on one Redis.

    With `replicas` no claim is called held before a replica has it.
    """

    def __init__(self, scripts: Scripts, replicas: Replicas | None = None) -> None:
        self._scripts = scripts
        self._replicas = replicas

    # --- Claims ------------------------------------------------------------------------------

    async def claim_batch(
        self, show_id: str, hub_id: str, epoch: int, claims: Sequence[ClaimRequest]
    ) -> ClaimBatchAnswer:
        """Decide 1 to CLAIM_BATCH_MAX claims in one call (lua/claim_batch.lua).

        `epoch` is the stock epoch the hub believes in; another one in Redis refuses every new
        claim with stock_rebuilding. After StoreUnavailable the outcome of each claim is unknown
        until the same claim is sent again. Any other refusal is final for this attempt and all
        before it, until REFUSALS_KEPT_MAX others were remembered.
        """
        buyers, ids, pools, quantities, price_versions, attempts = zip(*claims, strict=True)
        numbers = {pool: i for i, pool in enumerate(dict.fromkeys(pools), 1)}
        fields = [*map(keys.claim_field, buyers, ids)]
        terms = (quantities, price_versions, attempts if any(attempts) else ())
        columns = (fields, buyers, [numbers[p] for p in pools], *terms)
        args = (hub_id, epoch, packing.pack(list(numbers)), packing.pack(columns))
        names = _claim_keys(show_id, numbers)
        if self._replicas is None:
            reply = await self._scripts.run("claim_batch", names, args)
        else:
            reply = await self._replicas.run(show_id, "claim_batch", names, args)
        return _claim_answers(claims, numbers, packing.unpack_raw(reply))

    async def lookup(
        self, show_id: str, claims: Sequence[tuple[str, bytes]]
    ) -> list[ClaimState | None]:
        """States of (buyer, claim id) pairs; None where no accepted claim is remembered."""
        if not claims:
            return []
        fields = [keys.claim_field(buyer, claim_id) for buyer, claim_id in claims]
        words = ("HMGET", keys.claims(show_id), *fields)
        if self._replicas is None:
            found = await command(self._scripts.client, *words)
        else:
            found = await self._replicas.read(show_id, *words)
        return [
            packing.unpack_claim_state(claim_id, packed) if packed else None
            for (_, claim_id), packed in zip(claims, found, strict=True)
        ]

    async def remembered_claims(self, show_id: str) -> AsyncIterator[RememberedClaim]:
        """Every accepted claim, by a scan: those made meanwhile may be missing."""
        async for field, packed in scan_hash(self._scripts, keys.claims(show_id)):
            claim_id = field[-16:]
            if state := packing.unpack_claim_state(claim_id, packed):
                yield RememberedClaim(field[:-17].decode(), claim_id, state)

    async def units_by_buyer(self, show_id: str, pool_id: int) -> dict[str, int]:
        """Units that count against each buyer's limit, by a scan."""
        found = scan_hash(self._scripts, keys.buyers(show_id, pool_id))
        return {buyer.decode(): int(units) async for buyer, units in found}

    # --- After a commit ----------------------------------------------------------------------

    async def confirm_batch(self, show_id: str, confirmation: Confirmation) -> None:
        """Tell claims, counters, hubs and viewers what was committed, then acknowledge.

        Idempotent and monotone: claims move only up in rank, counters only to a newer version.
        In calls of at most CLAIM_BATCH_MAX each: claims, then counters, then acknowledgements, so
        a crash in between leaves the entries pending. Raises Refused(stock_rebuilding): whoever
        rebuilds the stock tells all of it.
        """
        claims, ids, size = confirmation.claims, confirmation.entry_ids, limits.CLAIM_BATCH_MAX
        last = max(0, (len(claims) - 1) // size * size)
        for start in range(0, last, size):
            await self._settle(show_id, claims[start : start + size], (), ())
        await self._settle(show_id, claims[last:], confirmation.pools, ids[:size])
        for start in range(size, len(ids), size):
            await self._settle(show_id, (), (), ids[start : start + size])

    async def _settle(
        self,
        show_id: str,
        claims: Sequence[Settled],
        pools: Sequence[PoolCounters],
        entry_ids: Sequence[str],
    ) -> None:
        hubs = {hub: i for i, hub in enumerate(sorted({c.hub_id for c in claims if c.hub_id}), 1)}
        columns = (
            [keys.claim_field(claim.buyer, claim.claim_id) for claim in claims],
            [*map(packing.pack_settled_state, claims)],
            [*map(packing.pack_settled_fact, claims)],
            [hubs.get(claim.hub_id, 0) for claim in claims],
        )
        names = [
            *(keys.meta(show_id), keys.claims(show_id), keys.orders(show_id)),
            *(keys.state(show_id), keys.bus_channel(show_id)),
            *(keys.pool(show_id, row.pool) for row in pools),
            *(_channel(show_id, hub) for hub in hubs),
        ]
        rows = packing.pack([number for row in pools for number in row])
        args = (rows, packing.pack(columns), keys.ORDER_GROUP, packing.pack(list(entry_ids)))
        if await self._scripts.run("confirm_batch", names, args) < 0:
            raise Refused("stock_rebuilding")

    # --- Takes, re-takes and gives ---------------------------------------------------------

    async def take(
        self, show_id: str, pool_id: int, act_id: bytes, units: int | None, *, close: bool
    ) -> TakeAnswer:
        """Lower the stock by `units`; None: by all that is left. `close` ends the sale for good.

        Idempotent by `act_id` (16 bytes). Raises Refused: out_of_stock when fewer units are left,
        unknown_sale, stock_rebuilding; nothing was changed then. The order worker gets the take
        as KIND_LOWERING or KIND_CLOSING (also with 0 units).
        """
        act = packing.claim_id_text(act_id)
        asked = "" if units is None else units
        code, taken, seq, before = await self._scripts.run(
            "take",
            [
                *(keys.meta(show_id), keys.pool(show_id, pool_id), keys.applied(show_id)),
                *(keys.orders(show_id), *_room_keys(show_id)),
            ],
            (pool_id, act_id, act, asked, int(close)),
        )
        if code:
            raise Refused(ERRORS_BY_CODE[code].name)
        return TakeAnswer(units=taken, seq=seq, before=bool(before))

    async def retake(self, show_id: str, retake: Retake) -> TakeAnswer:
        """Take an order's units again for a late payment; stock and the buyer's limit decide.

        Idempotent by payment id. Raises Refused: sold_out, out_of_stock, limit_reached,
        unknown_sale, stock_rebuilding; nothing was changed then. The order worker gets the take as
        KIND_RETAKE and decides whether the books keep it.
        """
        r = retake
        code, seq, before = await self._scripts.run(
            "retake",
            [
                *(keys.meta(show_id), keys.pool(show_id, r.pool), keys.buyers(show_id, r.pool)),
                *(keys.applied(show_id), keys.orders(show_id), *_room_keys(show_id)),
            ],
            (
                *(r.pool, r.payment_id, packing.claim_id_text(r.payment_id), r.buyer),
                *(r.quantity, r.counted, r.price, r.price_version),
            ),
        )
        if code:
            raise Refused(ERRORS_BY_CODE[code].name)
        return TakeAnswer(units=r.quantity, seq=seq, before=bool(before))

    async def give_batch(
        self, show_id: str, gives: Sequence[Give], counters: Sequence[PoolCounters] = ()
    ) -> list[bool]:
        """Return at most GIVE_BATCH_MAX gives' units, with the pools' counters of that commit.

        Per give: True when it is in force (now or since an earlier call), False when Redis has no
        such pool. Raises Refused(stock_rebuilding): nothing was changed. A give into a closed
        pool makes units available that nobody can claim; another closing take returns them.
        """
        pools = dict.fromkeys([*(g.pool for g in gives), *(c.pool for c in counters)])
        numbers = {pool: i for i, pool in enumerate(pools, 1)}
        flat = [value for give in gives for value in _give_row(give, numbers[give.pool])]
        rows = [value for c in counters for value in (numbers[c.pool], *c[1:])]
        names = [
            *(keys.meta(show_id), keys.claims(show_id), keys.applied(show_id)),
            *_room_keys(show_id),
            *_pool_keys(show_id, numbers),
        ]
        args = (packing.pack(list(numbers)), packing.pack(flat), packing.pack(rows))
        code, flags = await self._scripts.run("give_batch", names, args)
        if code:
            raise Refused(ERRORS_BY_CODE[code].name)
        return [bool(flag) for flag in flags]

    # --- Projections -------------------------------------------------------------------------

    async def apply_sale(self, show_id: str, projection: SaleProjection) -> Applied:
        """Bring a pool's terms to a revision of its row; units only at the making.

        Raises Refused(stock_rebuilding).
        """
        p = projection
        names = [keys.meta(show_id), keys.pool(show_id, p.sale), *_room_keys(show_id)]
        args = (p.sale, p.revision, int(p.may_create), p.units, packing.pack(sale_terms(p)))
        return _applied(await self._scripts.run("apply_sale", names, args))

    async def apply_show(self, show_id: str, projection: ShowProjection) -> Applied:
        """Bring a show's gate and what viewers see of it to a revision of its row."""
        p = projection
        show = {
            "phase": p.phase,
            "title": p.title,
            "cover_url": p.cover_url,
            "playback_url": p.playback_url,
            "starts_at": p.starts_at,
        }
        values = (show, {"product": p.pinned_product}, {"products": list(p.products)})
        args = (
            *(p.revision, int(p.may_create), p.stock_epoch, _GATES[p.phase]),
            *(p.phase, p.pinned_product, *map(packing.pack, values), keys.ORDER_GROUP),
            limits.COUNTS_KEPT_S,
        )
        names = [
            *(keys.meta(show_id), *_room_keys(show_id)),
            *(keys.orders(show_id), keys.counts(show_id)),
        ]
        return _applied(await self._scripts.run("apply_show", names, args))

    # --- Audit -------------------------------------------------------------------------------

    async def audit_cut(self, show_id: str, pool_ids: Sequence[int] = ()) -> AuditCut | None:
        """One instant of the show's stock; None when Redis does not know the show.

        It holds every pool that Redis knows of, and those of `pool_ids` that exist.
        """
        return await read_cut(self._scripts, show_id, pool_ids)


# --- Keys ----------------------------------------------------------------------------------------


def _room_keys(show_id: str) -> tuple[str, ...]:
    return (
        keys.state(show_id),
        keys.room(show_id),
        keys.events(show_id),
        keys.bus_channel(show_id),
    )


def _channel(show_id: str, hub_id: str) -> str:
    """Where one hub, or every hub, hears what became of claims."""
    return keys.bus_channel(show_id) if hub_id == EVERY_HUB else keys.hub_channel(show_id, hub_id)


def _pool_keys(show_id: str, pools: Sequence[int] | dict[int, int]) -> list[str]:
    return [key for pool in pools for key in (keys.pool(show_id, pool), keys.buyers(show_id, pool))]


def _claim_keys(show_id: str, pools: dict[int, int]) -> list[str]:
    return [
        *(keys.meta(show_id), keys.claims(show_id), keys.orders(show_id)),
        *(*_room_keys(show_id), keys.refusals(show_id)),
        *_pool_keys(show_id, pools),
    ]


# --- Replies and rows ----------------------------------------------------------------------------


def _claim_answers(
    claims: Sequence[ClaimRequest], numbers: dict[int, int], reply: list[Any]
) -> ClaimBatchAnswer:
    now_ms, epoch, codes, extras, flat = reply
    levels = {
        pool: tuple(flat[at : at + _LEVEL_FIELDS])
        for pool, at in zip(numbers, range(0, len(flat), _LEVEL_FIELDS), strict=False)
    }
    refusals: dict[tuple[int, int], ClaimAnswer] = {}  # equal ones are one object: a rush has many
    answers = []
    for claim, code, extra in zip(claims, codes, extras, strict=True):
        answer = refusals.get((code, claim.pool))
        if answer is None:
            level = levels.get(claim.pool, _UNKNOWN)
            answer = _claim_answer(claim, code, extra, epoch, level)
            if answer.state is None:
                refusals[code, claim.pool] = answer
        answers.append(answer)
    pools = {
        pool: PoolLevel(version, available, epoch)
        for pool, (available, version, _, _) in levels.items()
        if available >= 0
    }
    return ClaimBatchAnswer(now_ms=now_ms, epoch=epoch, answers=answers, pools=pools)


def _claim_answer(
    claim: ClaimRequest, code: int, extra: Any, epoch: int, level: tuple[int, ...]
) -> ClaimAnswer:
    _, _, price, price_version = level
    state = None
    if code == ACCEPTED:
        state = ClaimState(
            claim_id=packing.claim_id_text(claim.claim_id),
            status="held",
            sale=claim.pool,
            quantity=claim.quantity,
            price=price,
            price_version=price_version,
            epoch=epoch,
            seq=extra,
        )
    elif code == ACCEPTED_BEFORE:
        state = packing.unpack_claim_state(claim.claim_id, extra)
    return ClaimAnswer(code, state, price, price_version)


def _give_row(give: Give, number: int) -> tuple[Any, ...]:
    g, field, text = give, b"", ""
    if g.claim_id:
        field, text = keys.claim_field(g.buyer, g.claim_id), packing.claim_id_text(g.claim_id)
    claim = (g.buyer, int(g.forgiven), field, text, g.order_id, g.pay_by_ms)
    return (g.give_id, number, g.units, g.reason, *claim)


def sale_terms(projection: SaleProjection) -> dict[str, int | str]:
    """A sale's terms as fields of its pool's hash (lua/_pool.lua)."""
    p = projection
    return {
        "p": p.price,
        "pv": p.price_version,
        "lim": p.limit_per_buyer,
        "o": p.opens_at,
        "c": p.closes_at,
        "st": p.status,
        "pay": p.pay_within_s,
        "sku": p.sku,
        "prod": p.product,
        "lp": p.list_price,
        "cur": p.currency,
    }


def _applied(reply: bytes) -> Applied:
    """The answer of a projection. Raises Refused(stock_rebuilding): nothing was changed."""
    if reply == b"rebuilding":
        raise Refused("stock_rebuilding")
    answers: dict[bytes, Applied] = {
        b"applied": "applied",
        b"stale": "stale",
        b"missing": "missing",
    }
    return answers[reply]
