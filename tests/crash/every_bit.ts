/**
 * One flipped bit of a cache of `bit_images.ts`: through `check`, the real open, a read of the whole volume and a drain, and
 * flipped back.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type Cache, checkCache, type CheckReport, DamageError, DeviceError, openCache } from "../../mod.ts";
import type { Clock } from "../../src/clock.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import type { Image, Region } from "./bit_images.ts";

/** Nothing happens by itself, and it is always the same moment. */
const stoppedClock: Clock = { monotonicMs: () => 0, wallMs: () => 1_735_689_600_000, after: () => () => {} };

/** How many images ended in which way. */
export interface Tally {
  /** Noticed, and nothing was lost by it. */
  corrected: number;
  /** Noticed, and some of the volume is EIO. */
  lost: number;
  /** Records past the mark were dropped, and it was said. */
  dropped: number;
  /** The newest record past the mark vanished without a trace, as nothing but itself told of it. */
  untold: number;
  /** Dead space: nothing was said, and nothing was wrong. */
  dead: number;
}

/** A tally of nothing. */
export const emptyTally = (): Tally => ({ corrected: 0, lost: 0, dropped: 0, untold: 0, dead: 0 });

/** What an opened cache showed and did. */
interface Outcome {
  /** Some sectors were EIO. */
  holes: boolean;
  readOnly: boolean;
  drained: boolean;
  dropped: number;
}

/** Of the bits of idle slots, one in so many is tried. */
export const idleThinning = 61;

/** The bits that are tried of a region: each `stride`-th from the `first` on. */
export function* bitsOf({ from, to, expect }: Region, first: number, stride: number): Generator<number> {
  if (expect === "unread") return;
  const step = expect === "idle" ? idleThinning * stride : stride;
  for (let bit = from * 8 + first; bit < to * 8; bit += step) yield bit;
}

/** Flips one bit; throws, with its name, when what comes of it is not as demanded. */
export async function tryFlipped(image: Image, region: Region, bit: number): Promise<keyof Tally> {
  try {
    image.cache.flip(bit);
    return await tryBit(image, region, bit);
  } catch (error) {
    throw new Error(
      `image "${image.name}", ${region.name}, bit ${bit % 8} of byte ${Math.floor(bit / 8)}: ` +
        (error as Error).message,
      { cause: error },
    );
  } finally {
    image.cache.restore();
    image.backing.restore();
  }
}

/** Takes an undamaged image through the same, and throws if anything of it is not as it should be. */
export async function tryUndamaged(image: Image): Promise<void> {
  const { cache, backing } = image;
  cache.pagesRead.clear();
  try {
    const report = await checkCache({ cache, backing });
    assertEquals(report.problems, []);
    assertWhole(await open(image, false, image.content));
  } finally {
    cache.restore();
    backing.restore();
  }
  for (const { expect, name, from, to } of image.regions) {
    if (expect !== "unread") continue;
    for (let page = Math.ceil(from / blockBytes); page * blockBytes < to; page++) {
      assert(!cache.pagesRead.has(page), `${name}: page ${page} was read`);
    }
  }
}

async function tryBit(image: Image, region: Region, bit: number): Promise<keyof Tally> {
  const { cache, backing } = image;
  const report = await checkCache({ cache, backing });
  if (region.expect === "dead" || region.expect === "idle") {
    assertEquals(report.problems, []);
    assertWhole(await open(image, false, image.content));
    return "dead";
  }
  if (typeof region.expect === "number") return await tryPastMark(image, region, bit, report);
  const byte = Math.floor(bit / 8);
  const named = report.problems.some(({ offset, length }) => byte >= offset && byte < offset + length);
  const isNote = !image.clean && region.name.startsWith("superblock") && report.notes.length > 0;
  assert(named || isNote, `check says ${JSON.stringify(report.problems)}`);
  const lossless = report.problems.every(({ severity }) => severity === "damage");
  const outcome = await open(image, false, image.content);
  if (lossless) {
    assertWhole(outcome);
    return "corrected";
  }
  assert(outcome.holes, "check calls something lost, and everything was read");
  cache.restore();
  backing.restore();
  cache.flip(bit);
  const accepted = await open(image, true, image.content);
  assert(!accepted.readOnly, "read-only, though the damage was accepted");
  assert(!accepted.drained, "a drain keeps silent about lost blocks");
  return "lost";
}

async function tryPastMark(
  image: Image,
  region: Region,
  bit: number,
  report: CheckReport,
): Promise<keyof Tally> {
  const sequence = region.expect as number;
  assertEquals(report.problems, []);
  const outcome = await open(image, false, image.contentBefore(sequence));
  assertWhole(outcome);
  assertEquals(outcome.dropped, report.droppedRecords);
  if (outcome.dropped > 0) return "dropped";
  const ownHeader = bit / 8 < region.from + blockBytes / 2;
  assert(sequence === image.lastSequence && ownHeader, "a dropped record is not reported");
  return "untold";
}

function assertWhole({ holes, readOnly, drained }: Outcome): void {
  assert(!holes, "EIO, though nothing is lost");
  assert(!readOnly, "read-only, though nothing is lost");
  assert(drained, "a drain failed, though nothing is lost");
}

/** Opens, reads everything and drains; whatever is shown or written back must be `content`. */
async function open(image: Image, acceptDamage: boolean, content: Uint8Array): Promise<Outcome> {
  const cache = await openCache({
    cache: image.cache,
    backing: image.backing,
    acceptDamage,
    clock: stoppedClock,
    random: (bytes) => bytes.fill(7),
    tunables: { writeback: "off" },
  });
  const outcome: Outcome = {
    holes: false,
    readOnly: cache.readOnly,
    drained: false,
    dropped: cache.recovery.dropped,
  };
  outcome.holes = !(await readsAs(cache, 0, content));
  outcome.drained = await drains(cache);
  // Nothing is open but this cache, which goes with its devices: closing it would only take time.
  checkBacking(image, content, outcome.drained);
  return outcome;
}

/** False when some of it is EIO; throws when some of it is wrong. */
async function readsAs(cache: Cache, offset: number, expected: Uint8Array): Promise<boolean> {
  const bytes = new Uint8Array(expected.length);
  try {
    await cache.read(offset, bytes);
  } catch (error) {
    if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
    if (expected.length > sectorBytes) {
      const step = expected.length > blockBytes ? blockBytes : sectorBytes;
      for (let at = 0; at < expected.length; at += step) {
        await readsAs(cache, offset + at, expected.subarray(at, at + step));
      }
    }
    return false;
  }
  assert(Buffer.compare(bytes, expected) === 0, `wrong bytes were read from ${offset} on`);
  return true;
}

async function drains(cache: Cache): Promise<boolean> {
  try {
    await cache.drain();
    return true;
  } catch (error) {
    if (error instanceof DamageError || error instanceof DeviceError) return false;
    throw error;
  }
}

function checkBacking({ backing }: Image, content: Uint8Array, drained: boolean): void {
  if (Buffer.compare(backing.bytes, content) === 0) return;
  assert(!drained, "a drain wrote something wrong to the backing, or too little");
  for (let at = 0; at < content.length; at += sectorBytes) {
    const [found, right, old] = [backing.bytes, content, backing.pristine].map((bytes) =>
      Buffer.from(bytes.buffer, bytes.byteOffset + at, sectorBytes)
    );
    assert(
      found!.equals(right!) || found!.equals(old!),
      `a wrong sector ${at / sectorBytes} is on the backing`,
    );
  }
}
