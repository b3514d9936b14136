/**
 * What the world can do to us (a device, a client, a user), as typed errors. Mistakes of our own are
 * {@linkcode assert}ions, which stay on in production.
 *
 * Each message is one sentence that names the thing, its value, what was expected and what to do.
 *
 * @module
 */

/** The exit codes of the command line; every typed error knows its own. */
export const exitCode = { done: 0, failed: 1, usage: 2, refused: 3, damage: 4 } as const;

/** The class that all errors of this library extend. */
export class NbdboostError extends Error {
  override name = "NbdboostError";
  /** The exit code with which the command line ends on this error. */
  readonly exitCode: number = exitCode.failed;
}

/** Something was asked for in a way that cannot be meant: a bad option, size, address or range. */
export class UsageError extends NbdboostError {
  override name = "UsageError";
  override readonly exitCode = exitCode.usage;
}

/** Refused for safety: wrong pair, foreign data, in use, a size that changed, would lose data. */
export class RefusedError extends NbdboostError {
  override name = "RefusedError";
  override readonly exitCode = exitCode.refused;
}

/** Stored data is damaged: a checksum does not match, a record is missing. */
export class DamageError extends NbdboostError {
  override name = "DamageError";
  override readonly exitCode = exitCode.damage;
}

/** The reasons for which a device, or the cache as a device, fails a request. */
export type DeviceErrorCode = "EIO" | "ENOSPC" | "EINVAL" | "EROFS" | "ETIMEDOUT" | "ENODEV" | "ESHUTDOWN";

/** A read, write or sync failed. `code` is what a client gets to see. */
export class DeviceError extends NbdboostError {
  override name = "DeviceError";
  /** What kind of failure it was, in the words of errno. */
  readonly code: DeviceErrorCode;
  constructor(code: DeviceErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A mistake of ours. Never thrown for what a device, a client or a user did. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Fails loudly when `condition`, which only a mistake of ours can break, does not hold. */
export function assert(condition: boolean, message = "assertion failed"): asserts condition {
  if (!condition) throw new AssertionError(message);
}
