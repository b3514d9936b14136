/**
 * From what a volume throws to what may go on the wire, and the words that go with it. The words never name host
 * paths or devices: clients may be strangers, and the operator has the log.
 *
 * @module
 */

import { DeviceError, type DeviceErrorCode } from "../errors.ts";
import { wireError } from "./constants.ts";

const byDeviceCode: Record<DeviceErrorCode, number> = {
  EIO: wireError.EIO,
  ENOSPC: wireError.ENOSPC,
  EINVAL: wireError.EINVAL,
  EROFS: wireError.EPERM,
  ETIMEDOUT: wireError.EIO,
  ENODEV: wireError.EIO,
  ESHUTDOWN: wireError.ESHUTDOWN,
};

/** The wire error for what a volume threw; anything that is no `DeviceError` is EIO. */
export function toWireError(thrown: unknown): number {
  return thrown instanceof DeviceError ? byDeviceCode[thrown.code] : wireError.EIO;
}

const encoder = new TextEncoder();
const texts = new Map<number, Uint8Array>([
  [wireError.EPERM, encoder.encode("the export is read-only")],
  [wireError.EIO, encoder.encode("the device failed; the server's log says more")],
  [
    wireError.EINVAL,
    encoder.encode("unknown command or flag, feature not negotiated, or range past the end"),
  ],
  [wireError.ENOSPC, encoder.encode("past the end of the export, or no space left")],
  [wireError.EOVERFLOW, encoder.encode("the request is too long; ask for 32 MiB at most")],
  [wireError.ESHUTDOWN, encoder.encode("the server is shutting down; disconnect")],
]);
const noText = new Uint8Array(0);

/** What a structured error reply says about `error`, as UTF-8. */
export function wireErrorText(error: number): Uint8Array {
  return texts.get(error) ?? noText;
}
