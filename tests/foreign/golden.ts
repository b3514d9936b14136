/**
 * Caches that the real module made, as they are kept in `tests/golden/dm_writeboost/`.
 *
 * The cache images are kept whole. Of the other images only what was written is kept: they were filled so that sector s is the
 * u64 s, 64 times, and every write put {u64 sector, u64 tag}, 32 times, into each of its sectors; so one tag a sector, 0 for
 * none, tells it all. A file is one JSON line, then the parts in its order, all in one brotli stream.
 *
 * @module
 */

import { brotliDecompressSync } from "node:zlib";
import { sectorBytes } from "../../src/units.ts";

/** What a file's first line says. */
export interface GoldenHeader {
  /** What the case is. */
  what: string;
  /** The case whose backing device this one belongs to, for damaged ones. */
  base?: string;
  parts: { name: string; bytes: number; sectors?: number }[];
}

/** One case. */
export interface Golden {
  name: string;
  what: string;
  cache: Uint8Array<ArrayBuffer>;
  /** The backing device as the module left it. */
  backing: Uint8Array<ArrayBuffer>;
  /** What the module showed; of a damaged case, what it showed before the damage. */
  expected: Uint8Array<ArrayBuffer>;
}

const folder = new URL("../golden/dm_writeboost/", import.meta.url);

/** The names of all cases. */
export const goldenNames: string[] = [...Deno.readDirSync(folder)].map(({ name }) => name)
  .filter((name) => name.endsWith(".br")).map((name) => name.slice(0, -3)).sort();

/** Unpacks a case. */
export function golden(name: string): Golden {
  const { header, parts } = unpack(name);
  const { base, what } = header;
  const pair = base === undefined ? parts : unpack(base).parts;
  return {
    name,
    what,
    cache: parts.get("cache")!,
    backing: pair.get("backing-after")!,
    expected: pair.get("expected")!,
  };
}

function unpack(name: string) {
  const bytes = new Uint8Array(brotliDecompressSync(Deno.readFileSync(new URL(`${name}.br`, folder))));
  const end = bytes.indexOf(10);
  const header: GoldenHeader = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const parts = new Map<string, Uint8Array<ArrayBuffer>>();
  let at = end + 1;
  for (const { name, bytes: length, sectors } of header.parts) {
    const part = bytes.slice(at, at + length);
    parts.set(name, sectors === undefined ? part : fromTags(new Uint32Array(part.buffer)));
    at += length;
  }
  return { header, parts };
}

/** The content of sectors with these tags. */
export function fromTags(tags: Uint32Array): Uint8Array<ArrayBuffer> {
  const words = new BigUint64Array(tags.length * sectorBytes / 8);
  for (const [sector, tag] of tags.entries()) {
    const from = sector * 64;
    words.fill(BigInt(sector), from, from + 64);
    if (tag !== 0) { for (let i = 1; i < 64; i += 2) words[from + i] = BigInt(tag); }
  }
  return new Uint8Array(words.buffer);
}
