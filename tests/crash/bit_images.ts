/**
 * Small caches of every kind whose content is known: together they hold every structure of the format, every kind of entry,
 * and all that a log leaves behind. Of the superblocks, checkpoints and legs' marks each bit is tried in one image that was
 * closed in order, one that was not, and on one leg of a mirror; in the others, where only their values differ, one in 61.
 *
 * @module
 */

import { blockBytes, sectorBytes } from "../../src/units.ts";
import { assert, assertEquals, assertGreater } from "../assert.ts";
import { Author } from "./bit_author.ts";
import { describe, type Image, type Region } from "./bit_regions.ts";
import { FlipDevice } from "./flip_device.ts";

export type { Image } from "./bit_regions.ts";

/** Laps of the log in the image of that name, and a bit: more would only take time. */
const lapRecords = 8;

/** Closed in order: full, partial, superseded, zeroed, trimmed and short blocks, dirty and clean ones, a skipped slot. */
async function cleanImage(): Promise<Image> {
  const author = await Author.begin(1);
  await author.write(56, 8);
  await author.write(3, 3);
  await author.flush();
  await author.blank("trim", 2, 2);
  await author.write(32, 8);
  await author.flush();
  // It stays in the log, clean.
  await author.cache.drain({ keepLog: true });
  assertEquals(author.cache.status().cache.dirtyBlocks, 0);
  await author.reopen();
  await author.write(32, 8);
  await author.write(64, 3);
  await author.flush();
  await author.blank("zero", 5, 1);
  await author.close();
  return await describe("clean", author);
}

/** Closed in order after more than a lap, so that older records lie behind the tail. */
async function lappedImage(): Promise<Image> {
  const author = await Author.begin(2);
  for (let lap = 0; lap < lapRecords; lap++) {
    await author.write(8 * (lap % 4), 24);
    await author.flush();
    await author.cache.drain();
  }
  await author.write(40, 8);
  await author.flush();
  await author.write(17, 2);
  await author.close();
  return await describe("lapped", author);
}

/** Closed in order, with copies of what was read, one of which the backing was written past since. */
async function copiesImage(): Promise<Image> {
  const author = await Author.begin(4);
  await author.write(0, 8);
  await author.flush();
  author.cache.tune({ readCacheThreshold: 8 });
  await author.cache.prefetch(2 * blockBytes, 2 * blockBytes);
  assertEquals(author.cache.status().blocks.prefetched, 2);
  author.cache.tune({ readCacheThreshold: 0, bypassSequential: blockBytes });
  // The log holds the first, the second goes past it.
  await author.write(16, 8);
  await author.flush();
  assertGreater(author.cache.status().blocks.bypassed, 0);
  author.cache.tune({ bypassSequential: 0 });
  await author.write(65, 1);
  await author.close();
  return await describe("copies", author);
}

/** Closed in order, with a block that was lost long ago, and an entry that says so. */
async function poisonedImage(): Promise<Image> {
  const author = await Author.begin(5);
  await author.write(24, 8);
  await author.flush();
  await author.write(8, 8);
  await author.flush();
  await author.lose(1);
  await author.write(33, 2);
  await author.close();
  return await describe("poisoned", author);
}

/** Closed in order while history is held, so that superseded blocks are still needed. */
async function heldImage(): Promise<Image> {
  const author = await Author.begin(6);
  await author.cache.history.hold();
  await author.write(8, 8);
  await author.flush();
  await author.blank("trim", 1, 2);
  await author.flush();
  await author.write(10, 1);
  await author.flush();
  await author.close();
  assertEquals(author.past.length, 3);
  return await describe("held", author);
}

/** Killed: the last records are whole, and past the mark. */
async function crashed(seed: number, mirrored: boolean, unflushed: number[]): Promise<Author> {
  const author = await Author.begin(seed, { mirrored, segmentCount: 7 });
  await author.write(0, 8);
  await author.write(19, 2);
  await author.flush();
  if (!mirrored) {
    await author.blank("trim", 3, 1);
    await author.write(32, 8);
    await author.flush();
  }
  await author.write(8, 8);
  await author.flush();
  // Enough for some records more, each ended by the end of its segment and none by a flush.
  for (const block of unflushed) await author.write(8 * block, 8);
  await author.settle();
  return author;
}

async function crashedImage(): Promise<Image> {
  return await describe("crashed", await crashed(3, false, [1, 2, 3, 5, 6, 7, 0]));
}

/** The power went while the last record was being written. */
async function tornImage(): Promise<Image> {
  const author = await crashed(3, false, [1, 2, 3, 5, 6, 7, 0]);
  const whole = await describe("crashed", author);
  const cache = whole.legs[0]!.pristine.slice();
  const last = whole.regions.findLast(({ expect }) => typeof expect === "number")!;
  cache.fill(0, last.to - sectorBytes, last.to);
  return await describe("torn", { ...author, legs: [new FlipDevice("cache", cache)] });
}

/** Two legs, closed in order. */
async function mirroredImage(): Promise<Image> {
  const author = await Author.begin(7, { mirrored: true });
  await author.write(24, 8);
  await author.flush();
  await author.cache.drain({ keepLog: true });
  await author.write(10, 3);
  await author.blank("zero", 4, 1);
  await author.close();
  return await describe("mirrored", author);
}

/** Two legs, killed: what is past the mark is on both. */
async function mirroredCrashedImage(): Promise<Image> {
  return await describe("mirrored, crashed", await crashed(8, true, [3, 5, 0]));
}

const makers = {
  "clean": cleanImage,
  "crashed": crashedImage,
  "mirrored": mirroredImage,
  "lapped": lappedImage,
  "copies": copiesImage,
  "poisoned": poisonedImage,
  "held": heldImage,
  "torn": tornImage,
  "mirrored-crashed": mirroredCrashedImage,
} as const;

/** One bit in so many is tried of what is tried in full elsewhere; a prime, so that all bits of a byte come up. */
const thinning = 61;
/** Whose superblocks, checkpoints and legs' marks are tried in full. */
const wholeImages = ["clean", "crashed", "mirrored"];
const elsewhere = ["superblock", "behind a superblock", "checkpoint", "leg's mark"];

/** In this image, and in no other, these differ from `crashed`. */
function isOfTorn({ expect }: Region): boolean {
  return typeof expect === "number" || expect === "dead";
}

/** The names of all images. */
export const imageNames = Object.keys(makers) as (keyof typeof makers)[];

/** Makes an image. */
export async function makeImage(name: keyof typeof makers): Promise<Image> {
  const image = await makers[name]();
  assert(image.regions.length > 0);
  for (const region of image.regions) {
    const isElsewhere = elsewhere.includes(region.kind) &&
      (!wholeImages.includes(name) || (region.leg > 0 && region.kind !== "leg's mark"));
    if (isElsewhere || (name === "torn" && !isOfTorn(region))) region.thinning = thinning;
  }
  return { ...image, name };
}
