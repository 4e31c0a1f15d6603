"""The CSV export: no cell runs as a formula, no text breaks a row."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.records.order_list import OrderRow
from server.web.host_orders import CSV_COLUMNS, csv_bytes, csv_cells, safe_cell

ORDER = OrderRow(
    order_id=7, sale_id=3, product_id=1, sku_id=2, product="手冲壶", sku="600 ml", buyer="li",
    claim_id="0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60", quantity=3, price=1999, currency="CNY",
    status="confirmed", confirmed_at=1_790_000_000_123, pay_by=0,
)  # fmt: skip


def test_order_when_exported_then_prices_are_decimals_and_times_are_utc() -> None:
    row = dict(zip(CSV_COLUMNS, csv_cells(ORDER), strict=True))
    assert (row["unit_price"], row["total"], row["quantity"]) == ("19.99", "59.97", 3)
    assert row["confirmed_at"] == "2026-09-21T14:13:20.123+00:00"


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", "＋1", "－1", "＠x"],
)
def test_cell_when_it_could_be_a_formula_then_it_is_text(text: str) -> None:
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "li", "手冲壶", "a=b", "1-2", "a@b.example", "'x"])
def test_cell_when_it_is_harmless_then_it_stays(text: str) -> None:
    assert safe_cell(text) == text


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=1))
def test_rows_when_read_again_then_every_cell_is_whole(cells: list[str]) -> None:
    kept = [cell.replace("\0", "") for cell in cells]
    text = csv_bytes([kept]).decode()
    assert next(csv.reader(io.StringIO(text, newline=""))) == kept
