/**
 * What a device already holds, by the marks that filesystems, volume managers and caches leave, so that nothing is
 * overwritten by accident.
 *
 * @module
 */

import { mib } from "../units.ts";
import type { BlockDevice } from "./block_device.ts";

interface Mark {
  offset: number;
  /** Text, or bytes. */
  mark: string | number[];
  name: string;
}

/** Offsets and bytes as the formats' own documents give them. Order: the more specific first. */
const marks: Mark[] = [
  { offset: 0, mark: "NBDBOOST", name: "an nbdboost cache" },
  { offset: 65536, mark: "NBDBOOST", name: "an nbdboost cache" },
  { offset: 0, mark: [0x74, 0x73, 0x42, 0x57], name: "a dm-writeboost cache" },
  { offset: 0, mark: "QFI\xfb", name: "a qcow2 image" },
  { offset: 0, mark: "LUKS\xba\xbe", name: "a LUKS volume" },
  { offset: 0, mark: "XFSB", name: "an XFS filesystem" },
  { offset: 1080, mark: [0x53, 0xef], name: "an ext2/3/4 filesystem" },
  { offset: 65600, mark: "_BHRfS_M", name: "a btrfs filesystem" },
  { offset: 4086, mark: "SWAPSPACE2", name: "a swap area" },
  { offset: 512, mark: "LABELONE", name: "an LVM physical volume" },
  { offset: 4096, mark: [0xfc, 0x4e, 0x2b, 0xa9], name: "a member of a RAID array (md)" },
  { offset: 0, mark: [0xfc, 0x4e, 0x2b, 0xa9], name: "a member of a RAID array (md)" },
  {
    offset: 4096 + 24,
    mark: [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
    name: "a bcache device",
  },
  { offset: 3, mark: "NTFS    ", name: "an NTFS filesystem" },
  { offset: 3, mark: "EXFAT   ", name: "an exFAT filesystem" },
  { offset: 1024, mark: [0x10, 0x20, 0xf5, 0xf2], name: "an F2FS filesystem" },
  { offset: 32769, mark: "CD001", name: "an ISO 9660 image" },
  { offset: 512, mark: "EFI PART", name: "a GPT partition table" },
  { offset: 510, mark: [0x55, 0xaa], name: "a partition table or boot sector" },
];

/** How much of the start is looked at. */
export const signatureBytes = mib;

/**
 * Tells what `device` holds: the name of a known format, or "data" when its first MiB is not all zeroes; undefined when it
 * looks empty.
 */
export async function findSignature(device: BlockDevice): Promise<string | undefined> {
  const bytes = new Uint8Array(Math.min(signatureBytes, device.sizeBytes));
  await device.read(0, bytes);
  for (const { offset, mark, name } of marks) {
    const wanted = typeof mark === "string" ? Array.from(mark, (char) => char.charCodeAt(0)) : mark;
    if (offset + wanted.length <= bytes.length && wanted.every((byte, i) => bytes[offset + i] === byte)) {
      return name;
    }
  }
  return bytes.some((byte) => byte !== 0) ? "data of unknown kind in its first MiB" : undefined;
}
