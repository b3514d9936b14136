/**
 * The legs of a mirrored cache device while it is used: giving one up, and taking another into service.
 *
 * Invariants: what a device holds is overwritten only where it is a leg of this very cache that is known to be stale, or
 * empty, or where that was forced; one copy at a time; a leg that was never written without the others needs no wiping, as
 * all that it holds of an epoch is what the others were given, and every other one is wiped before anything is copied to it.
 *
 * @module
 */

import { type Clock, sleep } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";
import { preallocate } from "../device/create.ts";
import { Leg, type LegStatus } from "../device/leg.ts";
import type { MirrorDevice } from "../device/mirror.ts";
import type { Range } from "../device/mirror_copy.ts";
import { findSignature } from "../device/signature.ts";
import { RefusedError, UsageError } from "../errors.ts";
import { type LegMark, newLegName, readLegMark } from "../log/leg_mark.ts";
import type { LogWriter } from "../log/writer.ts";
import type { RandomSource } from "../random.ts";
import { blockBytes, gib, mib } from "../units.ts";
import type { Core } from "./core.ts";

/** A server that was lost in the middle of a write may still carry it out, for about so long. */
const lateWritesMs = 1000;

/** The legs of a mirror, and how a copy comes along. */
export interface MirrorStatus {
  /** Both legs are in service. */
  whole: boolean;
  /** All legs, those that are not in service too. */
  legs: LegStatus[];
  /** The copy under way, null when there is none. */
  copy: { copiedBytes: number; totalBytes: number } | null;
  /** Blocks that one leg had wrongly and got again from the other, since it was opened. */
  mendedBlocks: number;
}

/** What a new leg may be told. */
export interface AttachOptions {
  /** Overwrites whatever the device holds. */
  force?: boolean;
  /** Progress: bytes done, and bytes in all. */
  onProgress?: (done: number, total: number) => void;
}

/** What a copy did. */
export interface AttachReport {
  /** The new leg. */
  path: string;
  /** Bytes that were copied to it. */
  copiedBytes: number;
}

/** The legs of an open cache. Got from `Cache.mirror`. */
export class Mirror {
  readonly #core: Core;
  readonly #device: MirrorDevice;
  readonly #uuid: Uint8Array<ArrayBuffer>;
  readonly #open: (target: string) => Promise<BlockDevice>;
  readonly #random: RandomSource;
  #attaching: Promise<unknown> | undefined;
  #stopping = false;

  /** @ignore */
  constructor(options: {
    core: Core;
    device: MirrorDevice;
    uuid: Uint8Array<ArrayBuffer>;
    open: (target: string) => Promise<BlockDevice>;
    random: RandomSource;
  }) {
    this.#core = options.core;
    this.#device = options.device;
    this.#uuid = options.uuid;
    this.#open = options.open;
    this.#random = options.random;
    const { writer } = options.core;
    if (writer) options.device.position = () => writer.durableSequence;
  }

  /** The legs as they are now. */
  status(): MirrorStatus {
    const { legs, copy, mendedBlocks } = this.#device.status();
    // Before the first byte is copied, the new leg is looked at and perhaps wiped.
    const begun = this.#attaching ? { copiedBytes: 0, totalBytes: 0 } : null;
    return { whole: this.#device.isWhole, legs, copy: copy ?? begun, mendedBlocks };
  }

  /**
   * Copies what counts to a leg that came back, or to a new one, while the cache is used, and takes it into service. It counts
   * from the moment at which this resolves; until then everything is on the other leg alone.
   *
   * @param target a path or URI, or a device of your own, which belongs to the cache from this call on
   * @throws {RefusedError} when both legs are in service, a copy is under way, the cache is read-only, or the device holds
   * something that is no stale leg of this cache
   * @throws {UsageError} when it is too small, or not there
   * @throws {DeviceError} when a device fails; the other leg goes on alone
   */
  attach(target: string | BlockDevice, options: AttachOptions = {}): Promise<AttachReport> {
    const refusal = this.#refusal();
    if (refusal) {
      if (typeof target !== "string") void target.close().catch(() => {});
      return Promise.reject(refusal);
    }
    const done = this.#attach(this.#core.writer!, target, options);
    this.#attaching = done.catch(() => {});
    return done.finally(() => this.#attaching = undefined);
  }

  #refusal(): RefusedError | undefined {
    const { writer, device } = this.#core;
    const why = !writer
      ? "it was opened read-only"
      : writer.failure
      ? "its log cannot be written any more"
      : this.#stopping
      ? "it is being closed"
      : this.#attaching
      ? "a copy is under way; wait for its end"
      : this.#device.isWhole
      ? "both legs are in service; give one up first, with nbdboost mirror --drop"
      : undefined;
    return why === undefined ? undefined : new RefusedError(`Cannot add a leg to ${device.name}: ${why}`);
  }

  async #attach(
    writer: LogWriter,
    target: string | BlockDevice,
    options: AttachOptions,
  ): Promise<AttachReport> {
    const { clock } = this.#core;
    // The same device may be just being let go.
    await this.#device.gone();
    const device = typeof target === "string" ? await this.#open(target) : target;
    let leg: Leg;
    try {
      await settleLateWrites(device, clock);
      leg = await this.#prepare(device, options);
    } catch (error) {
      await device.close().catch(() => {});
      throw error;
    }
    let copiedBytes = 0;
    await this.#device.attach(leg, () => this.#ranges(writer), (progress) => {
      copiedBytes = progress.copiedBytes;
      options.onProgress?.(progress.copiedBytes, progress.totalBytes);
    });
    this.#core.warn(`the mirror is whole again: ${device.name} has all that counts`);
    return { path: device.name, copiedBytes };
  }

  /** Makes sure that the device may be overwritten, and that nothing on it could be taken for the present. */
  async #prepare(device: BlockDevice, options: AttachOptions): Promise<Leg> {
    const { sizeBytes, name } = this.#device;
    if (device.sizeBytes < sizeBytes) {
      throw new UsageError(
        `Cannot use ${device.name} as a leg of ${name}: it has ${device.sizeBytes} bytes, and ${sizeBytes} are needed; name a ` +
          "larger device",
      );
    }
    const source = this.#device.sourceMark;
    const found = await readLegMark(device);
    const isOurs = found !== undefined && found.uuid.every((byte, i) => byte === this.#uuid[i]);
    if (isOurs && found.self === source.self) {
      throw new RefusedError(
        `Cannot use ${device.name} as the other leg of ${name}: it is a copy of the leg that is in service; overwrite its ` +
          "first MiB with zeroes if that may go",
      );
    }
    const isStale = isOurs && found.other === source.self && found.claim !== "alone";
    if (!isStale) {
      const signature = await findSignature(device);
      if (signature !== undefined && !options.force) {
        throw new RefusedError(
          `Cannot use ${device.name} as a leg of ${name}: it holds ${signature}; if that may be destroyed, add --force, else ` +
            "name another device",
        );
      }
      await this.#wipe(device);
    }
    const mark: LegMark = {
      uuid: this.#uuid,
      generation: isStale ? found.generation : 0,
      claim: "copying",
      self: isStale ? found.self : newLegName(this.#random),
      other: source.self,
      legBytes: device.sizeBytes,
      sinceSequence: 0,
      sinceMs: 0,
    };
    return new Leg(device, mark, "copying");
  }

  /** The first MiB goes first: without it the device is nothing. */
  async #wipe(device: BlockDevice): Promise<void> {
    const { sizeBytes } = this.#device;
    await preallocate(device);
    await device.write(0, new Uint8Array(mib));
    await device.sync();
    for (let offset = mib; offset < sizeBytes && !this.#stopping; offset += gib) {
      await device.zero(offset, Math.min(gib, sizeBytes - offset), { keepAllocated: true });
    }
  }

  /** Superblocks, checkpoint, and the log from the tail that both durable superblocks have reached to the head. */
  #ranges(writer: LogWriter): Range[] {
    const { logOffset, segmentBlocks, segmentCount } = this.#core.geometry;
    const ranges = [{ offset: 0, length: logOffset }];
    const length = segmentBlocks * blockBytes;
    const count = segmentCount - writer.freeSegments;
    for (let i = 0; i < count; i++) {
      const segment = (writer.headSegment - i + segmentCount) % segmentCount;
      ranges.push({ offset: logOffset + segment * length, length });
    }
    return ranges;
  }

  /**
   * Gives up a leg that is in service or being copied to. Resolves when the other durably says that it is alone.
   *
   * @param path its name in the status
   * @throws {RefusedError} when there is no such leg, or it is the only one
   */
  async drop(path: string): Promise<void> {
    const { legs, whole } = this.status();
    const leg = legs.find((leg) => leg.path === path && leg.state !== "missing");
    if (leg === undefined || (leg.state === "in service" && !whole)) {
      const why = leg
        ? "it is the only one that is in service"
        : `the legs are ${
          legs.filter(({ state }) => state !== "missing").map(({ path }) => path).join(" and ")
        }`;
      throw new RefusedError(`Cannot give up the leg ${path}: ${why}`);
    }
    if (!this.#core.writer) {
      throw new RefusedError(`Cannot give up the leg ${path}: the cache was opened read-only`);
    }
    await this.#device.dropLeg(path);
  }

  /** Ends a copy under way; a part of `Cache.close`. @ignore */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#device.stopCopy();
    await this.#attaching;
  }
}

async function settleLateWrites(device: BlockDevice, clock: Clock): Promise<void> {
  if (device.away !== undefined) await sleep(clock, lateWritesMs);
}
