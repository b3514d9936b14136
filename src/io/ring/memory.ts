/**
 * Where buffers are, as the kernel needs to know it, and page-aligned ones for O_DIRECT.
 *
 * Invariants: the address of a buffer never changes while it lives (V8 does not move what lies outside of its heap, and
 * wasm memory with a maximum does not move when it grows); what the kernel works on is referenced until it is done.
 *
 * @module
 */

/** What O_DIRECT is happy with everywhere. */
export const pageBytes = 4096;
/** Largest bounce buffer; a longer call is cut short, which its caller goes on from. */
export const bounceBytesMax = 1024 * 1024;
/** Bounce buffers of each size that are kept for the next call. */
const bouncesKeptMax = 8;

const addresses = new WeakMap<ArrayBuffer, number>();

/** The address of the first byte. Addresses have 47 bits, so a Number holds them. */
export function addressOf(bytes: Uint8Array<ArrayBuffer>): number {
  const { buffer } = bytes;
  const known = addresses.get(buffer);
  if (known !== undefined) return known + bytes.byteOffset;
  if (buffer.byteLength === 0) return 0;
  // Asking for `buffer` has moved a short array out of V8's heap, so this address stays.
  const address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(buffer))));
  addresses.set(buffer, address);
  return address + bytes.byteOffset;
}

/** A new buffer whose address is a multiple of {@linkcode pageBytes}. */
export function alignedBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length + pageBytes);
  const skip = (pageBytes - addressOf(bytes) % pageBytes) % pageBytes;
  return bytes.subarray(skip, skip + length);
}

/** Aligned buffers of powers of two, for calls whose own buffer is not aligned. */
export class BouncePool {
  readonly #kept = new Map<number, Uint8Array<ArrayBuffer>[]>();

  /** Takes a buffer of at least `length` bytes, at most {@linkcode bounceBytesMax}. */
  take(length: number): Uint8Array<ArrayBuffer> {
    const size = Math.max(pageBytes, 2 ** Math.ceil(Math.log2(length)));
    return this.#kept.get(size)?.pop() ?? alignedBytes(size);
  }

  /** Gives a buffer back. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    const kept = this.#kept.get(buffer.length);
    if (!kept) this.#kept.set(buffer.length, [buffer]);
    else if (kept.length < bouncesKeptMax) kept.push(buffer);
  }
}
