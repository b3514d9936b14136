/**
 * Devices that keep everything more than once: reading what one copy has lost, or has wrongly, from another.
 *
 * @module
 */

import type { BlockDevice } from "./block_device.ts";

/** One whole copy of a device's content. */
export interface Copy {
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Writes what another copy had right. A failure is the device's own business. */
  mend(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** A device that keeps everything more than once, and may be asked for each copy. */
export interface RedundantDevice extends BlockDevice {
  /** The copies that count just now, the one that is read by itself first. */
  copies(): readonly Copy[];
}

/** Whether a device has more than one copy to ask. */
export function hasCopies(device: BlockDevice): device is RedundantDevice {
  return "copies" in device;
}

/** All copies of any device: of most there is one. */
export function copiesOf(device: BlockDevice): readonly Pick<Copy, "read">[] {
  return hasCopies(device) ? device.copies() : [device];
}

/**
 * Reads a row of pieces, of `pieceBytes` each, of which `isGood` can tell by a checksum whether they are right; what is not,
 * or cannot be read, comes from another copy that has it right, and is written again where it was wrong. What no copy has is
 * left for the caller to find.
 *
 * REQUIRES: nobody writes there meanwhile.
 *
 * @throws what the device throws when the row cannot be read at all
 */
export async function readChecked(
  device: BlockDevice,
  offset: number,
  into: Uint8Array<ArrayBuffer>,
  pieceBytes: number,
  isGood: (piece: number, bytes: Uint8Array<ArrayBuffer>) => boolean,
): Promise<void> {
  if (!hasCopies(device)) return await device.read(offset, into);
  const [first, ...others] = device.copies();
  let failure: { error: unknown } | undefined;
  try {
    await (first ?? device).read(offset, into);
  } catch (error) {
    failure = { error };
  }
  let isMissing = false;
  for (let piece = 0; piece * pieceBytes < into.length; piece++) {
    const at = piece * pieceBytes;
    const bytes = into.subarray(at, Math.min(at + pieceBytes, into.length));
    if (failure === undefined && isGood(piece, bytes)) continue;
    const mended = await readElsewhere(others, offset + at, bytes, (found) => isGood(piece, found));
    if (mended) await first?.mend(offset + at, bytes);
    else isMissing = true;
  }
  // Piece by piece the caller finds out which of them can be read.
  if (failure !== undefined && isMissing) throw failure.error;
}

/** Fills `bytes` from the first of `copies` that has them right; leaves them alone when none has. */
async function readElsewhere(
  copies: readonly Copy[],
  offset: number,
  bytes: Uint8Array<ArrayBuffer>,
  isGood: (bytes: Uint8Array<ArrayBuffer>) => boolean,
): Promise<boolean> {
  const found = new Uint8Array(bytes.length);
  for (const copy of copies) {
    try {
      await copy.read(offset, found);
    } catch {
      continue;
    }
    if (!isGood(found)) continue;
    bytes.set(found);
    return true;
  }
  return false;
}
