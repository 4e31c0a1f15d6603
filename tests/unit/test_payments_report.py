"""`livesale payments`: its lines."""

import json
import uuid

from server.orders.payments_report import json_lines, text_lines
from server.records.payments import PaymentRow

ROW = PaymentRow(
    payment_id=uuid.UUID(int=7), show_id="show1", order_id=3, buyer="an", provider="stripe",
    external_id="pi_1", amount=1_990, currency="JPY", status="refund_requested", reason="sold_out",
    attempts=2, last_error="ProviderUnavailable: away", created_ms=0, updated_ms=1_767_225_600_000,
)  # fmt: skip


def test_text_when_a_refund_hangs_then_the_line_says_why() -> None:
    (line,) = text_lines([ROW])
    assert line.startswith("2026-01-01T00:00:00+00:00  00000000-0000-0000-0000-000000000007")
    assert line.endswith("1990 JPY  stripe  refund_requested  sold_out (ProviderUnavailable: away)")


def test_json_when_read_back_then_every_field_is_there() -> None:
    (line,) = json_lines([ROW])
    found = json.loads(line)
    assert found["payment_id"] == str(ROW.payment_id)
    assert set(found) == set(PaymentRow.__dataclass_fields__)
