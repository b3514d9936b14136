/**
 * Waking a dedicated reactor from another thread: an eventfd that is on the ring. The number that is written is added up by
 * the kernel, so that no wake-up is lost and each tells how many there have been.
 *
 * @module
 */

import { assert } from "../../errors.ts";
import { eventCloseOnExec, eventNonBlocking, operation, pollIn, sqe } from "./abi.ts";
import { Libc } from "./libc.ts";
import type { Reactor } from "./reactor.ts";
import type { Completion } from "./ring.ts";

/** The receiving end. */
export class WakeUp implements Completion {
  /** For a {@linkcode Waker}, in any thread of this process. */
  readonly descriptor: number;
  readonly #reactor: Reactor;
  readonly #action: (count: number) => void;
  readonly #value = new BigUint64Array(1);
  readonly #bytes = new Uint8Array(this.#value.buffer);
  #count = 0;

  /** Calls `action` in the reactor's thread with the number of wake-ups so far; several may become one call. */
  constructor(reactor: Reactor, action: (count: number) => void) {
    this.#reactor = reactor;
    this.#action = action;
    this.descriptor = reactor.libc.call.eventfd(0, eventCloseOnExec | eventNonBlocking);
    assert(this.descriptor >= 0, "the process has a descriptor to spare");
    this.#arm();
  }

  #arm(): void {
    const at = this.#reactor.prepare(operation.pollAdd, this.descriptor, this, 0, null);
    this.#reactor.ring.sqes[at + sqe.flags] = pollIn;
  }

  /** The ring's part; not to be called. */
  completed(): void {
    const { call } = this.#reactor.libc;
    if (call.read(this.descriptor, this.#bytes, this.#bytes.length) === this.#bytes.length) {
      this.#count += Number(this.#value[0]);
      this.#reactor.settled();
      this.#action(this.#count);
    }
    this.#arm();
  }

  /** Closes the eventfd, just before the reactor is stopped; nobody may use its number any more. */
  close(): void {
    this.#reactor.libc.call.close(this.descriptor);
  }
}

const one = new Uint8Array(new BigUint64Array([1n]).buffer);

/** The sending end, for one thread. */
export class Waker {
  readonly #descriptor: number;
  readonly #libc: Libc;

  /** For the reactor whose {@linkcode WakeUp} has this descriptor. */
  constructor(descriptor: number) {
    // Kept open: loading it costs 2 ms each time, and memory that the runtime does not give back (measured).
    const libc = Libc.open();
    assert(typeof libc !== "string", "the C library was there for the ring");
    this.#descriptor = descriptor;
    this.#libc = libc;
  }

  /** Wakes the reactor up. */
  wake(): void {
    this.#libc.call.write(this.#descriptor, one, one.length);
  }

  /** Releases what it needs; it wakes nobody any more. */
  close(): void {
    this.#libc.close();
  }
}
