/**
 * A {@linkcode SimDisk} that also takes transfers that end in a call, every second one of those that it is offered: so each
 * world goes both ways.
 *
 * @module
 */

import type { EventDevice } from "../../src/device/block_device.ts";
import { DeviceError } from "../../src/errors.ts";
import type { SeededRandom } from "../../src/random.ts";
import { SimDisk } from "./sim_disk.ts";

type Transfer = Parameters<EventDevice["startRead"]>;

/** The disk that a machine has. */
export class EventDisk extends SimDisk implements EventDevice {
  readonly #random: SeededRandom;

  constructor(options: ConstructorParameters<typeof SimDisk>[0]) {
    super(options);
    this.#random = options.random;
  }

  startRead(...transfer: Transfer): boolean {
    return this.#start((offset, bytes) => this.read(offset, bytes), transfer);
  }

  startWrite(...transfer: Transfer): boolean {
    return this.#start((offset, bytes) => this.write(offset, bytes), transfer);
  }

  /** A failure is told by an errno, or by fewer bytes. */
  #start(
    begin: (offset: number, bytes: Uint8Array<ArrayBuffer>) => Promise<void>,
    [offset, memory, at, length, to, tag]: Transfer,
  ): boolean {
    if (this.#random.chance(0.5)) return false;
    const failed = () => to.transferred(this.#random.chance(0.5) ? -5 : this.#random.below(length), tag);
    begin(offset, memory.subarray(at, at + length)).then(() => to.transferred(length, tag), failed);
    return true;
  }

  failure(operation: "read" | "write", offset: number, length: number, result: number): DeviceError {
    return new DeviceError(
      "EIO",
      `Cannot ${operation} ${length} bytes at ${offset} of ${this.name}: ${result}`,
    );
  }
}
