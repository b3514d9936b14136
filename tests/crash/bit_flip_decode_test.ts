/**
 * Every single bit of every structure of the format: turned over, it is noticed by the decoder of that structure. The
 * whole path from there to a sentence and an exit code is in `bit_flip_test.ts`, with fewer bits.
 *
 * @module
 */

import { readCheckpoint } from "../../src/log/checkpoint.ts";
import { decodePrevious, decodeRecord } from "../../src/log/codec.ts";
import { checkpointOffset, superblockOffsets, superblockPreviousOffset } from "../../src/log/layout.ts";
import { decodeSuperblock, type Superblock } from "../../src/log/superblock.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import { assert, assertEquals } from "../assert.ts";
import { change, liveRecords, makePair, session } from "./images.ts";

const half = blockBytes / 2;
const pair = await makePair(7);
await session(pair, {}, (cache) => change(pair, cache, new SeededRandom(7), 6, 3));
const image = pair.cache.bytes;

/** The bits, as `byte * 8 + bit`, of [from, to) whose flip `notices` does not notice. */
function unnoticed(bytes: Uint8Array, from: number, to: number, notices: () => boolean): number[] {
  const missed: number[] = [];
  for (let at = from * 8; at < to * 8; at++) {
    bytes[at >>> 3]! ^= 1 << (at & 7);
    if (!notices()) missed.push(at);
    bytes[at >>> 3]! ^= 1 << (at & 7);
  }
  return missed;
}

Deno.test("decodeSuperblock: every flipped bit of either copy is noticed", () => {
  for (const [copy, offset] of superblockOffsets.entries()) {
    const bytes = image.slice(offset, offset + 2 * blockBytes);
    const problem = () => "problem" in decodeSuperblock(bytes, copy);
    assert(!problem());
    assertEquals(unnoticed(bytes, 0, blockBytes, problem), []);
  }
});

Deno.test("decodePrevious: every flipped bit of a superblock's copy of the last entries is noticed", () => {
  const [, offset] = superblockOffsets;
  const bytes = new Uint8Array(blockBytes);
  bytes.set(
    image.subarray(offset + superblockPreviousOffset, offset + superblockPreviousOffset + half),
    half,
  );
  assert(decodePrevious(bytes));
  assertEquals(unnoticed(bytes, half, blockBytes, () => decodePrevious(bytes) === undefined), []);
});

Deno.test("readCheckpoint: every flipped bit of its header and its bitmap is noticed", async () => {
  const copies = superblockOffsets.map((offset, copy) =>
    decodeSuperblock(image.slice(offset, offset + 2 * blockBytes), copy) as Superblock
  );
  const superblock = copies[0]!.generation > copies[1]!.generation ? copies[0]! : copies[1]!;
  assert(superblock.clean);
  const damaged = pair.cache.copy();
  assertEquals((await readCheckpoint(damaged, superblock)).problem, undefined);
  const end = checkpointOffset + superblock.geometry.checkpointBytes;
  const missed: number[] = [];
  for (let at = checkpointOffset * 8; at < end * 8; at++) {
    damaged.flip(at >>> 3, at & 7);
    if ((await readCheckpoint(damaged, superblock)).problem === undefined) missed.push(at);
    damaged.flip(at >>> 3, at & 7);
  }
  assertEquals(missed, []);
});

Deno.test("decodeRecord, decodePrevious: every flipped bit of a record's header is noticed", async () => {
  const { records } = await liveRecords(pair.cache);
  for (const { offset } of records.slice(-2)) {
    const bytes = image.slice(offset, offset + blockBytes);
    const [superblock] = [decodeSuperblock(image.slice(0, 2 * blockBytes), 0) as Superblock];
    const slot = (offset - superblock.geometry.logOffset) / blockBytes;
    assert(decodeRecord(bytes, slot, superblock.uuid));
    assert(decodePrevious(bytes));
    assertEquals(
      unnoticed(bytes, 0, half, () => decodeRecord(bytes, slot, superblock.uuid) === undefined),
      [],
    );
    assertEquals(unnoticed(bytes, half, blockBytes, () => decodePrevious(bytes) === undefined), []);
  }
});

Deno.test("crc32c: every flipped bit of a data block changes its checksum", async () => {
  const { records } = await liveRecords(pair.cache);
  const { offset } = records.find(({ dataCount }) => dataCount > 0)!;
  const bytes = image.slice(offset + blockBytes, offset + 2 * blockBytes);
  const before = crc32c(bytes);
  assertEquals(unnoticed(bytes, 0, blockBytes, () => crc32c(bytes) !== before), []);
});
