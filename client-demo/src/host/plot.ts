/** One small chart on uPlot. Loaded only where charts are shown: uPlot is not small. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Column } from "./series";

export interface Line {
  /** Its colour is the custom property `--curve-{name}` of the chart's box. */
  name: string;
  /** How the area below it is filled; "solid" hides the lines before it. */
  fill: "none" | "soft" | "solid";
}

/** When something happened, in s since 1970. */
export interface Marks {
  sales: readonly { from: number; to: number }[];
  pins: readonly number[];
}

export interface PlotOptions {
  box: HTMLElement;
  lines: readonly Line[];
  /** Text of a value on the y axis. */
  label: (value: number) => string;
  /** Text of a time (s since 1970) on the x axis, whose labels are `step` seconds apart. */
  timeLabel: (at: number, step: number) => string;
  /** The y axis goes at least up to it. */
  topMin: number;
  /** Index under the pointer, null: none. All charts of the page move together. */
  onCursor: (index: number | null) => void;
}

const HEIGHT = 120;
const LABEL_HALF = 26; // so that the last time on the axis is not cut
const TIMES = { grid: { show: false }, space: 76, size: 26 };
const HEADROOM = 1.15;
const SOFT = "1f"; // alpha of an area, as two digits of its colour
const WHOLE_STEPS = Array.from({ length: 13 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();
const VALUES = { space: 32, size: 46, incrs: WHOLE_STEPS };

export class Plot {
  readonly #plot: uPlot;
  #marks: Marks = { sales: [], pins: [] };
  #from = 0;
  #to = 1;

  constructor(options: PlotOptions) {
    const { box, lines, label, timeLabel, topMin, onCursor } = options;
    const ink = (name: string) => getComputedStyle(box).getPropertyValue(name).trim();
    const grid = { stroke: ink("--curve-grid"), width: 1 };
    const axis = { stroke: ink("--curve-ink"), font: ink("--curve-font"), ticks: { show: false } };
    this.#plot = new uPlot(
      {
        width: Math.max(1, box.clientWidth),
        height: HEIGHT,
        padding: [8, LABEL_HALF, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: "numbers" } },
        scales: {
          x: { range: () => [this.#from, this.#to] },
          y: { range: (_, _min, max) => [0, Math.max(topMin, HEADROOM * (max ?? 0))] },
        },
        axes: [
          { ...axis, ...TIMES, values: each(timeLabel) },
          { ...axis, ...VALUES, grid, values: each(label) },
        ],
        series: [{}, ...lines.map(({ name, fill }) => curve(ink(`--curve-${name}`), fill))],
        hooks: {
          drawClear: [(plot) => drawSales(plot, this.#marks, ink("--curve-window"))],
          draw: [(plot) => drawPins(plot, this.#marks, ink("--curve-pin"))],
          setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)],
        },
      },
      [[], ...lines.map(() => [])],
      box,
    );
  }

  /** Draw `columns` over `at` between `from` and `to` (s). */
  show(at: readonly number[], columns: readonly Column[], span: [number, number], marks: Marks) {
    [this.#from, this.#to] = span;
    this.#marks = marks;
    this.#plot.setData([[...at], ...columns.map((column) => [...column])]);
  }

  fit(width: number): void {
    if (width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT });
  }

  destroy(): void {
    this.#plot.destroy();
  }
}

function each(label: (value: number, step: number) => string): uPlot.Axis.DynamicValues {
  return (_plot, splits, _axis, _space, step) => splits.map((value) => label(value, step));
}

function curve(stroke: string, fill: Line["fill"]): uPlot.Series {
  const area = fill === "soft" ? `${stroke}${SOFT}` : stroke;
  const line = { stroke, width: 1.75, spanGaps: false, points: { show: false } };
  return fill === "none" ? line : { ...line, fill: area };
}

/** The times in which a sale was open, as bands behind the curves. */
function drawSales(plot: uPlot, { sales }: Marks, colour: string): void {
  const { ctx, bbox } = plot;
  ctx.fillStyle = colour;
  for (const { from, to } of sales) {
    const [left, right] = [placeOf(plot, from), placeOf(plot, to)];
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
}

/** Where a product was pinned, a dashed line with a flag on top. */
function drawPins(plot: uPlot, { pins }: Marks, colour: string): void {
  const { ctx, bbox } = plot;
  const scale = uPlot.pxRatio;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = scale;
  ctx.setLineDash([3 * scale, 3 * scale]);
  for (const at of pins) {
    const x = placeOf(plot, at);
    if (x <= bbox.left || x >= bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillRect(x, bbox.top, 5 * scale, 4 * scale);
  }
  ctx.restore();
}

/** Canvas pixels, never outside of the plotting area. */
function placeOf(plot: uPlot, at: number): number {
  const { left, width } = plot.bbox;
  return Math.min(left + width, Math.max(left, plot.valToPos(at, "x", true)));
}
