/**
 * One of the devices that a mirror is made of.
 *
 * Invariants: syncs of a leg are one after the other, as of two at once the system may tell only one that data was lost; after
 * the first failure no sync of it succeeds any more; its device is closed only when nothing is under way in it.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import type { LegMark } from "../log/leg_mark.ts";
import { type BlockDevice, type EventDevice, startsTransfers } from "./block_device.ts";

/**
 * What a leg is good for: it counts; it is being copied to; its copy is complete, and is being made to count; it is out of
 * service for good, and let go.
 */
export type LegState = "in service" | "copying" | "joining" | "dropped";

/** What a leg is up to, for people. */
export interface LegStatus {
  /** Its path or URI. */
  path: string;
  /** Whether it counts; `copying` and `joining` do not count yet, `dropped` and `missing` do not any more. */
  state: "in service" | "copying" | "joining" | "dropped" | "missing";
  /** Why it is not in service; null while it is. */
  reason: string | null;
  /** Reads that failed and were answered by the other leg. */
  readErrors: number;
}

/** A leg that is not there. */
export interface MissingLeg {
  name: string;
  reason: string;
}

/** A device of a mirror, with its mark. */
export class Leg {
  readonly device: BlockDevice;
  /** The same, where it can move bytes without promises. */
  readonly events: EventDevice | null;
  /** As it was written last. */
  mark: LegMark;
  state: LegState;
  /** Why it was dropped, or why nothing can be relied on any more. */
  failure: DeviceError | undefined;
  /** Reads that failed, and were answered by the other leg. */
  readErrors = 0;
  #syncs: Promise<void> = Promise.resolve();
  #underWay = 0;
  #onIdle: () => void = () => {};
  #closed: Promise<void> | undefined;

  constructor(device: BlockDevice, mark: LegMark, state: LegState) {
    this.device = device;
    this.events = startsTransfers(device) ? device : null;
    this.mark = mark;
    this.state = state;
  }

  /** Its path or URI. */
  get name(): string {
    return this.device.name;
  }

  /** Whether something is under way in it. */
  get isBusy(): boolean {
    return this.#underWay > 0;
  }

  // ---- hot path ----

  /** Notes that a transfer begins. */
  begin(): void {
    this.#underWay++;
  }

  /** Notes that it has ended. */
  end(): void {
    if (--this.#underWay === 0) this.#onIdle();
  }
  // ---- end of the hot path ----

  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#call(() => this.device.read(offset, into));
  }

  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#call(() => this.device.write(offset, bytes));
  }

  async zero(offset: number, length: number, options: { keepAllocated: boolean }): Promise<void> {
    await this.#call(() => this.device.zero(offset, length, options));
  }

  sync(): Promise<void> {
    const done = this.#syncs.then(() =>
      this.#call(async () => {
        if (this.failure) throw this.failure;
        try {
          await this.device.sync();
        } catch (error) {
          this.fail(error);
          throw error;
        }
      })
    );
    this.#syncs = done.catch(() => {});
    return done;
  }

  /** Notes the first failure: nothing of it is durable from here on. */
  fail(error: unknown): void {
    this.failure ??= error instanceof DeviceError
      ? error
      : new DeviceError("EIO", error instanceof Error ? error.message : String(error), { cause: error });
  }

  async #call(action: () => Promise<void>): Promise<void> {
    if (this.#closed) throw new DeviceError("ESHUTDOWN", `Cannot use ${this.name}: it is closed`);
    this.begin();
    try {
      await action();
    } finally {
      this.end();
    }
  }

  /** Closes the device when nothing is under way in it any more. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    if (this.#underWay > 0) await new Promise<void>((resolve) => this.#onIdle = resolve);
    await this.device.close();
  }
}
