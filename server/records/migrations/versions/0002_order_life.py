"""What happens to an order after its confirmation."""

from server.records.migrations import run_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_file("0002_order_life.sql")
