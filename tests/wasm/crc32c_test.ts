/**
 * CRC-32C against its twin. For 4096 bytes the test is a proof: the checksum is an affine function over GF(2), so
 * the zero block and all 32,768 blocks of one bit tell everything about it, given that the kernel is affine too. It
 * is made of XORs and of tables; random blocks reach every entry of those, so one that is no sum would show.
 *
 * @module
 */

import fc from "../property.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import { scratchBytes } from "../../src/wasm/memory_map.ts";
import { powerOfX, reduceLengths, sparseOffsets } from "../../wasm/generate_crc32c.ts";
import { assertEquals } from "../assert.ts";
import { smallKernels } from "./small_kernels.ts";
import { crc32cTwin } from "./twins/crc32c.ts";

const kernels = smallKernels();
const area = kernels.map.buffers;
const noise = new Uint8Array(160 * 1024);
new SeededRandom(1).fill(noise);

Deno.test("sparseOffsets: the multiple is one, by long division over GF(2)", () => {
  const top = Math.max(...sparseOffsets);
  // y^290 + y^(290-154) + ... + 1, once in x (the multiple) and once in y = x^8 (what the kernel uses).
  for (const unit of [1, 8]) {
    let dividend = 1n << BigInt(unit * top);
    for (const offset of sparseOffsets) dividend ^= 1n << BigInt(unit * (top - offset));
    for (let power = unit * top; power >= 32; power--) {
      if ((dividend >> BigInt(power)) & 1n) dividend ^= 0x1_1edc_6f41n << BigInt(power - 32);
    }
    assertEquals(dividend, 0n);
  }
});

Deno.test("powerOfX: multiplies by x, one step after the other", () => {
  assertEquals(powerOfX(31), 1n << 31n);
  assertEquals(powerOfX(32), 0x1edc6f41n);
});

Deno.test("crc32c: the check value of the catalogue", () => {
  const digits = new TextEncoder().encode("123456789");
  assertEquals(crc32c(digits), 0xe3069283);
  assertEquals(kernels.crc32cOf(digits), 0xe3069283);
  assertEquals(crc32cTwin(digits), 0xe3069283);
});

Deno.test("crc32c: the vectors of RFC 3720 B.4", () => {
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
  assertEquals(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  assertEquals(crc32c(new Uint8Array(0)), 0);
});

Deno.test("crc32cBlock: the zero block and all 32,768 single-bit blocks, which is a proof", () => {
  const block = kernels.bytes.subarray(area, area + blockBytes).fill(0);
  const zero = crc32cTwin(block);
  assertEquals(kernels.crc32cBlock(area), zero);
  // The twin costs 13 us a block, so the difference that bit p makes is followed from the last byte to the first.
  let wrong = 0;
  for (let byte = 0; byte < blockBytes; byte++) {
    const tail = new Uint8Array(blockBytes - byte);
    for (let bit = 0; bit < 8; bit++) {
      block[byte] = tail[0] = 1 << bit;
      // Leading zeroes leave a zero state alone, so the difference needs the bytes from `byte` on only.
      const difference = crc32cTwin(tail, 0xffff_ffff) ^ 0xffff_ffff;
      if (kernels.crc32cBlock(area) !== (zero ^ difference) >>> 0) wrong++;
    }
    block[byte] = 0;
  }
  assertEquals(wrong, 0);
});

Deno.test("crc32cBlock: random blocks", () => {
  const random = new SeededRandom(2);
  const block = kernels.bytes.subarray(area, area + blockBytes);
  for (let round = 0; round < 1000; round++) {
    random.fill(block);
    assertEquals(kernels.crc32cBlock(area), crc32cTwin(block));
  }
});

Deno.test("crc32cBlock: any alignment, neighbours do not matter, the block is left alone", () => {
  for (let offset = 0; offset < 64; offset++) {
    kernels.bytes.set(noise.subarray(0, 3 * blockBytes), area);
    const start = area + blockBytes - 32 + offset;
    const expected = crc32cTwin(kernels.bytes.subarray(start, start + blockBytes));
    assertEquals(kernels.crc32cBlock(start), expected);
    assertEquals(kernels.crc32cBlock(start), expected);
    assertEquals(kernels.bytes.slice(area, area + 3 * blockBytes), noise.slice(0, 3 * blockBytes));
  }
});

Deno.test("crc32c: every length up to 1500, and those around the edges of the kernel", () => {
  kernels.bytes.set(noise, area);
  const lengths = Array.from({ length: 1500 }, (_, i) => i);
  const { min, max, step } = reduceLengths;
  for (const edge of [2048, max, max + min, 2 * max, 2 * max + min, 65536, 131072]) {
    for (const near of [-step - 1, -step, -1, 0, 1, step - 1, step, step + 1]) lengths.push(edge + near);
  }
  for (const length of lengths) {
    const start = area + length % 67;
    const expected = crc32cTwin(kernels.bytes.subarray(start, start + length));
    assertEquals(kernels.crc32c(start, length), expected, `length ${length}`);
  }
});

Deno.test("crc32c: goes on from the checksum of what came before", () => {
  fc.assert(
    fc.property(
      fc.nat(20000),
      fc.nat(20000),
      fc.nat(100),
      fc.nat(100),
      (first, second, offset, gap) => {
        const a = noise.subarray(offset, offset + first);
        const b = noise.subarray(offset + first, offset + first + second);
        const expected = crc32cTwin(noise.subarray(offset, offset + first + second));
        assertEquals(crc32c(b, crc32c(a)), expected);
        // In one memory the second piece may lie anywhere.
        kernels.bytes.set(a, area + offset);
        kernels.bytes.set(b, area + offset + first + gap);
        const crc = kernels.crc32c(area + offset, first);
        assertEquals(kernels.crc32c(area + offset + first + gap, second, crc), expected);
      },
    ),
  );
});

Deno.test("crc32cOf: takes foreign bytes of more than the scratch, and its own where they lie", () => {
  for (const length of [scratchBytes - 1, scratchBytes, scratchBytes + 1, noise.length]) {
    const bytes = noise.subarray(noise.length - length);
    const expected = crc32cTwin(bytes, 7);
    assertEquals(kernels.crc32cOf(bytes, 7), expected);
    assertEquals(crc32c(bytes, 7), expected);
    kernels.bytes.set(bytes, area + 3);
    assertEquals(kernels.crc32cOf(kernels.bytes.subarray(area + 3, area + 3 + length), 7), expected);
  }
});
