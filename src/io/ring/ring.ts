/**
 * One io_uring: its queues mapped into this process, as views of 32-bit words.
 *
 * ```text
 *   prepare() ... prepare()   submissions are written into the queue, nothing happens yet
 *   enter(wait)               one system call hands all of them to the kernel and, if asked, waits for a completion
 *   reap()                    calls `completed` of each operation that is done
 * ```
 *
 * Invariants: an operation in flight has a slot, whose number is its user data; the slot holds on to the buffer that
 * the kernel works on; `completed` is called exactly once for each `prepare`; `reap` is not reentrant.
 *
 * @module
 */

import { assert } from "../../errors.ts";
import {
  cqeBytes,
  enterFlag,
  feature,
  mmapOffset,
  operation,
  params,
  setupFlag,
  sqe,
  sqeBytes,
  systemCall,
} from "./abi.ts";
import { errno, errnoName } from "./errno.ts";
import type { Libc } from "./libc.ts";

/** Submissions that one system call can take; more of them make it two. */
const submissionsMax = 512;
/** Completions that find room; beyond that the kernel keeps them aside, which is slower. */
const completionsMax = 4096;

const protReadWrite = 3;
const mapShared = 1;
const mapPopulate = 0x8000;
const twoTo32 = 0x1_0000_0000;

/** Is told of the end of an operation. */
export interface Completion {
  /** `result` is what the system call would return, or a negative errno; `tag` is what was given to `prepare`. */
  completed(result: number, tag: number): void;
}

/** io_uring could not be set up. */
export class RingError extends Error {
  override name = "RingError";
  /** What the kernel said. */
  readonly errno: number;
  constructor(call: string, number: number) {
    super(`${call} failed with ${errnoName(number)}`);
    this.errno = number;
  }
}

/** One io_uring. */
export class Ring {
  readonly #libc: Libc;
  readonly #descriptor: number;
  readonly #mappings: { pointer: Deno.PointerValue; bytes: number }[] = [];
  /** Words of the submission queue's control block, and where head and tail are in it. */
  #sq = new Int32Array(0);
  #cq = new Int32Array(0);
  readonly #sqHead: number;
  readonly #sqTail: number;
  readonly #sqMask: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  #tail = 0;
  /** The submissions, {@linkcode sqe.words} words each. */
  sqes: Int32Array<ArrayBuffer> = new Int32Array(0);

  readonly #completions: (Completion | null)[] = [];
  readonly #tags: number[] = [];
  readonly #held: (object | null)[] = [];
  /** Slots that are free: the first `#freeCount`. */
  #freeSlots = new Int32Array(1024);
  #freeCount = 0;
  /** Operations prepared or in flight. */
  inFlight = 0;
  /** System calls, and submissions that they carried, for statistics. */
  enters = 0;
  submissions = 0;

  /**
   * Sets up a ring. `dedicated` means that this thread alone submits and reaps, and reaps before it waits.
   *
   * @throws {RingError}
   */
  constructor(libc: Libc, { dedicated }: { dedicated: boolean }) {
    this.#libc = libc;
    const block = new Uint8Array(params.bytes);
    const view = new DataView(block.buffer);
    this.#descriptor = setUp(libc, block, view, dedicated);
    try {
      const field = (at: number) => view.getUint32(at, true);
      const features = field(params.features);
      if ((features & feature.noDrop) === 0) throw new RingError("io_uring_setup", errno.ENOSYS);
      const sqEntries = field(params.sqEntries);
      const sqBytes = field(params.sqArray) + sqEntries * 4;
      const cqRingBytes = field(params.cqCqes) + field(params.cqEntries) * cqeBytes;
      const single = (features & feature.singleMmap) !== 0;
      this.#sq = this.#map(single ? Math.max(sqBytes, cqRingBytes) : sqBytes, mmapOffset.sqRing);
      this.#cq = single ? this.#sq : this.#map(cqRingBytes, mmapOffset.cqRing);
      this.sqes = this.#map(sqEntries * sqeBytes, mmapOffset.sqes);
      this.#sqHead = field(params.sqHead) >>> 2;
      this.#sqTail = field(params.sqTail) >>> 2;
      this.#sqMask = this.#sq[field(params.sqMask) >>> 2]!;
      this.#cqHead = field(params.cqHead) >>> 2;
      this.#cqTail = field(params.cqTail) >>> 2;
      this.#cqMask = this.#cq[field(params.cqMask) >>> 2]!;
      this.#cqes = field(params.cqCqes) >>> 2;
      assert(this.#sqMask === sqEntries - 1, "the mask fits the number of entries");
      const array = field(params.sqArray) >>> 2;
      for (let i = 0; i < sqEntries; i++) this.#sq[array + i] = i;
      this.#tail = this.#sq[this.#sqTail]!;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The ring's own descriptor. */
  get descriptor(): number {
    return this.#descriptor;
  }

  // The hot path starts here.

  /** Submissions that the kernel has not taken yet. */
  get unsubmitted(): number {
    return (this.#tail - Atomics.load(this.#sq, this.#sqHead)) | 0;
  }

  /** Whether completions are there to be reaped. */
  get ready(): boolean {
    return Atomics.load(this.#cq, this.#cqTail) !== this.#cq[this.#cqHead];
  }

  /**
   * Begins a submission: all of its words are zero but operation, descriptor and user data. Returns the index of its
   * first word in {@linkcode sqes}, good until the next call. `held` is kept alive until `completed`.
   */
  prepare(
    code: number,
    descriptor: number,
    completion: Completion,
    tag: number,
    held: object | null,
  ): number {
    while (this.unsubmitted > this.#sqMask) this.enter(0);
    const slot = this.#freeCount > 0 ? this.#freeSlots[--this.#freeCount]! : this.#completions.length;
    this.#completions[slot] = completion;
    this.#tags[slot] = tag;
    this.#held[slot] = held;
    this.inFlight++;
    const at = (this.#tail & this.#sqMask) * sqe.words;
    const { sqes } = this;
    sqes[at] = code;
    sqes[at + sqe.descriptor] = descriptor;
    sqes[at + sqe.offsetLow] = 0;
    sqes[at + sqe.offsetHigh] = 0;
    sqes[at + sqe.addressLow] = 0;
    sqes[at + sqe.addressHigh] = 0;
    sqes[at + sqe.length] = 0;
    sqes[at + sqe.flags] = 0;
    sqes[at + sqe.userDataLow] = slot;
    sqes[at + sqe.userDataHigh] = 0;
    sqes[at + 10] = 0;
    sqes[at + 11] = 0;
    sqes[at + 12] = 0;
    sqes[at + 13] = 0;
    sqes[at + 14] = 0;
    sqes[at + 15] = 0;
    this.#tail = (this.#tail + 1) | 0;
    return at;
  }

  /** Writes an unsigned 64-bit field of a submission, whose low word is at `at`. */
  putWide(at: number, value: number): void {
    // The store itself keeps the low 32 bits.
    this.sqes[at] = value;
    this.sqes[at + 1] = Math.floor(value / twoTo32);
  }

  /** Hands all submissions to the kernel and waits for at least `wait` completions. Interruptions end it early. */
  enter(wait: number): void {
    // Here and not in `prepare`: the words behind the tail are the caller's to fill until now.
    Atomics.store(this.#sq, this.#sqTail, this.#tail);
    const count = this.unsubmitted;
    this.enters++;
    this.submissions += count;
    const { call } = this.#libc;
    const result = call.enter(
      systemCall.enter,
      this.#descriptor,
      count,
      wait,
      enterFlag.getEvents,
      null,
      0,
    );
    if (result < 0) this.#checkEntered(this.#libc.errno());
  }

  /** Calls `completed` of every operation that is done; returns how many there were. */
  reap(): number {
    const cq = this.#cq;
    const tail = Atomics.load(cq, this.#cqTail);
    let head = cq[this.#cqHead]!;
    let count = 0;
    while (head !== tail) {
      const at = this.#cqes + (head & this.#cqMask) * (cqeBytes / 4);
      const slot = cq[at]!;
      const result = cq[at + 2]!;
      head = (head + 1) | 0;
      Atomics.store(cq, this.#cqHead, head);
      count++;
      this.#complete(slot, result);
    }
    return count;
  }

  #complete(slot: number, result: number): void {
    const completion = this.#completions[slot]!;
    assert(completion !== null, "one completion per operation");
    this.#completions[slot] = null;
    this.#held[slot] = null;
    if (this.#freeCount === this.#freeSlots.length) this.#growFreeSlots();
    this.#freeSlots[this.#freeCount++] = slot;
    this.inFlight--;
    try {
      completion.completed(result, this.#tags[slot]!);
    } catch (error) {
      // A mistake of ours. The others must hear of their ends all the same, and somebody must hear of this.
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  // The hot path ends here.

  #growFreeSlots(): void {
    const larger = new Int32Array(this.#freeSlots.length * 2);
    larger.set(this.#freeSlots);
    this.#freeSlots = larger;
  }

  /** Waits on another thread, so that this one's event loop goes on, until there is a completion to reap. */
  async waitElsewhere(): Promise<void> {
    await this.#libc.call.enterElsewhere(
      systemCall.enter,
      this.#descriptor,
      0,
      1,
      enterFlag.getEvents,
      null,
      0,
    );
  }

  /** Unmaps and closes. The kernel cancels what is in flight; `completed` is not called any more. */
  close(): void {
    this.#sq = this.#cq = this.sqes = new Int32Array(0);
    for (const { pointer, bytes } of this.#mappings.splice(0)) {
      this.#libc.call.munmap(pointer, BigInt(bytes));
    }
    this.#libc.call.close(this.#descriptor);
  }

  #checkEntered(number: number): void {
    // Interrupted, or short of memory or of room for completions: the next turn tries again, after reaping.
    const passing = number === errno.EINTR || number === errno.EAGAIN || number === errno.EBUSY;
    assert(passing, `io_uring_enter failed with ${errnoName(number)}`);
  }

  #map(bytes: number, offset: number): Int32Array<ArrayBuffer> {
    const { call } = this.#libc;
    const flags = mapShared | mapPopulate;
    const pointer = call.mmap(null, BigInt(bytes), protReadWrite, flags, this.#descriptor, BigInt(offset));
    const failed = pointer === null || Deno.UnsafePointer.value(pointer) === 0xffff_ffff_ffff_ffffn;
    if (failed) throw new RingError("mmap of the ring", this.#libc.errno());
    this.#mappings.push({ pointer, bytes });
    return new Int32Array(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes));
  }
}

/** Asks for the best that this kernel has: each refusal (EINVAL) means an older one. */
function setUp(libc: Libc, block: Uint8Array<ArrayBuffer>, view: DataView, dedicated: boolean): number {
  const { cqSize, submitAll, coopTaskrun, singleIssuer, deferTaskrun } = setupFlag;
  const attempts = dedicated
    ? [submitAll | singleIssuer | deferTaskrun, submitAll | coopTaskrun, submitAll, 0]
    : [submitAll, 0];
  let refusal = 0;
  for (const flags of attempts) {
    block.fill(0);
    view.setUint32(params.cqEntries, completionsMax, true);
    view.setUint32(params.flags, flags | cqSize, true);
    const descriptor = libc.call.setup(systemCall.setup, submissionsMax, block);
    if (descriptor >= 0) return descriptor;
    refusal = libc.errno();
    if (refusal !== errno.EINVAL) break;
  }
  throw new RingError("io_uring_setup", refusal);
}

/** Prepares an operation that only comes back. */
export function prepareNop(ring: Ring, completion: Completion): void {
  ring.prepare(operation.nop, -1, completion, 0, null);
}
