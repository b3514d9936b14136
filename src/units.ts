/**
 * Sizes of the field, and nothing else: a block is what the cache indexes, a sector is the smallest thing
 * that a device writes atomically.
 *
 * @module
 */

/** Bytes in a sector, the unit that a device is trusted to write whole or not at all. */
export const sectorBytes = 512;
/** Bytes in a block, the unit of the index. */
export const blockBytes = 4096;
/** Sectors in a block; also the number of bits in a sector mask. */
export const sectorsPerBlock = 8;
/** The sector mask of a block that is held whole. */
export const fullMask = 0xff;

/** 1024 bytes. */
export const kib = 1024;
/** 1024 KiB. */
export const mib = 1024 * kib;
/** 1024 MiB. */
export const gib = 1024 * mib;
/** 1024 GiB. */
export const tib = 1024 * gib;

/** Rounds `value` up to a multiple of `unit`. Exact for integers up to 2^53. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Rounds `value` down to a multiple of `unit`. Exact for integers up to 2^53. */
export function roundDown(value: number, unit: number): number {
  return Math.floor(value / unit) * unit;
}

const suffixes: Record<string, number> = {
  "": 1,
  k: kib,
  m: mib,
  g: gib,
  t: tib,
  kib,
  mib,
  gib,
  tib,
};

/**
 * Parses a size such as `64M`, `1GiB`, `512` (bytes), all powers of 1024.
 *
 * @returns the size in bytes, or `undefined` when `text` is not a size
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseSize } from "./units.ts";
 * assert(parseSize("64M") === 67108864);
 * ```
 */
export function parseSize(text: string): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]|[kmgt]ib)?$/i.exec(text.trim());
  if (!match) return undefined;
  const bytes = Number(match[1]) * suffixes[(match[2] ?? "").toLowerCase()]!;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/**
 * Writes a number of bytes for people: `512 B`, `64 MiB`, `1.5 GiB`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatSize } from "./units.ts";
 * assert(formatSize(1536 * 1024) === "1.5 MiB");
 * ```
 */
export function formatSize(bytes: number): string {
  if (bytes < kib) return `${bytes} B`;
  for (const [unit, name] of [[tib, "TiB"], [gib, "GiB"], [mib, "MiB"], [kib, "KiB"]] as const) {
    if (bytes >= unit) return `${Number((bytes / unit).toFixed(bytes % unit === 0 ? 0 : 1))} ${name}`;
  }
  return `${bytes} B`;
}

/** Seconds for people: `42 s`, `3 min 05 s`, `2 h 10 min`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
}

/** A count for people: `3,120`. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}
