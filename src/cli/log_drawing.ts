/**
 * The log as characters: all of it as a few rows of cells, and a strip for each segment that is in use. Colours only where a
 * terminal likes them; without, each state has a character of its own.
 *
 * @module
 */

import type { InspectedSegment } from "../cache/inspect_segments.ts";
import { formatCount } from "../units.ts";

/** Rows of the map of the whole log. */
const mapRowsMax = 8;
/** Strips at the tail and at the head, when not all are shown. */
const stripsAtTail = 4;
const stripsAtHead = 12;
/** Columns of a strip. */
const stripColumnsMax = 64;

/** What a block may be, the most precious first. */
const states = [
  { letter: "d", mark: "#", name: "dirty", colour: "33" },
  { letter: "l", mark: "+", name: "live, on the backing too", colour: "32" },
  { letter: "h", mark: "|", name: "record header", colour: "36" },
  { letter: "s", mark: ":", name: "superseded", colour: "90" },
  { letter: ".", mark: "_", name: "empty", colour: "90" },
] as const;
const free = { mark: ".", name: "free", colour: "90" } as const;

interface Cell {
  mark: string;
  colour: string;
}

function text(cells: readonly Cell[], colours: boolean): string {
  if (!colours) return cells.map(({ mark }) => mark).join("");
  let line = "";
  let colour = "";
  for (const cell of cells) {
    if (cell.colour !== colour) line += `\x1b[${colour = cell.colour}m`;
    line += cell.mark;
  }
  return `${line}\x1b[0m`;
}

/** What most of some blocks are; of two that are as many, the more precious. A header only where nothing else is. */
function cellOf(blocks: string): Cell {
  const counts = states.map(({ letter }) => blocks.split(letter).length - 1);
  if (counts[0]! + counts[1]! + counts[3]! > 0) counts[2] = 0;
  const most = Math.max(...counts);
  return most === 0 ? free : states[counts.indexOf(most)]!;
}

function pieces(count: number, columns: number, cell: (from: number, to: number) => Cell): Cell[] {
  const cells = Math.min(count, columns);
  return Array.from(
    { length: cells },
    (_, i) => cell(Math.floor(i * count / cells), Math.floor((i + 1) * count / cells)),
  );
}

/** A strip: one segment from its first block to its last. */
function strip({ blocks }: InspectedSegment, columns: number, colours: boolean): string {
  return text(pieces(blocks.length, columns, (from, to) => cellOf(blocks.slice(from, to))), colours);
}

/** The whole log in rows. */
function mapLines(segments: readonly InspectedSegment[], columns: number, colours: boolean): string[] {
  const cells = pieces(segments.length, columns * mapRowsMax, (from, to) => {
    const group = segments.slice(from, to);
    return group.some(({ inUse }) => inUse) ? cellOf(group.map(({ blocks }) => blocks).join("")) : free;
  });
  const rows = Math.ceil(cells.length / columns);
  return Array.from(
    { length: rows },
    (_, row) => text(cells.slice(row * columns, (row + 1) * columns), colours),
  );
}

/** The segments in use, from the tail to the head. */
export function segmentsInOrder(segments: readonly InspectedSegment[]): InspectedSegment[] {
  const used = segments.filter(({ inUse }) => inUse);
  // The tail is the one that does not follow another that is in use.
  const count = segments.length;
  const tail = used.length === count
    ? 0
    : used.findIndex(({ segment }) => !segments[(segment + count - 1) % count]!.inUse);
  return [...used.slice(tail), ...used.slice(0, tail)];
}

/** The drawing, line by line, at most `columns` wide; with `all`, a strip for every segment in use. */
export function logDrawing(
  segments: readonly InspectedSegment[],
  options: { columns: number; colours: boolean; all: boolean },
): string[] {
  const { colours, all } = options;
  const width = Math.max(16, Math.min(stripColumnsMax, options.columns - 30));
  const used = segmentsInOrder(segments);
  const digits = String(segments.length - 1).length;
  const line = (segment: InspectedSegment, i: number) => {
    const end = i === 0 ? "tail" : i === used.length - 1 ? "head" : "";
    const dirty = segment.dirtyBlocks === 0 ? "" : `${formatCount(segment.dirtyBlocks)} dirty`;
    return `${String(segment.segment).padStart(digits)} ${end.padEnd(4)} ${
      strip(segment, width, colours)
    }  ${dirty}`
      .trimEnd();
  };
  const strips = used.map(line);
  const hidden = used.length - stripsAtTail - stripsAtHead;
  if (!all && hidden > 1) {
    const more = `${" ".repeat(digits + 6)}... ${formatCount(hidden)} more in use; --segments shows all`;
    strips.splice(stripsAtTail, hidden, more);
  }
  const perCell = Math.ceil(segments.length / Math.min(segments.length, width * mapRowsMax));
  const legend = [...states, free].map(({ mark, name, colour }) =>
    `${text([{ mark, colour }], colours)} ${name}`
  );
  return [
    `the log: ${formatCount(used.length)} of ${formatCount(segments.length)} segments in use` +
    (perCell > 1 ? `, about ${formatCount(perCell)} to a cell` : ""),
    ...mapLines(segments, width, colours).map((row) => `  ${row}`),
    "from the tail to the head, block by block:",
    ...strips.map((row) => `  ${row}`),
    `  ${legend.join("  ")}`,
  ];
}
