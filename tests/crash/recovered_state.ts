/**
 * What opening found, in a form that can be compared as a whole: every fact and every byte that the rest of the opening, and
 * the open cache, go on from.
 *
 * Invariant: two states that are the same lead to the same, as long as what is read from the devices afterwards is the same,
 * too: the engine has no other input, as its clock stands and its randomness repeats.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { Recovered } from "../../src/cache/open.ts";
import type { Versions } from "../../src/cache/versions.ts";
import { entryBytes, recordEntriesMax } from "../../src/log/layout.ts";

/** See the head of this file. */
export interface State {
  /** All that is small, as text. */
  facts: string;
  /** All that is bytes. They belong to the engine, and change when it goes on. */
  parts: Uint8Array[];
}

/** A state to be compared; undefined when a gap was lost, as of those not everything can be seen from outside. */
export function stateOf({ superblock, copy, versions, walk, report }: Recovered): State | undefined {
  if (walk.gaps.some(({ lost }) => lost)) return undefined;
  const { segments } = versions;
  const { uuid, previous, ...fields } = superblock;
  const { last, lastEntries, head, mark, records, dropped, gaps, rewrites, mends } = walk;
  const facts = JSON.stringify([
    copy,
    fields,
    previous && { ...previous, bytes: undefined },
    { last, head, mark, records, dropped, gaps },
    [rewrites, mends].map((list) => list.map(({ slot }) => slot)),
    report,
    [versions.rangeSupersededBy, versions.lastRangeSequence, versions.kernels.count],
    [segments.ranges, segments.poisoned, segments.losses].map((map) => [...map]),
    [...segments.held],
  ]);
  const parts = [uuid, ...versionParts(versions)];
  if (previous) parts.push(previous.bytes);
  if (lastEntries) {
    const { bytes, offset } = lastEntries;
    parts.push(bytes.subarray(offset, offset + recordEntriesMax * entryBytes));
  }
  for (const { bytes } of [...rewrites, ...mends]) parts.push(bytes);
  return { facts, parts };
}

function versionParts(versions: Versions): Uint8Array[] {
  const { kernels, segments, backingBlocks } = versions;
  const { map, bytes } = kernels;
  const byBlock = new Uint8Array(4 * backingBlocks);
  for (let block = 0; block < backingBlocks; block++) {
    byBlock[4 * block] = versions.poison.mask(block);
    byBlock[4 * block + 1] = versions.unrecorded.mask(block);
    byBlock[4 * block + 2] = Number(versions.provisioned.has(block));
    byBlock[4 * block + 3] = Number(versions.touched.any(block, block + 1));
  }
  const arrays = [
    segments.live,
    segments.supersededBy,
    segments.firstSlot,
    segments.firstSequence,
    segments.firstChain,
    segments.lastSequence,
    segments.pins,
    segments.buffer,
  ];
  return [
    byBlock,
    // Table, reverse, checksums, masks and bitmaps: all of the index.
    bytes.subarray(map.table, indexEnd(map.syncing)),
    ...arrays.map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength)),
  ];
}

/** Where the last bitmap ends. */
function indexEnd({ summary, length }: { summary: number; length: number }): number {
  return summary + 8 * Math.ceil(Math.ceil(length / 64) / 64);
}

/** Whether all bytes of two states with the same facts are the same. */
export function sameParts(a: State, b: State): boolean {
  return a.parts.length === b.parts.length &&
    a.parts.every((part, i) => Buffer.compare(part, b.parts[i]!) === 0);
}

/** A state that stays what it is. */
export function keptState({ facts, parts }: State): State {
  return { facts, parts: parts.map((part) => part.slice()) };
}
