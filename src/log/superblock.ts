/**
 * The superblock pair: who this cache is, whom it belongs to, and from where recovery must read.
 *
 * Invariants (log-rules.md 4): the two copies are written alternately; a copy is never written before the other is
 * synced; each write raises the generation. Of two valid copies the one with the higher generation counts.
 *
 * @module
 */

import { RefusedError } from "../errors.ts";
import { blockBytes, formatSize } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import type { DeviceIdentity } from "../device/block_device.ts";
import {
  type Bytes,
  crcWithout,
  decodePrevious,
  type Epoch,
  getU64,
  hasMagic,
  type PreviousRecord,
  putMagic,
  putU64,
  viewOf,
} from "./codec.ts";
import { type Geometry, planGeometry } from "./geometry.ts";
import {
  backingIdBytesMax,
  backingKinds,
  featureMirrored,
  featuresKnown,
  formatVersion,
  halfBytes,
  historyFlagHeld,
  sampleCountMax,
  segmentBlocksMax,
  superblockBytes,
  superblockField as field,
  superblockMagic,
  superblockPreviousOffset,
  superblockState,
} from "./layout.ts";

/** A place in the log: the slot where a record starts, its sequence, and the chain value that it must carry. */
export interface LogPosition {
  slot: number;
  sequence: number;
  chain: number;
}

/** A block of the backing that held nothing dirty at the last clean close, and its checksum. */
export interface Sample {
  block: number;
  crc: number;
}

/** What a superblock says of the past that the log still holds. */
export interface HistoryState {
  /**
   * No content of a record with a higher sequence has reached the backing, and of what later records superseded since then
   * nothing is gone. Undefined where nothing is known, as while the cache is open and history is not held.
   */
  floor: number | undefined;
  /** That stays so, through crashes too, until history is released. */
  held: boolean;
  /** The last rewind: of epochs before `epoch`, no record after `to` counts. Epoch 0: there was none. */
  rewind: { epoch: number; to: number };
  /**
   * Of what changed after an earlier sequence than this, the log may not tell all: something went past it, or the number
   * named another record before a rewind. Counts as `floor` does.
   */
  unlogged: number;
}

/** A superblock that knows nothing of the past. */
export const noHistory: Readonly<HistoryState> = {
  floor: undefined,
  held: false,
  rewind: { epoch: 0, to: 0 },
  unlogged: 0,
};

/** What a superblock says. */
export interface Superblock {
  uuid: Bytes;
  /** The cache device has two legs (`leg_mark.ts`). */
  mirrored: boolean;
  generation: number;
  clean: boolean;
  epoch: Epoch;
  geometry: Geometry;
  cacheBytes: number;
  tail: LogPosition;
  /** The highest sequence known to be durable when this was written. */
  durableMark: number;
  /** Where the next record goes; meaningful when `clean`. */
  head: LogPosition;
  history: Readonly<HistoryState>;
  createdMs: number;
  closedMs: number;
  backingBytes: number;
  backing: DeviceIdentity;
  samples: Sample[];
  /** The entry list of the record at the durable mark, where it was known. */
  previous: PreviousRecord | undefined;
}

/** Why a copy cannot be used. */
export interface SuperblockProblem {
  problem: "foreign" | "torn" | "version" | "feature" | "geometry";
  message: string;
}

/** Writes `superblock` as copy 0 or 1. */
export function encodeSuperblock(superblock: Superblock, copy: number): Bytes {
  const bytes = new Uint8Array(superblockBytes);
  const view = viewOf(bytes);
  putMagic(bytes, field.magic, superblockMagic);
  view.setUint32(field.version, formatVersion, true);
  bytes.set(superblock.uuid, field.uuid);
  view.setUint32(field.incompatible, superblock.mirrored ? featureMirrored : 0, true);
  putU64(view, field.generation, superblock.generation);
  view.setUint32(field.copy, copy, true);
  view.setUint32(field.state, superblock.clean ? superblockState.clean : superblockState.open, true);
  view.setUint32(field.epoch, superblock.epoch.number, true);
  view.setUint32(field.segmentBlocks, superblock.geometry.segmentBlocks, true);
  view.setUint32(field.epochRandom, superblock.epoch.randomLow, true);
  view.setUint32(field.epochRandom + 4, superblock.epoch.randomHigh, true);
  putU64(view, field.epochFirstSequence, superblock.epoch.firstSequence);
  putU64(view, field.cacheBytes, superblock.cacheBytes);
  putU64(view, field.logOffset, superblock.geometry.logOffset);
  putU64(view, field.segmentCount, superblock.geometry.segmentCount);
  putU64(view, field.checkpointBytes, superblock.geometry.checkpointBytes);
  putPosition(view, field.tailSlot, field.tailSequence, field.tailChain, superblock.tail);
  putU64(view, field.durableMark, superblock.durableMark);
  putPosition(view, field.headSlot, field.headSequence, field.headChain, superblock.head);
  const { floor, held, rewind, unlogged } = superblock.history;
  view.setUint32(field.historyFlags, held ? historyFlagHeld : 0, true);
  // One more than the floor, so that 0 says that nothing is known.
  putU64(view, field.historyFloor, floor === undefined ? 0 : floor + 1);
  view.setUint32(field.rewindEpoch, rewind.epoch, true);
  putU64(view, field.rewoundTo, rewind.to);
  putU64(view, field.unlogged, unlogged);
  putU64(view, field.createdMs, Math.floor(superblock.createdMs));
  putU64(view, field.closedMs, Math.floor(superblock.closedMs));
  putU64(view, field.backingBytes, superblock.backingBytes);
  view.setUint32(field.backingKind, backingKinds.indexOf(superblock.backing.kind), true);
  putU64(view, field.backingModifiedMs, Math.floor(superblock.backing.modifiedMs));
  const id = new TextEncoder().encode(superblock.backing.id).subarray(0, backingIdBytesMax);
  view.setUint32(field.backingIdLength, id.length, true);
  bytes.set(id, field.backingId);
  const samples = superblock.samples.slice(0, sampleCountMax);
  view.setUint32(field.sampleCount, samples.length, true);
  samples.forEach((sample, i) => {
    putU64(view, field.samples + i * 12, sample.block);
    view.setUint32(field.samples + i * 12 + 8, sample.crc, true);
  });
  view.setUint32(field.crc, crc32c(bytes.subarray(0, blockBytes)), true);
  if (superblock.previous) bytes.set(superblock.previous.bytes, superblockPreviousOffset);
  return bytes;
}

function putPosition(
  view: DataView,
  slot: number,
  sequence: number,
  chain: number,
  position: LogPosition,
): void {
  putU64(view, slot, position.slot);
  putU64(view, sequence, position.sequence);
  view.setUint32(chain, position.chain, true);
}

function getPosition(view: DataView, slot: number, sequence: number, chain: number): LogPosition {
  return {
    slot: getU64(view, slot),
    sequence: getU64(view, sequence),
    chain: view.getUint32(chain, true),
  };
}

/** Reads copy `copy` out of `bytes`, or says why it cannot be used. */
export function decodeSuperblock(bytes: Bytes, copy: number): Superblock | SuperblockProblem {
  const view = viewOf(bytes);
  if (!hasMagic(bytes, field.magic, superblockMagic)) {
    return { problem: "foreign", message: `superblock ${copy} does not begin with ${superblockMagic}` };
  }
  const stored = view.getUint32(field.crc, true);
  const computed = crcWithout(bytes.subarray(0, blockBytes), field.crc);
  if (stored !== computed || view.getUint32(field.copy, true) !== copy) {
    return {
      problem: "torn",
      message: `superblock ${copy} is damaged: its checksum is ${hex(stored)} and its content has ${
        hex(computed)
      }`,
    };
  }
  const version = view.getUint32(field.version, true);
  if (version !== formatVersion) {
    return {
      problem: "version",
      message:
        `superblock ${copy} has format version ${version}, and this nbdboost reads version ${formatVersion}`,
    };
  }
  const incompatible = [
    view.getUint32(field.incompatible, true),
    view.getUint32(field.incompatible + 4, true),
  ];
  if ((incompatible[0]! & ~featuresKnown) !== 0 || incompatible[1] !== 0) {
    return {
      problem: "feature",
      message: `superblock ${copy} needs features ${hex(incompatible[1]!)}${
        hex(incompatible[0]!).slice(2)
      }, which this nbdboost does not know`,
    };
  }
  const geometry = decodeGeometry(view);
  if (geometry === undefined) {
    return { problem: "geometry", message: `superblock ${copy} describes a layout that cannot be` };
  }
  return decodeFields(bytes, view, geometry);
}

function decodeFields(bytes: Bytes, view: DataView, geometry: Geometry): Superblock {
  const idLength = Math.min(view.getUint32(field.backingIdLength, true), backingIdBytesMax);
  const sampleCount = Math.min(view.getUint32(field.sampleCount, true), sampleCountMax);
  const samples: Sample[] = [];
  for (let i = 0; i < sampleCount; i++) {
    samples.push({
      block: getU64(view, field.samples + i * 12),
      crc: view.getUint32(field.samples + i * 12 + 8, true),
    });
  }
  const extension = new Uint8Array(blockBytes);
  extension.set(bytes.subarray(superblockPreviousOffset, superblockPreviousOffset + halfBytes), halfBytes);
  return {
    uuid: bytes.slice(field.uuid, field.uuid + 16),
    mirrored: (view.getUint32(field.incompatible, true) & featureMirrored) !== 0,
    generation: getU64(view, field.generation),
    clean: view.getUint32(field.state, true) === superblockState.clean,
    epoch: {
      number: view.getUint32(field.epoch, true),
      randomLow: view.getUint32(field.epochRandom, true),
      randomHigh: view.getUint32(field.epochRandom + 4, true),
      firstSequence: getU64(view, field.epochFirstSequence),
    },
    geometry,
    cacheBytes: getU64(view, field.cacheBytes),
    tail: getPosition(view, field.tailSlot, field.tailSequence, field.tailChain),
    durableMark: getU64(view, field.durableMark),
    head: getPosition(view, field.headSlot, field.headSequence, field.headChain),
    history: decodeHistory(view),
    createdMs: getU64(view, field.createdMs),
    closedMs: getU64(view, field.closedMs),
    backingBytes: getU64(view, field.backingBytes),
    backing: {
      kind: backingKinds[view.getUint32(field.backingKind, true)] ?? "file",
      id: new TextDecoder().decode(bytes.subarray(field.backingId, field.backingId + idLength)),
      modifiedMs: getU64(view, field.backingModifiedMs),
    },
    samples,
    previous: decodePrevious(extension),
  };
}

function decodeHistory(view: DataView): HistoryState {
  const floor = getU64(view, field.historyFloor) - 1;
  return {
    floor: floor >= 0 && Number.isSafeInteger(floor) ? floor : undefined,
    held: floor >= 0 && (view.getUint32(field.historyFlags, true) & historyFlagHeld) !== 0,
    rewind: { epoch: view.getUint32(field.rewindEpoch, true), to: getU64(view, field.rewoundTo) },
    unlogged: getU64(view, field.unlogged),
  };
}

function decodeGeometry(view: DataView): Geometry | undefined {
  const segmentBlocks = view.getUint32(field.segmentBlocks, true);
  const cacheBytes = getU64(view, field.cacheBytes);
  const powerOfTwo = segmentBlocks >= 4 && (segmentBlocks & (segmentBlocks - 1)) === 0;
  if (!powerOfTwo || segmentBlocks > segmentBlocksMax || !Number.isSafeInteger(cacheBytes)) return undefined;
  let geometry: Geometry;
  try {
    geometry = planGeometry(cacheBytes, segmentBlocks);
  } catch {
    return undefined;
  }
  const same = geometry.logOffset === getU64(view, field.logOffset) &&
    geometry.segmentCount === getU64(view, field.segmentCount) &&
    geometry.checkpointBytes === getU64(view, field.checkpointBytes);
  const slotsFit = getU64(view, field.tailSlot) < geometry.slotCount &&
    getU64(view, field.headSlot) < geometry.slotCount;
  return same && slotsFit ? geometry : undefined;
}

/** The copy that counts, or the sentence with which the device is refused. */
export function chooseSuperblock(
  copies: (Superblock | SuperblockProblem)[],
  name: string,
  deviceBytes: number,
): { superblock: Superblock; copy: number; problems: SuperblockProblem[] } {
  const problems = copies.filter((copy) => "problem" in copy);
  const [first, second] = copies;
  let copy = -1;
  if (first && !("problem" in first)) copy = 0;
  if (
    second && !("problem" in second) && (copy < 0 || second.generation > (first as Superblock).generation)
  ) copy = 1;
  for (const problem of problems) {
    if (problem.problem === "version" || problem.problem === "feature") {
      throw new RefusedError(
        `Cannot open ${name}: ${problem.message}; use the nbdboost that made it, or a newer one`,
      );
    }
  }
  if (copy < 0) {
    if (problems.every((problem) => problem.problem === "foreign")) {
      throw new RefusedError(
        `Cannot open ${name}: it is not an nbdboost cache (no superblock found); check the path, or make one with ` +
          `nbdboost format`,
      );
    }
    throw new RefusedError(
      `Cannot open ${name}: both superblocks are unusable (${
        problems.map((problem) => problem.message).join("; ")
      }); ` +
        `restore the device from a copy, nothing was changed`,
    );
  }
  const superblock = copies[copy] as Superblock;
  // The legs of a mirror may be larger than the cache; their marks know their sizes.
  const fits = superblock.mirrored
    ? superblock.cacheBytes <= deviceBytes
    : superblock.cacheBytes === deviceBytes;
  if (!fits) {
    throw new RefusedError(
      `Cannot open ${name}: it is ${deviceBytes} bytes (${formatSize(deviceBytes)}) and was formatted with ` +
        `${superblock.cacheBytes} bytes (${formatSize(superblock.cacheBytes)}); restore its size`,
    );
  }
  return { superblock, copy, problems };
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}

/** The usual text of a uuid. */
export function formatUuid(uuid: Uint8Array): string {
  const text = uuid.toHex();
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join(
    "-",
  );
}
