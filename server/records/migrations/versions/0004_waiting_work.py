"""What could not be done at once, and waits for another try."""

from server.records.migrations import run_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_file("0004_waiting_work.sql")
