"""What a show's numbers were over time, and what its host means to say of each product."""

from server.records.migrations import run_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_file("0006_show_numbers.sql")
