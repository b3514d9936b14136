/**
 * Sessions of clients that mean no good: a valid conversation, made of pieces, that is then mutated. Same seed, same bytes.
 *
 * @module
 */

import { SeededRandom } from "../../../src/random.ts";
import { clientFlags, contextData, infoData, Opt, optionBytes, pack, requestBytes } from "../wire.ts";

/** Values at which arithmetic goes wrong. */
const interesting = [
  0n,
  1n,
  3n,
  27n,
  28n,
  32n,
  511n,
  512n,
  4095n,
  4096n,
  65_535n,
  260n * 1024n,
  1n << 20n,
  (1n << 25n) - 1n,
  (1n << 25n) + 1n,
  (1n << 26n) + 1n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  (1n << 53n) - 1n,
  (1n << 53n) + 1n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 512n,
  (1n << 64n) - 1n,
] as const;

const contexts = ["base:allocation", "x-nbdboost:dirty", "x-nbdboost:cached", "qemu:x", "base:", "", ":"];

/** Mutations of one valid conversation. */
const mutationsPerConversation = 16;

/**
 * Hostile sessions by their seeds. Neighbouring seeds mutate the same valid conversation, as making one costs more than executing
 * it.
 */
export class HostileSessions {
  readonly #exportName: string;
  readonly #sizeBytes: number;
  #seed = -1;
  #valid: readonly Uint8Array[] = [];

  constructor(exportName: string, sizeBytes: number) {
    this.#exportName = exportName;
    this.#sizeBytes = sizeBytes;
  }

  /** The session of `seed`, mutated as `random` says. */
  of(seed: number, random: SeededRandom): Uint8Array<ArrayBuffer> {
    const of = Math.floor(seed / mutationsPerConversation);
    if (this.#seed !== of) {
      this.#seed = of;
      this.#valid = new SessionMaker(new SeededRandom(of), this.#exportName, this.#sizeBytes).valid();
    }
    return new SessionMaker(random, this.#exportName, this.#sizeBytes).hostile(this.#valid);
  }
}

/** Makes sessions. */
export class SessionMaker {
  readonly #random: SeededRandom;
  readonly #exportName: string;
  readonly #sizeBytes: number;

  constructor(random: SeededRandom, exportName: string, sizeBytes: number) {
    this.#random = random;
    this.#exportName = exportName;
    this.#sizeBytes = sizeBytes;
  }

  /** One valid session, in the pieces that a client would send. */
  valid(): Uint8Array[] {
    const random = this.#random;
    const name = this.#exportName;
    const pieces: Uint8Array[] = [clientFlags(random.below(4))];
    const extended = random.chance(0.4);
    for (let count = random.below(4); count > 0; count--) pieces.push(this.#option());
    if (random.chance(0.6)) pieces.push(optionBytes(extended ? Opt.EXTENDED_HEADERS : Opt.STRUCTURED_REPLY));
    if (random.chance(0.5)) {
      const queries = contexts.filter(() => random.chance(0.4));
      pieces.push(optionBytes(Opt.SET_META_CONTEXT, contextData(name, ...queries)));
    }
    const old = random.chance(0.1);
    pieces.push(old ? optionBytes(Opt.EXPORT_NAME, pack(name)) : optionBytes(Opt.GO, infoData(name, 3)));
    for (let count = random.below(12); count > 0; count--) pieces.push(this.#request(extended));
    if (random.chance(0.3)) pieces.push(requestBytes({ type: 2 }, extended));
    return pieces;
  }

  /** A valid session, by default one of its own, and what a hostile client makes of it. */
  hostile(valid: readonly Uint8Array[] = this.valid()): Uint8Array<ArrayBuffer> {
    const random = this.#random;
    const pieces = [...valid];
    for (let count = random.below(3); count > 0; count--) this.#shuffle(pieces);
    let bytes = pack(...pieces);
    for (let count = random.below(6); count > 0; count--) bytes = this.#mutate(bytes);
    return bytes;
  }

  #option(): Uint8Array {
    const random = this.#random;
    const code = random.chance(0.1) ? random.next() : random.below(13);
    switch (code) {
      case Opt.INFO:
        return optionBytes(code, infoData(this.#exportName, random.below(5), random.below(5)));
      case Opt.LIST_META_CONTEXT:
        return optionBytes(code, contextData(this.#exportName, contexts[random.below(contexts.length)]!));
      case Opt.EXPORT_NAME:
      case Opt.ABORT:
      case Opt.GO:
        return optionBytes(Opt.LIST);
      default:
        return optionBytes(code, random.chance(0.7) ? undefined : this.#noise(random.below(64)));
    }
  }

  #request(extended: boolean): Uint8Array {
    const random = this.#random;
    const type = random.chance(0.05) ? random.below(65_536) : random.below(9);
    const flags = random.chance(0.3) ? random.below(64) : 0;
    const cookie = BigInt(random.next());
    const within = random.chance(0.85);
    const length = within ? BigInt(random.below(random.chance(0.02) ? 300_000 : 9000)) : this.#interesting();
    const offset = within ? BigInt(random.below(this.#sizeBytes)) : this.#interesting();
    if (type !== 1) {
      return requestBytes({ type, flags, cookie, offset, length: clip(length, extended) }, extended);
    }
    const payload = this.#noise(random.below(random.chance(0.02) ? 300_000 : 3000));
    return requestBytes({ type, flags, cookie, offset, payload }, extended);
  }

  #interesting(): bigint {
    return interesting[this.#random.below(interesting.length)]!;
  }

  #noise(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += 997) bytes[at] = this.#random.next();
    return bytes;
  }

  #shuffle(pieces: Uint8Array[]): void {
    const random = this.#random;
    const at = random.below(pieces.length);
    const piece = pieces[at];
    if (piece === undefined) return;
    switch (random.below(4)) {
      case 0:
        pieces.splice(at, 1);
        break;
      case 1:
        pieces.splice(random.below(pieces.length), 0, piece);
        break;
      case 2:
        pieces[at] = piece.subarray(0, random.below(piece.length + 1));
        break;
      default:
        pieces.splice(at, 0, ...Array.from({ length: 1 + random.below(80) }, () => piece.subarray(0, 64)));
    }
  }

  #mutate(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    if (bytes.length === 0) return bytes;
    const random = this.#random;
    // Heads matter more than payloads.
    const at = random.chance(0.7) ? random.below(Math.min(bytes.length, 400)) : random.below(bytes.length);
    switch (random.below(6)) {
      case 0:
        bytes[at]! ^= 1 << random.below(8);
        return bytes;
      case 1:
        bytes[at] = random.next();
        return bytes;
      case 2: {
        const size = [1, 2, 4, 8][random.below(4)] as 1 | 2 | 4 | 8;
        const value = pack([size, this.#interesting() & ((1n << BigInt(8 * size)) - 1n)]);
        bytes.set(value.subarray(0, bytes.length - at), at);
        return bytes;
      }
      case 3:
        return bytes.slice(0, at);
      case 4:
        return pack(bytes.subarray(0, at), this.#noise(random.below(40)), bytes.subarray(at));
      default:
        return pack(bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + random.below(40))));
    }
  }
}

function clip(length: bigint, extended: boolean): bigint {
  return extended ? length : length & 0xffff_ffffn;
}
