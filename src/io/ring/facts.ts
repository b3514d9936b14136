/**
 * What a descriptor leads to, by statx(2).
 *
 * @module
 */

import type { PathFacts } from "../io.ts";
import { statxConstant } from "./abi.ts";
import { errnoError } from "./errno.ts";
import { cString, type Libc } from "./libc.ts";

/** Byte offsets in `struct statx`. */
const field = {
  mask: 0,
  mode: 28,
  inode: 32,
  sizeBytes: 40,
  sectors: 48,
  modifiedSeconds: 112,
  modifiedNanoseconds: 120,
  deviceMajor: 128,
  deviceMinor: 132,
  filesystemMajor: 136,
  filesystemMinor: 140,
  directMemoryAlign: 152,
  directOffsetAlign: 156,
} as const;

const kinds: Record<number, PathFacts["kind"]> = {
  0o100000: "file",
  0o040000: "directory",
  0o060000: "block",
  0o020000: "character",
  0o010000: "fifo",
  0o140000: "socket",
};

/** What is asked of addresses, offsets and lengths when the page cache is bypassed. */
export interface DirectAlignment {
  memoryBytes: number;
  offsetBytes: number;
}

/** Tells what `descriptor` leads to, and what O_DIRECT wants, where the kernel says (6.1); null: it cannot be. */
export function descriptorFacts(
  libc: Libc,
  descriptor: number,
): { facts: PathFacts; direct: DirectAlignment | null | undefined } {
  const block = new Uint8Array(statxConstant.bytes);
  const { emptyPath, basicStats, directAlignment } = statxConstant;
  const wanted = basicStats | directAlignment;
  if (libc.call.statx(descriptor, cString(""), emptyPath, wanted, block) !== 0) {
    throw errnoError("statx", libc.errno());
  }
  const view = new DataView(block.buffer);
  const u32 = (at: number) => view.getUint32(at, true);
  const u64 = (at: number) => Number(view.getBigUint64(at, true));
  const kind = kinds[view.getUint16(field.mode, true) & 0o170000] ?? "other";
  const facts: PathFacts = {
    kind,
    sizeBytes: u64(field.sizeBytes),
    allocatedBytes: u64(field.sectors) * 512,
    filesystem: deviceNumber(u32(field.filesystemMajor), u32(field.filesystemMinor)),
    inode: u64(field.inode),
    deviceNumber: kind === "block" ? `${u32(field.deviceMajor)}:${u32(field.deviceMinor)}` : "",
    modifiedMs: Number(view.getBigInt64(field.modifiedSeconds, true)) * 1000 +
      Math.floor(u32(field.modifiedNanoseconds) / 1e6),
  };
  if ((u32(field.mask) & directAlignment) === 0) return { facts, direct: undefined };
  const [memoryBytes, offsetBytes] = [u32(field.directMemoryAlign), u32(field.directOffsetAlign)];
  return { facts, direct: memoryBytes === 0 || offsetBytes === 0 ? null : { memoryBytes, offsetBytes } };
}

/** The encoding of the C library: 32 bits of major and of minor number, interleaved. */
function deviceNumber(major: number, minor: number): number {
  const bits = (BigInt(major & 0xfffff000) << 32n) | (BigInt(major & 0xfff) << 8n) |
    (BigInt(minor & 0xffffff00) << 12n) | BigInt(minor & 0xff);
  return Number(bits);
}
