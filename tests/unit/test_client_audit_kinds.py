"""The console names every problem an audit can find, in both languages."""

import re
from pathlib import Path

import pytest

from server.audit.report import KINDS

I18N = Path(__file__).parents[2] / "client-demo" / "src" / "i18n"


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_audit_kinds_when_compared_then_the_console_names_each(lang: str) -> None:
    text = (I18N / f"{lang}.ts").read_text("utf-8")
    named = re.findall(r'^  "audit\.kind\.(\w+)": "[^"]+",$', text, re.M)
    assert sorted(named) == sorted(KINDS)
