/**
 * From what a platform says to what a client may hear: every failed call of a device becomes a `DeviceError`.
 *
 * @module
 */

import { DeviceError, type DeviceErrorCode, NbdboostError } from "../errors.ts";

/** What was being done when it failed. */
export interface FailedCall {
  /** The device's name. */
  device: string;
  /** A verb. */
  operation: "read" | "write" | "sync" | "zero" | "allocate";
  /** Where it was to be done, when it has a range. */
  offset?: number;
  /** Bytes. */
  length?: number;
}

/** What each errno is for a client; anything else is EIO. */
const codes: Record<string, DeviceErrorCode> = {
  ENOSPC: "ENOSPC",
  EDQUOT: "ENOSPC",
  EFBIG: "ENOSPC",
  EROFS: "EROFS",
  // A block device that was made read-only while it was open.
  EPERM: "EROFS",
  EACCES: "EROFS",
  ENODEV: "ENODEV",
  ENXIO: "ENODEV",
  ENOMEDIUM: "ENODEV",
  ETIMEDOUT: "ETIMEDOUT",
};

/** The errno name that the platform gave, "" when it gave none. */
export function errnoCode(cause: unknown): string {
  const code = (cause as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

/** Makes a `DeviceError` of `cause`; one of our own errors passes unchanged. */
export function deviceError(call: FailedCall, cause: unknown): NbdboostError {
  if (cause instanceof NbdboostError) return cause;
  const { device, operation, offset, length } = call;
  const range = offset === undefined ? "" : ` ${length} bytes at offset ${offset} of`;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const code = codes[errnoCode(cause)] ?? "EIO";
  const advice = code === "ENOSPC"
    ? "make room where it lies"
    : "see the system log for what the device said";
  return new DeviceError(code, `Cannot ${operation}${range} ${device}: ${reason}; ${advice}`, { cause });
}
