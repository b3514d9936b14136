/** @module */

import { findSingleBit } from "../../src/foreign/single_bit.ts";
import { SeededRandom } from "../../src/random.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import { assert, assertEquals } from "../assert.ts";

Deno.test("findSingleBit: names every single bit, and none of two", () => {
  const random = new SeededRandom(3);
  const bytes = new Uint8Array(300);
  random.fill(bytes);
  const right = crc32c(bytes);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    assertEquals(findSingleBit(crc32c(bytes), right, bytes.length), { byte: bit >> 3, bit: bit & 7 });
    const other = (bit + 1 + random.below(bytes.length * 8 - 1)) % (bytes.length * 8);
    bytes[other >> 3]! ^= 1 << (other & 7);
    assertEquals(findSingleBit(crc32c(bytes), right, bytes.length), undefined, `bits ${bit} and ${other}`);
    for (const flipped of [bit, other]) bytes[flipped >> 3]! ^= 1 << (flipped & 7);
  }
  for (let bit = 0; bit < 32; bit++) {
    assertEquals(findSingleBit(right, (right ^ 1 << bit) >>> 0, bytes.length), { byte: -1, bit });
  }
});

Deno.test("findSingleBit: a torn segment of half a MiB is hardly ever taken for one flipped bit", () => {
  const random = new SeededRandom(5);
  let taken = 0;
  for (let i = 0; i < 40; i++) {
    if (findSingleBit(random.next(), random.next(), 520_000)) taken++;
  }
  assert(taken <= 1, `${taken} of 40`);
});
