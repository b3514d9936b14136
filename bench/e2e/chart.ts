/**
 * Bar charts as SVG, by hand: panels of sorted horizontal bars, ours in a colour of its own, in a light and a dark dress
 * for `<picture>`. No script, no style sheet, no font but the reader's own.
 *
 * @module
 */

/** The colours of one dress. */
interface Theme {
  readonly text: string;
  readonly quiet: string;
  readonly grid: string;
  readonly bar: string;
  readonly ours: string;
  readonly oursToo: string;
}

/** Chosen for a contrast of at least 4.5 : 1 of all text on GitHub's backgrounds. */
export const themes = {
  light: {
    text: "#1f2328",
    quiet: "#59636e",
    grid: "#d1d9e0",
    bar: "#afb8c1",
    ours: "#0969da",
    oursToo: "#80b3ed",
  },
  dark: {
    text: "#f0f6fc",
    quiet: "#9198a1",
    grid: "#3d444d",
    bar: "#59636e",
    ours: "#4493f8",
    oursToo: "#2a5a96",
  },
} as const satisfies Record<string, Theme>;

/** One bar. */
export interface Bar {
  readonly label: string;
  readonly value: number;
  /** `first`: what the chart is about; `also`: of the same house. */
  readonly ours?: "first" | "also";
  /** How much better ours is, as text; shown behind the value. */
  readonly gain?: string;
}

/** One panel: bars of one measure. */
export interface Panel {
  readonly title: string;
  /** Unit, and which way is better. */
  readonly subtitle: string;
  readonly bars: readonly Bar[];
  /** Less is better: the shortest bar comes first. */
  readonly lessIsBetter?: boolean;
  readonly format: (value: number) => string;
}

/** A whole picture. */
export interface Chart {
  readonly title: string;
  /** Where the figures come from. */
  readonly footnotes: readonly string[];
  readonly panels: readonly Panel[];
}

const widthPx = 900;
const marginPx = 20;
const columns = 2;
const columnGapPx = 30;
const panelWidthPx = (widthPx - 2 * marginPx - columnGapPx * (columns - 1)) / columns;
const titlePx = 46;
const panelHeadPx = 46;
const barPitchPx = 24;
const barHeightPx = 16;
const panelGapPx = 26;
const labelPx = 150;
/** Room behind the longest bar for its value and gain. */
const valuePx = 92;
const footPx = 17;
const font = `-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif`;

/** Text as XML has it. */
export function escapeXml(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replace(/[&<>"']/g, (found) => entities[found]!);
}

interface TextStyle {
  readonly fill: string;
  readonly size?: number;
  readonly bold?: boolean;
  readonly anchor?: "end";
}

function text(x: number, y: number, content: string, { fill, size = 13, bold, anchor }: TextStyle): string {
  const weight = bold ? ` font-weight="600"` : "";
  const end = anchor ? ` text-anchor="${anchor}"` : "";
  return `<text x="${px(x)}" y="${px(y)}" font-size="${size}" fill="${fill}"${weight}${end}>${
    escapeXml(content)
  }</text>`;
}

/** A coordinate, to a tenth of a pixel. */
const px = (value: number) => String(Math.round(value * 10) / 10);

function sorted({ bars, lessIsBetter }: Panel): Bar[] {
  return [...bars].sort((a, b) => lessIsBetter ? a.value - b.value : b.value - a.value);
}

const panelHeight = (panel: Panel) => panelHeadPx + panel.bars.length * barPitchPx;

function drawPanel(panel: Panel, left: number, top: number, theme: Theme): string[] {
  const lines = [
    text(left, top + 16, panel.title, { fill: theme.text, size: 15, bold: true }),
    text(left, top + 34, panel.subtitle, { fill: theme.quiet, size: 12 }),
  ];
  const most = Math.max(...panel.bars.map(({ value }) => value));
  const start = left + labelPx;
  const room = panelWidthPx - labelPx - valuePx;
  const bottom = top + panelHeight(panel);
  lines.push(
    `<line x1="${px(start)}" y1="${px(top + panelHeadPx - 3)}" x2="${px(start)}" y2="${
      px(bottom)
    }" stroke="${theme.grid}"/>`,
  );
  sorted(panel).forEach((bar, i) => {
    const y = top + panelHeadPx + i * barPitchPx;
    const width = most > 0 ? Math.max(1, bar.value / most * room) : 1;
    const fill = bar.ours === "first" ? theme.ours : bar.ours === "also" ? theme.oursToo : theme.bar;
    const bold = bar.ours !== undefined;
    const baseline = y + 12.5;
    lines.push(
      text(start - 8, baseline, bar.label, { fill: bold ? theme.text : theme.quiet, bold, anchor: "end" }),
      `<rect x="${px(start)}" y="${px(y)}" width="${
        px(width)
      }" height="${barHeightPx}" rx="2" fill="${fill}"/>`,
      text(start + width + 6, baseline, panel.format(bar.value), { fill: theme.text, bold }),
    );
    if (bar.gain !== undefined) {
      lines.push(
        text(left + panelWidthPx, baseline, bar.gain, { fill: theme.quiet, size: 12, anchor: "end" }),
      );
    }
  });
  return lines;
}

/** The picture as an SVG document. */
export function drawChart(chart: Chart, dress: keyof typeof themes): string {
  const theme: Theme = themes[dress];
  const panels = chart.panels.filter(({ bars }) => bars.length > 0);
  const body = [text(marginPx, 30, chart.title, { fill: theme.text, size: 18, bold: true })];
  let top = titlePx;
  for (let i = 0; i < panels.length; i += columns) {
    const line = panels.slice(i, i + columns);
    line.forEach((panel, column) =>
      body.push(...drawPanel(panel, marginPx + column * (panelWidthPx + columnGapPx), top, theme))
    );
    top += Math.max(...line.map(panelHeight)) + panelGapPx;
  }
  for (const note of chart.footnotes) {
    body.push(text(marginPx, top, note, { fill: theme.quiet, size: 12 }));
    top += footPx;
  }
  const height = px(top + 4);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${widthPx}" height="${height}" viewBox="0 0 ${widthPx} ${height}" role="img" aria-label="${
      escapeXml(chart.title)
    }" font-family="${font}">`,
    `<title>${escapeXml(chart.title)}</title>`,
    ...body,
    "</svg>",
    "",
  ].join("\n");
}
