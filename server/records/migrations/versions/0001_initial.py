"""Shows, products, sales, orders and the books that prove every unit."""

from server.records.migrations import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_file("0001_initial.sql")
