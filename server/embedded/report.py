"""What `livesale up` tells: aligned lines for people, or one JSON object a line for programs."""

import contextlib
import json
from typing import TextIO


class Report:
    """Writes to `out` at once; a reader that has gone away is no reason to stop."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json

    def part(self, part: str, state: str, detail: str = "") -> None:
        """The state of one part: valkey, postgres, tables, demo, worker, web..."""
        self._say(
            f"  {part:<10} {state:<10} {detail}".rstrip(),
            {"event": "part", "part": part, "state": state, "detail": detail},
        )

    def ready(self, fields: dict[str, object], lines: list[str]) -> None:
        """Everything runs: `fields` for programs, `lines` for people."""
        self._say("\n".join(["", *lines, ""]), {"event": "ready", **fields})

    def note(self, message: str) -> None:
        self._say(f"  {message}", {"event": "note", "message": message})

    def stopping(self) -> None:
        self._say("stopping; a second Ctrl-C forces it", {"event": "stopping"})

    def error(self, message: str) -> None:
        self._say(f"error: {message}", {"event": "error", "message": message})

    def _say(self, text: str, fields: dict[str, object]) -> None:
        line = json.dumps(fields, ensure_ascii=False) if self._as_json else text
        with contextlib.suppress(OSError):
            self._out.write(line + "\n")
            self._out.flush()
