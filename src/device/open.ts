/**
 * From what people type to a device: every way in which that can go wrong has a sentence of its own.
 *
 * Invariants: opening changes nothing on the device and waits for nobody; a device that is open for writing is held
 * by one opener alone, and one that is open for reading has no writer.
 *
 * @module
 */

import { type Clock, sleep, systemClock } from "../clock.ts";
import { DeviceError, NbdboostError, RefusedError, UsageError } from "../errors.ts";
import type { Io, IoFile, PathFacts } from "../io/io.ts";
import { portableIo } from "../io/portable.ts";
import { isNbdUri } from "../nbd/uri.ts";
import { roundUp, sectorBytes } from "../units.ts";
import type { BlockDevice } from "./block_device.ts";
import { busyTimeOf } from "./busy_time.ts";
import { errnoCode } from "./device_error.ts";
import { FileDevice } from "./file.ts";
import { blockIdentity, fileIdentity, isBlockReadOnly } from "./identity.ts";
import { openNbdDevice } from "./nbd_client/open.ts";

/**
 * What is in use may be free in a moment, so it is tried this often: udev locks a block device when somebody has closed it, and of
 * a process that was killed the kernel holds files and locks until it has taken its io_uring apart ...
 */
const inUseTriesMax = 20;
/** ... at this distance. */
const inUseRetryMs = 100;

/** What the other kinds are called in a message. */
const kindNames: Record<PathFacts["kind"], string> = {
  file: "a regular file",
  block: "a block device",
  directory: "a directory",
  character: "a character device",
  fifo: "a named pipe",
  socket: "a socket",
  other: "neither a file nor a block device",
};

/** Options of {@linkcode openDevice}. */
export interface OpenOptions {
  /**
   * Opens for writing, as a cache needs both of its devices, and keeps every other opener out. With false other readers are
   * welcome. True by default; opening by itself writes nothing.
   */
  write?: boolean;
  /** How bytes move; the portable backend by default. */
  io?: Io;
  /** Writes bypass the page cache, where the backend and the filesystem can do without: for the cache device. */
  direct?: boolean;
  /** Time for waits: between tries of a block device's lock, and for an NBD server. */
  clock?: Clock;
}

/**
 * Opens a regular file, a block device, or the export of an NBD server. The first two are locked against a second opener;
 * of a server nobody can say who else uses it. Changes nothing. The cache's functions take paths and URIs too, and then do
 * this by themselves.
 *
 * An NBD server that goes away later is waited for: requests fail only after 20 seconds without it (`?x-wait=SECONDS` in
 * the URI), and a sync fails if anything that was written since the last one may have been lost with the connection.
 *
 * @param target the path of an existing file or block device, whose size is a multiple of 512 bytes; symbolic links are
 * followed; or an NBD URI such as `nbd+unix:///disk?socket=/run/nbd.sock`
 * @throws {UsageError} when there is no such thing, or it cannot be used as a device, or has no such size
 * @throws {RefusedError} when it is in use, or permissions are missing
 * @throws {DeviceError} when the device, the filesystem or the server fails, or is read-only and `write` is asked for
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openDevice } from "../../mod.ts";
 * const directory = await Deno.makeTempDir();
 * await Deno.writeFile(`${directory}/disk`, new Uint8Array(1024 * 1024));
 * const device = await openDevice(`${directory}/disk`);
 * assert(device.sizeBytes === 1024 * 1024);
 * await device.close();
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function openDevice(target: string, options: OpenOptions = {}): Promise<BlockDevice> {
  const { write = true, io = portableIo, clock = systemClock } = options;
  if (isNbdUri(target)) return await openNbdDevice(target, { write, io, clock });
  const facts = await lookUp(target, io);
  if (write && facts.kind === "block" && await isBlockReadOnly(io, facts)) throw readOnlyDevice(target);
  let file: IoFile;
  try {
    file = await io.openFile(target, { write, direct: options.direct ?? false });
  } catch (cause) {
    throw openFailure("open", target, cause);
  }
  try {
    return await openLocked(target, file, write, io, clock);
  } catch (cause) {
    await file.close();
    throw cause instanceof NbdboostError ? cause : openFailure("open", target, cause);
  }
}

/** What is at a path that somebody gave, undefined for nothing. Throws one of our own errors for what can be no path. */
export async function lookUpPath(
  target: string,
  verb: "open" | "create",
  io: Io = portableIo,
): Promise<PathFacts | undefined> {
  if (target === "" || target.includes("\0")) {
    throw new UsageError(
      `Cannot ${verb} "${target}": expected the path of a regular file or a block device; give one`,
    );
  }
  try {
    return await io.stat(target);
  } catch (cause) {
    throw openFailure(verb, target, cause);
  }
}

async function lookUp(target: string, io: Io): Promise<PathFacts> {
  const facts = await lookUpPath(target, "open", io);
  if (!facts) {
    throw new UsageError(
      `Cannot open ${target}: there is no such file; check the path, which must lead to a regular file or a block device`,
    );
  }
  if (facts.kind !== "file" && facts.kind !== "block") {
    throw new UsageError(
      `Cannot open ${target}: it is ${
        kindNames[facts.kind]
      }; give the path of a regular file or a block device`,
    );
  }
  return facts;
}

async function openLocked(
  target: string,
  file: IoFile,
  write: boolean,
  io: Io,
  clock: Clock,
): Promise<BlockDevice> {
  const facts = await file.stat();
  const kind = facts.kind;
  if (kind !== "file" && kind !== "block") {
    throw new UsageError(`Cannot open ${target}: it became ${kindNames[kind]} just now; try again`);
  }
  if (write && !await file.claim()) {
    throw new RefusedError(
      `Cannot open ${target} for writing: the kernel says that it is in use (mounted, or part of another device, or ` +
        `opened by another process for itself alone); unmount or stop what uses it`,
    );
  }
  if (!await patiently(() => file.tryLock(write), clock)) {
    throw new RefusedError(
      `Cannot open ${target} for ${
        write ? "writing" : "reading"
      }: it is in use by another process, or by another ` +
        `opener in this one, which holds its lock; stop that first`,
    );
  }
  const sizeBytes = await file.size();
  checkSize(target, kind, sizeBytes);
  const realPath = await io.realPath(target);
  const id = kind === "file"
    ? await fileIdentity(realPath, facts)
    : await blockIdentity(io, realPath, facts, sizeBytes);
  const busyMs = kind === "block" ? await busyTimeOf(io, facts.deviceNumber) : undefined;
  return new FileDevice(file, { kind, name: target, sizeBytes, readOnly: !write, id, busyMs });
}

/** Tries until it succeeds, or for long enough. */
async function patiently(attempt: () => Promise<boolean>, clock: Clock): Promise<boolean> {
  for (let tries = 1; !await attempt(); tries++) {
    if (tries >= inUseTriesMax) return false;
    await sleep(clock, inUseRetryMs);
  }
  return true;
}

function checkSize(target: string, kind: "file" | "block", sizeBytes: number): void {
  if (sizeBytes === 0) {
    const advice = kind === "file"
      ? `give it one first, for example with: truncate -s 1G ${target}`
      : "check that a medium is there";
    throw new UsageError(`Cannot use ${target} as a device: its size is 0 bytes; ${advice}`);
  }
  if (sizeBytes % sectorBytes !== 0) {
    throw new UsageError(
      `Cannot use ${target} as a device: its size is ${sizeBytes} bytes, which is not a multiple of ${sectorBytes}; ` +
        `extend it, for example with: truncate -s ${roundUp(sizeBytes, sectorBytes)} ${target}`,
    );
  }
}

function readOnlyDevice(target: string, cause?: unknown): DeviceError {
  return new DeviceError(
    "EROFS",
    `Cannot open ${target} for writing: the device or its filesystem is read-only; make it writable or use another`,
    { cause },
  );
}

/** The error for a path that could not be looked up, opened or created. */
export function openFailure(verb: "open" | "create", target: string, cause: unknown): NbdboostError {
  if (cause instanceof NbdboostError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  if (cause instanceof Error && cause.name === "NotCapable") {
    return new RefusedError(
      `Cannot ${verb} ${target}: Deno does not permit it (${reason}); run with --allow-read and --allow-write of that ` +
        `path, or with --allow-all for what lies in /dev`,
      { cause },
    );
  }
  switch (errnoCode(cause)) {
    case "EROFS":
      return readOnlyDevice(target, cause);
    case "EACCES":
    case "EPERM":
      return new RefusedError(
        `Cannot ${verb} ${target}: permission denied; this user must be able to read it, and to write it where it is ` +
          `not opened read-only; change its owner or mode, or run as a user who may`,
        { cause },
      );
    case "ELOOP":
    case "ENAMETOOLONG":
    case "ENOTDIR":
      return new UsageError(`Cannot ${verb} ${target}: ${reason}; check the path`, { cause });
    case "ENXIO":
    case "ENODEV":
    case "ENOMEDIUM":
      return new DeviceError("ENODEV", `Cannot ${verb} ${target}: no such device behind it (${reason})`, {
        cause,
      });
    default:
      return new DeviceError("EIO", `Cannot ${verb} ${target}: ${reason}`, { cause });
  }
}
