/**
 * The part of {@linkcode BlockDevice}'s contract that every device asserts alike.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { sectorBytes } from "../units.ts";

/** Asserts that a range is aligned to sectors and inside the device. */
export function assertRange(
  device: { name: string; sizeBytes: number },
  offset: number,
  length: number,
): void {
  const inside = offset >= 0 && length >= 0 && offset % sectorBytes === 0 && length % sectorBytes === 0 &&
    offset + length <= device.sizeBytes;
  // The sentence is made only where it is wanted: this is on the hot path.
  if (inside) return;
  assert(
    false,
    `range ${offset}+${length} is not of sectors inside ${device.name}, which has ${device.sizeBytes} bytes`,
  );
}
