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

/**
 * Wraps a test over `ringIo`: waits until the ring is closed again. That is done a moment after its last user has left, by a
 * thread that waits in the kernel, and Deno's leak sanitizer does not wait for it.
 */
export function untilRingCloses<Args extends unknown[]>(
  body: (...args: Args) => Promise<void>,
): (...args: Args) => Promise<void> {
  return async (...args) => {
    const before = ringDescriptors();
    await body(...args);
    for (let waits = 0; ringDescriptors() > before; waits++) {
      if (waits === ringClosePolls) throw new Error("the ring is still open although nothing uses it");
      await new Promise((resolve) => setTimeout(resolve, ringClosePollMs));
    }
  };
}

const ringClosePollMs = 5;
/** Half a minute: long enough for a machine that does much else. */
const ringClosePolls = 6000;
