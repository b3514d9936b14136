/**
 * Serves caches from a thread of their own, which waits in the ring; the caller's thread stays free for signals, people
 * and control.
 *
 * @module
 */

import type { Tunables } from "../cache/tunables.ts";
import { NbdboostError } from "../errors.ts";
import { Waker } from "../io/ring/wake_up.ts";
import {
  type Answers,
  type HostOptions,
  type Request,
  revivedError,
  type Started,
  type ToMain,
  type ToWorker,
} from "./messages.ts";
import type { MirrorAction, OnProgress, Served } from "./served.ts";

/**
 * Never called: an import that can be seen in the program makes `deno compile` include the thread's module, which the
 * string in `new Worker` does not.
 */
export const includedWorker = (): Promise<unknown> => import("./ring_worker.ts");

/** What the host is told while it runs. */
export interface HostEvents {
  /** Takes a sentence for the operator. */
  warn?: (message: string, level?: "error") => void;
  /** Progress of recovery: segments read, and segments in all. */
  onProgress?: (done: number, total: number) => void;
  /** The engine is gone through a mistake of ours; nothing is served any more. */
  onLost?: (error: Error) => void;
}

/** The engine's thread could not be started; nothing was opened. */
export class EngineThreadError extends NbdboostError {
  override name = "EngineThreadError";
}

interface Waiting {
  resolve: (answer: unknown) => void;
  reject: (error: Error) => void;
  onProgress: OnProgress | undefined;
}

/** One of the caches of a {@linkcode RingHost}. */
export class RingExport implements Served {
  readonly recovery: Started["exports"][number]["recovery"];
  readonly sizeBytes: number;
  readonly #line: Line;
  readonly #index: number;

  constructor(line: Line, index: number, { recovery, sizeBytes }: Started["exports"][number]) {
    this.#line = line;
    this.#index = index;
    this.recovery = recovery;
    this.sizeBytes = sizeBytes;
  }

  /** See `ServedCache`, as for the others. */
  status(): Promise<Answers["status"]> {
    return this.#line.ask({ ask: "status", index: this.#index });
  }

  map(): Promise<Answers["map"]> {
    return this.#line.ask({ ask: "map", index: this.#index });
  }

  tune(settings: Partial<Tunables>): Promise<Answers["tune"]> {
    return this.#line.ask({ ask: "tune", index: this.#index, settings });
  }

  mirror(action: MirrorAction, onProgress: OnProgress): Promise<Answers["mirror"]> {
    return this.#line.ask({ ask: "mirror", index: this.#index, action }, onProgress);
  }

  drain(onProgress: OnProgress): Promise<Answers["drain"]> {
    return this.#line.ask({ ask: "drain", index: this.#index }, onProgress);
  }

  history(limit: number): Promise<Answers["history"]> {
    return this.#line.ask({ ask: "history", index: this.#index, limit });
  }

  hold(release: boolean): Promise<Answers["hold"]> {
    return this.#line.ask({ ask: "hold", index: this.#index, release });
  }

  detach(verify: boolean, onProgress: OnProgress): Promise<Answers["detach"]> {
    return this.#line.ask({ ask: "detach", index: this.#index, verify }, onProgress);
  }
}

/** Caches that are served from a thread of their own. */
export class RingHost implements AsyncDisposable {
  /** In the order in which they were given. */
  readonly exports: readonly RingExport[];
  readonly uris: readonly string[];
  readonly #line: Line;
  #closed: Promise<void> | undefined;

  private constructor(line: Line, { exports, uris }: Started) {
    this.#line = line;
    this.exports = exports.map((started, index) => new RingExport(line, index, started));
    this.uris = uris;
  }

  /** Opens and serves; rejects as `openCache` and `serve` do. Ask `probeRing` first. */
  static async start(options: HostOptions, events: HostEvents = {}): Promise<RingHost> {
    const line = await Line.open(events);
    try {
      return new RingHost(line, await line.ask({ ask: "start", options }, events.onProgress));
    } catch (error) {
      await line.close();
      throw error;
    }
  }

  /** Closes the server, then the caches, then the thread. */
  close(): Promise<void> {
    return this.#closed ??= this.#line.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Questions and answers. */
class Line {
  readonly #worker: Worker;
  readonly #events: HostEvents;
  readonly #waiting = new Map<number, Waiting>();
  #isAwake = false;
  /** Undefined before it is awake, and again once it stops: then its descriptor may be another file's. */
  #waker: Waker | undefined;
  #number = 0;
  #lost: Error | undefined;
  #awake!: () => void;
  #failed!: (error: Error) => void;
  readonly #started = new Promise<void>((resolve, reject) => {
    this.#awake = resolve;
    this.#failed = reject;
  });

  #end!: () => void;
  readonly #ended = new Promise<void>((resolve) => this.#end = resolve);

  private constructor(events: HostEvents) {
    this.#events = events;
    this.#worker = new Worker(new URL("./ring_worker.ts", import.meta.url), { type: "module", name: "ring" });
    this.#worker.onmessage = ({ data }: MessageEvent<ToMain>) => this.#take(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#lose(new NbdboostError(`The engine's thread ended by a mistake of its own: ${event.message}`));
    };
  }

  static async open(events: HostEvents): Promise<Line> {
    const line = new Line(events);
    try {
      await line.#started;
    } catch (cause) {
      line.#worker.terminate();
      throw new EngineThreadError(cause instanceof Error ? cause.message : String(cause), { cause });
    }
    return line;
  }

  ask<R extends Request>(
    request: R,
    onProgress?: OnProgress,
  ): Promise<Answers[R["ask"]]> {
    return new Promise((resolve, reject) => {
      if (this.#lost) return reject(this.#lost);
      const number = ++this.#number;
      // Throws, and so rejects, when something in it is not plain data.
      this.#worker.postMessage({ ...request, number } satisfies ToWorker);
      this.#waiting.set(number, { resolve: resolve as (answer: unknown) => void, reject, onProgress });
      this.#waker?.wake();
    });
  }

  async close(): Promise<void> {
    try {
      if (!this.#lost) await this.ask({ ask: "stop" });
    } finally {
      const waker = this.#waker;
      this.#waker = undefined;
      // Not before its ring is closed, or that would stay open as long as this process.
      if (!this.#lost) await this.#ended;
      waker?.close();
      this.#worker.terminate();
    }
  }

  #take(message: ToMain): void {
    switch (message.tell) {
      case "awake":
        this.#waker = new Waker(message.descriptor);
        this.#isAwake = true;
        return this.#awake();
      case "warning":
        return this.#events.warn?.(message.message, message.level);
      case "ended":
        return this.#end();
      case "progress":
        return this.#waiting.get(message.number)?.onProgress?.(message.done, message.total, message.phase);
      case "answer":
        this.#waiting.get(message.number)?.resolve(message.answer);
        this.#waiting.delete(message.number);
        return;
      case "failure":
        this.#waiting.get(message.number)?.reject(revivedError(message.error));
        this.#waiting.delete(message.number);
        return;
    }
  }

  #lose(error: Error): void {
    this.#lost = error;
    // Before it was awake nothing is lost: then the start fails.
    if (!this.#isAwake) return this.#failed(error);
    this.#end();
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#events.onLost?.(error);
  }
}
