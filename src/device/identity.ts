/**
 * By what a device is recognised again, as much as the platform tells.
 *
 * @module
 */

import type { Io, PathFacts } from "../io/io.ts";
import { backingIdBytesMax } from "../log/layout.ts";

/**
 * Where Linux says who a block device is, most telling first, below its directory in sysfs. None of it depends on the
 * order in which devices were found.
 */
const blockFacts = [
  ["wwid", "wwid"],
  ["device/wwid", "wwid"],
  ["serial", "serial"],
  ["device/serial", "serial"],
  ["dm/uuid", "dm"],
  ["md/uuid", "md"],
] as const;

/** A file is its path and its inode: a copy under the same name is another one. */
export function fileIdentity(realPath: string, facts: PathFacts): Promise<string> {
  return shorten(`${realPath}#${facts.inode}`);
}

/**
 * A block device is its serial or world-wide name, a loop device the file behind it; a partition its disk and number.
 * Where none of it is told, its path, number and size.
 */
export async function blockIdentity(
  io: Io,
  realPath: string,
  facts: PathFacts,
  sizeBytes: number,
): Promise<string> {
  const told = await sysfsIdentity(io, facts.deviceNumber);
  return await shorten(told ?? `path:${realPath} ${facts.deviceNumber} ${sizeBytes}`);
}

/** True when the kernel says that a block device cannot be written; such a device opens for writing all the same. */
export async function isBlockReadOnly(io: Io, facts: PathFacts): Promise<boolean> {
  return await read(io, `${sysfsOf(facts.deviceNumber)}/ro`) === "1";
}

/** Where Linux tells about a block device. */
export function sysfsOf(deviceNumber: string): string {
  return `/sys/dev/block/${deviceNumber}`;
}

async function sysfsIdentity(io: Io, deviceNumber: string): Promise<string | undefined> {
  let directory = sysfsOf(deviceNumber);
  const partition = await read(io, `${directory}/partition`);
  // A partition's directory lies in that of its disk.
  if (partition) directory = (await io.realPath(directory)).replace(/\/[^/]*$/, "");
  const suffix = partition ? ` partition ${partition}` : "";
  for (const [path, kind] of blockFacts) {
    const text = await read(io, `${directory}/${path}`);
    if (text) return `${kind}:${text}${suffix}`;
  }
  const behind = await read(io, `${directory}/loop/backing_file`);
  if (!behind) return undefined;
  return `loop:${behind}+${await read(io, `${directory}/loop/offset`) ?? 0}${suffix}`;
}

async function read(io: Io, path: string): Promise<string | undefined> {
  return (await io.readText(path))?.trim();
}

/** What the superblock has no room for is told by its SHA-256. */
export async function shorten(id: string): Promise<string> {
  const bytes = new TextEncoder().encode(id);
  if (bytes.length <= backingIdBytesMax) return id;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return `sha256:${Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
