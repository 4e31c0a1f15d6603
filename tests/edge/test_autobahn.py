"""The Autobahn fuzzing client against the production listener: 247 cases of RFC 6455, and some of
its 216 of RFC 7692.

Left out are its cases of size and speed (9: messages of up to 16 MiB, where ours may have 4 KiB).
In case 7.1.5 a close frame comes in the middle of a message: the client expects its code back,
websockets' parser, which judges for us, calls that an incomplete message (1002), as RFC 6455
section 7.1.7 lets it.

A case of compression (12, 13) is a thousand messages of one size, up to 128 KiB, one after the
other: one is run for each kind of data and each kind of offer. Those that ask for a window of 9
bits are declined, which the client calls not implemented.

The client is Python 2 code; `.ci/autobahn` installs it into build/autobahn where there is a Python
2.7. Without it this test is skipped, or fails where LIVESALE_TEST_AUTOBAHN=required.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.door_stage import door_stage
from tests.edge.echo_stage import EchoStage, widen

PROJECT: Final = Path(__file__).parents[2]
LEFT_OUT: Final = ("9.*", "12.*", "13.*")
CASES: Final = 247
COMPRESSED: Final = (
    *("12.1.4", "12.2.3", "12.3.1", "12.4.2", "12.5.11"),  # the last in fragments
    *("13.1.3", "13.2.3", "13.6.3", "13.7.3"),
)
DECLINED: Final = ("13.3.1", "13.5.1")
PASSED: Final = frozenset(("OK", "NON-STRICT", "INFORMATIONAL"))
AS_EXPLAINED: Final = {"7.1.5": ("FAILED", "WRONG CODE")}
SECONDS_MAX: Final = 90


@pytest.fixture
def wstest() -> str:
    """The fuzzing client's program."""
    installed = PROJECT / "build" / "autobahn" / "bin" / "wstest"
    found = str(installed) if installed.exists() else shutil.which("wstest")
    if found is None:
        missing = "no Autobahn fuzzing client; where there is a Python 2.7: .ci/autobahn"
        if os.environ.get("LIVESALE_TEST_AUTOBAHN") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def fuzz(
    wstest: str, folder: Path, port: int, cases: Sequence[str], left_out: Sequence[str] = ()
) -> dict[str, Any]:
    """Run these cases; verdicts by case."""
    spec = {
        "outdir": str(folder),
        "servers": [{"agent": "livesale", "url": f"ws://127.0.0.1:{port}/ws/echo"}],
        "cases": cases,
        "exclude-cases": left_out,
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [wstest, "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS_MAX, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    verdicts: dict[str, Any] = json.loads((folder / "index.json").read_text())["livesale"]
    return verdicts


def test_autobahn_when_it_fuzzes_the_listener_then_every_case_passes(
    wstest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen(monkeypatch)
    with door_stage(EchoStage) as stage:
        verdicts = fuzz(wstest, tmp_path, stage.port, ["*"], LEFT_OUT)
    assert len(verdicts) == CASES
    assert not_passed(verdicts) == AS_EXPLAINED


def test_autobahn_when_it_compresses_then_every_case_passes(
    wstest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen(monkeypatch)
    with door_stage(EchoStage) as stage:
        verdicts = fuzz(wstest, tmp_path, stage.port, (*COMPRESSED, *DECLINED))
    assert verdicts.keys() == {*COMPRESSED, *DECLINED}
    assert not_passed(verdicts) == dict.fromkeys(DECLINED, ("UNIMPLEMENTED", "OK"))


def not_passed(verdicts: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The cases that did not pass, with what the client says of messages and of the end."""
    return {
        case: (found["behavior"], found["behaviorClose"])
        for case, found in verdicts.items()
        if not {found["behavior"], found["behaviorClose"]} <= PASSED
    }
