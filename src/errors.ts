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

/**
 * The class that all errors of this library extend: `instanceof` it tells what the world did from a mistake of ours.
 *
 * The message is one sentence for people: what failed, the value, what was expected and what to do. It is no interface;
 * programs look at the class, and at {@linkcode DeviceError.code}.
 */
export class NbdboostError extends Error {
  /** The name of the class. */
  override name: string = "NbdboostError";
  /** The exit code with which the command line ends on this error. */
  readonly exitCode: number = exitCode.failed;
}

/** Something was asked for in a way that cannot be meant: a bad option, size, address or range. */
export class UsageError extends NbdboostError {
  /** The name of the class. */
  override name: string = "UsageError";
  /** 2: the call, or the command line, must be changed. */
  override readonly exitCode: number = exitCode.usage;
}

/** Refused for safety: wrong pair, foreign data, in use, a size that changed, would lose data. */
export class RefusedError extends NbdboostError {
  /** The name of the class. */
  override name: string = "RefusedError";
  /** 3: nothing was changed; the message says how to go on if it is meant. */
  override readonly exitCode: number = exitCode.refused;
}

/** Refused because somebody else has it just now: another try may succeed. */
export class InUseError extends RefusedError {
  /** The name of the class. */
  override name: string = "InUseError";
}

/** Stored data is damaged: a checksum does not match, a record is missing. */
export class DamageError extends NbdboostError {
  /** The name of the class. */
  override name: string = "DamageError";
  /** 4: something that was written is lost, or would be. */
  override readonly exitCode: number = exitCode.damage;
}

/**
 * The reasons for which a device, or the cache as a device, fails a request.
 *
 * - `EIO`: a device failed, or the bytes asked for are lost
 * - `ENOSPC`: no room on the device below
 * - `EINVAL`: the range leaves the device, or is not aligned as the device needs it
 * - `EROFS`: it was opened read-only
 * - `ETIMEDOUT`: a device did not answer in time
 * - `ENODEV`: there is no such device any more
 * - `ESHUTDOWN`: it is closed, or closing
 */
export type DeviceErrorCode = "EIO" | "ENOSPC" | "EINVAL" | "EROFS" | "ETIMEDOUT" | "ENODEV" | "ESHUTDOWN";

/** A read, write or sync failed. `code` is what a client gets to see. */
export class DeviceError extends NbdboostError {
  /** The name of the class. */
  override name: string = "DeviceError";
  /** What kind of failure it was, in the words of errno. */
  readonly code: DeviceErrorCode;
  /** The first byte that failed, where that is known. */
  readonly offset: number | undefined;
  /**
   * For devices of your own: what else a device rejects with is taken for a mistake.
   *
   * @param code what a client gets to see
   * @param message one sentence that names the device, the range and the reason
   * @param options `cause`: what the platform said; `offset`: the first byte that failed
   */
  constructor(code: DeviceErrorCode, message: string, options?: ErrorOptions & { offset?: number }) {
    super(message, options);
    this.code = code;
    this.offset = options?.offset;
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
