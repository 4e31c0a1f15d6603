"""What is looked up: lists by id, and holds that were lost for good."""

from server.records.migrations import run_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_file("0003_lookups.sql")
