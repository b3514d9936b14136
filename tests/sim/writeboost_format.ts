/**
 * Writes segments as dm-writeboost does, for models and for images that no module made.
 *
 * @module
 */

import {
  type Metablock,
  metablockBytes,
  metablockField,
  segmentBytes,
  segmentField,
} from "../../src/foreign/dm_writeboost_layout.ts";
import { blockBytes, sectorsPerBlock } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";

/** The bytes of a segment, as far as they are used. */
export function encodeSegment(
  id: number,
  metablocks: readonly Metablock[],
  data: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(segmentBytes(metablocks.length));
  const view = new DataView(bytes.buffer);
  view.setBigUint64(segmentField.id, BigInt(id), true);
  view.setUint8(segmentField.length, metablocks.length);
  for (const [i, { block, dirtyBits }] of metablocks.entries()) {
    const at = segmentField.metablocks + i * metablockBytes;
    view.setBigUint64(at + metablockField.sector, BigInt(block * sectorsPerBlock), true);
    view.setUint8(at + metablockField.dirtyBits, dirtyBits);
    bytes.set(data[i]!, (1 + i) * blockBytes);
  }
  view.setUint32(segmentField.checksum, crc32c(bytes.subarray(segmentField.metablocks)), true);
  return bytes;
}
