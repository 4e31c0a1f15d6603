"""Where each row of the table of faults is tested.

    1        worker killed between COMMIT and XACK (one call publishes and acks): nothing twice
    2        worker killed before COMMIT: the next one stores all
    3        PostgreSQL killed in COMMIT: the repeat finds the same rows, counted once
    4        PostgreSQL down in the burst: `held` goes on, `confirmed` comes later
    5        Redis loses power, everysec: hubs bring holds back; without hubs only holds are lost
    5b       Redis process killed: nothing acknowledged is lost (which says nothing about row 5)
    6        power gone, appendfsync always: no acknowledged hold is lost
    7        FLUSHALL or an empty restart: rebuilt from the books, hubs and receipts
    8        replica promoted without the newest takes: none is sold again
    9        reply dropped, retry on another hub, also for the last unit: same answer, one unit
    10       client library repeats EVALSHA: same answer, one unit
    11       same id a thousand times, one buyer on 50 sockets: one take, the limit holds
    12       two claims on the last unit in one batch: exactly one gets it
    13       hub killed with a batch in flight: its clients find out elsewhere
    14       payment at the deadline, repeated, reordered, late: one winner; re-take or refund
    15       two expirers: one give per order
    16       memory full: nothing half written; goes on when there is room
    17       poison claim: one dead letter, the others are stored
    18       entry deleted by hand: seen, reconciled, its claims are not lost
    19       clocks wrong by an hour: windows by Redis time, deadlines by PostgreSQL's
    20       restock twice with one id, or while sold out: once; the cached answer ends
    21       scripts forgotten, or two versions of them: the books stay exact
    22       two reconcilers, or one dying at any step: one works, the next one completes it
    23       wrong type on each key, error between two writes: too stingy, never sold twice
    24       crowd at a sold-out sale: hubs answer, Redis hardly hears of it
    frozen   worker stopped while the stock is reconciled: writes nothing into the next epoch
    raised   Redis has more units than the books: the excess is released, in order
    stale    PostgreSQL comes back as an older copy: stopped at the next take, then rebuilt
    network  connections cut, silent, half open; a demoted master; SIGSTOP: all go on

Rows with names instead of numbers came to the list later.
"""

from typing import Final

import pytest

from tests.rows import missing_tests, rows_in

HERE: Final = "tests/faults/"
INTEGRATION: Final = "tests/integration/"

ROWS: Final = {
    "1": [f"{HERE}test_table_worker.py::test_row_01"],
    "2": [f"{HERE}test_table_worker.py::test_row_02"],
    "3": [f"{HERE}test_table_worker.py::test_row_03"],
    "4": [f"{HERE}test_table_worker.py::test_row_04"],
    "5": [f"{HERE}test_table_redis.py::test_row_05_"],
    "5b": [f"{HERE}test_table_redis.py::test_row_05b"],
    "6": [f"{HERE}test_table_redis.py::test_row_06"],
    "7": [f"{HERE}test_table_redis.py::test_row_07"],
    "8": [f"{HERE}test_table_redis.py::test_row_08"],
    "9": [f"{HERE}test_table_claims.py::test_row_09"],
    "10": [f"{HERE}test_table_claims.py::test_row_10"],
    "11": [f"{HERE}test_table_claims.py::test_row_11"],
    "12": [f"{INTEGRATION}test_store_stock.py::test_claim_batch_when_the_last_unit_is_asked_for"],
    "13": [f"{HERE}test_table_claims.py::test_row_13"],
    "14": [
        f"{INTEGRATION}test_payments_events.py::test_payment_when_it_races_with_the_expiry",
        f"{INTEGRATION}test_payments_events.py::test_capture_when_told_a_thousand_times_at_once",
        f"{INTEGRATION}test_payments_events.py::test_refund_when_told_before_the_capture",
        f"{INTEGRATION}test_payments_late.py::test_late_payment_when_units_are_left",
        f"{INTEGRATION}test_payments_late.py::test_late_payment_when_others_bought_the_units",
    ],
    "15": [f"{INTEGRATION}test_expirer.py::test_expirers_when_two_run_at_once"],
    "16": [
        f"{HERE}test_table_redis.py::test_row_16",
        f"{INTEGRATION}test_store_faults.py::test_script_when_memory_is_full",
    ],
    "17": [
        f"{INTEGRATION}test_worker.py::test_take_when_its_data_is_faulty",
        f"{INTEGRATION}test_worker.py::test_take_when_postgres_refuses_it_then_halving",
        f"{INTEGRATION}test_worker.py::test_take_when_pool_is_unknown",
    ],
    "18": [f"{HERE}test_table_redis.py::test_row_18"],
    "19": [f"{HERE}test_table_claims.py::test_row_19"],
    "20": [
        f"{HERE}test_table_claims.py::test_row_20",
        f"{INTEGRATION}test_host_api_sales.py::test_restock_when_repeated_then_it_counts_once",
        f"{INTEGRATION}test_claim_flow.py::test_claims_when_the_stock_is_gone_then_sold_out_until",
    ],
    "21": [f"{HERE}test_table_redis.py::test_row_21", f"{HERE}test_table_claims.py::test_row_21"],
    "22": [
        f"{INTEGRATION}test_reconcile_crashes.py::test_reconcile_when_another_has_the_lock",
        f"{INTEGRATION}test_reconcile_crashes.py::test_reconcile_when_it_dies_at_any_step",
        f"{INTEGRATION}test_reconcile_crashes.py::test_reconcile_when_frozen_while_another_finishes",
    ],
    "23": [
        f"{INTEGRATION}test_store_faults.py::test_script_when_a_key_has_the_wrong_type",
        f"{INTEGRATION}test_store_faults.py::test_script_when_cut_short",
        f"{INTEGRATION}test_store_retake.py::test_retake_when_a_key_has_a_wrong_type",
    ],
    "24": [f"{HERE}test_table_claims.py::test_row_24"],
    "frozen": [f"{HERE}test_table_worker.py::test_row_worker_frozen"],
    "raised": [
        f"{INTEGRATION}test_worker.py::test_claims_when_redis_has_too_many_units",
    ],
    "stale": [f"{HERE}test_table_worker.py::test_row_postgresql_comes_back_older"],
    "network": [
        f"{HERE}test_table_redis.py::test_row_frozen_processes",
        f"{HERE}test_table_redis.py::test_row_readonly",
        f"{HERE}test_table_claims.py::test_row_network",
    ],
}


@pytest.mark.parametrize("row", ROWS)
def test_row_when_looked_for_then_its_tests_are_there(row: str) -> None:
    assert missing_tests(ROWS[row]) == []


def test_table_when_read_then_it_has_every_row() -> None:
    assert rows_in(__doc__) == list(ROWS)
