/**
 * Whether a request may be executed, and if not, with which error it is answered: the protocol's error table as code.
 *
 * @module
 */

import {
  command,
  commandFlag,
  payloadAcceptedBytesMax,
  payloadAdvertisedBytesMax,
  wireError,
} from "./constants.ts";
import type { Agreement } from "./negotiation.ts";

/** The checks of one connection, with everything that was negotiated folded in. */
export class RequestCheck {
  /** Set when the server shuts down. */
  shuttingDown = false;
  readonly #sizeBytes: number;
  readonly #readOnly: boolean;
  readonly #structured: boolean;
  readonly #allocationSelected: boolean;
  /** The flags that each command may have, by its number. */
  readonly #flags: readonly number[];

  constructor({ served, structured, allocationSelected }: Agreement) {
    this.#sizeBytes = served.volume.sizeBytes;
    this.#readOnly = served.readOnly || served.volume.readOnly;
    this.#structured = structured;
    this.#allocationSelected = allocationSelected;
    const { fua, noHole, doNotFragment, requestOne, fastZero } = commandFlag;
    const flags: number[] = [];
    flags[command.read] = fua | (structured ? doNotFragment : 0);
    flags[command.write] = fua;
    flags[command.disconnect] = 0;
    flags[command.flush] = fua;
    flags[command.trim] = fua;
    flags[command.cache] = fua;
    flags[command.writeZeroes] = fua | noHole | fastZero;
    flags[command.blockStatus] = fua | requestOne;
    this.#flags = flags;
  }

  /** The error with which the request is answered, 0 when it may go on. `offset` may be beyond 2^53. */
  error(type: number, flags: number, offset: number, length: number): number {
    if (this.shuttingDown) return wireError.ESHUTDOWN;
    const allowed = this.#flags[type];
    if (allowed === undefined || (flags & ~allowed) !== 0) return wireError.EINVAL;
    const provisions = type === command.write || type === command.writeZeroes;
    if (this.#readOnly && (provisions || type === command.trim)) return wireError.EPERM;
    // Both fields are reserved in a FLUSH; refusing them keeps a ranged flush of some later protocol apart.
    if (type === command.flush) return offset === 0 && length === 0 ? wireError.none : wireError.EINVAL;
    // Written so that nothing can overflow.
    if (offset > this.#sizeBytes || length > this.#sizeBytes - offset) {
      return provisions ? wireError.ENOSPC : wireError.EINVAL;
    }
    if (type === command.read) return this.#readError(flags, length);
    if (type === command.blockStatus && (length === 0 || !this.#allocationSelected)) return wireError.EINVAL;
    return wireError.none;
  }

  #readError(flags: number, length: number): number {
    const whole = (flags & commandFlag.doNotFragment) !== 0;
    if (length <= (whole ? payloadAdvertisedBytesMax : payloadAcceptedBytesMax)) return wireError.none;
    return this.#structured ? wireError.EOVERFLOW : wireError.EINVAL;
  }
}
