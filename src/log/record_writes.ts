/**
 * Log writes under way: from a sealed record in RAM to its end on the device, without a promise where the device can.
 *
 * Invariants: the RAM buffer of a record is kept while it is written; a failed or short write ends the log, nothing is
 * tried again (DESIGN.md 7).
 *
 * @module
 */

import { type BlockDevice, type EventDevice, startsTransfers } from "../device/block_device.ts";
import { assert } from "../errors.ts";
import type { TransferEnd } from "../io/io.ts";
import { Stack } from "../stack.ts";
import { blockBytes } from "../units.ts";
import type { Kernels } from "../wasm/kernels.ts";
import type { Durability, Inflight } from "./durability.ts";
import type { Geometry } from "./geometry.ts";
import type { RamSegments } from "./ram_segments.ts";

/** The log writes of one writer. */
export class RecordWrites implements TransferEnd {
  readonly #device: BlockDevice;
  readonly #events: EventDevice | null;
  readonly #kernels: Kernels;
  readonly #geometry: Geometry;
  readonly #durability: Durability;
  readonly #ram: RamSegments;
  /** By tag: the record that is written, its RAM buffer and its blocks. */
  readonly #records: (Inflight | null)[] = [];
  readonly #buffers: number[] = [];
  readonly #blocks: number[] = [];
  readonly #free = new Stack<number>();

  constructor(
    { device, kernels, geometry }: { device: BlockDevice; kernels: Kernels; geometry: Geometry },
    durability: Durability,
    ram: RamSegments,
  ) {
    this.#device = device;
    this.#events = startsTransfers(device) ? device : null;
    this.#kernels = kernels;
    this.#geometry = geometry;
    this.#durability = durability;
    this.#ram = ram;
  }

  // ---- hot path ----

  /** Writes the `blocks` blocks at `pointer`, which lie in the RAM of `segment`, to the place of `record`. */
  start(record: Inflight, segment: number, pointer: number, blocks: number): void {
    const buffer = this.#ram.beginWrite(segment);
    const tag = this.#free.pop() ?? this.#records.length;
    this.#records[tag] = record;
    this.#buffers[tag] = buffer;
    this.#blocks[tag] = blocks;
    const offset = this.#offset(record);
    const length = blocks * blockBytes;
    if (this.#events?.startWrite(offset, this.#kernels.bytes, pointer, length, this, tag)) return;
    this.#promise(offset, pointer, length, tag);
  }

  /** The device's part; not to be called. */
  transferred(result: number, tag: number): boolean {
    const record = this.#records[tag]!;
    const length = this.#blocks[tag]! * blockBytes;
    this.#end(tag);
    if (result === length) return this.#durability.complete(record);
    this.#durability.fail(this.#events!.failure("write", this.#offset(record), length, result));
    return true;
  }

  #offset(record: Inflight): number {
    return this.#geometry.logOffset + record.slot * blockBytes;
  }

  #end(tag: number): void {
    assert(this.#records[tag] !== null, "a log write ends once");
    this.#records[tag] = null;
    this.#free.push(tag);
    this.#ram.endWrite(this.#buffers[tag]!);
  }
  // ---- end of the hot path ----

  #promise(offset: number, pointer: number, length: number, tag: number): void {
    const record = this.#records[tag]!;
    this.#device.write(offset, this.#kernels.bytes.subarray(pointer, pointer + length)).then(() => {
      this.#end(tag);
      this.#durability.complete(record);
    }, (error) => {
      this.#end(tag);
      this.#durability.fail(error);
    });
  }
}
