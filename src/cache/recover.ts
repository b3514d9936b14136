/**
 * `recover`: carries everything that a cache holds to its backing device, or to a copy of it, offline.
 *
 * Invariant: before anything is written, everything that would be needed has been verified; if something is missing,
 * nothing is written unless that loss was accepted.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { createFailure } from "../device/create.ts";
import { DamageError, DeviceError } from "../errors.ts";
import { portableIo } from "../io/portable.ts";
import type { IoFile } from "../io/io.ts";
import { blockBytes, mib } from "../units.ts";
import type { Cache } from "./cache.ts";
import { checkCache } from "./check.ts";
import { openCache } from "./open.ts";

/** How to recover. */
export interface RecoverOptions {
  /** The cache device: a path, or a device of your own. */
  cache: string | BlockDevice;
  /** The other leg of a mirrored cache device. */
  mirror?: string | BlockDevice;
  /** Goes on with one leg of a mirror alone, although the other may have what this one lacks. */
  acceptMissingMirror?: boolean;
  /** Its backing device. */
  backing: string | BlockDevice;
  /** Goes on although the backing device is another one, or changed since the cache was closed. */
  acceptChangedBacking?: boolean;
  /** Only says what would be done. */
  dryRun?: boolean;
  /** Goes on although something is damaged, without the damaged ranges. */
  acceptLoss?: boolean;
  /** Leaves the backing device alone and writes a full copy, brought up to date, to this new file. */
  output?: string;
  /** Gets one sentence for everything that people must know. */
  warn?: (message: string) => void;
  /**
   * Gets what is done and what is to be done in each step in turn: of `reading` segments, `verifying` records, `replaying`
   * segments, then `draining` blocks or `copying` bytes.
   */
  onProgress?: (done: number, total: number, phase: RecoverPhase) => void;
}

/** The steps of recovering. */
export type RecoverPhase = "reading" | "verifying" | "replaying" | "draining" | "copying";

/** What was done. */
export interface RecoverReport {
  /** What was written: the backing device, a copy, or nothing (`dryRun`). */
  wrote: "backing" | "copy" | "nothing";
  /** The path or name of the backing device, or of the copy. */
  target: string;
  /** Records of the log that counted. */
  records: number;
  /** Blocks (4096 bytes) that the backing device lacked. */
  dirtyBlocks: number;
  /** Blocks that read as zeroes, which the backing device did not know. */
  zeroBlocks: number;
  /** Records past the durable mark that were not whole: a torn end, which loses nothing that was flushed. */
  droppedRecords: number;
  /** Blocks of which no good version is left. */
  lostBlocks: number;
  /** Bytes of the volume that are lost; there the target keeps what the backing device held. */
  lostRanges: { offset: number; length: number }[];
}

/**
 * Carries everything that a cache holds to its backing device, which is complete by itself afterwards, or to a copy of it.
 * Everything that is needed is verified before anything is written.
 *
 * With `output` neither device is written to. Without, the cache is opened as by {@linkcode openCache}, drained and closed;
 * it is clean and empty then and can be used on. Unless `dryRun` is given, devices of your own are closed as well.
 *
 * @throws {DamageError} with nothing changed, when something is lost and `acceptLoss` was not given
 * @throws {RefusedError} when the two do not belong together, are in use, or are not what they were
 * @throws {UsageError} when there is no such file or device
 * @throws {DeviceError} when a device fails; what is not written back yet stays in the cache
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, openCache, recoverCache } from "../../mod.ts";
 * const directory = await Deno.makeTempDir();
 * const pair = { cache: `${directory}/cache.nbb`, backing: `${directory}/disk.img` };
 * await Deno.writeFile(pair.backing, new Uint8Array(1024 * 1024));
 * await formatCache({ ...pair, cacheSize: 8 * 1024 * 1024 });
 * const cache = await openCache({ ...pair, tunables: { writeback: "off" } });
 * await cache.write(4096, new Uint8Array(4096).fill(7));
 * await cache.close(); // in the cache only
 *
 * const { wrote, dirtyBlocks } = await recoverCache(pair);
 * assert(wrote === "backing" && dirtyBlocks === 1);
 * assert((await Deno.readFile(pair.backing))[4096] === 7);
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function recoverCache(options: RecoverOptions): Promise<RecoverReport> {
  const checked = await checkCache({
    cache: options.cache,
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
    backing: options.backing,
    acceptChangedBacking: options.acceptChangedBacking ?? false,
    ...(options.onProgress ? { onProgress: options.onProgress } : {}),
  });
  const losses = checked.problems.filter((problem) => problem.severity === "loss");
  const lost = losses.length > 0 || checked.lostBlocks > 0;
  if (lost && !options.acceptLoss && !options.dryRun) {
    throw new DamageError(
      `Cannot recover ${nameOf(options.cache)} without loss: ${
        losses[0]?.what ?? `${checked.lostBlocks} blocks are lost`
      }` +
        `${
          losses.length > 1 ? ` (and ${losses.length - 1} more)` : ""
        }; nothing was changed. See nbdboost check, and add ` +
        `--accept-loss to save the rest`,
    );
  }
  const report: RecoverReport = {
    wrote: "nothing",
    target: options.output ?? nameOf(options.backing),
    records: checked.records,
    dirtyBlocks: checked.dirtyBlocks,
    zeroBlocks: checked.zeroBlocks,
    droppedRecords: checked.droppedRecords,
    lostBlocks: checked.lostBlocks,
    lostRanges: losses.filter((loss) => loss.volumeOffset !== undefined).map((loss) => ({
      offset: loss.volumeOffset!,
      length: loss.volumeLength!,
    })),
  };
  if (options.dryRun) return report;
  if (options.output !== undefined) await recoverToCopy(options, options.output, report);
  else await recoverToBacking(options, report);
  return report;
}

function nameOf(target: string | BlockDevice): string {
  return typeof target === "string" ? target : target.name;
}

function openOptions(options: RecoverOptions) {
  return {
    cache: options.cache,
    ...(options.mirror === undefined ? {} : { mirror: options.mirror }),
    acceptMissingMirror: options.acceptMissingMirror ?? false,
    backing: options.backing,
    acceptChangedBacking: options.acceptChangedBacking ?? false,
    acceptUnreadable: options.acceptLoss ?? false,
    ...(options.warn ? { warn: options.warn } : {}),
    onProgress: (done: number, total: number) => options.onProgress?.(done, total, "replaying"),
  };
}

async function recoverToBacking(options: RecoverOptions, report: RecoverReport): Promise<void> {
  const cache = await openCache({ ...openOptions(options), acceptDamage: options.acceptLoss ?? false });
  try {
    // Whoever carries everything to the backing wants the present, not the past.
    await cache.history.release();
    const onProgress = (done: number, total: number) => options.onProgress?.(done, total, "draining");
    await cache.drain({ onProgress }).catch((error) => {
      if (!(error instanceof DamageError) || !options.acceptLoss) throw error;
    });
    noteLosses(cache, report);
    report.wrote = "backing";
  } finally {
    await cache.close();
  }
}

function noteLosses(cache: Cache, report: RecoverReport): void {
  report.lostRanges = [...cache.lostRanges()];
  report.lostBlocks = cache.status().cache.lostBlocks;
}

async function recoverToCopy(options: RecoverOptions, output: string, report: RecoverReport): Promise<void> {
  const cache = await openCache({ ...openOptions(options), readOnly: true });
  let copy: IoFile | undefined;
  try {
    copy = await portableIo.openFile(output, { write: true, create: true }).catch((cause) => {
      throw createFailure(output, cause);
    });
    await writeCopy(cache, options, copy);
    await copy.sync();
    noteLosses(cache, report);
    report.wrote = "copy";
  } catch (error) {
    // A copy that is not whole must not be taken for one.
    if (copy) await portableIo.remove(output).catch(() => {});
    throw error;
  } finally {
    await copy?.close();
    await cache.close();
  }
}

async function writeCopy(cache: Cache, options: RecoverOptions, copy: IoFile): Promise<void> {
  const bytes = new Uint8Array(mib);
  const total = cache.sizeBytes;
  for (let offset = 0; offset < total; offset += bytes.length) {
    const piece = bytes.subarray(0, Math.min(bytes.length, total - offset));
    await readAccepting(cache, options, offset, piece);
    const last = offset + piece.length === total;
    // All-zero pieces stay holes; the last one gives the file its size.
    if (last || piece.some((byte) => byte !== 0)) await writeAll(copy, offset, piece);
    options.onProgress?.(offset + piece.length, total, "copying");
  }
}

async function writeAll(copy: IoFile, offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  for (let done = 0; done < bytes.length;) done += await copy.write(offset + done, bytes.subarray(done));
}

/** Reads from the cache; with an accepted loss, a lost block comes from the backing, old as it is. */
async function readAccepting(
  cache: Cache,
  options: RecoverOptions,
  offset: number,
  into: Uint8Array<ArrayBuffer>,
): Promise<void> {
  try {
    return await cache.read(offset, into);
  } catch (error) {
    if (!options.acceptLoss || !(error instanceof DeviceError)) throw error;
    if (into.length > blockBytes) {
      for (let at = 0; at < into.length; at += blockBytes) {
        await readAccepting(cache, options, offset + at, into.subarray(at, at + blockBytes));
      }
      return;
    }
  }
  await cache.readBacking(offset, into);
}
