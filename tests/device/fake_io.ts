/**
 * The portable backend with faults: short counts, errors, and calls that the platform does not have.
 *
 * @module
 */

import type { Io, IoFile } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";

/** An `Io` whose files have the methods of `change` instead of their own. */
export function withFiles(change: (file: IoFile) => Partial<IoFile>): Io {
  return {
    ...portableIo,
    async openFile(path, options) {
      const file = await portableIo.openFile(path, options);
      const own: IoFile = {
        read: (offset, into) => file.read(offset, into),
        write: (offset, bytes) => file.write(offset, bytes),
        sync: () => file.sync(),
        stat: () => file.stat(),
        size: () => file.size(),
        tryLock: (exclusive) => file.tryLock(exclusive),
        claim: () => file.claim(),
        zeroFast: (offset, length, keepAllocated) => file.zeroFast(offset, length, keepAllocated),
        allocate: (offset, length) => file.allocate(offset, length),
        close: () => file.close(),
      };
      return { ...own, ...change(file) };
    },
  };
}

/** An `Io` without what only Linux can. */
export const plainIo: Io = withFiles(() => ({
  zeroFast: () => Promise.resolve(false),
  allocate: () => Promise.resolve(false),
}));

/** What the platform throws: an error with an errno name. */
export function platformError(code: string): Error {
  return Object.assign(new Error(`the platform says ${code}`), { code });
}
