"""The documents say what the code does: messages, settings, error codes, targets, names."""

import re
import subprocess
from pathlib import Path

import pytest

from server import reference
from server.protocol import examples
from server.protocol import messages as m

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(ROOT.glob("*.md"))


@pytest.mark.parametrize("name", reference.DOCUMENTS)
def test_document_when_the_code_is_rendered_then_it_is_up_to_date(name: str) -> None:
    text = (ROOT / name).read_text()
    assert reference.render(text, reference.DOCUMENTS[name]) == text, "run: make docs"


def test_messages_when_listed_then_each_has_an_example() -> None:
    assert {type(e) for e in examples.COMMAND_EXAMPLES} == set(m.COMMANDS)
    assert {type(e) for e in examples.SERVER_EXAMPLES} == set(m.SERVER_MESSAGES)
    assert {type(e) for e in examples.EVENT_EXAMPLES} == set(m.EVENTS)
    assert {key.split(":")[0] for key in examples.STATE_EXAMPLES} == set(m.STATE_VALUES)
    for key, value in examples.STATE_EXAMPLES.items():
        assert type(value) is m.STATE_VALUES[key.split(":")[0]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_document_when_it_names_a_file_then_the_file_exists(path: Path) -> None:
    named = re.findall(
        r"`((?:server|loadtest|tests|client-demo)/[\w./-]+\.(?:py|lua|sql|ts|tsx|c|md))`",
        path.read_text(),
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_document_when_it_links_to_a_file_then_the_file_exists(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert not [link for link in links if not (ROOT / link).exists()]


def test_documents_when_they_name_make_targets_then_the_makefile_has_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in DOCUMENTS:
        for target in re.findall(r"^make (\w+)", path.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{path.name}: make {target}"


def test_repository_when_searched_then_it_names_no_machine_and_no_registry() -> None:
    pattern = "|".join(("python" + "hosted", "npm" + r"js\.", "py" + r"pi\.", "/" + "work/"))
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", ".", ":!*.svg"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode in (1, 128), found.stdout  # 128: not a checkout (a released archive)
