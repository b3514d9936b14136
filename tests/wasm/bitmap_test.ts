/**
 * Bitmaps against arrays of booleans, through random sequences over all four of one memory, so that a write past
 * the end of one shows in its neighbour.
 *
 * @module
 */

import fc from "../property.ts";
import { AssertionError } from "../../src/errors.ts";
import type { Bitmap } from "../../src/wasm/kernels.ts";
import { assertEquals, assertThrows } from "../assert.ts";
import { smallKernels } from "./small_kernels.ts";
import { BitmapTwin } from "./twins/bitmap.ts";

const operations = [
  "set",
  "clear",
  "test",
  "setRange",
  "clearRange",
  "next",
  "nextClear",
  "countRange",
  "any",
  "orInto",
  "moveInto",
] as const;

/** Does `what` to `bitmap` and gives its answer. */
function apply<B extends Bitmap | BitmapTwin>(
  bitmap: B,
  other: B,
  what: typeof operations[number],
  start: number,
  end: number,
): unknown {
  switch (what) {
    case "set":
    case "clear":
    case "test":
      return bitmap[what](start);
    case "setRange":
    case "clearRange":
    case "next":
    case "nextClear":
    case "countRange":
    case "any":
      return bitmap[what](start, end);
    case "orInto":
    case "moveInto":
      return (bitmap[what] as (other: B) => void)(other);
  }
}

Deno.test("Bitmap: answers as an array of booleans does, through any sequence", () => {
  const step = fc.tuple(
    fc.constantFrom(...operations),
    fc.nat(3),
    fc.nat(2),
    fc.nat(),
    fc.oneof(fc.nat(3), fc.nat(200), fc.nat(20_000)),
  );
  fc.assert(
    fc.property(
      // Around a word, around a group of 64 words, and several groups.
      fc.constantFrom(1, 63, 64, 65, 200, 4095, 4096, 4097, 9000, 13_000),
      fc.array(step, { maxLength: 60 }),
      (length, steps) => {
        const { dirty, zeroDirty, written, syncing } = smallKernels({ backingBlocks: length });
        const bitmaps = [dirty, zeroDirty, written, syncing];
        const twins = bitmaps.map(() => new BitmapTwin(length));
        for (const [what, which, ahead, at, reach] of steps) {
          const other = (which + 1 + ahead) % 4;
          const start = at % length;
          const end = Math.min(length, start + reach);
          const answer = apply(bitmaps[which]!, bitmaps[other]!, what, start, end);
          assertEquals(answer, apply(twins[which]!, twins[other]!, what, start, end), what);
          bitmaps.forEach((bitmap, i) => assertEquals(bitmap.count, twins[i]!.count, `count after ${what}`));
        }
        bitmaps.forEach((bitmap, i) => {
          const set: number[] = [];
          for (let at = bitmap.next(0, length); at !== -1; at = bitmap.next(at + 1, length)) set.push(at);
          assertEquals(set, twins[i]!.bits.flatMap((bit, index) => bit ? [index] : []));
        });
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("Bitmap: next and nextClear walk over the end of a range and of the bitmap", () => {
  const { dirty } = smallKernels({ backingBlocks: 10_000 });
  dirty.setRange(100, 9000);
  assertEquals(dirty.next(0, 100), -1);
  assertEquals(dirty.next(0, 101), 100);
  assertEquals(dirty.nextClear(100, 9000), -1);
  assertEquals(dirty.nextClear(100, 9001), 9000);
  assertEquals(dirty.next(9000, 20_000), -1);
  assertEquals(dirty.nextClear(0, 0xffff_ffff), 0);
  dirty.setRange(0, 10_000);
  assertEquals(dirty.nextClear(0, 0xffff_ffff), -1);
  assertEquals(dirty.next(10_000, 10_000), -1);
});

Deno.test("Bitmap: 512 Mi bits, set and cleared whole", () => {
  const length = 512 * 1024 * 1024;
  const { dirty } = smallKernels({ backingBlocks: length });
  assertEquals(dirty.setRange(1, length - 1), length - 2);
  assertEquals(dirty.countRange(0, length), length - 2);
  assertEquals(dirty.nextClear(1, length), length - 1);
  assertEquals(dirty.clearRange(0, length - 2), length - 3);
  assertEquals(dirty.next(0, length), length - 2);
  assertEquals(dirty.count, 1);
});

Deno.test("Bitmap: refuses an index or a range beyond its length", () => {
  const { dirty } = smallKernels({ backingBlocks: 100 });
  assertThrows(() => dirty.set(100), AssertionError);
  assertThrows(() => dirty.clear(100), AssertionError);
  assertThrows(() => dirty.setRange(0, 101), AssertionError);
  assertThrows(() => dirty.clearRange(0, 101), AssertionError);
  assertThrows(() => dirty.orInto(dirty), AssertionError);
});
