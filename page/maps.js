/**
 * The maps of log and backing device: a cell for each of the server's, as large as fits, those of the log filled
 * from below like a gauge, those of the backing device the stronger the more is dirty.
 */

import { formatCount, formatPercent, formatSize } from "./format.js";

const cellMax = 18;
const cellMin = 5;
/** A map is at most so high; on a phone it may be higher for its width, or nobody could see a cell. */
const heightMax = 150;
const phoneWidth = 500;
const phoneHeightShare = 0.7;

/** How `count` cells are laid out in `width`: as large as they can be within the height that is allowed. */
export function layOut(count, width) {
  const height = width < phoneWidth ? Math.max(heightMax, phoneHeightShare * width) : heightMax;
  for (let size = cellMax; size > cellMin; size--) {
    const columns = Math.floor(width / size);
    if (columns > 0 && Math.ceil(count / columns) * size <= height) {
      return { size, columns, rows: Math.ceil(count / columns) };
    }
  }
  const columns = Math.max(1, Math.floor(width / cellMin));
  return { size: cellMin, columns, rows: Math.ceil(count / columns) };
}

/** The bytes behind base64. */
export function cellsOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** How many of the segments [first, end) are in use, from the tail up and around to the head. */
export function usedSegments({ head, tail, count }, first, end) {
  const overlap = (from, to) => Math.max(0, Math.min(end, to) - Math.max(first, from));
  return head >= tail ? overlap(tail, head + 1) : overlap(tail, count) + overlap(0, head + 1);
}

/** A canvas of cells. */
class CellMap {
  #canvas;
  #draw;
  #describe;
  #count = 0;
  #layout;

  /** `draw` paints a cell into a rectangle; `describe` says what it is. */
  constructor(canvas, draw, describe) {
    this.#canvas = canvas;
    this.#draw = draw;
    this.#describe = describe;
    new ResizeObserver(() => this.paint()).observe(canvas.parentElement);
    const tip = document.getElementById("tip");
    canvas.addEventListener("pointermove", (event) => {
      const cell = this.#cellAt(event);
      tip.hidden = cell === undefined;
      if (cell === undefined) return;
      tip.textContent = this.#describe(cell);
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${event.clientY + 18}px`;
    });
    canvas.addEventListener("pointerleave", () => tip.hidden = true);
  }

  set count(count) {
    this.#count = count;
  }

  #cellAt({ offsetX, offsetY }) {
    if (this.#layout === undefined) return undefined;
    const { size, columns } = this.#layout;
    const column = Math.floor(offsetX / size);
    const cell = Math.floor(offsetY / size) * columns + column;
    return column < columns && cell < this.#count ? cell : undefined;
  }

  paint() {
    const canvas = this.#canvas;
    const width = canvas.clientWidth;
    if (this.#count === 0 || width === 0) return;
    const layout = this.#layout = layOut(this.#count, width);
    const scale = devicePixelRatio || 1;
    const height = layout.rows * layout.size;
    canvas.style.height = `${height}px`;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const gap = layout.size >= 8 ? 2 : 1;
    const side = layout.size - gap;
    const marks = [];
    for (let cell = 0; cell < this.#count; cell++) {
      const x = (cell % layout.columns) * layout.size;
      const y = Math.floor(cell / layout.columns) * layout.size;
      const fill = (name, share, strength = 1) => {
        const part = share <= 0 ? 0 : Math.max(1, Math.round(side * share));
        context.fillStyle = colours[name] ??= colour(name);
        context.globalAlpha = strength;
        context.fillRect(x, y + side - part, side, part);
      };
      const mark = (name) => marks.push([x, y, side, colour(name)]);
      this.#draw(cell, fill, mark);
    }
    context.globalAlpha = 1;
    for (const [x, y, length, stroke] of marks) {
      context.strokeStyle = stroke;
      context.lineWidth = 2;
      context.strokeRect(x + 0.5, y + 0.5, length - 1, length - 1);
    }
    colours = {};
  }
}

/** Colours of one painting. */
let colours = {};

function legend(parent, entries) {
  parent.replaceChildren(...entries.map(([name, colour, outlined]) => {
    const entry = document.createElement("span");
    const swatch = document.createElement("i");
    if (outlined) swatch.style.boxShadow = `inset 0 0 0 2px var(${colour})`;
    else swatch.style.background = `var(${colour})`;
    entry.append(swatch, name);
    return entry;
  }));
}

/** Both maps. */
export class Maps {
  #log;
  #backing;
  #segments;
  #blocks;

  constructor() {
    const element = (id) => document.getElementById(id);
    legend(element("log-legend"), [
      ["free", "--free"],
      ["superseded", "--old"],
      ["live, on the backing too", "--live"],
      ["dirty", "--dirty"],
      ["tail", "--tail", true],
      ["head", "--mark", true],
    ]);
    legend(element("backing-legend"), [["up to date", "--free"], ["dirty", "--dirty"]]);
    this.#log = new CellMap(
      element("log-map"),
      (cell, fill, mark) => this.#drawSegments(cell, fill, mark),
      (cell) => this.#describeSegments(cell),
    );
    this.#backing = new CellMap(
      element("backing-map"),
      (cell, fill) => this.#drawBlocks(cell, fill),
      (cell) => this.#describeBlocks(cell),
    );
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  /** Shows what `GET /map` told. */
  update({ segments, backing }) {
    this.#segments = { ...segments, dirty: cellsOf(segments.dirty), live: cellsOf(segments.live) };
    this.#blocks = { ...backing, dirty: cellsOf(backing.dirty) };
    this.#log.count = this.#segments.dirty.length;
    this.#backing.count = this.#blocks.dirty.length;
    this.paint();
    const { count, perCell, head, tail, blocks } = segments;
    const used = usedSegments(segments, 0, count);
    const bytes = blocks * 4096;
    document.getElementById("log-text").textContent =
      `${formatCount(count)} segments of ${formatSize(bytes)}, ${
        perCell === 1 ? "a cell each" : `${formatCount(perCell)} to a cell`
      }. In use: ${formatCount(used)}, from the tail at ${formatCount(tail)} to the head at ${
        formatCount(head)
      }; ` +
      `free: ${formatCount(count - used)} (${formatSize((count - used) * bytes)}).`;
    const dirty = this.#blocks.dirty.filter((share) => share > 0).length;
    document.getElementById("backing-text").textContent = `${
      formatSize(backing.blocks * 4096)
    } from the first address to the last, ${formatSize(backing.perCell * 4096)} to a cell. ${
      dirty === 0
        ? "Nothing is dirty."
        : `${formatCount(dirty)} of ${formatCount(this.#blocks.dirty.length)} cells are dirty.`
    }`;
  }

  paint() {
    this.#log.paint();
    this.#backing.paint();
  }

  #rangeOf(cell) {
    const { perCell, count } = this.#segments;
    return [cell * perCell, Math.min((cell + 1) * perCell, count)];
  }

  #drawSegments(cell, fill, mark) {
    const { head, tail, perCell, dirty, live } = this.#segments;
    const [first, end] = this.#rangeOf(cell);
    fill("--free", 1);
    const used = usedSegments(this.#segments, first, end);
    fill("--old", used / (end - first));
    // What a free segment still holds is read from there until it is used again: pale, as nothing depends on it.
    fill("--live", live[cell] / 255, used === 0 ? 0.3 : 1);
    fill("--dirty", dirty[cell] / 255);
    if (Math.floor(tail / perCell) === cell) mark("--tail");
    if (Math.floor(head / perCell) === cell) mark("--mark");
  }

  #describeSegments(cell) {
    const { dirty, live, head, tail } = this.#segments;
    const [first, end] = this.#rangeOf(cell);
    const used = usedSegments(this.#segments, first, end);
    const name = end - first === 1
      ? `segment ${formatCount(first)}`
      : `segments ${formatCount(first)} to ${formatCount(end - 1)}`;
    const marks = [[tail, "tail"], [head, "head"]].filter(([at]) => at >= first && at < end).map(([, text]) =>
      text
    );
    return [
      name + (marks.length > 0 ? ` (${marks.join(" and ")})` : ""),
      used === 0 ? "free" : `${formatPercent(used / (end - first))} in use`,
      `${formatPercent(live[cell] / 255)} live, ${formatPercent(dirty[cell] / 255)} dirty`,
    ].join("\n");
  }

  #drawBlocks(cell, fill) {
    const share = this.#blocks.dirty[cell] / 255;
    fill("--free", 1);
    // A little has to be seen, and the eye tells shades apart better where it is pale.
    if (share > 0) fill("--dirty", 1, 0.22 + 0.78 * Math.sqrt(share));
  }

  #describeBlocks(cell) {
    const { perCell, blocks, dirty } = this.#blocks;
    const end = Math.min((cell + 1) * perCell, blocks);
    return `${formatSize(cell * perCell * 4096)} to ${formatSize(end * 4096)}\n${
      formatPercent(dirty[cell] / 255)
    } dirty`;
  }
}
