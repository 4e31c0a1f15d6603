"""The schema's history: one revision in versions/, one SQL file beside it, forwards only.

A new revision is two files: `NNNN_what.sql` here and `versions/NNNN_what.py`, whose `upgrade()`
calls `run_file`. Revision ids are the four digits; a released file never changes.
"""

from pathlib import Path
from typing import Any

from alembic import op

HERE = Path(__file__).parent


def run_file(name: str) -> None:
    """Run the SQL file `name` (many statements) inside the migration's transaction.

    Through the driver itself: SQLAlchemy prepares statements, and PostgreSQL prepares only one
    at a time.
    """
    script = (HERE / name).read_text(encoding="utf-8")
    adapted: Any = op.get_bind().connection.dbapi_connection
    adapted.run_async(lambda connection: connection.execute(script))
