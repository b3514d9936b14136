/**
 * Reads all of a volume, down to the sectors that cannot be read.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { DeviceError } from "../../src/errors.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";

/** The content of a volume, and which of its sectors gave an error. */
export interface Whole {
  bytes: Uint8Array<ArrayBuffer>;
  lost: Set<number>;
}

/** Reads everything; where reads `mayFail`, narrows failures down to sectors. */
export async function readWhole(cache: Cache, sizeBytes: number, mayFail: boolean): Promise<Whole> {
  const bytes = new Uint8Array(sizeBytes);
  const lost = new Set<number>();
  const read = async (offset: number, length: number): Promise<void> => {
    try {
      await cache.read(offset, bytes.subarray(offset, offset + length));
    } catch (error) {
      if (!mayFail || !(error instanceof DeviceError)) throw error;
      if (length === sectorBytes) {
        lost.add(offset / sectorBytes);
        return;
      }
      const step = length > blockBytes ? blockBytes : sectorBytes;
      for (let at = 0; at < length; at += step) await read(offset + at, Math.min(step, length - at));
    }
  };
  await read(0, sizeBytes);
  return { bytes, lost };
}
