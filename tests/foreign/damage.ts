/**
 * What may happen to a cache device: named damages, each by a random draw, and what may be demanded afterwards.
 *
 * @module
 */

import { blockBytes } from "../../src/units.ts";
import {
  lengthMax,
  readHeader,
  segmentBytes,
  slotBytes,
  slotCountOf,
  slotOf,
  slotOffset,
  slotsOffset,
} from "../../src/foreign/dm_writeboost_layout.ts";
import type { SeededRandom } from "../../src/random.ts";

/** An image, and its damage. */
export interface Patient {
  image: Uint8Array<ArrayBuffer>;
  random: SeededRandom;
}

/** Where the damage was done, and what nobody can know about it. */
export interface Harm {
  image: Uint8Array<ArrayBuffer>;
  /** The segment that it hit; 0 for none. */
  id: number;
  /** The magic is gone. */
  unmarked?: boolean;
}

/** The used slots, with their ids. */
function used({ image }: Patient): { id: number; slot: number; at: number; length: number }[] {
  const list = [];
  for (let slot = 0; slot < slotCountOf(image.length); slot++) {
    const at = slotOffset(slot);
    const { id, length } = readHeader(image.subarray(at, at + blockBytes));
    if (id > 0) list.push({ id, slot, at, length: Math.min(length, lengthMax) });
  }
  return list;
}

function someSegment(patient: Patient) {
  const list = used(patient);
  return list[patient.random.below(list.length)] ?? { id: 0, slot: 0, at: slotOffset(0), length: 0 };
}

function hit(change: (patient: Patient, at: number, length: number, id: number) => void) {
  return (patient: Patient): Harm => {
    const { id, at, length } = someSegment(patient);
    change(patient, at, length, id);
    return { image: patient.image, id };
  };
}

const flip = ({ image, random }: Patient, at: number) => {
  image[at]! ^= 1 << random.below(8);
};

function setId(image: Uint8Array<ArrayBuffer>, at: number, id: bigint): void {
  new DataView(image.buffer, image.byteOffset).setBigUint64(at, id, true);
}

/** All damages, by name. */
export const damages: Record<string, (patient: Patient) => Harm> = {
  "bit flip in a header's sectors": hit((patient, at) => flip(patient, at + 512 + patient.random.below(128))),
  "bit flip in the data": hit((patient, at, length) =>
    flip(patient, at + (length === 0 ? 600 : blockBytes + patient.random.below(length * blockBytes)))
  ),
  "bit flip beside the fields": hit((patient, at) => flip(patient, at + 13 + patient.random.below(499))),
  "id zeroed": hit(({ image }, at) => setId(image, at, 0n)),
  "id out of range": hit(({ image }, at) => setId(image, at, 0xffff_ffff_ffff_fff0n)),
  "id of another slot": hit(({ image }, at, _length, id) => setId(image, at, BigInt(id) + 1n)),
  "length 200": hit(({ image }, at) => image[at + 12] = 200),
  "length changed": hit(({ image, random }, at, length) =>
    image[at + 12] = (length + 1 + random.below(120)) & 127
  ),
  "checksum zeroed": hit(({ image }, at) => image.fill(0, at + 8, at + 12)),
  "first sector zeroed": hit(({ image }, at) => image.fill(0, at, at + 512)),
  "header zeroed": hit(({ image }, at) => image.fill(0, at, at + blockBytes)),
  "header garbage": hit(({ image, random }, at) => random.fill(image.subarray(at, at + blockBytes))),
  "data zeroed": hit(({ image }, at, length) =>
    image.fill(0, at + segmentBytes(length) / 2 + 512, at + segmentBytes(length))
  ),
  "a slot's content in another slot": (patient) => {
    const { image } = patient;
    const from = someSegment(patient);
    const to = someSegment(patient);
    image.copyWithin(to.at, from.at, from.at + slotBytes);
    return { image, id: from.slot === to.slot ? 0 : to.id };
  },
  "mark of what is written back far ahead": ({ image, random }) => {
    setId(image, 0xffe00, 1000n + BigInt(random.below(100)));
    return { image, id: 0 };
  },
  "magic zeroed": ({ image }) => {
    image.fill(0, 0, 4);
    return { image, id: 0, unmarked: true };
  },
  "grown": ({ image, random }) => {
    const grown = new Uint8Array(image.length + slotBytes * (1 + random.below(3)) + 512 * random.below(3));
    grown.set(image);
    return { image: grown, id: 0 };
  },
};

/** Cuts slots off the end. Where the log has not lapped, nothing tells that they were there. */
export function truncate({ image, random }: Patient): Uint8Array<ArrayBuffer> {
  const count = slotCountOf(image.length);
  return image.slice(0, slotsOffset + slotBytes * random.below(count) + 512 * random.below(3));
}

/** The slot that the next segment goes to. */
export function nextSlotOf(newest: number, slotCount: number): number {
  return slotOf(newest + 1, slotCount);
}
