/**
 * Plain twin of the CRC-32C kernels: one byte at a time through a table that is made bit by bit (RFC 3720).
 *
 * @module
 */

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0x82f63b78 : rest >>> 1;
  return rest >>> 0;
});

/** The CRC-32C of `bytes`, going on from `previous`. */
export function crc32cTwin(bytes: Uint8Array, previous = 0): number {
  let state = ~previous;
  for (let i = 0; i < bytes.length; i++) state = (state >>> 8) ^ table[(state ^ bytes[i]!) & 255]!;
  return ~state >>> 0;
}
