/**
 * What the parts of a running cache share.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";
import { DeviceError } from "../errors.ts";
import type { Geometry } from "../log/geometry.ts";
import type { Segments } from "../log/segments.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import type { Kernels } from "../wasm/kernels.ts";
import type { Bypassed } from "./bypass.ts";
import type { CleanCopies } from "./clean_copies.ts";
import type { Foreground } from "./foreground.ts";
import type { History } from "./history.ts";
import type { RangeLocks } from "./locks.ts";
import type { Statistics } from "./statistics.ts";
import type { Tunables } from "./tunables.ts";
import type { Versions } from "./versions.ts";

/** Takes a sentence for the operator; `error` when clients get errors or data is lost because of it. */
export type Warn = (message: string, level?: "error") => void;

/** Devices, maps and settings of one open cache. */
export interface Core {
  readonly device: BlockDevice;
  readonly backing: BlockDevice;
  /** The clients' reads of the backing, which write-back gives way to. */
  readonly foreground: Foreground;
  readonly geometry: Geometry;
  readonly kernels: Kernels;
  readonly segments: Segments;
  readonly versions: Versions;
  /** Absent when the cache was opened read-only. */
  readonly writer: LogWriter | undefined;
  readonly locks: RangeLocks;
  /** What has gone past the log. */
  readonly bypassed: Bypassed;
  /** The read cache. */
  readonly copies: CleanCopies;
  readonly clock: Clock;
  readonly tunables: Tunables;
  readonly statistics: Statistics;
  /** What of the past can be had; whoever writes to the backing asks and tells it. */
  readonly history: History;
  /** Tells people of something that they must know; one sentence. */
  readonly warn: Warn;
  /** A dirty block's only copy cannot be read or verified any more. */
  readonly onRot: (block: number, slot: number, why: string) => void;
}

/** Bytes of the backing that `block` has; the last block may be short. */
export function blockLength(core: Core, block: number): number {
  return Math.min(blockBytes, core.backing.sizeBytes - block * blockBytes);
}

/** Rejects a range that is not inside the volume. */
export function checkRange(core: Core, offset: number, length: number): void {
  const size = core.backing.sizeBytes;
  if (Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= size) return;
  throw new DeviceError("EINVAL", `Cannot access ${length} bytes at ${offset}: the volume has ${size} bytes`);
}

/** The sectors of a block that bytes [from, to) touch. */
export function sectorsTouched(from: number, to: number): number {
  const first = from >>> 9;
  const last = (to + 511) >>> 9;
  return ((1 << last) - 1) & ~((1 << first) - 1);
}
