"""The .sql files: every statement has one name, is loaded by it and is used."""

import re
from pathlib import Path

import pytest

from server.records import sql

RECORDS = Path(sql.__file__).parents[1]
FILES = sorted(RECORDS.glob("sql/*.sql"))
PYTHON = "\n".join(path.read_text() for path in RECORDS.parent.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_statements_when_loaded_then_each_has_one_name_and_is_used(path: Path) -> None:
    names = re.findall(r"^-- name: (\w+)$", path.read_text(), re.MULTILINE)
    statements = sql.load(path.stem)
    assert list(statements) == names
    for name, text in statements.items():
        assert re.sub(r"--.*", "", text).strip(), name
        assert f'"{name}"' in PYTHON, f"{path.name}: {name} is never used"


def test_subject_when_there_is_no_such_file_then_it_says_so() -> None:
    with pytest.raises(FileNotFoundError):
        sql.load("nothing")
