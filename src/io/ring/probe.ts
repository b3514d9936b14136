/**
 * Whether the ring can be used here, and if not, why: asked once at start, and shown in status.
 *
 * @module
 */

import { operation, probeSupported, registerProbe, systemCall } from "./abi.ts";
import { errno, errnoName } from "./errno.ts";
import { Libc } from "./libc.ts";
import { prepareNop, Ring, RingError } from "./ring.ts";

/** What {@linkcode probeRing} found; `why` is half a sentence. */
export type RingProbe = { usable: true } | { usable: false; why: string };

/** Operations that the kernel is asked about. */
const operationsMax = 64;
const probeHeadBytes = 16;
const probeOperationBytes = 8;

/** Sets up a ring, asks which operations it has, and sends one that does nothing around. Leaves nothing behind. */
export function probeRing(): RingProbe {
  const libc = Libc.open();
  if (typeof libc === "string") return { usable: false, why: libc };
  try {
    const ring = new Ring(libc, { dedicated: false });
    try {
      const why = missingOperation(libc, ring) ?? roundTripFailure(ring);
      return why === undefined ? { usable: true } : { usable: false, why };
    } finally {
      ring.close();
    }
  } catch (error) {
    if (error instanceof RingError) return { usable: false, why: refusal(error) };
    throw error;
  } finally {
    libc.close();
  }
}

function missingOperation(libc: Libc, ring: Ring): string | undefined {
  const answer = new Uint8Array(probeHeadBytes + operationsMax * probeOperationBytes);
  const failed =
    libc.call.register(systemCall.register, ring.descriptor, registerProbe, answer, operationsMax) !== 0;
  if (failed) return `this kernel is older than Linux 5.6 (io_uring cannot say what it knows)`;
  const flags = new DataView(answer.buffer);
  for (const [name, code] of Object.entries(operation)) {
    const supported = flags.getUint16(probeHeadBytes + code * probeOperationBytes + 2, true) & probeSupported;
    if (!supported) return `this kernel's io_uring does not know "${name}"; Linux 5.6 or newer does`;
  }
  return undefined;
}

function roundTripFailure(ring: Ring): string | undefined {
  let result: number | undefined;
  prepareNop(ring, { completed: (value) => result = value });
  ring.enter(1);
  ring.reap();
  return result === 0
    ? undefined
    : `an operation that does nothing did not come back (${result ?? "no completion"})`;
}

function refusal(error: RingError): string {
  switch (error.errno) {
    case errno.EPERM:
    case errno.EACCES: {
      const value = sysctl();
      return value === undefined || value === "0"
        ? "the kernel forbids io_uring to this process (EPERM), as containers' seccomp profiles often do"
        : `io_uring is switched off: kernel.io_uring_disabled is ${value}`;
    }
    case errno.ENOSYS:
      return "there is no io_uring here (ENOSYS): a kernel without it, or a seccomp profile that hides it";
    case errno.ENOMEM:
      return "the kernel has no memory for a ring (ENOMEM); on Linux before 5.12 raise the limit of locked memory (ulimit -l)";
    default:
      return `${error.message}, errno ${errnoName(error.errno)}`;
  }
}

function sysctl(): string | undefined {
  try {
    return Deno.readTextFileSync("/proc/sys/kernel/io_uring_disabled").trim();
  } catch {
    return undefined;
  }
}
