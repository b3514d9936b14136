/**
 * Tells whether a wrong checksum can be explained by one flipped bit, and which. A tear hardly ever can: of random differences one in a
 * thousand, for half a MiB.
 *
 * CRC-32C is linear: a flipped bit changes the checksum by a value that depends on its distance from the end alone. So the
 * difference is taken back byte by byte, until it is that of a bit in the byte reached.
 *
 * @module
 */

const polynomial = 0x82f63b78;
/** The CRC of one byte, without initial and final inversion. */
const table = new Uint32Array(256);
/** Which index of the table gives this topmost byte; each does once. */
const byTop = new Uint8Array(256);
/** The bit of each of the eight single-bit differences. */
const bits = new Map<number, number>();

for (let byte = 0; byte < 256; byte++) {
  let value = byte;
  for (let i = 0; i < 8; i++) value = value & 1 ? value >>> 1 ^ polynomial : value >>> 1;
  table[byte] = value >>> 0;
  byTop[table[byte]! >>> 24] = byte;
}
for (let bit = 0; bit < 8; bit++) bits.set(table[1 << bit]!, bit);

/** A bit of a message; `byte` -1 for one of the stored checksum itself. */
export interface FlippedBit {
  byte: number;
  bit: number;
}

/** The one flipped bit in `length` bytes, or in the stored checksum, that explains why `computed` is not `stored`. */
export function findSingleBit(computed: number, stored: number, length: number): FlippedBit | undefined {
  let difference = (computed ^ stored) >>> 0;
  if ((difference & (difference - 1)) === 0) return { byte: -1, bit: 31 - Math.clz32(difference) };
  for (let byte = length - 1; byte >= 0; byte--) {
    const bit = bits.get(difference);
    if (bit !== undefined) return { byte, bit };
    const index = byTop[difference >>> 24]!;
    difference = ((difference ^ table[index]!) << 8 | index) >>> 0;
  }
  return undefined;
}
