/**
 * Makes the file that a cache lives in, with all of its storage, so that no later write can fail for lack of space.
 *
 * Invariants: what exists is never touched; what was made is removed again when it could not be finished.
 *
 * @module
 */

import { DeviceError, NbdboostError, RefusedError, UsageError } from "../errors.ts";
import type { Io, IoFile } from "../io/io.ts";
import { portableIo } from "../io/portable.ts";
import { sectorBytes } from "../units.ts";
import type { BlockDevice } from "./block_device.ts";
import { deviceError, errnoCode } from "./device_error.ts";
import { allocateWhole, FileDevice, type Progress, writeZeroes } from "./file.ts";
import { openFailure } from "./open.ts";

/**
 * Makes the regular file `path` of `sizeBytes` zeroes with all of its storage, durably. It must not exist. Its owner
 * alone may read and write it.
 *
 * @param sizeBytes a multiple of 512, more than 0
 */
export async function createFile(
  path: string,
  sizeBytes: number,
  { onProgress, io = portableIo }: { onProgress?: Progress; io?: Io } = {},
): Promise<void> {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % sectorBytes !== 0) {
    throw new UsageError(
      `Cannot create ${path} with ${sizeBytes} bytes: expected a multiple of ${sectorBytes} above 0`,
    );
  }
  let file: IoFile;
  try {
    file = await io.openFile(path, { write: true, create: true });
  } catch (cause) {
    throw createFailure(path, cause);
  }
  try {
    try {
      const done = await allocateWhole(file, sizeBytes, onProgress);
      if (!done) await writeZeroes(file, 0, sizeBytes, onProgress);
      await file.sync();
      const size = await file.size();
      if (size !== sizeBytes) throw new Error(`it has ${size} bytes afterwards`);
    } finally {
      await file.close();
    }
    // Where directories cannot be synced, the name may be lost by a crash, and with it a cache that is empty yet.
    await io.syncName(path);
  } catch (cause) {
    // Should even this fail, the error that tells is the first one.
    await io.remove(path).catch(() => {});
    const failure = deviceError({ device: path, operation: "allocate", offset: 0, length: sizeBytes }, cause);
    if (!(failure instanceof DeviceError) || failure.code !== "ENOSPC") throw failure;
    throw new DeviceError(
      "ENOSPC",
      `Cannot create ${path} with ${sizeBytes} bytes: its filesystem has no room for it; make room or give less`,
      { cause },
    );
  }
}

/**
 * Gives an existing file all of its storage without changing its content, so that no later write can fail for lack
 * of space. True when that is so (always for devices other than files), false when the platform cannot.
 */
export function preallocate(device: BlockDevice, onProgress?: Progress): Promise<boolean> {
  return device instanceof FileDevice ? device.preallocate(onProgress) : Promise.resolve(true);
}

/** The error for a new file that could not be made. */
export function createFailure(path: string, cause: unknown): NbdboostError {
  if (errnoCode(cause) === "EEXIST" || (cause instanceof Error && cause.name === "AlreadyExists")) {
    return new RefusedError(`Cannot create ${path}: it exists already; use it as it is, or another path`, {
      cause,
    });
  }
  if (errnoCode(cause) === "ENOENT") {
    return new UsageError(
      `Cannot create ${path}: there is no such directory; make it first or use another path`,
      {
        cause,
      },
    );
  }
  return openFailure("create", path, cause);
}
