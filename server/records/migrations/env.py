"""Alembic's entry: runs the revisions on the connection server/records/migrate.py hands over.

That connection is already in a transaction and holds the advisory lock; both end there.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
