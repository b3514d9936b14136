/**
 * One bit is turned over in a small cache whose history is known, anywhere that matters: `check` finds it and names the
 * range, no read ever returns a wrong byte (right, or EIO), and no drain ever writes one to the backing.
 *
 * What does not matter (dead bytes), and why; everything else is live:
 * - behind each superblock: its second block is used in its first half only, and the space up to the next structure is
 *   reserved;
 * - between checkpoint and log: reserved;
 * - the checkpoint, in a cache that was not closed in order: it counts only for the clean close that it names;
 * - the log outside of the records that the walk from the tail accepts: before the tail all is on the backing and
 *   synced, beyond the head nothing has been written in this lap, and the last block of a segment is skipped when a
 *   record does not fit into it.
 *
 * In CI four times as many bits as elsewhere, with NBDBOOST_BIT_FLIPS=all eight times as many; NBDBOOST_BIT_SEED makes other
 * caches.
 *
 * @module
 */

import { checkCache, type CheckReport, type Problem } from "../../mod.ts";
import {
  checkpointField,
  checkpointOffset,
  entryBytes,
  previousField,
  recordField,
  superblockField,
  superblockOffsets,
  superblockPreviousOffset,
} from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { runHere, Temp } from "../cli/support.ts";
import { openCache } from "../../mod.ts";
import {
  change,
  type LiveRecord,
  liveRecords,
  makePair,
  type Outcome,
  type Pair,
  session,
  tryAll,
} from "./images.ts";

/** Of the bits below, every so manieth is tried. */
const thinning = Deno.env.get("NBDBOOST_BIT_FLIPS") === "all" ? 1 : Deno.env.get("CI") === "true" ? 2 : 8;
const seed = Number(Deno.env.get("NBDBOOST_BIT_SEED") ?? 11);
const half = blockBytes / 2;
/** Distances of the bits that are tried between fields, in bytes; primes, so that all bit positions come up. */
const strideInMeta = 61;
const strideInData = 251;

interface Place {
  byte: number;
  bit: number;
}

/** Each field's first byte, and bytes in between; the bits rotate. */
function places(from: number, length: number, fields: Iterable<number>, stride: number): Place[] {
  const offsets = new Set(fields);
  for (let at = 0; at < length; at += stride) offsets.add(at);
  return [...offsets].filter((at) => at < length).map((at, i) => ({ byte: from + at, bit: (at + i) & 7 }));
}

function thinned(list: Place[]): Place[] {
  return list.filter((_, i) => i % thinning === 0);
}

function superblockPlaces(): Place[] {
  return superblockOffsets.flatMap((offset) => [
    ...places(offset, blockBytes, Object.values(superblockField), strideInMeta),
    ...places(
      offset + superblockPreviousOffset,
      half,
      Object.values(previousField).map((at) => at - half),
      strideInMeta,
    ),
  ]);
}

function checkpointPlaces(checkpointBytes: number): Place[] {
  return places(
    checkpointOffset,
    checkpointBytes,
    [...Object.values(checkpointField), blockBytes],
    strideInMeta,
  );
}

function recordPlaces({ offset, dataCount }: LiveRecord): Place[] {
  const entries = Array.from({ length: 3 * entryBytes }, (_, i) => i);
  const fields = [
    ...Object.values(recordField),
    ...Object.values(previousField),
    ...entries.flatMap((at) => [recordField.entries + at, previousField.entries + at]),
  ];
  return [
    ...places(offset, blockBytes, fields, strideInMeta),
    ...places(offset + blockBytes, dataCount * blockBytes, [], strideInData),
  ];
}

/** A cleanly closed pair with clean, dirty, superseded and zeroed blocks in its log. */
async function cleanPair(seed: number): Promise<Pair> {
  const pair = await makePair(seed);
  const random = new SeededRandom(seed);
  await session(pair, {}, (cache) => change(pair, cache, random, 6, 3));
  await session(pair, { writeback: "on" }, async (cache) => {
    await change(pair, cache, random, 2, 3);
    for (let i = 0; i < 500 && cache.status().cache.dirtyBlocks > 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assertEquals(cache.status().cache.dirtyBlocks, 0);
  });
  await session(pair, {}, (cache) => change(pair, cache, random, 6, 2));
  return pair;
}

/** Distinct blocks that are written at the end and not flushed: enough to fill some records, and to leave one open. */
const unflushedBlocks = 18;

/** A pair as a crash leaves it: its last records are past the durable mark. */
async function crashedPair(seed: number): Promise<Pair> {
  const pair = await makePair(seed);
  const random = new SeededRandom(seed);
  await session(pair, {}, (cache) => change(pair, cache, random, 3, 3));
  let left: Pair | undefined;
  await session(pair, {}, async (cache) => {
    await change(pair, cache, random, 6, 2);
    const later = new Uint8Array(unflushedBlocks * blockBytes);
    random.fill(later);
    for (let at = 0; at < later.length; at += blockBytes) {
      await cache.write(at, later.slice(at, at + blockBytes));
    }
    left = { cache: pair.cache.copy(), backing: pair.backing.copy(), states: [...pair.states] };
    // Undamaged, each sector is as flushed, or as written since.
    const flushed = newestOf(left);
    const found = await tryAll(left, false);
    assertEquals(found.drained, undefined);
    found.sectors.forEach((read, i) => {
      const fits = read &&
        (equal(read, sector(flushed, i)) || equal(read, later.subarray(i * 512, (i + 1) * 512)));
      assert(fits, `sector ${i} is wrong without any damage`);
    });
    assert(!equal(found.backing, flushed), "some of what was not flushed is on disk");
    const { records } = await liveRecords(left.cache);
    left.states.push({ sequence: records.at(-1)!.sequence, bytes: found.backing });
  });
  return left!;
}

const covers = (byte: number) => ({ offset, length }: Problem) => byte >= offset && byte < offset + length;

function sector(bytes: Uint8Array, index: number): Uint8Array {
  return bytes.subarray(index * 512, (index + 1) * 512);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Throws unless the outcome shows `newest` or EIO everywhere, and the backing holds `newest` or what it held. */
function assertNothingWrong(pair: Pair, newest: Uint8Array, outcome: Outcome): void {
  outcome.sectors.forEach((read, i) => {
    assert(read === undefined || equal(read, sector(newest, i)), `a wrong sector ${i} was read`);
  });
  for (let i = 0; i < newest.length / 512; i++) {
    const written = sector(outcome.backing, i);
    const kept = outcome.drained !== undefined || outcome.refused !== undefined;
    const right = equal(written, sector(newest, i)) ||
      (kept && equal(written, sector(pair.backing.bytes, i)));
    assert(right, `drain left a wrong sector ${i} on the backing`);
  }
}

/** Runs `body` for the pair with each of `list` flipped, and names the bit when it fails. */
async function eachFlip(pair: Pair, list: Place[], body: (damaged: Pair, place: Place) => Promise<void>) {
  for (const place of list) {
    const damaged = { ...pair, cache: pair.cache.copy() };
    damaged.cache.flip(place.byte, place.bit);
    try {
      await body(damaged, place);
    } catch (error) {
      throw new Error(
        `seed ${seed}, with bit ${place.bit} of byte ${place.byte} flipped: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
  }
}

function checkpointBytesOf({ cache }: Pair): number {
  return Number(new DataView(cache.bytes.buffer).getBigUint64(superblockField.checkpointBytes, true));
}

const newestOf = (pair: Pair) => pair.states.at(-1)!.bytes;

/** Opens the damaged pair both ways; nothing wrong may come out, and all must be right unless something is lost. */
async function tryBothWays(damaged: Pair, report: CheckReport): Promise<void> {
  const lossless = report.problems.every(({ severity }) => severity === "damage");
  for (const acceptDamage of [false, true]) {
    const outcome = await tryAll(damaged, acceptDamage);
    assertEquals(outcome.refused, undefined);
    assertNothingWrong(damaged, newestOf(damaged), outcome);
    if (!lossless) continue;
    assert(
      outcome.sectors.every((read) => read !== undefined),
      "EIO, though check says that nothing is lost",
    );
    assertEquals(outcome.drained, undefined);
    assert(equal(outcome.backing, newestOf(damaged)));
  }
}

Deno.test("checkCache: finds any flipped bit of a cleanly closed cache, and names the range", async (t) => {
  const pair = await cleanPair(seed);
  const { records } = await liveRecords(pair.cache);
  assert(records.length >= 6);
  assertEquals((await checkCache({ cache: pair.cache, backing: pair.backing })).problems, []);
  const checkpointBytes = checkpointBytesOf(pair);
  const live: [string, Place[]][] = [
    ["superblocks", superblockPlaces()],
    ["checkpoint", checkpointPlaces(checkpointBytes)],
    ...records.map((record): [string, Place[]] => [`record ${record.sequence}`, recordPlaces(record)]),
  ];
  for (const [name, list] of live) {
    await t.step(
      `${name}: ${thinned(list).length} bits`,
      () =>
        eachFlip(pair, thinned(list), async (damaged, { byte }) => {
          const report = await checkCache({ cache: damaged.cache, backing: damaged.backing });
          assert(report.problems.some(covers(byte)), `check names ${JSON.stringify(report.problems)}`);
          await tryBothWays(damaged, report);
        }),
    );
  }
});

Deno.test("checkCache: a flipped bit that nothing reads is no problem, and harms nothing", async () => {
  const pair = await cleanPair(seed + 1);
  const { records } = await liveRecords(pair.cache);
  const checkpointEnd = checkpointOffset + checkpointBytesOf(pair);
  const live = [
    ...superblockOffsets.map((offset) => [offset, offset + superblockPreviousOffset + half]),
    [checkpointOffset, checkpointEnd],
    ...records.map(({ offset, dataCount }) => [offset, offset + (1 + dataCount) * blockBytes]),
  ];
  const dead = places(0, pair.cache.sizeBytes, [], 4093).filter(({ byte }) =>
    !live.some(([from, to]) => byte >= from! && byte < to!)
  );
  assert(dead.length > 200);
  await eachFlip(pair, thinned(dead), async (damaged) => {
    const report = await checkCache({ cache: damaged.cache, backing: damaged.backing });
    assertEquals(report.problems, []);
    await tryBothWays(damaged, report);
  });
});

Deno.test("checkCache: finds any flipped bit after a crash, up to the highest mark on disk", async (t) => {
  const pair = await crashedPair(seed + 2);
  const { records, mark } = await liveRecords(pair.cache);
  assert(records.length >= 6);
  const last = records.at(-1)!.sequence;
  assert(mark < last - 1, "several records are past the mark");
  assertEquals((await checkCache({ cache: pair.cache, backing: pair.backing })).problems, []);

  await t.step("superblocks", () =>
    eachFlip(pair, thinned(superblockPlaces()), async (damaged) => {
      const report = await checkCache({ cache: damaged.cache, backing: damaged.backing });
      assert(report.problems.length + report.notes.length > 0, "nothing is said of it");
      await tryBothWays(damaged, report);
    }));
  for (const record of records.filter(({ sequence }) => sequence <= mark)) {
    await t.step(
      `record ${record.sequence}, at or before the mark`,
      () =>
        eachFlip(pair, thinned(recordPlaces(record)), async (damaged, { byte }) => {
          const report = await checkCache({ cache: damaged.cache, backing: damaged.backing });
          assert(report.problems.some(covers(byte)), `check names ${JSON.stringify(report.problems)}`);
          await tryBothWays(damaged, report);
        }),
    );
  }
  for (const record of records.filter(({ sequence }) => sequence > mark)) {
    await t.step(
      `record ${record.sequence}, past the mark: a torn end`,
      () =>
        eachFlip(pair, thinned(recordPlaces(record)), async (damaged, { byte }) => {
          const report = await checkCache({ cache: damaged.cache, backing: damaged.backing });
          // With its own header gone and nothing after it, nobody can know that there was a record at all.
          const unknowable = record.sequence === last && byte < record.offset + half;
          assert(report.droppedRecords > 0 || unknowable, "the dropped record is not reported");
          const outcome = await tryAll(damaged, false);
          assertEquals(outcome.refused, undefined);
          assertOldState(damaged, outcome, record.sequence - 1);
        }),
    );
  }
});

/** The volume shows, and the drained backing holds, what it was when `sequence` was the newest record. */
function assertOldState({ states }: Pair, outcome: Outcome, sequence: number): void {
  // A record that filled its segment ended without a flush: then each sector is of the state before or after.
  const after = states.findIndex((state) => state.sequence >= sequence);
  const before = states[after]!.sequence === sequence ? after : after - 1;
  assertEquals(outcome.drained, undefined);
  outcome.sectors.forEach((read, i) => {
    assert(read !== undefined, `sector ${i} is EIO`);
    const fits = [before, after].some((state) => equal(read, sector(states[state]!.bytes, i)));
    assert(fits, `sector ${i} is of no state that a torn end may leave`);
    assert(equal(read, sector(outcome.backing, i)), `drain left another sector ${i} than reads showed`);
  });
}

Deno.test("check: a flipped bit ends with 4, and the range is in the JSON", async () => {
  await using temp = await Temp.make();
  const { cache, backing, pair } = await temp.pair(16 * mib, "16MiB");
  const open = await openCache({ cache, backing, tunables: { writeback: "off" } });
  await open.write(8 * mib, new Uint8Array(3 * blockBytes).fill(5));
  await open.close();
  assertEquals((await runHere("check", ...pair)).code, 0);

  const bytes = await Deno.readFile(cache);
  // The second data block of the only record.
  const at = mib + 2 * blockBytes + 1000;
  assertEquals(bytes[at], 5);
  bytes[at]! ^= 64;
  await Deno.writeFile(cache, bytes);
  const checked = await runHere("check", ...pair, "--json");
  assertEquals(checked.code, 4, checked.err);
  const { problems } = JSON.parse(checked.out) as CheckReport;
  assertEquals(problems.length, 1);
  assertEquals(problems[0]!.severity, "loss");
  assert(covers(at)(problems[0]!));
  assertEquals([problems[0]!.volumeOffset, problems[0]!.volumeLength], [8 * mib + blockBytes, blockBytes]);
  const told = await runHere("check", "--cache", cache);
  assertEquals(told.code, 4);
  assert(told.out.includes(`${8 * mib + blockBytes}`) || told.out.includes("block 2049"), told.out);
});
