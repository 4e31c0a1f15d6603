"""Progress of a run: a live picture on a terminal, plain lines elsewhere, or JSON lines."""

import atexit
import sys
from collections import deque
from typing import Literal, Protocol, TextIO

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text as Styled

from loadtest.report import texts
from loadtest.report.summary import Second, Summary
from loadtest.report.texts import Text

Lang = Literal["zh", "en"]
PLAIN_EVERY = 5  # seconds
SPARKS = "▁▂▃▄▅▆▇█"
PHASES = {
    "prepare": Text("准备", "prepare"),
    "join": Text("进入直播间", "joining"),
    "lead_in": Text("预热", "lead-in"),
    "measure": Text("测量", "measuring"),
    "settle": Text("收尾", "settling"),
    "audit": Text("审计", "audit"),
    "report": Text("写报告", "report"),
}
COLOURS = {
    "pass": "green", "threshold": "yellow", "audit": "red", "invalid": "magenta",
    "interrupted": "white",
}  # fmt: skip
FIGURES = (
    "open", "claims_intended", "held", "confirmed", "refused", "given_up", "left", "errors",
)  # fmt: skip
NAMES = {
    "open": Text("在线", "open"),
    "claims_intended": Text("想抢/秒", "claims/s"),
    "held": Text("抢到/秒", "held/s"),
    "confirmed": Text("落库/秒", "confirmed/s"),
    "refused": Text("没抢到/秒", "refused/s"),
    "given_up": Text("放弃/秒", "given up/s"),
    "left": Text("剩余", "left"),
    "errors": Text("出错/秒", "errors/s"),
}


class View(Protocol):
    """Somebody who watches a run. Nothing here may block or raise."""

    def pulse(self, second: Second) -> None: ...

    def note(self, text: str) -> None: ...

    def done(self, summary: Summary) -> None: ...


def spark(values: list[float]) -> str:
    """The values as a row of little bars."""
    high = max(values, default=0.0) or 1.0
    return "".join(SPARKS[min(7, int(8 * max(value, 0) / high))] for value in values)


def in_lang(text: Text, lang: Lang) -> str:
    """The one language of a text."""
    return text.en if lang == "en" else text.zh


class Lines:
    """JSON lines: {"event": "progress" | "note" | "done", ...}."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _say(self, event: str, **more: object) -> None:
        line = msgspec.json.encode({"event": event, **more}).decode()
        print(line, file=self._stream, flush=True)

    def pulse(self, second: Second) -> None:
        self._say("progress", **msgspec.to_builtins(second))

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def done(self, summary: Summary) -> None:
        why = texts.sentence(summary)
        self._say("done", verdict=summary.verdict, exit=summary.exit, zh=why.zh, en=why.en)


class Plain:
    """One line every five seconds, for a pipe or a log: no colours, nothing moves."""

    def __init__(self, stream: TextIO, lang: Lang) -> None:
        self._stream, self._lang = stream, lang
        self._phase, self._last = "", 0.0

    def pulse(self, second: Second) -> None:
        fresh = second.phase != self._phase
        if not fresh and second.t_s - self._last < PLAIN_EVERY:
            return
        self._phase, self._last = second.phase, second.t_s
        phase = in_lang(PHASES[second.phase], self._lang)
        parts = [f"{second.t_s:6.1f} s  {phase} {second.done:.0%}"]
        parts += [
            f"{in_lang(NAMES[name], self._lang)} {second.values[name]:,.0f}"
            for name in FIGURES
            if name in second.values
        ]
        parts += [f"{name} p99 {p99:,.0f} ms" for name, (_, p99) in second.quick.items()]
        print("  ".join(parts), file=self._stream, flush=True)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def done(self, summary: Summary) -> None:
        verdict = in_lang(texts.VERDICTS[summary.verdict], self._lang)
        why = in_lang(texts.sentence(summary), self._lang)
        print(f"{verdict}: {why}", file=self._stream, flush=True)
        for check in summary.checks if summary.verdict != "invalid" else ():
            name, got = texts.check_name(check.name), texts.got(check)
            limit = in_lang(texts.wanted(check), self._lang)
            told = f"{in_lang(name, self._lang)}: {in_lang(got, self._lang)} ({limit})"
            print(f"  {'✓' if check.ok else '✗'} {told}", file=self._stream, flush=True)


class Terminal(Plain):
    """A picture that renews itself: the phase, the figures, latencies, the last minute."""

    def __init__(self, stream: TextIO, lang: Lang) -> None:
        super().__init__(stream, lang)
        self._console = Console(file=stream)
        self._past: dict[str, deque[float]] = {}
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def _figures(self, second: Second) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name in FIGURES:
            if name not in second.values:
                continue
            past = self._past.setdefault(name, deque(maxlen=60))
            past.append(second.values[name])
            title = in_lang(NAMES[name], self._lang)
            table.add_row(title, f"{second.values[name]:>10,.0f}", Styled(spark([*past]), "cyan"))
        return table

    def _latencies(self, second: Second) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, (half, most) in second.quick.items():
            title = in_lang(texts.measure(name), self._lang)
            table.add_row(title, f"p50 {half:>7,.0f} ms", f"p99 {most:>7,.0f} ms")
        return table

    def pulse(self, second: Second) -> None:
        head = Table.grid(padding=(0, 2))
        phase = Styled(in_lang(PHASES[second.phase], self._lang), "bold")
        bar = ProgressBar(100, 100 * min(max(second.done, 0), 1), width=40)
        head.add_row(phase, bar, f"{second.t_s:.0f} s")
        if not self._live.is_started:
            atexit.register(self._live.stop)  # the cursor comes back however the run ends
            self._live.start()
        picture = Group(head, self._figures(second), self._latencies(second))
        self._live.update(picture, refresh=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def done(self, summary: Summary) -> None:
        self._live.stop()
        verdict = in_lang(texts.VERDICTS[summary.verdict], self._lang)
        self._console.print(Styled(f"━━ {verdict} ━━", f"bold {COLOURS[summary.verdict]}"))
        super().done(summary)


def view(lang: Lang = "zh", *, as_json: bool = False, stream: TextIO | None = None) -> View:
    """The view that fits: JSON lines when asked for, a picture on a terminal, else plain lines."""
    out = stream or sys.stdout
    if as_json:
        return Lines(out)
    return Terminal(out, lang) if out.isatty() else Plain(out, lang)
