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
  statusPayloadHeadBytes,
  wireError,
} from "./constants.ts";
import type { Agreement } from "./negotiation.ts";
import { replyForm } from "./replies.ts";

/** The checks of one connection, with everything that was negotiated folded in. */
export class RequestCheck {
  /** Set when the server shuts down. */
  shuttingDown = false;
  readonly #sizeBytes: number;
  readonly #readOnly: boolean;
  readonly #chunks: boolean;
  readonly #extended: boolean;
  readonly #contextCount: number;
  /** The flags that each command may have, by its number. */
  readonly #flags: readonly number[];

  constructor({ served, form, contexts }: Agreement) {
    this.#sizeBytes = served.volume.sizeBytes;
    this.#readOnly = served.readOnly || served.volume.readOnly;
    this.#chunks = form !== replyForm.simple;
    this.#extended = form === replyForm.extended;
    this.#contextCount = contexts.length;
    const { fua, noHole, doNotFragment, requestOne, fastZero } = commandFlag;
    const payloadLength = this.#extended ? commandFlag.payloadLength : 0;
    const flags: number[] = [];
    flags[command.read] = fua | (this.#chunks ? doNotFragment : 0);
    flags[command.write] = fua | payloadLength;
    flags[command.disconnect] = 0;
    flags[command.flush] = fua;
    flags[command.trim] = fua;
    flags[command.cache] = fua;
    flags[command.writeZeroes] = fua | noHole | fastZero;
    flags[command.blockStatus] = fua | requestOne | (contexts.length > 0 ? payloadLength : 0);
    this.#flags = flags;
  }

  /**
   * The error with which the request is answered, 0 when it may go on. `offset` and `length` may be beyond 2^53. For a
   * BLOCK_STATUS with a payload the length is the payload's, and its range is to be checked by {@linkcode rangeError}.
   */
  error(type: number, flags: number, offset: number, length: number): number {
    if (this.shuttingDown) return wireError.ESHUTDOWN;
    const allowed = this.#flags[type];
    if (allowed === undefined || (flags & ~allowed) !== 0) return wireError.EINVAL;
    const provisions = type === command.write || type === command.writeZeroes;
    const payload = (flags & commandFlag.payloadLength) !== 0;
    if (this.#extended && type === command.write && !payload && length > 0) return wireError.EINVAL;
    if (this.#readOnly && (provisions || type === command.trim)) return wireError.EPERM;
    // Both fields are reserved in a FLUSH; refusing them keeps a ranged flush of some later protocol apart.
    if (type === command.flush) return offset === 0 && length === 0 ? wireError.none : wireError.EINVAL;
    if (type === command.blockStatus) {
      if (this.#contextCount === 0) return wireError.EINVAL;
      if (payload) return this.#listError(length);
      if (length === 0) return wireError.EINVAL;
    }
    const error = this.rangeError(offset, length, provisions);
    if (error !== 0) return error;
    if (type === command.read) return this.#readError(flags, length);
    return wireError.none;
  }

  /** The error for a range that leaves the volume. */
  rangeError(offset: number, length: number, provisions = false): number {
    // Written so that nothing can overflow.
    if (offset <= this.#sizeBytes && length <= this.#sizeBytes - offset) return wireError.none;
    return provisions ? wireError.ENOSPC : wireError.EINVAL;
  }

  /** The error for a list of contexts of so many bytes; none may be named twice, so it cannot be long. */
  #listError(payloadBytes: number): number {
    const ids = (payloadBytes - statusPayloadHeadBytes) / 4;
    const possible = Number.isInteger(ids) && ids >= 1 && ids <= this.#contextCount;
    return possible ? wireError.none : wireError.EINVAL;
  }

  #readError(flags: number, length: number): number {
    const whole = (flags & commandFlag.doNotFragment) !== 0;
    if (length <= (whole ? payloadAdvertisedBytesMax : payloadAcceptedBytesMax)) return wireError.none;
    return this.#chunks ? wireError.EOVERFLOW : wireError.EINVAL;
  }
}
