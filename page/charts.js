/**
 * The charts over time, by uPlot: a title, a legend with the values under the pointer or else the latest, and lines.
 */

import { formatMicros, formatPercent, formatRate, formatSize } from "./format.js";

/** What is drawn. Colours are names of custom properties of the style. */
export const chartSpecs = [
  {
    title: "Throughput",
    format: formatRate,
    steps: "binary",
    series: [
      { name: "clients write", column: "written", colour: "--write" },
      { name: "clients read", column: "read", colour: "--read" },
      { name: "written back", column: "writeback", colour: "--back" },
    ],
  },
  {
    title: "Latency, 99 of 100 requests",
    format: formatMicros,
    steps: "log",
    series: [
      { name: "write", column: "writeMicros", colour: "--write" },
      { name: "read", column: "readMicros", colour: "--read" },
      { name: "flush", column: "flushMicros", colour: "--flush" },
    ],
  },
  {
    title: "Dirty: what the backing device lacks",
    format: formatSize,
    steps: "binary",
    series: [{ name: "dirty", column: "dirtyBytes", colour: "--back", filled: true }],
  },
  {
    title: "Free log",
    format: formatPercent,
    steps: "share",
    series: [{ name: "free", column: "freeShare", colour: "--write", filled: true }],
  },
];

const binarySteps = Array.from({ length: 48 }, (_, i) => 2 ** i);

function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The range of y that shows `low` to `high`. */
export function rangeOf(steps, low, high) {
  if (steps === "share") return [0, 1];
  if (steps === "binary") return [0, Math.max(1024, (high ?? 0) * 1.08)];
  const from = Math.floor(Math.log10(Math.max(1, low ?? 100)));
  const to = Math.max(from + 1, Math.ceil(Math.log10(Math.max(1, high ?? 1000))));
  return [10 ** from, 10 ** to];
}

/** The powers of ten from `low` to `high`, at most six of them. */
export function decades(low, high) {
  const from = Math.round(Math.log10(low));
  const to = Math.round(Math.log10(high));
  const step = Math.ceil((to - from) / 5);
  return Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => 10 ** (from + i * step));
}

/** One chart in `parent`. */
class Chart {
  #spec;
  #plot;
  #place;
  #values;
  #legend;
  #samples;
  #view;

  constructor(parent, spec, samples, view) {
    this.#spec = spec;
    this.#samples = samples;
    this.#view = view;
    const card = document.createElement("section");
    card.className = "card";
    const head = document.createElement("div");
    head.className = "head";
    const title = document.createElement("h2");
    title.textContent = spec.title;
    this.#legend = document.createElement("div");
    this.#legend.className = "legend";
    this.#place = document.createElement("div");
    this.#place.className = "plot";
    head.append(title, this.#legend);
    card.append(head, this.#place);
    parent.append(card);
    this.restyle();
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(this.#place);
  }

  #size() {
    return { width: Math.max(100, this.#place.clientWidth), height: this.#place.clientHeight };
  }

  /** Draws anew with the colours of the scheme that holds now. */
  restyle() {
    const { series, format, steps } = this.#spec;
    this.#plot?.destroy();
    this.#legend.replaceChildren();
    this.#values = series.map(({ name, colour }) => {
      const entry = document.createElement("span");
      const swatch = document.createElement("i");
      swatch.style.background = colourOf(colour);
      const value = document.createElement("b");
      entry.append(swatch, name, value);
      this.#legend.append(entry);
      return value;
    });
    const axis = {
      stroke: colourOf("--muted"),
      grid: { stroke: colourOf("--grid"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        padding: [10, 30, 0, 0],
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: "all" }, points: { size: 7 } },
        scales: {
          x: { range: () => this.#view.range() },
          y: { range: (_plot, low, high) => rangeOf(steps, low, high), distr: steps === "log" ? 3 : 1 },
        },
        axes: [
          { ...axis, values: (_plot, splits) => splits.map(this.#view.clockText), space: 70, size: 26 },
          {
            ...axis,
            size: 70,
            values: (_plot, splits) => splits.map((value) => value === null ? "" : format(value)),
            ...(steps === "binary" ? { incrs: binarySteps } : {}),
            ...(steps === "log"
              ? {
                splits: (_plot, _axis, low, high) => decades(low, high),
                filter: (_plot, splits) => splits,
              }
              : {}),
            ...(steps === "share" ? { splits: () => [0, 0.25, 0.5, 0.75, 1] } : {}),
            space: 34,
          },
        ],
        series: [
          {},
          ...series.map(({ name, colour, filled }) => ({
            label: name,
            stroke: colourOf(colour),
            width: 1.75,
            points: { show: false },
            ...(filled ? { fill: colourOf(colour) + "2e" } : {}),
          })),
        ],
        hooks: { setCursor: [() => this.#showValues()] },
      },
      this.#data(),
      this.#place,
    );
    this.#showValues();
  }

  #data() {
    return [
      this.#samples.columns.at,
      ...this.#spec.series.map(({ column }) => this.#samples.columns[column]),
    ];
  }

  /** Takes in what the samples have. */
  update() {
    this.#plot.setData(this.#data());
    this.#showValues();
  }

  #showValues() {
    const index = this.#plot?.cursor.idx ?? null;
    for (const [i, { column }] of this.#spec.series.entries()) {
      const values = this.#samples.columns[column];
      const value = index === null ? values.at(-1) : values[index];
      this.#values[i].textContent = value === null || value === undefined ? "–" : this.#spec.format(value);
    }
  }
}

/** The charts, and the stretch of time that all of them show. */
export class Charts {
  #charts;
  #seconds = 60;

  constructor(parent, samples) {
    const view = {
      range: () => {
        const end = samples.latest("at") ?? Date.now() / 1000;
        return [end - this.#seconds, end];
      },
      clockText: (at) =>
        new Date(at * 1000).toLocaleTimeString([], {
          hour: "2-digit",
          minute: "2-digit",
          ...(this.#seconds <= 300 ? { second: "2-digit" } : {}),
          hour12: false,
        }),
    };
    this.#charts = chartSpecs.map((spec) => new Chart(parent, spec, samples, view));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
  }

  set seconds(seconds) {
    this.#seconds = seconds;
    this.update();
  }

  restyle() {
    for (const chart of this.#charts) chart.restyle();
  }

  update() {
    for (const chart of this.#charts) chart.update();
  }
}
