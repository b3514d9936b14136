/**
 * CRC-32C (Castagnoli, reflected 0x82f63b78, RFC 3720). Long messages go through `reduce` (sparse multiples of the
 * polynomial, see generate_crc32c.ts), short ones and odd ends through slicing by 16 (Kounavis & Berry 2005).
 */

import { slicingTables } from "./memory";
// Written by generate_crc32c.ts at build time. It takes reduceMin, reduceMin + reduceStep, ... reduceMax bytes.
import { reduce, reduceCopy, reduceMax, reduceMin, reduceStep } from "./crc32c_reduce";

function fillTables(): void {
  for (let byte: u32 = 0; byte < 256; byte++) {
    let rest = byte;
    for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0x82f63b78 : rest >>> 1;
    store<u32>(slicingTables + (byte << 2), rest);
  }
  for (let entry: u32 = 256; entry < 16 * 256; entry++) {
    const before = load<u32>(slicingTables + ((entry - 256) << 2));
    store<u32>(
      slicingTables + (entry << 2),
      (before >>> 8) ^ load<u32>(slicingTables + ((before & 255) << 2)),
    );
  }
}
fillTables();

/** The remainder of the byte in the low bits of `word`, followed by `after` zero bytes. */
function slice(after: u32, word: u32): u32 {
  return load<u32>(slicingTables + (after << 10) + ((word & 255) << 2));
}

/** Takes `length` bytes into `state`, 16 at a time and then one by one. */
function slicing(pointer: usize, length: usize, state: u32): u32 {
  const end = pointer + length;
  const wideEnd = pointer + (length & ~15);
  while (pointer < wideEnd) {
    const a = state ^ load<u32>(pointer);
    const b = load<u32>(pointer, 4);
    const c = load<u32>(pointer, 8);
    const d = load<u32>(pointer, 12);
    state = slice(15, a) ^ slice(14, a >>> 8) ^ slice(13, a >>> 16) ^ slice(12, a >>> 24) ^
      slice(11, b) ^ slice(10, b >>> 8) ^ slice(9, b >>> 16) ^ slice(8, b >>> 24) ^
      slice(7, c) ^ slice(6, c >>> 8) ^ slice(5, c >>> 16) ^ slice(4, c >>> 24) ^
      slice(3, d) ^ slice(2, d >>> 8) ^ slice(1, d >>> 16) ^ slice(0, d >>> 24);
    pointer += 16;
  }
  while (pointer < end) {
    state = (state >>> 8) ^ slice(0, state ^ load<u8>(pointer));
    pointer++;
  }
  return state;
}

/** Takes `length` bytes, one of the lengths that `reduce` takes, into `state`. */
function reduced(pointer: usize, length: usize, state: u32): u32 {
  return slicing(reduce(pointer, length, state), 32, 0);
}

/** The CRC-32C of `length` bytes, going on from `previous` (0 at the start of a message). */
export function crc32c(pointer: usize, length: usize, previous: u32): u32 {
  let state = ~previous;
  if (length >= reduceMin) {
    const odd = length & (reduceStep - 1);
    state = slicing(pointer, odd, state);
    pointer += odd;
    length -= odd;
    while (length >= reduceMin) {
      let piece = length;
      // Nothing shorter than reduceMin may be left over for the table.
      if (piece > reduceMax) piece = piece - reduceMax < reduceMin ? reduceMax / 2 : reduceMax;
      state = reduced(pointer, piece, state);
      pointer += piece;
      length -= piece;
    }
  }
  return ~slicing(pointer, length, state);
}

/** The CRC-32C of the 4096 bytes at `pointer`. */
export function crc32cBlock(pointer: usize): u32 {
  return ~reduced(pointer, 4096, 0xffffffff);
}

/** The same, and copies them to `target` on the way. REQUIRES: the two do not overlap. */
export function crc32cBlockCopy(target: usize, pointer: usize): u32 {
  return ~slicing(reduceCopy(target, pointer, 4096, 0xffffffff), 32, 0);
}

/** The CRC-32C of the 2048 bytes at `pointer`. */
export function crc32cHalf(pointer: usize): u32 {
  return ~reduced(pointer, 2048, 0xffffffff);
}
