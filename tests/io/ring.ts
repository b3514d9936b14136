/**
 * Whether the ring can be tested here; said aloud where it cannot.
 *
 * @module
 */

import { probeRing } from "../../src/io/ring/mod.ts";

const probe = probeRing();
/** True when tests of the ring must be skipped; in CI they run, and fail. */
export const skipRingTests: boolean = !probe.usable && Deno.env.get("CI") !== "true";
if (!probe.usable) console.warn(`SKIPPED: tests of the ring backend: ${probe.why}`);

/** Rings that this process has open; with `sockets`, those too (Deno has some of its own). */
export function ringDescriptors({ sockets = false } = {}): number {
  const pattern = sockets ? /io_uring|socket:/ : /io_uring/;
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (pattern.test(Deno.readLinkSync(`/proc/self/fd/${name}`))) count++;
    } catch {
      // Closed meanwhile, such as the one that lists them.
    }
  }
  return count;
}
