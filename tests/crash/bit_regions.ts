/**
 * Divides a cache into regions: what is demanded of a flipped bit depends on the region.
 *
 * What is demanded, by the place of the bit:
 * - **live** (both superblocks, both leg's marks of a mirrored cache, the checkpoint of a clean cache, every record from the
 *   tail up to the durable mark): `check` names the range; each sector reads right or as EIO, the backing ends up right or as
 *   it was; where `check` says that nothing is lost, everything reads right and is written back.
 * - **past the mark** (crash images only): the record and all behind it are dropped, the open says so, and the volume is what
 *   it was before that record. The one exception is the newest record's own header: with it, nothing is left that tells of it.
 *   Of a mirrored cache nothing is dropped, as the other leg has it.
 * - **dead**: nothing is said, everything reads right and is written back right. Dead are: the second half of a superblock's
 *   second block; slots behind the tail (superseded records, which are on the backing), torn ones beyond the head, and a
 *   segment's last block that a record does not fit into.
 * - **idle** (dead slots without a header in them: never written, or data of superseded records): the same. Nobody looks at
 *   such a slot but to see whether a header is there, and no single flipped bit makes the magic of one, which is asserted.
 * - **unread** (all the rest of the first MiB, the checkpoint of a cache that was not closed in order): no sector of it is
 *   ever read, whatever else is damaged, which is asserted, so no bit of it matters.
 *
 * @module
 */

import { type Scan, scanCache, type ScannedRecord } from "../../src/cache/scan.ts";
import { decodePrevious, decodeRecord, eachEntry, recordEntries } from "../../src/log/codec.ts";
import {
  carriesBlock,
  checkpointOffset,
  entryKind,
  legMarkOffsets,
  recordMagic,
  superblockBytes,
  superblockOffsets,
} from "../../src/log/layout.ts";
import { blockBytes, fullMask, sectorBytes } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import type { Author, PastPoint } from "./bit_author.ts";
import { FlipDevice } from "./flip_device.ts";

const half = blockBytes / 2;

/** What is demanded of the bits of a region; a number: the sequence of the record past the mark that it belongs to. */
export type Expectation = "live" | "dead" | "idle" | "unread" | number;

/** A part of a cache device. */
export interface Region {
  /** What it is, for the table: regions of one kind are counted together. */
  kind: string;
  name: string;
  /** Which leg of a mirrored cache device it is on. */
  leg: number;
  /** Bytes [from, to) of the cache device. */
  from: number;
  to: number;
  expect: Expectation;
  /** Half a header, or a block of data, which has one checksum: whether it matches, on a device with these bytes. */
  isWhole: ((bytes: Uint8Array<ArrayBuffer>) => boolean) | undefined;
  /** Only one in so many of its bits is tried: all bits of the same in another image are. */
  thinning: number;
}

/** A cache image whose content is known. */
export interface Image {
  name: string;
  /** The cache device, or both legs of it. */
  legs: FlipDevice[];
  backing: FlipDevice;
  clean: boolean;
  /** The regions of each leg, in order, without gaps. */
  regions: Region[];
  /** What the volume shows. */
  content: Uint8Array<ArrayBuffer>;
  /** Sectors that are lost already: they read as EIO, and the backing keeps what it has there. */
  lost: ReadonlySet<number>;
  /** What it shows when the log ends before the record of that sequence. */
  contentBefore(sequence: number): Uint8Array<ArrayBuffer>;
  /** The newest record of the log. */
  lastSequence: number;
  /** The volume as it was, where history is held. */
  past: readonly PastPoint[];
}

/** What there is to be described. What was not flushed was written in whole blocks, each once. */
export type Written = Pick<Author, "legs" | "backing" | "content" | "flushed" | "lost" | "past">;

/** Finds the regions of a cache, and what the volume shows. */
export async function describe(name: string, written: Written): Promise<Image> {
  const legs = written.legs.map((leg) => new FlipDevice(leg.name, leg.bytes.slice()));
  const regions: Region[] = [];
  for (const [leg, device] of legs.entries()) {
    const scan = await scanCache(device);
    regions.push(...filled(regionsOf(scan, device, leg), device.sizeBytes, leg));
  }
  const scan = await scanCache(legs[0]!);
  for (const leg of legs) leg.everRead.fill(0);
  const { superblock, walk } = scan;
  const contents = [written.flushed.slice()];
  for (const record of scan.records) {
    if (record.sequence <= walk.mark) continue;
    const content = contents.at(-1)!.slice();
    for (const { block } of entriesOf(scan, legs[0]!, record)) {
      const [start, end] = [block * blockBytes, (block + 1) * blockBytes];
      content.set(written.content.subarray(start, end), start);
    }
    contents.push(content);
  }
  return {
    name,
    legs,
    backing: new FlipDevice("backing", written.backing.bytes.slice()),
    clean: superblock.clean,
    regions,
    content: contents.at(-1)!,
    lost: written.lost,
    contentBefore: (sequence) => contents[sequence - walk.mark - 1]!,
    lastSequence: scan.records.at(-1)!.sequence,
    past: written.past,
  };
}

function entriesOf({ superblock }: Scan, device: FlipDevice, { slot }: ScannedRecord) {
  const from = superblock.geometry.logOffset + slot * blockBytes;
  const header = decodeRecord(device.pristine.slice(from, from + blockBytes), slot, superblock.uuid)!;
  // The same object comes each time.
  return Array.from(eachEntry(recordEntries(header)), (entry) => ({ ...entry }));
}

type Add = (
  kind: string,
  name: string,
  from: number,
  bytes: number,
  expect: Expectation,
  isWhole?: Region["isWhole"],
) => void;

function regionsOf(scan: Scan, device: FlipDevice, leg: number): Region[] {
  const { superblock } = scan;
  const { geometry } = superblock;
  const regions: Region[] = [];
  const add: Add = (kind, name, from, bytes, expect, isWhole) =>
    regions.push({ kind, name, leg, from, to: from + bytes, expect, isWhole, thinning: 1 });
  for (const [copy, offset] of superblockOffsets.entries()) {
    const entriesBytes = superblockBytes - half;
    add("superblock", `superblock ${copy}`, offset, entriesBytes, "live");
    add("behind a superblock", `behind superblock ${copy}`, offset + entriesBytes, half, "dead");
  }
  if (superblock.mirrored) {
    for (const [copy, offset] of legMarkOffsets.entries()) {
      add("leg's mark", `leg's mark ${copy}`, offset, sectorBytes, "live");
    }
  }
  const isUsed = superblock.clean ? "live" : "unread";
  add("checkpoint", "checkpoint", checkpointOffset, geometry.checkpointBytes, isUsed);
  const covered = new Set<number>();
  for (const record of scan.records) {
    addRecord(add, scan, device, record);
    for (let i = 0; i <= record.dataCount; i++) covered.add(record.slot + i);
  }
  for (let slot = 0; slot < geometry.slotCount; slot++) {
    if (covered.has(slot)) continue;
    const from = geometry.logOffset + slot * blockBytes;
    const isHeader = distance(device.pristine.subarray(from, from + recordMagic.length), recordMagic) <= 1;
    const kind = isHeader ? "header of no use any more" : "slot of no use";
    add(kind, `slot ${slot}, of no use`, from, blockBytes, isHeader ? "dead" : "idle");
  }
  return regions;
}

function addRecord(
  add: Add,
  scan: Scan,
  device: FlipDevice,
  record: ScannedRecord,
): void {
  const { slot, sequence } = record;
  const from = scan.superblock.geometry.logOffset + slot * blockBytes;
  const isLive = sequence <= scan.walk.mark;
  const expect = isLive ? "live" : sequence;
  const past = isLive ? "" : ", past the mark";
  const { uuid } = scan.superblock;
  const headerOf = (bytes: Uint8Array<ArrayBuffer>) => bytes.slice(from, from + blockBytes);
  add(
    `header${past}`,
    `record ${sequence}, header`,
    from,
    half,
    expect,
    (bytes) => decodeRecord(headerOf(bytes), slot, uuid) !== undefined,
  );
  add(
    `copy of the entries before${past}`,
    `record ${sequence}, second half`,
    from + half,
    half,
    expect,
    (bytes) => decodePrevious(headerOf(bytes)) !== undefined,
  );
  let index = 0;
  for (const { kind, block, mask, crc } of entriesOf(scan, device, record)) {
    if (!carriesBlock(kind)) continue;
    index++;
    const what = kind === entryKind.clean ? "clean copy" : versionOf(scan, block, slot + index);
    const part = mask === fullMask ? "" : ", partial";
    const at = from + index * blockBytes;
    add(
      `${isLive ? what : "data"}${part}${past}`,
      `record ${sequence}, block ${block}`,
      at,
      blockBytes,
      expect,
      (bytes) => crc32c(bytes.subarray(at, at + blockBytes)) === crc,
    );
  }
}

function versionOf({ versions: { kernels } }: Scan, block: number, slot: number): string {
  if (kernels.indexGet(block) !== slot) return "data, superseded";
  return kernels.dirty.test(block) ? "data, dirty" : "data, written back";
}

/** Bits in which `bytes` differ from `text`. */
function distance(bytes: Uint8Array, text: string): number {
  let bits = 0;
  for (const [i, byte] of bytes.entries()) {
    for (let rest = byte ^ text.charCodeAt(i); rest > 0; rest &= rest - 1) bits++;
  }
  return bits;
}

/** The same regions in order, with the gaps between them named. */
function filled(regions: Region[], sizeBytes: number, leg: number): Region[] {
  const all: Region[] = [];
  let end = 0;
  const gap = (to: number) => {
    if (to === end) return;
    all.push({
      kind: "reserved",
      name: `bytes ${end} to ${to}, reserved`,
      leg,
      from: end,
      to,
      expect: "unread",
      isWhole: undefined,
      thinning: 1,
    });
  };
  for (const region of regions.toSorted((a, b) => a.from - b.from)) {
    gap(region.from);
    all.push(region);
    end = region.to;
  }
  gap(sizeBytes);
  return all;
}
