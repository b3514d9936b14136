/**
 * For how long the kernel has seen a block device busy: Linux counts it, by disk.
 *
 * @module
 */

import type { Io } from "../io/io.ts";
import { sysfsOf } from "./identity.ts";

/** Which number of `stat` says for how many milliseconds requests were under way (Documentation/block/stat.rst). */
const ticksField = 9;

/**
 * Returns what tells the milliseconds for which requests of anybody were under way on the disk of a block device, since it is
 * there. A partition shares them with its whole disk: who uses another partition keeps the same arm busy. Undefined where
 * nobody counts.
 */
export async function busyTimeOf(
  io: Io,
  deviceNumber: string,
): Promise<(() => Promise<number | undefined>) | undefined> {
  let directory = sysfsOf(deviceNumber);
  const isPartition = (await io.readText(`${directory}/partition`)) !== undefined;
  if (isPartition) directory = (await io.realPath(directory)).replace(/\/[^/]*$/, "");
  const look = async () => {
    const ticks = (await io.readText(`${directory}/stat`))?.trim().split(/\s+/)[ticksField];
    return ticks === undefined || !/^\d+$/.test(ticks) ? undefined : Number(ticks);
  };
  return (await look()) === undefined ? undefined : look;
}
