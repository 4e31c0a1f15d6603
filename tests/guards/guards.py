"""The guards of the money path, each with the tests that must fail without it.

A guard is named for the promise it keeps. Its text must stand in its file exactly once, so that
this table cannot go stale unnoticed.
"""

from typing import Final

from tests.guards.removal import Guard

CLAIM_BATCH: Final = "server/store/lua/claim_batch.lua"
CONFIRM_BATCH: Final = "server/store/lua/confirm_batch.lua"
GIVE_BATCH: Final = "server/store/lua/give_batch.lua"
TAKE: Final = "server/store/lua/take.lua"
RETAKE: Final = "server/store/lua/retake.lua"
GATE: Final = "server/store/lua/_gate.lua"
CLAIM_STATES: Final = "server/store/lua/_claims.lua"
REBUILD: Final = "server/store/lua/_rebuild.lua"
RULES: Final = "server/domain/claim.py"
WORKER: Final = "server/orders/worker.py"
RECONCILE: Final = "server/orders/reconcile.py"
ORDERS: Final = "server/records/orders.py"
ORDER_LIFE: Final = "server/records/sql/order_life.sql"
RECEIPTS: Final = "server/hub/receipts.py"
UNFIT: Final = "tests/integration/test_unfit.py"
DAMAGE: Final = "tests/integration/test_damage.py"
LOST: Final = "tests/integration/test_lost_show.py"
BOOKS_1: Final = "server/records/migrations/0001_initial.sql"
BOOKS_2: Final = "server/records/migrations/0002_order_life.sql"

STOCK: Final = "tests/integration/test_store_stock.py"
REFUSALS: Final = "tests/integration/test_claim_refusals.py"
FAULTS: Final = "tests/integration/test_store_faults.py"
RETAKES: Final = "tests/integration/test_store_retake.py"
RULINGS: Final = "tests/unit/test_order_rulings.py"
WORK: Final = "tests/integration/test_worker.py"
CRASHES: Final = "tests/faults/test_worker_crashes.py"
CONSTRAINTS: Final = "tests/integration/test_book_constraints.py"
RECONCILING: Final = "tests/integration/test_reconcile.py"
RECONCILE_CRASHES: Final = "tests/integration/test_reconcile_crashes.py"
LIFE: Final = "tests/integration/test_order_life.py"
PAYING: Final = "tests/integration/test_payments_events.py"
REFUSED: Final = "tests/integration/test_payments_refused.py"
RETRIED: Final = "tests/integration/test_payments_retried.py"
TIMETABLE: Final = "tests/integration/test_timetable.py"
EXPIRING: Final = "tests/integration/test_expirer.py"
CLAIMS: Final = "tests/unit/test_claims.py"
PROOFS: Final = "tests/unit/test_receipts.py"

ALL: Final = (
    # --- What a claim may take (claim_batch.lua) -------------------------------------------------
    Guard(
        "a known claim gets its old answer", CLAIM_BATCH,
        "local known = redis.call('HMGET', CLAIMS, unpack(fields))",
        "local known = {}",
        (f"{STOCK}::test_claim_batch_when_asked_again_after_the_end_then_the_same_answer",),
    ),
    Guard(
        "a claim repeated within a batch counts once", CLAIM_BATCH,
        "known[i] or fresh[fields[i]]",
        "known[i]",
        ("tests/faults/test_table_claims.py::test_row_11_same_id_twice_in_one_batch_then_one_unit",),
    ),
    Guard(
        "a refused claim stays refused when an earlier sending comes late", CLAIM_BATCH,
        "refusal and code_of_late(refusal, i) or ",
        "",
        (f"{REFUSALS}::test_claim_when_refused_through_another_hub_then_the_frozen_one_cannot_get_it_accepted",),
    ),
    Guard(
        "only the newest refused attempt counts", CLAIM_BATCH,
        "attempt <= (before and before.attempt or 0) or ",
        "attempt == 0 or ",
        (f"{REFUSALS}::test_refusal_when_an_older_attempt_is_refused_after_it_then_the_newer_one_counts",),
    ),
    Guard(
        "another epoch is no refusal", CLAIM_BATCH,
        " or code == CODE.stock_rebuilding then return end\n",
        " then return end\n",
        (f"{REFUSALS}::test_refusal_when_it_is_only_the_epoch_then_the_same_attempt_may_come_again",),
    ),
    Guard(
        "remembered refusals are bounded", CLAIM_BATCH,
        "  if surplus > 0 then forget_refusals(surplus) end\n",
        "",
        (f"{REFUSALS}::test_refusals_when_fresh_ids_come_for_ever_then_memory_is_bounded_and_claims_stay",),
    ),
    Guard(
        "forgetting refusals forgets no accepted claim", CLAIM_BATCH,
        "    if stored and is_refusal(stored) then gone[#gone + 1] = oldest[i] end\n",
        "    if stored then gone[#gone + 1] = oldest[i] end\n",
        (f"{REFUSALS}::test_refusals_when_fresh_ids_come_for_ever_then_memory_is_bounded_and_claims_stay",),
    ),
    Guard(
        "refusals outlive a rebuild", "server/store/lua/rebuild_begin.lua",
        "for _, pairs_of in ipairs(refusals) do redis.call('HSET', CLAIMS, unpack(pairs_of)) end\n",
        "",
        (f"{REFUSALS}::test_refusal_when_the_stock_is_rebuilt_then_it_still_holds",),
    ),
    Guard(
        "limit per buyer in Redis", CLAIM_BATCH,
        "  if pool.units[buyers[i]] + quantities[i] > pool.lim then return"
        " CODE.limit_reached end\n",
        "",
        (f"{STOCK}::test_give_batch_when_a_claim_is_released_then_its_buyer_may_buy_again",),
    ),
    Guard(
        "stock", CLAIM_BATCH,
        "  if pool.a == 0 then return CODE.sold_out end\n"
        "  if quantities[i] > pool.a then return CODE.out_of_stock end\n",
        "",
        (f"{STOCK}::test_claim_batch_when_the_last_unit_is_asked_for_twice_then_one_gets_it",),
    ),
    Guard(
        "price version", CLAIM_BATCH,
        "  if price_versions[i] ~= pool.pv then return CODE.price_changed end\n",
        "",
        ("tests/integration/test_host_api_sales.py::test_price_when_changed_then_claims_need_the_new_version",),
    ),
    Guard(
        "window opens by Redis time", CLAIM_BATCH,
        "  if pool.o == 0 or now < pool.o then return CODE.sale_not_open end\n",
        "",
        (f"{STOCK}::test_claim_batch_when_the_sale_is_only_announced_then_its_window_decides",),
    ),
    Guard(
        "window closes by Redis time", CLAIM_BATCH,
        "  if now >= pool.c then return CODE.sale_closed end\n",
        "",
        ("tests/faults/test_table_claims.py::test_row_19_window_ends_by_redis_time_then_nobody_buys_early_or_late",),
    ),
    Guard(
        "gate of the show", CLAIM_BATCH,
        "  if gate ~= 'open' then return GATE_REFUSAL[gate] or CODE.stock_rebuilding end\n",
        "",
        ("tests/integration/test_host_api_sales.py::test_show_when_paused_during_a_sale_then_claims_wait_and_the_window_stays",),
    ),
    Guard(
        "stock epoch of the hub", CLAIM_BATCH,
        "  if tonumber(ARGV[2]) ~= epoch then return CODE.stock_rebuilding end\n",
        "",
        (f"{STOCK}::test_claim_batch_when_the_epoch_is_another_then_stock_rebuilding",),
    ),
    Guard(
        "types are checked before the first write", CLAIM_BATCH,
        "  expect('stream', ORDERS)\n"
        "  check_room(ROOM)\n",
        "",
        (f"{FAULTS}::test_script_when_a_key_has_the_wrong_type_then_nothing_is_written[claim_all-orders]",
         f"{FAULTS}::test_script_when_a_key_has_the_wrong_type_then_nothing_is_written[claim_all-state]",),
    ),
    Guard(
        "stock is written before the order stream", CLAIM_BATCH,
        "  for _, pool in ipairs(touched) do write_stock(pool) end\n"
        "  write_orders()\n",
        "  write_orders()\n"
        "  for _, pool in ipairs(touched) do write_stock(pool) end\n",
        (f"{FAULTS}::test_script_when_cut_short_then_units_are_stranded_but_never_sold_twice",),
    ),
    Guard(
        "the order stream is written before the answers", CLAIM_BATCH,
        "  write_orders()\n"
        "  redis.call('HSET', CLAIMS, unpack(new_claims))\n",
        "  redis.call('HSET', CLAIMS, unpack(new_claims))\n"
        "  write_orders()\n",
        (f"{FAULTS}::test_script_when_cut_short_then_units_are_stranded_but_never_sold_twice",),
    ),
    # --- Whose Redis this is (_gate.lua), takes and gives of others ------------------------------
    Guard(
        "run id of the Redis process", GATE,
        "  if not epoch or meta[3] ~= run_id() then return epoch, 'rebuilding' end\n",
        "  if not epoch then return epoch, 'rebuilding' end\n",
        (f"{RECONCILING}::test_reconcile_when_an_older_copy_came_back_then_nothing_is_sold_twice",
         f"{RETAKES}::test_retake_when_redis_is_another_process_then_stock_rebuilding",),
    ),
    Guard(
        "gate for takes of the host", TAKE,
        "if gate == 'rebuilding' then return {CODE.stock_rebuilding, 0, 0, 0} end\n",
        "",
        (f"{STOCK}::test_takes_and_gives_when_the_gate_is_shut_then_stock_rebuilding",),
    ),
    Guard(
        "gate for gives", GIVE_BATCH,
        "if gate == 'rebuilding' then return {CODE.stock_rebuilding, {}} end\n",
        "",
        (f"{STOCK}::test_takes_and_gives_when_the_gate_is_shut_then_stock_rebuilding",),
    ),
    Guard(
        "a take of the host counts once", TAKE,
        "if done then\n",
        "if false then\n",
        (f"{STOCK}::test_take_when_lowering_then_units_leave_and_the_stream_knows",),
    ),
    Guard(
        "a give counts once", GIVE_BATCH,
        "if applied[i] or seen[give_id] then",
        "if seen[give_id] then",
        (f"{STOCK}::test_give_batch_when_restocked_then_sold_out_buyers_can_buy_again",),
    ),
    Guard(
        "a give repeated within a batch counts once", GIVE_BATCH,
        "if applied[i] or seen[give_id] then",
        "if applied[i] then",
        ("tests/faults/test_table_claims.py::test_row_20_restock_twice_with_one_id_then_its_units_come_once",),
    ),
    Guard(
        "forfeited units stay counted in Redis", "server/store/stock.py",
        "int(g.forgiven), field, text",
        "1, field, text",
        (f"{LIFE}::test_churn_when_the_forgiven_returns_are_used_up_then_units_go_to_others_only",),
    ),
    Guard(
        "marks are written before the units", GIVE_BATCH,
        "if marks[1] then redis.call('HSET', APPLIED, unpack(marks)) end\n"
        "if moved[1] then redis.call('HSET', CLAIMS, unpack(moved)) end\n"
        "for _, pool in ipairs(pools) do\n"
        "  if pool and pool.touched then\n"
        "    write_pool(pool)\n"
        "    tell_viewers(pool, epoch, now)\n"
        "  end\n"
        "end\n",
        "for _, pool in ipairs(pools) do\n"
        "  if pool and pool.touched then\n"
        "    write_pool(pool)\n"
        "    tell_viewers(pool, epoch, now)\n"
        "  end\n"
        "end\n"
        "if marks[1] then redis.call('HSET', APPLIED, unpack(marks)) end\n"
        "if moved[1] then redis.call('HSET', CLAIMS, unpack(moved)) end\n",
        (f"{FAULTS}::test_script_when_cut_short_then_units_are_stranded_but_never_sold_twice",),
    ),
    Guard(
        "a re-take counts once", RETAKE,
        "if done then return {0, cmsgpack.unpack(done)[2], 1} end\n",
        "",
        (f"{RETAKES}::test_retake_when_repeated_then_the_same_answer_and_nothing_more",),
    ),
    Guard(
        "limit for a re-take", RETAKE,
        "  if bought + counted > whole(pool.lim, 'limit') then return CODE.limit_reached end\n",
        "",
        (f"{RETAKES}::test_retake_when_the_buyer_has_bought_meanwhile_then_limit_reached",),
    ),
    Guard(
        "stock for a re-take", RETAKE,
        "  if pool.a == 0 then return CODE.sold_out end\n"
        "  if units > pool.a then return CODE.out_of_stock end\n",
        "",
        (f"{RETAKES}::test_retake_when_too_few_are_left_then_refused_and_nothing_changes",),
    ),
    Guard(
        "a claim's status only rises", CLAIM_STATES,
        "  return to > from\n",
        "  return true\n",
        (f"{STOCK}::test_confirm_batch_when_the_claim_moved_on_then_it_is_not_turned_back",
         f"{LIFE}::test_telling_when_steps_come_late_then_a_claim_never_goes_back",),
    ),
    Guard(
        "counters only rise in version", CONFIRM_BATCH,
        "    if pool and rows[at + 5] > whole(pool.rv, 'pool rv') then\n",
        "    if pool then\n",
        (f"{STOCK}::test_confirm_batch_when_older_counters_come_late_then_they_are_ignored",),
    ),
    Guard(
        "a closed sale stays closed", "server/store/lua/apply_sale.lua",
        "if old and old.st == 'closed' then terms.st = 'closed' end\n",
        "",
        (f"{STOCK}::test_apply_sale_when_closed_in_redis_then_an_older_row_cannot_open_it",),
    ),
    Guard(
        "a pool is never made from nothing", "server/store/lua/apply_sale.lua",
        "if not old and ARGV[3] ~= '1' then return 'missing' end\n",
        "",
        (f"{STOCK}::test_apply_sale_when_the_pool_may_not_be_made_then_missing",),
    ),
    # --- How takes enter the books ---------------------------------------------------------------
    Guard(
        "room of the pool", RULES,
        "    units = books.bought.get(take.buyer, 0) + take.quantity\n"
        "    if take.quantity > books.room:\n",
        "    units = books.bought.get(take.buyer, 0) + take.quantity\n"
        "    if False:\n",
        (f"{RULINGS}::test_rule_when_pool_is_full_then_later_claims_are_released",),
    ),
    Guard(
        "limit per buyer in the books", RULES,
        "    elif units > books.limit_per_buyer:\n"
        "        rulings.released.append((take, \"over_limit\"))\n",
        "",
        (f"{RULINGS}::test_rule_when_buyer_has_the_limit_then_claim_is_released",),
    ),
    Guard(
        "a late payment waits only once", RULES,
        "    elif not late.waits:\n"
        "        rulings.missed.append(MissedRetake(take, \"not_waiting\", late))\n",
        "",
        ("tests/unit/test_retake_rulings.py::test_retake_when_taken_twice_then_the_second_goes_back",),
    ),
    Guard(
        "a missing seq is seen", RULES,
        "            raise StockIncident(\"gap\", f\"pool {take.pool}: seq {last"
        " + 1} is missing\")",
        "            new.append(take)",
        (f"{RULINGS}::test_split_when_a_seq_is_missing_then_gap",),
    ),
    Guard(
        "a seq used twice is seen", RULES,
        "            raise StockIncident(\"reuse\", f\"pool {take.pool}: seq"
        " {take.seq} came twice\")",
        "            continue",
        (f"{RULINGS}::test_split_when_a_seq_has_two_contents_then_reuse",),
    ),
    Guard(
        "a known take must be the same", ORDERS,
        "    if row[\"claim_id\"] is None or row[\"claim_id\"].bytes != take.claim_id:\n",
        "    if False:\n",
        (f"{WORK}::test_seq_when_used_again_with_other_content_then_show_halts_and_is_reconciled",),
    ),
    Guard(
        "epoch of the books", ORDERS,
        "    if row is None or row[\"epoch\"] != epoch:\n",
        "    if row is None:\n",
        (f"{WORK}::test_entry_when_of_another_epoch_then_show_is_reconciled",
         "tests/faults/test_table_worker.py::test_row_worker_frozen_across_an_epoch_then_it_writes_nothing_into_the_next_one",),
    ),
    Guard(
        "nothing is stored while halted", ORDERS,
        "    if row[\"halted_by\"]:\n",
        "    if False:\n",
        (f"{CONSTRAINTS}::test_take_when_the_show_is_halted_then_nothing_is_stored",),
    ),
    Guard(
        "entries lost by the stream are seen", WORKER,
        "        if found.lost_ids:\n",
        "        if False:\n",
        (f"{WORK}::test_pending_entry_when_deleted_by_force_then_show_halts",),
    ),
    Guard(
        "acknowledged only after the commit", WORKER,
        "        batch, result = await self._enter(entries)\n",
        "        ids = [entry.entry_id for entry in entries]\n"
        "        await self._stream._commands.xack(self._stream._key, \"pg\", *ids)\n"
        "        await self._stream._commands.xdel(self._stream._key, *ids)\n"
        "        batch, result = await self._enter(entries)\n",
        ("tests/faults/test_table_worker.py::test_row_02_worker_killed_before_commit_then_the_next_one_stores_all",),
    ),
    # --- What PostgreSQL refuses by itself -------------------------------------------------------
    Guard(
        "pools are never oversold", BOOKS_1,
        "        CHECK (reserved + sold + dead <= initial + restocked - lowered)\n",
        "        CHECK (true)\n",
        (f"{CONSTRAINTS}::test_pool_when_more_is_counted_than_it_has_then_refused",),
    ),
    Guard(
        "one order per claim", BOOKS_1,
        "UNIQUE (show_id, buyer, claim_id)",
        "UNIQUE (show_id, buyer, claim_id, seq)",
        (f"{CONSTRAINTS}::test_order_when_the_claim_has_one_already_then_refused",
         f"{WORK}::test_claim_when_accepted_again_under_another_seq_then_it_has_one_order",),
    ),
    Guard(
        "one order per seq", BOOKS_1,
        "UNIQUE (pool_id, epoch, seq)",
        "UNIQUE (pool_id, epoch, seq, claim_id)",
        (f"{CONSTRAINTS}::test_order_when_its_place_is_taken_then_refused",),
    ),
    Guard(
        "sales share no unit of a sku", BOOKS_1,
        "CHECK (allotted BETWEEN 0 AND inventory)",
        "CHECK (true)",
        (f"{CONSTRAINTS}::test_sku_when_sales_have_more_than_its_inventory_then_refused",),
    ),
    Guard(
        "one give per id in the ledger", BOOKS_1,
        "    give_id   text UNIQUE,\n",
        "    give_id   text,\n",
        (f"{CONSTRAINTS}::test_give_when_its_id_is_used_again_then_refused",),
    ),
    Guard(
        "one payment pays an order", BOOKS_2,
        "    WHERE status IN ('captured', 'retake_pending');\n",
        "    WHERE status IN ('retake_pending') AND false;\n",
        (f"{CONSTRAINTS}::test_order_when_two_payments_pay_it_then_refused",),
    ),
    Guard(
        "an event of a provider counts once", BOOKS_2,
        "    PRIMARY KEY (provider, event_id)\n",
        "    PRIMARY KEY (provider, event_id, received_at)\n",
        (f"{CONSTRAINTS}::test_event_when_the_provider_sends_it_again_then_refused",
         f"{PAYING}::test_capture_when_told_a_thousand_times_at_once_then_once",),
    ),
    # --- What happens to orders later ------------------------------------------------------------
    Guard(
        "an order leaves the status it was in", ORDER_LIFE,
        "AND order_id = ANY($2::bigint[]) AND status = $3\n",
        "AND order_id = ANY($2::bigint[]) AND $3 <> ''\n",
        (f"{LIFE}::test_step_when_the_order_is_elsewhere_by_now_then_nothing_changes",),
    ),
    Guard(
        "an order expires by PostgreSQL's clock", ORDER_LIFE,
        "  AND (NOT $5::bool OR pay_by < now())\n",
        "  AND ($5::bool OR NOT $5::bool)\n",
        (f"{CONSTRAINTS}::test_expiry_when_the_order_is_not_due_then_it_stays",),
    ),
    Guard(
        "an order takes only edges of its life", "server/records/order_life.py",
        "    if not may_become(status_from, status_to):\n",
        "    if False:\n",
        (f"{LIFE}::test_step_when_it_is_no_edge_then_it_cannot_be_asked_for",),
    ),
    Guard(
        "a step waits for a rebuild, or the rebuild for it", ORDER_LIFE,
        "FROM stock_epochs WHERE show_id = $1 FOR SHARE\n",
        "FROM stock_epochs WHERE show_id = $1\n",
        (f"{LIFE}::test_move_when_the_epoch_is_being_raised_then_it_waits",),
    ),
    Guard(
        "money that does not fit goes back", "server/domain/payment.py",
        "        return Step(\"refund_requested\", \"wrong_amount\")\n",
        "        pass\n",
        ("tests/unit/test_payment_rules.py::test_capture_when_it_is_not_what_was_asked_then_it_goes_back",),
    ),
    Guard(
        "a refused refund is not asked for again", "server/acts/payments.py",
        "            settle = payments.stop_refund\n",
        "",
        (f"{REFUSED}::test_refund_when_refused_then_nobody_asks_again_and_it_is_seen",),
    ),
    Guard(
        "money goes back one way", "server/acts/refunds.py",
        "    if not held.refused:\n        raise",
        "    if False:\n        raise",
        (f"{REFUSED}::test_by_hand_when_the_provider_is_being_asked_then_refused",),
    ),
    Guard(
        "what was settled by hand stays settled", "server/domain/payment.py",
        " and not standing.settled_by_hand",
        "",
        ("tests/unit/test_payment_rules.py::test_refund_failure_when_it_was_settled_by_hand_then_nothing",
         f"{REFUSED}::test_by_hand_when_an_old_refund_fails_later_then_the_money_goes_back_once",),
    ),
    Guard(
        "an event that cannot be handled waits longer each time", "server/records/sql/payments.sql",
        "least(attempts, 20)))\nFROM due WHERE (e.provider",
        "0))\nFROM due WHERE (e.provider",
        (f"{RETRIED}::test_event_when_it_cannot_be_handled_then_pauses_double_up_to_the_most",),
    ),
    # --- One thing's trouble is not the others' ---------------------------------------------------
    Guard(
        "a fault of one thing ends no round", "server/acts/work.py",
        "            except Exception as fault:\n                self._note(thing, fault)\n",
        "",
        ("tests/unit/test_work.py::test_each_when_one_thing_fails_then_the_others_are_done_and_it_is_no_outage",),
    ),
    Guard(
        "a damaged show slows no other", "server/acts/work.py",
        "            except StoreDamaged as damage:\n                self._note(thing, damage)\n",
        "",
        (f"{TIMETABLE}::test_round_when_one_show_is_damaged_then_it_ends_without_an_outage",),
    ),
    Guard(
        "an outage ends no round", "server/acts/work.py",
        "                self._outage = outage\n",
        "                raise\n",
        (f"{TIMETABLE}::test_round_when_redis_is_away_then_every_part_was_tried_and_it_is_an_outage",),
    ),
    Guard(
        "letters without units are told by the sweep", "server/acts/projector.py",
        "        await work.each(self.letters.tell, letters)\n",
        "",
        ("tests/integration/test_dead_letters.py::test_letter_when_it_gives_no_units_back_and_redis_is_away_then_the_sweep_tells",),
    ),
    # --- Reconciliation and receipts -------------------------------------------------------------
    Guard(
        "one reconciler at a time", "server/records/sql/rebuild.sql",
        "SELECT pg_try_advisory_xact_lock(hashtextextended('livesale.reconcile.' || $1, 0))",
        "SELECT $1 <> ''",
        (f"{RECONCILE_CRASHES}::test_reconcile_when_another_has_the_lock_then_busy_and_nothing_is_done",),
    ),
    Guard(
        "a rebuild raises the epoch", "server/records/sql/rebuild.sql",
        "SET epoch = greatest(epoch, $3::int) + 1,",
        "SET epoch = greatest(epoch, $3::int),",
        (f"{RECONCILING}::test_reconcile_when_nothing_was_lost_then_every_claim_has_an_order",),
    ),
    Guard(
        "an older rebuild is refused", REBUILD,
        "  return meta[1] == epoch and meta[2] == 'rebuilding' and meta[3] == rebuild\n"
        "    and meta[4] == run_id()\n",
        "  return true\n",
        (f"{RECONCILE_CRASHES}::test_reconcile_when_frozen_while_another_finishes_then_it_changes_nothing",),
    ),
    Guard(
        "gives in the snapshot are not told again", RECONCILE,
        "                await rebuild.write_applied((give_id, 1) for give_id in give_ids)\n",
        "                pass\n",
        (f"{RECONCILING}::test_reconcile_when_gives_were_applied_after_the_copy_then_they_count_once",),
    ),
    Guard(
        "evidence only while gathering", "server/store/lua/present.lua",
        "if meta[1] ~= 'rebuilding' or meta[2] ~= ARGV[1] then return 0 end\n",
        "",
        (f"{RECONCILING}::test_present_when_the_gate_is_open_then_it_is_too_late",),
    ),
    Guard(
        "receipts are checked", RECEIPTS,
        "        return hmac.compare_digest(signed.encode(), claim.receipt.encode())\n",
        "        return bool(signed)\n",
        (PROOFS,),
    ),
    Guard(
        "stock is not opened on a Redis that keeps too little", RECONCILE,
        "        await tools.require_fit()\n        await books.finish(",
        "        await books.finish(",
        (f"{UNFIT}::test_reconcile_when_redis_became_unfit_meanwhile_then_it_is_not_opened",),
    ),
    Guard(
        "Redis is asked again what it keeps", WORKER,
        "        await self._tools.require_fit()\n",
        "",
        (f"{UNFIT}::test_redis_when_it_is_set_to_keep_less_then_the_gate_closes_until_it_is_mended",),
    ),
    Guard(
        "a PostgreSQL that may lose commits is refused", "server/records/durability.py",
        "        raise Misconfigured(fault)\n",
        "        pass\n",
        (f"{UNFIT}::test_postgresql_when_commits_are_not_waited_for_then_refused_and_a_demo_is_warned",),
    ),
    Guard(
        "damage is a reason to rebuild", RECONCILE,
        "    if vitals.damage:\n",
        "    if False:\n",
        ("tests/unit/test_diagnosis.py",
         f"{DAMAGE}::test_pool_when_a_number_of_it_is_gone_then_it_is_not_taken_for_no_pool"),
    ),
    Guard(
        "a lost show is no unknown one", "server/web/known_shows.py",
        "        if show_id not in found:\n",
        "        if True:\n",
        (f"{LOST}::test_show_when_redis_was_flushed_then_come_again_and_no_such_show_only_where_it_is_true",),
    ),
    Guard(
        "books behind Redis are seen", RECONCILE,
        "        if seq < expected.seqs[pool]:\n",
        "        if False:\n",
        ("tests/unit/test_diagnosis.py",),
    ),
)  # fmt: skip

# Fast ones, of every kind.
QUICK: Final = frozenset(
    {
        "a known claim gets its old answer",
        "the order stream is written before the answers",
        "a give counts once",
        "limit per buyer in the books",
        "pools are never oversold",
    }
)
