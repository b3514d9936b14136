/**
 * Plain twin of the record kernels, by DataView and src/log/layout.ts.
 *
 * @module
 */

import {
  carriesBlock,
  entryBytes,
  entryField,
  type entryKind,
  halfBytes,
  previousField,
  recordField,
} from "../../../src/log/layout.ts";
import { blockBytes } from "../../../src/units.ts";
import { crc32cTwin } from "./crc32c.ts";

/** An entry of a record, as a test makes it up. */
export type Entry =
  | { kind: typeof entryKind.data | typeof entryKind.clean; block: number; mask: number }
  | { kind: number; block: number; mask: number; count: number };

function putU40(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true);
  view.setUint8(at + 4, 0);
}

/** Writes entry `index` into `record`. */
export function addEntryTwin(record: Uint8Array, index: number, entry: Entry): void {
  const start = recordField.entries + index * entryBytes;
  const view = new DataView(record.buffer, record.byteOffset + start, entryBytes);
  putU40(view, entryField.block, entry.block);
  view.setUint8(entryField.kind, entry.kind);
  if ("count" in entry) {
    putU40(view, entryField.count, entry.count);
    view.setUint8(entryField.rangeMask, entry.mask);
  } else {
    view.setUint8(entryField.mask, entry.mask);
    view.setUint8(7, 0);
    view.setUint32(entryField.crc, 0, true);
  }
}

/** Fills in all checksums of `record`; returns those of its data blocks and that of its header. */
export function sealTwin(record: Uint8Array): { crcs: number[]; crc: number } {
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const crcs: number[] = [];
  const count = view.getUint16(recordField.entryCount, true);
  for (let index = 0; index < count; index++) {
    const entry = recordField.entries + index * entryBytes;
    if (!carriesBlock(view.getUint8(entry + entryField.kind))) continue;
    const data = blockBytes * (1 + crcs.length);
    const crc = crc32cTwin(record.subarray(data, data + blockBytes));
    view.setUint32(entry + entryField.crc, crc, true);
    crcs.push(crc);
  }
  view.setUint32(previousField.crc, 0, true);
  view.setUint32(previousField.crc, crc32cTwin(record.subarray(halfBytes, blockBytes)), true);
  view.setUint32(recordField.crc, 0, true);
  const crc = crc32cTwin(record.subarray(0, halfBytes));
  view.setUint32(recordField.crc, crc, true);
  return { crcs, crc };
}
