"""What the HTML report is put together from: texts, figures, tables, charts with captions."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.report.charts import Line
from loadtest.report.texts import Text


def esc(value: object) -> str:
    """Any value as text of HTML, safe in attributes too."""
    return html.escape(str(value))


def both(text: Text) -> str:
    """A text in both languages, of which the page shows one."""
    if text.zh == text.en:
        return esc(text.zh)
    return f'<span lang="zh">{esc(text.zh)}</span><span lang="en">{esc(text.en)}</span>'


def card(name: Text, figure: Text, small: str = "", kind: str = "") -> str:
    """One key figure; `small` is HTML already."""
    told = f"<dd>{both(figure)}<small>{small}</small></dd>"
    return f'<div class="card {kind}"><dt>{both(name)}</dt>{told}</div>'


def section(name: Text, lead: Text, *parts: str) -> str:
    """A section with its lead; empty when every part is."""
    if not any(parts):
        return ""
    return (
        f'<section><h2>{both(name)}</h2><p class="lead">{both(lead)}</p>{"".join(parts)}</section>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], figures: int = 1) -> str:
    """Cells are HTML; columns from `figures` on are figures, to the right."""
    if not rows:
        return ""

    def line(cells: Sequence[str], tag: str) -> str:
        made = (
            f'<{tag} class="n">{cell}</{tag}>' if n >= figures else f"<{tag}>{cell}</{tag}>"
            for n, cell in enumerate(cells)
        )
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    many = " many" if len(rows[0]) > 5 else ""
    return f'<div class="wide{many}"><table>{top}<tbody>{body}</tbody></table></div>'


def legend(lines: Sequence[tuple[Line, Text]]) -> str:
    """The lines' colours and names."""
    made = (
        f'<span><i class="{line.colour}{" dashed" if line.dashed else ""}"></i>{both(name)}</span>'
        for line, name in lines
        if line.points
    )
    return f'<div class="legend">{"".join(made)}</div>'


def figure(name: Text, unit: Text, lines: Sequence[tuple[Line, Text]], drawing: str) -> str:
    """A chart with its caption and legend; empty without a drawing."""
    if not drawing:
        return ""
    caption = f"<figcaption>{both(name)} <small>{both(unit)}</small></figcaption>"
    return f"<figure>{caption}{legend(lines)}{drawing}</figure>"


def plain_value(value: object) -> str:
    """A setting as people write it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def pairs(values: Mapping[str, Any]) -> str:
    """Plain settings by name; what is empty is left out."""
    rows = [
        [f"<code>{esc(name)}</code>", f"<code>{esc(plain_value(value))}</code>"]
        for name, value in values.items()
        if value not in (None, "", [], {})
    ]
    return table((), rows, 9)
