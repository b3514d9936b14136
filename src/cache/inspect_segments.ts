/**
 * What each block of each segment of the log is good for, for those who draw it.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import type { Scan } from "./scan.ts";

/**
 * A segment of the log. `blocks` has a letter for each of its blocks of 4096 bytes:
 *
 * - `h` the header of a record
 * - `d` dirty: the newest version of a block of the volume, which the backing device lacks
 * - `l` live: a newest version that the backing device has too
 * - `s` superseded by a newer version
 * - `.` nothing that counts
 */
export interface InspectedSegment {
  /** Its number, in the order in which segments lie on the cache device. */
  segment: number;
  /** Bytes from the start of the cache device to it. */
  offset: number;
  /** The log is in use here: it is one of those from the tail, upwards and around, to the head. */
  inUse: boolean;
  /** Records of the log that begin in it. */
  records: number;
  /** Blocks that are dirty. */
  dirtyBlocks: number;
  /** Blocks that are live, dirty ones included. */
  liveBlocks: number;
  /** A letter for each block; empty when the segment is free. */
  blocks: string;
}

/** Letters for the blocks of the whole log, by slot. */
function lettersOf({ records, versions: { kernels } }: Scan): Uint8Array {
  const letter = (text: string) => text.charCodeAt(0);
  const [header, dirty, live, superseded, nothing] = ["h", "d", "l", "s", "."].map(letter);
  const letters = new Uint8Array(kernels.reverse.length).fill(nothing!);
  for (const { slot, dataCount } of records) {
    letters[slot] = header!;
    for (let at = slot + 1; at <= slot + dataCount; at++) {
      const block = kernels.reverse[at]!;
      const newest = kernels.indexGet(block) === at;
      letters[at] = newest ? kernels.dirty.test(block) ? dirty! : live! : superseded!;
    }
  }
  return letters;
}

/** Lists all segments, in the order in which they lie on the device. */
export function listSegments(scan: Scan): InspectedSegment[] {
  const { geometry: { segmentBlocks, segmentCount, logOffset }, tail } = scan.superblock;
  const letters = lettersOf(scan);
  const recordsOf = new Uint32Array(segmentCount);
  for (const { slot } of scan.records) recordsOf[Math.floor(slot / segmentBlocks)]!++;
  const first = Math.floor(tail.slot / segmentBlocks);
  const last = scan.records.at(-1)?.slot ?? tail.slot;
  const used = (Math.floor(last / segmentBlocks) - first + segmentCount) % segmentCount + 1;
  const decoder = new TextDecoder();
  return Array.from({ length: segmentCount }, (_, segment) => {
    const inUse = (segment - first + segmentCount) % segmentCount < used;
    const start = segment * segmentBlocks;
    const blocks = inUse ? decoder.decode(letters.subarray(start, start + segmentBlocks)) : "";
    const count = (letter: string) => blocks.split(letter).length - 1;
    return {
      segment,
      offset: logOffset + start * blockBytes,
      inUse,
      records: recordsOf[segment]!,
      dirtyBlocks: count("d"),
      liveBlocks: count("d") + count("l"),
      blocks,
    };
  });
}
