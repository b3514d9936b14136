/**
 * The log as a picture: an SVG file with a cell for each segment, and a strip of blocks for the segments around tail and
 * head. It needs nothing beside it, and follows the viewer's light or dark scheme.
 *
 * @module
 */

import type { InspectReport } from "../cache/inspect.ts";
import type { InspectedSegment } from "../cache/inspect_segments.ts";
import { blockBytes, formatCount, formatSize } from "../units.ts";
import { segmentsInOrder } from "./log_drawing.ts";

const width = 960;
const margin = 24;
const inner = width - 2 * margin;
/** Cells of the map; with more segments one stands for several. */
const cellsMax = 2400;
/** Strips of segments, those nearest to the head. */
const stripsMax = 40;
const stripHeight = 9;
const stripLeft = 96;
const rowHeight = 15;

const style = `
  .ground { fill: #ffffff } .text { fill: #1a2028 } .dim { fill: #5b6673 }
  .free { fill: #e9edf2 } .s { fill: #c3ccd6 } .l { fill: #2f9e77 } .d { fill: #e07b1a } .h { fill: #7a8899 }
  .tail { stroke: #8250c4 } .head { stroke: #1a2028 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0e1217 } .text { fill: #e6eaf0 } .dim { fill: #97a3b0 }
    .free { fill: #222a33 } .s { fill: #45515f } .l { fill: #3fbf93 } .d { fill: #f2953a } .h { fill: #8796a8 }
    .tail { stroke: #b794f6 } .head { stroke: #ffffff }
  }
  text { font: 13px system-ui, sans-serif } .title { font-size: 18px; font-weight: 600 }
  .mono { font: 12px ui-monospace, monospace }`;

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
}

function number(value: number): string {
  return String(Number(value.toFixed(2)));
}

function rectangle(x: number, y: number, wide: number, high: number, kind: string): string {
  return `<rect x="${number(x)}" y="${number(y)}" width="${number(wide)}" height="${
    number(high)
  }" class="${kind}"/>`;
}

function label(x: number, y: number, text: string, kind: string, end = false): string {
  return `<text x="${number(x)}" y="${number(y)}" class="${kind}"${end ? ' text-anchor="end"' : ""}>${
    escaped(text)
  }</text>`;
}

/** A gauge for some segments: free below, superseded, live and dirty over it, from the bottom. */
function gauge(
  group: readonly InspectedSegment[],
  x: number,
  y: number,
  side: number,
  blocks: number,
): string {
  const all = group.length * blocks;
  const shares: [string, number][] = [
    ["free", 1],
    ["s", group.filter(({ inUse }) => inUse).length / group.length],
    ["l", group.reduce((sum, { liveBlocks }) => sum + liveBlocks, 0) / all],
    ["d", group.reduce((sum, { dirtyBlocks }) => sum + dirtyBlocks, 0) / all],
  ];
  return shares.filter(([, share]) => share > 0).map(([kind, share]) => {
    const high = Math.max(1, side * share);
    return rectangle(x, y + side - high, side, high, kind);
  }).join("");
}

/** Runs of equal letters as one rectangle each. */
function stripOf({ blocks }: InspectedSegment, x: number, y: number, wide: number): string {
  const unit = wide / blocks.length;
  return [...blocks.matchAll(/(.)\1*/g)].filter(([, letter]) => letter !== ".").map((
    { 0: run, 1: letter, index },
  ) => rectangle(x + index * unit, y, run.length * unit, stripHeight, letter!)).join("");
}

function outline(x: number, y: number, side: number, kind: string): string {
  return `<rect x="${number(x)}" y="${number(y)}" width="${number(side)}" height="${
    number(side)
  }" fill="none" ` +
    `stroke-width="2" class="${kind}"/>`;
}

const legendEntries = [
  ["d", "dirty"],
  ["l", "live, on the backing too"],
  ["s", "superseded"],
  ["h", "record header"],
  ["free", "free"],
] as const;

function legend(y: number): string {
  let x = margin;
  return legendEntries.map(([kind, text]) => {
    const entry = rectangle(x, y - 10, 11, 11, kind) + label(x + 17, y, text, "dim");
    x += 40 + 7 * text.length;
    return entry;
  }).join("") +
    outline(x, y - 10, 11, "tail") + label(x + 17, y, "tail", "dim") +
    outline(x + 70, y - 10, 11, "head") + label(x + 87, y, "head", "dim");
}

/** The map of all segments from `y` on, and where it ends. */
function map(
  segments: readonly InspectedSegment[],
  blocks: number,
  ends: readonly InspectedSegment[],
  y: number,
) {
  const perCell = Math.ceil(segments.length / cellsMax);
  const count = Math.ceil(segments.length / perCell);
  let size = 24;
  while (size > 8 && Math.ceil(count / Math.floor(inner / size)) * size > 240) size--;
  const columns = Math.floor(inner / size);
  const side = size - 2;
  const parts: string[] = [];
  const marks: string[] = [];
  for (let cell = 0; cell < count; cell++) {
    const group = segments.slice(cell * perCell, (cell + 1) * perCell);
    const [left, top] = [margin + (cell % columns) * size, y + Math.floor(cell / columns) * size];
    parts.push(gauge(group, left, top, side, blocks));
    for (const [i, end] of ends.entries()) {
      if (group.includes(end)) marks.push(outline(left + 1, top + 1, side - 2, i === 0 ? "tail" : "head"));
    }
  }
  return { svg: parts.join("\n") + marks.join(""), end: y + Math.ceil(count / columns) * size, perCell };
}

/** The picture of what `inspect` reported, its segments included. */
export function logPicture(report: InspectReport, segments: readonly InspectedSegment[]): string {
  const blocks = report.segmentBytes / blockBytes;
  const used = segmentsInOrder(segments);
  const ends = used.length === 0 ? [] : [used[0]!, used.at(-1)!];
  const { svg, end, perCell } = map(segments, blocks, ends, 118);
  const cells = perCell === 1 ? "a cell each" : `${formatCount(perCell)} to a cell`;
  const parts = [
    label(margin, 38, "nbdboost cache", "text title"),
    label(width - margin, 38, report.uuid, "dim mono", true),
    label(
      margin,
      62,
      `${formatSize(report.cacheBytes)} for ${report.backing.id} (${formatSize(report.backing.sizeBytes)}); ${
        report.clean ? "closed in order" : "not closed in order"
      }; ${formatCount(report.dirtyBlocks)} dirty blocks (${formatSize(report.dirtyBlocks * blockBytes)}), ` +
        `${formatCount(report.zeroBlocks)} zeroed, ${formatCount(report.lostBlocks)} lost`,
      "text",
    ),
    label(
      margin,
      82,
      `${formatCount(segments.length)} segments of ${formatSize(report.segmentBytes)}, ${cells}; ` +
        `${formatCount(used.length)} in use, with ${formatCount(report.records)} records`,
      "dim",
    ),
    legend(104),
    svg,
  ];
  const shown = used.slice(-stripsMax);
  let y = end + 34;
  if (shown.length > 0) {
    const which = shown.length === used.length ? "all of the log" : `the newest ${shown.length} segments`;
    parts.push(label(margin, y, `Block by block, ${which}, the head last`, "text"));
    y += 14;
  }
  for (const segment of shown) {
    parts.push(
      label(stripLeft - 12, y + stripHeight, formatCount(segment.segment), "dim mono", true),
      rectangle(stripLeft, y, width - margin - stripLeft, stripHeight, "free"),
      stripOf(segment, stripLeft, y, width - margin - stripLeft),
    );
    y += rowHeight;
  }
  const height = Math.ceil(y + margin - 8);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">\n` +
    `<title>The log of the nbdboost cache ${report.uuid}</title>\n<style>${style}\n</style>\n` +
    `${rectangle(0, 0, width, height, "ground")}\n${parts.join("\n")}\n</svg>\n`;
}
