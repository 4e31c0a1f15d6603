"""`livesale payments list` and `show`: their lines."""

import json
import uuid
from dataclasses import replace

from server.orders.payments_report import PaymentHistory, history_lines, json_lines, text_lines
from server.records.order_life import MoveRow
from server.records.payments import EventRow, PaymentAct, PaymentRow

ROW = PaymentRow(
    payment_id=uuid.UUID(int=7), show_id="show1", order_id=3, buyer="an", provider="stripe",
    external_id="pi_1", amount=1_990, currency="JPY", status="refund_requested", reason="sold_out",
    attempts=2, last_error="ProviderUnavailable: away", settled_by_hand=False,
    refunded_twice=False, refused=False, created_ms=0, updated_ms=1_767_225_600_000,
)  # fmt: skip
HISTORY = PaymentHistory(
    ROW,
    [
        EventRow("evt_1", "captured", 1_990, "JPY", "retake_pending", 1, "", 3_000, 4_000),
        EventRow("evt_2", "refunded", 1_990, "JPY", "", 5, "Refused: no", 9_000, 0),
    ],
    [MoveRow("confirmed", "expired", "deadline", "", 2_000)],
    [PaymentAct("refund_again", "operator", None, 8_000)],
)


def test_text_when_a_refund_hangs_then_the_line_says_why() -> None:
    (line,) = text_lines([ROW])
    assert line.startswith("2026-01-01T00:00:00+00:00  00000000-0000-0000-0000-000000000007")
    assert line.endswith("1990 JPY  stripe  refund_requested  sold_out (ProviderUnavailable: away)")


def test_text_when_an_operator_is_needed_or_was_there_then_the_line_says_so() -> None:
    (refused,) = text_lines([replace(ROW, refused=True)])
    assert "  refund_requested  waits for an operator  sold_out (" in refused
    by_hand = replace(ROW, status="refunded", settled_by_hand=True, last_error="")
    (settled,) = text_lines([by_hand])
    (twice,) = text_lines([replace(by_hand, refunded_twice=True)])
    assert "  refunded by hand  went back twice  sold_out" in twice
    assert settled.endswith("stripe  refunded by hand  sold_out")


def test_history_when_shown_then_everything_in_the_order_of_time() -> None:
    assert [line.partition("+00:00  ")[2] for line in history_lines(HISTORY)][1:] == [
        "begun",
        "order confirmed -> expired  deadline",
        "event evt_1  captured  1990 JPY  retake_pending",
        "refund_again  by operator",
        "event evt_2  refunded  1990 JPY  not handled in 5 attempts Refused: no",
    ]


def test_json_when_read_back_then_every_field_is_there() -> None:
    (line,) = json_lines([ROW])
    found = json.loads(line)
    assert found["payment_id"] == str(ROW.payment_id)
    assert set(found) == set(PaymentRow.__dataclass_fields__)


def test_json_when_it_is_a_history_then_objects_with_names() -> None:
    (line,) = json_lines([HISTORY])
    found = json.loads(line)
    assert set(found) == set(PaymentHistory.__dataclass_fields__)
    assert [event["event_id"] for event in found["events"]] == ["evt_1", "evt_2"]
    assert found["moves"][0]["status_to"] == "expired"
