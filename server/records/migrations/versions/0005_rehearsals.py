"""Rehearsals of sales, in shadow shows of their own."""

from server.records.migrations import run_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_file("0005_rehearsals.sql")
