"""The SQL statements, in .sql files beside this module, by name.

A file `<subject>.sql` holds statements that each begin with a line `-- name: <name>`; comments
below that line, up to the first line of SQL, document the statement and its parameters.
"""

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def load(subject: str) -> dict[str, str]:
    """Every statement of `<subject>.sql` by name. Raises FileNotFoundError for a wrong subject."""
    text = files(__package__).joinpath(f"{subject}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
