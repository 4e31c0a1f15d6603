"""Renders the reference parts of the documents from the code they describe.

`python -m server.reference` rewrites the text between `<!-- begin NAME -->` and
`<!-- end NAME -->` in PROTOCOL.md and OPERATIONS.md; tests/unit/test_docs.py fails when a document
is behind the code.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import REGISTRY

from server import errors
from server.config import Settings
from server.orders import metrics as _worker_metrics  # noqa: F401  registers its families
from server.protocol import examples
from server.protocol import messages as m
from server.telemetry import metrics as _web_metrics  # noqa: F401  registers its families

ROOT: Final = Path(__file__).resolve().parents[1]


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _hex(payload: bytes, per_line: int = 32) -> str:
    text = [payload[i : i + per_line].hex(" ") for i in range(0, len(payload), per_line)]
    return "\n".join(text)


def _pretty(message: object) -> str:
    return json.dumps(json.loads(msgspec.json.encode(message)), ensure_ascii=False)


def _name_of(message: msgspec.Struct) -> str:
    tag = message.__struct_config__.tag
    return str(tag) if tag is not None else type(message).__name__


def _section(title: str, message: msgspec.Struct) -> str:
    doc = inspect.cleandoc(type(message).__doc__ or "")
    return (
        f"### {title}\n\n{doc}\n\n```json\n{_pretty(message)}\n```\n\n"
        f"msgpack:\n\n```\n{_hex(msgspec.msgpack.encode(message))}\n```"
    )


def _sections(messages: Iterable[msgspec.Struct]) -> str:
    seen: dict[str, str] = {}
    for message in messages:
        name = _name_of(message)
        title = f"`{name}`"
        if title in seen:  # a further example of the same message
            seen[title] += f"\n\n```json\n{_pretty(message)}\n```"
        else:
            seen[title] = _section(title, message)
    return "\n\n".join(seen.values())


def commands() -> str:
    return _sections(examples.COMMAND_EXAMPLES)


def server_messages() -> str:
    return _sections(examples.SERVER_EXAMPLES)


def events() -> str:
    return _sections(examples.EVENT_EXAMPLES)


def states() -> str:
    return "\n\n".join(
        _section(f"`{key}`", value) for key, value in examples.STATE_EXAMPLES.items()
    )


def error_codes() -> str:
    return _table(
        ("code", "name", "HTTP", "retry", "retry_ms", "zh", "en"),
        (
            (e.code, f"`{e.name}`", e.http_status, "yes" if e.retryable else "no", e.retry_ms,
             e.zh, e.en)
            for e in errors.ERRORS.values()
        ),
    )  # fmt: skip


def close_codes() -> str:
    return _table(
        ("code", "name", "reconnect", "meaning"),
        (
            (c.code, f"`{c.name}`", "yes" if c.reconnect else "no", c.meaning)
            for c in errors.CLOSES.values()
        ),
    )


def claim_statuses() -> str:
    return ", ".join(f"`{name}`" for name in m.ClaimStatus.__args__)  # type: ignore[attr-defined]


def settings() -> str:
    def row(name: str) -> tuple[object, ...]:
        field = Settings.model_fields[name]
        bounds = " ".join(
            str(bound).replace("Ge(ge=", "≥ ").replace("Le(le=", "≤ ").rstrip(")")
            for bound in field.metadata
            if type(bound).__name__ in ("Ge", "Le")
        )
        default = field.default
        secret = type(default).__name__ == "SecretStr"
        shown = "(none)" if secret or default in ("", ()) else f"`{default}`"
        return f"`LIVESALE_{name.upper()}`", shown, bounds, field.description

    return _table(("variable", "default", "bounds", "what"), map(row, Settings.model_fields))


def metrics() -> str:
    """The families that importing the metrics of both processes registers."""
    families = (f for f in REGISTRY.collect() if f.name.startswith("livesale_"))
    rows = sorted((f"`{f.name}`", f.type, f.documentation) for f in families)
    return _table(("metric", "type", "what"), rows)


DOCUMENTS: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "PROTOCOL.md": {
        "commands": commands,
        "server messages": server_messages,
        "states": states,
        "events": events,
        "claim statuses": claim_statuses,
        "error codes": error_codes,
        "close codes": close_codes,
    },
    "OPERATIONS.md": {"settings": settings, "metrics": metrics},
}


def render(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """`text` with each marked part made anew. Raises ValueError when a marker is missing."""
    for name, make in parts.items():
        pattern = re.compile(f"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"no markers for {name!r}")
        body = make()
        text = pattern.sub(lambda match, body=body: match[1] + body + "\n" + match[2], text)  # type: ignore[misc]
    return text


def main() -> None:
    for name, parts in DOCUMENTS.items():
        path = ROOT / name
        path.write_text(render(path.read_text(), parts))


if __name__ == "__main__":
    main()
