"""Charts as inline SVG: lines, steps, areas, bars, a spectrum of percentiles.

A chart has no words of any language: its caption and legend are HTML beside it. Colours are CSS
variables, so it follows light, dark and print. Sizes are units of a 460 wide viewBox.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from loadtest.report.summary import FAULTS, Mark

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 22, 28
POINTS_MAX = 600  # of one line; a longer one is thinned to its highest values
HOVER_MAX = 60  # points of a line that tell their value
Scale = Callable[[float], float]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One series. `colour` is the name of a CSS variable; `shape` line, step or area."""

    points: Points
    colour: str
    label: str = ""  # before the value in the hover text
    shape: str = "line"
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """From data to viewBox units, with its ticks."""

    scale: Scale
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar; `head` is HTML already (it may carry both languages)."""

    head: str
    value: float
    text: str
    colour: str = "c1"


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines on two axes, with marks."""

    x: Axis
    y: Axis
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()


def step_of(span: float, count: int) -> float:
    """The 1, 2 or 5 times a power of ten that cuts `span` into about `count` parts."""
    rough = max(span, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)


def nice(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from at most `low` to at least `high`."""
    step = step_of(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A figure in at most five characters or so: 950, 1.2k, 35k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            base = 1e3 if letter == "k" else size
            return f"{value / base:.3g}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """A straight map of low..high to start..end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def upright(lines: Iterable[Line]) -> Axis:
    """The y axis: from zero to above the highest point."""
    high = max([y for line in lines for _, y in line.points] + [1e-3])
    ticks = nice(0, high * 1.02, 4)
    scale = linear(0, ticks[-1], HEIGHT - BOTTOM, TOP)
    return Axis(scale, [(tick, short(tick)) for tick in ticks])


def seconds_axis(low: float, high: float) -> Axis:
    """The x axis of a timeline."""
    scale = linear(low, high, LEFT, WIDTH - RIGHT)
    inside = [tick for tick in nice(low, high, 7) if low - 1e-9 <= tick <= high + 1e-9]
    return Axis(scale, [(tick, f"{tick:g}") for tick in inside])


def spectrum_axis(highest: float) -> Axis:
    """The x axis of percentiles: each tenfold rarer value takes the same width."""

    def nines(share: float) -> float:
        return -math.log10(max(1 - share, 1e-6))

    end = max(2.0, min(5.0, nines(highest)))
    across = linear(0, end, LEFT, WIDTH - RIGHT)
    ticks = [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")]
    ticks.append((0.9999, "99.99 %"))
    inside = [tick for tick in ticks if nines(tick[0]) <= end + 0.01]
    return Axis(lambda share: across(min(nines(share), end)), inside)


def thinned(points: Points, most: int = POINTS_MAX) -> Points:
    """At most `most` points: of every run of neighbours the highest, so that no peak is lost."""
    if len(points) <= most:
        return points
    size = math.ceil(len(points) / most)
    runs = (points[n : n + size] for n in range(0, len(points), size))
    return [max(run, key=lambda point: point[1]) for run in runs]


def path_of(line: Line, plot: Plot) -> str:
    """The `d` of a line; a step goes across, then up."""
    x, y = plot.x.scale, plot.y.scale
    parts: list[str] = []
    for n, (at, value) in enumerate(thinned(line.points)):
        here = f"{x(at):.1f}"
        if n and line.shape in ("step", "area"):
            parts.append(f"H{here}V{y(value):.1f}")
        else:
            parts.append(f"{'L' if n else 'M'}{here} {y(value):.1f}")
    return "".join(parts)


def drawn(line: Line, plot: Plot) -> Iterator[str]:
    """A series: its fill, its line, and points that tell their value when hovered over."""
    if not line.points:
        return
    path = path_of(line, plot)
    kept = thinned(line.points)
    if line.shape == "area":
        first, last = plot.x.scale(kept[0][0]), plot.x.scale(kept[-1][0])
        ground = HEIGHT - BOTTOM
        yield f'<path class="fill {line.colour}" d="{path}H{last:.1f}V{ground}H{first:.1f}Z"/>'
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    yield f'<path class="line {line.colour}" d="{path}"{dash}/>'
    single = ' r="3"' if len(kept) == 1 else ' r="5"'
    shown = "" if len(kept) == 1 else " hover"
    for at, value in thinned(line.points, HOVER_MAX):
        told = escape(f"{line.label} {short(value)} @ {at:.4g}".strip())
        place = f'cx="{plot.x.scale(at):.1f}" cy="{plot.y.scale(value):.1f}"'
        yield f'<circle class="dot{shown} {line.colour}" {place}{single}>'
        yield f"<title>{told}</title></circle>"


def frame(plot: Plot) -> Iterator[str]:
    """Grid and tick texts."""
    ground = HEIGHT - BOTTOM
    for value, text in plot.y.ticks:
        y = plot.y.scale(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{escape(text)}</text>'
    last = WIDTH - RIGHT
    for value, text in plot.x.ticks:
        x = plot.x.scale(value)
        side = " end" if x > last - 8 else ""
        yield f'<path class="tick" d="M{x:.1f} {ground}v4"/>'
        yield f'<text class="x{side}" x="{x:.1f}" y="{ground + 18}">{escape(text)}</text>'


def numbers(marks: Sequence[Mark], x: Scale) -> list[tuple[float, str]]:
    """Where the marks' numbers stand: those that would overlap share a place ("2-4")."""
    places: list[tuple[float, int, int]] = []
    for n, mark in enumerate(marks, 1):
        at = x(mark.t_s)
        if places and at - places[-1][0] < 18:
            places[-1] = (places[-1][0], places[-1][1], n)
        else:
            places.append((at, n, n))
    return [(at, str(a) if a == b else f"{a}–{b}") for at, a, b in places]


def marked(marks: Sequence[Mark], x: Scale) -> Iterator[str]:
    """Numbered verticals, and a band for what lasted. The numbers are those of the legend."""
    ground, low, high = HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT
    for mark in marks:
        kind = "fault" if mark.what.split(" ")[0] in FAULTS else "sale"
        at = min(max(x(mark.t_s), low), high)
        wide = min(x(mark.t_s + mark.for_s), high) - at
        if mark.for_s > 0 and wide > 0:
            place = f'x="{at:.1f}" y="{TOP}" width="{wide:.1f}" height="{ground - TOP}"'
            yield f'<rect class="band {kind}" {place}/>'
        yield f'<path class="mark {kind}" d="M{at:.1f} {TOP}V{ground}"/>'
    for at, text in numbers(marks, x):
        yield f'<text class="number" x="{min(max(at, low), high):.1f}" y="{TOP - 7}">{text}</text>'


def svg(plot: Plot) -> str:
    """The whole chart; empty when there is nothing to draw."""
    if not any(line.points for line in plot.lines):
        return ""
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">', *frame(plot)]
    parts += marked(plot.marks, plot.x.scale)
    for line in plot.lines:
        parts += drawn(line, plot)
    return "".join((*parts, "</svg>"))


def timeline(lines: Sequence[Line], span: tuple[float, float], marks: Sequence[Mark]) -> str:
    """Values over `span`, the seconds of the run; marks outside of it are left out."""
    low, high = span[0], max(span[1], span[0] + 1)
    inside = [mark for mark in marks if low - 1 <= mark.t_s <= high + 1]
    return svg(Plot(seconds_axis(low, high), upright(lines), lines, inside))


def spectrum(lines: Sequence[Line]) -> str:
    """Values by percentile: (share, value), the share 0 to 1."""
    shares = [share for line in lines for share, _ in line.points if share < 1]
    x = spectrum_axis(max(shares, default=0.99))
    return svg(Plot(x, upright(lines), lines))


def bars(rows: Sequence[Bar]) -> str:
    """Horizontal bars as HTML rows; the longest fills the width."""
    longest = max((row.value for row in rows), default=0) or 1.0
    made = (
        f"<tr><th>{row.head}</th><td class=bar><i class={row.colour} "
        f'style="width:{100 * max(row.value, 0) / longest:.1f}%"></i></td>'
        f"<td class=figure>{escape(row.text)}</td></tr>"
        for row in rows
    )
    return f"<table class=bars>{''.join(made)}</table>" if rows else ""
