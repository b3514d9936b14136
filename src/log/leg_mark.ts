/**
 * What each leg of a mirrored cache device says of itself and of the other leg, in one sector, twice.
 *
 * Invariants (log-rules.md, "Mirror"): a flush is acknowledged on one leg alone only after that leg's marks durably say so;
 * a leg counts after it was copied only once its content is durable, its marks say `together`, and then the other's do. The
 * two copies say the same, but for a crash between them: the one with the higher generation counts.
 *
 * | one says | the other says | the other is |
 * |---|---|---|
 * | together | together | as good |
 * | alone | together, copying | stale |
 * | alone | alone | written without the first, too: nobody can say which counts |
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { assert, DeviceError } from "../errors.ts";
import { sectorBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import { type Bytes, crcWithout, getU64, hasMagic, putMagic, putU64, viewOf } from "./codec.ts";
import { legMarkField as field, legMarkMagic, legMarkOffsets, legStates } from "./layout.ts";

/** What a leg says: both count; it alone counts; it is being copied to, and does not count. */
export type LegClaim = typeof legStates[number];

/** A leg's mark. */
export interface LegMark {
  /** Of the cache. */
  uuid: Bytes;
  generation: number;
  claim: LegClaim;
  /** Names this leg and the other one: 16 hexadecimal digits each, random. */
  self: string;
  other: string;
  /** The size of the leg's device; the cache itself may be smaller. */
  legBytes: number;
  /** When it says `alone`: the highest sequence that was durable on both, and the time, ms since 1970. */
  sinceSequence: number;
  sinceMs: number;
}

/** Writes `mark` as copy 0 or 1. */
export function encodeLegMark(mark: LegMark, copy: number): Bytes {
  const bytes = new Uint8Array(sectorBytes);
  const view = viewOf(bytes);
  putMagic(bytes, field.magic, legMarkMagic);
  view.setUint32(field.copy, copy, true);
  bytes.set(mark.uuid, field.uuid);
  putU64(view, field.generation, mark.generation);
  view.setUint32(field.claim, 1 + legStates.indexOf(mark.claim), true);
  bytes.set(Uint8Array.fromHex(mark.self), field.self);
  bytes.set(Uint8Array.fromHex(mark.other), field.other);
  putU64(view, field.legBytes, mark.legBytes);
  putU64(view, field.sinceSequence, mark.sinceSequence);
  putU64(view, field.sinceMs, Math.floor(mark.sinceMs));
  view.setUint32(field.crc, crc32c(bytes), true);
  return bytes;
}

/** Reads copy `copy`; undefined when it is none. */
export function decodeLegMark(bytes: Bytes, copy: number): LegMark | undefined {
  const view = viewOf(bytes);
  if (!hasMagic(bytes, field.magic, legMarkMagic) || view.getUint32(field.copy, true) !== copy) {
    return undefined;
  }
  if (view.getUint32(field.crc, true) !== crcWithout(bytes, field.crc)) return undefined;
  const claim = legStates[view.getUint32(field.claim, true) - 1];
  if (claim === undefined) return undefined;
  return {
    uuid: bytes.slice(field.uuid, field.uuid + 16),
    generation: getU64(view, field.generation),
    claim,
    self: bytes.subarray(field.self, field.self + 8).toHex(),
    other: bytes.subarray(field.other, field.other + 8).toHex(),
    legBytes: getU64(view, field.legBytes),
    sinceSequence: getU64(view, field.sinceSequence),
    sinceMs: getU64(view, field.sinceMs),
  };
}

/** The mark that counts, undefined when there is none. A copy that cannot be read is one that cannot be used. */
export async function readLegMark(device: BlockDevice): Promise<LegMark | undefined> {
  let newest: LegMark | undefined;
  for (const mark of await readLegMarkCopies(device)) {
    if (mark && (!newest || mark.generation > newest.generation)) newest = mark;
  }
  return newest;
}

/** Both copies, undefined where one cannot be used. */
export async function readLegMarkCopies(device: BlockDevice): Promise<(LegMark | undefined)[]> {
  const copies: (LegMark | undefined)[] = [];
  for (const [copy, offset] of legMarkOffsets.entries()) {
    const bytes = new Uint8Array(sectorBytes);
    copies.push(undefined);
    if (offset + sectorBytes > device.sizeBytes) continue;
    try {
      await device.read(offset, bytes);
    } catch (error) {
      if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
      continue;
    }
    copies[copy] = decodeLegMark(bytes, copy);
  }
  return copies;
}

/** A leg, as far as marks go. */
export interface MarkedLeg {
  mark: LegMark;
  write(offset: number, bytes: Bytes): Promise<void>;
  sync(): Promise<void>;
}

/** Writes both copies with `changes`, each synced before the other is touched, the older first. */
export async function writeLegMarks(leg: MarkedLeg, changes: Partial<LegMark>): Promise<void> {
  for (let i = 0; i < legMarkOffsets.length; i++) {
    const mark = { ...leg.mark, ...changes, generation: leg.mark.generation + 1 };
    const copy = mark.generation % legMarkOffsets.length;
    leg.mark = mark;
    await leg.write(legMarkOffsets[copy]!, encodeLegMark(mark, copy));
    await leg.sync();
  }
}

/** Whether [offset, offset + length) touches a place that belongs to one leg alone, and is never the same on both. */
export function touchesLegMark(offset: number, length: number): boolean {
  return legMarkOffsets.some((mark) => offset < mark + sectorBytes && offset + length > mark);
}

/** Makes a name for a leg. */
export function newLegName(random: (into: Uint8Array<ArrayBuffer>) => void): string {
  const bytes = new Uint8Array(8);
  random(bytes);
  const name = bytes.toHex();
  assert(name.length === 16, "a leg's name has eight bytes");
  return name;
}
