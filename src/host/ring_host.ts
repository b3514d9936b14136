/**
 * Serves a cache from a thread of its own, which waits in the ring; the caller's thread stays free for signals, people
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
  type ManyOptions,
  type ManyStarted,
  type Request,
  revivedError,
  type Started,
  type ToMain,
  type ToWorker,
} from "./messages.ts";
import type { MirrorAction, OnProgress } from "./served.ts";

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

/** A cache that is served from its own thread. */
export class RingHost implements Started, AsyncDisposable {
  readonly recovery: Started["recovery"];
  readonly sizeBytes: number;
  readonly uris: string[];
  readonly #line: Line;
  #closed: Promise<void> | undefined;

  private constructor(line: Line, started: Started) {
    this.#line = line;
    this.recovery = started.recovery;
    this.sizeBytes = started.sizeBytes;
    this.uris = started.uris;
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

  /** What is going on. */
  status(): Promise<Answers["status"]> {
    return this.#line.ask({ ask: "status" });
  }

  /** See `ServedCache.map`. */
  map(): Promise<Answers["map"]> {
    return this.#line.ask({ ask: "map" });
  }

  /** See `ServedCache.tune`. */
  tune(settings: Partial<Tunables>): Promise<Answers["tune"]> {
    return this.#line.ask({ ask: "tune", settings });
  }

  /** See `ServedCache.mirror`. */
  mirror(action: MirrorAction, onProgress: OnProgress): Promise<Answers["mirror"]> {
    return this.#line.ask({ ask: "mirror", action }, onProgress);
  }

  /** See `ServedCache.drain`. */
  drain(onProgress: OnProgress): Promise<Answers["drain"]> {
    return this.#line.ask({ ask: "drain" }, onProgress);
  }

  /** See `ServedCache.history`. */
  history(limit: number): Promise<Answers["history"]> {
    return this.#line.ask({ ask: "history", limit });
  }

  /** See `ServedCache.hold`. */
  hold(release: boolean): Promise<Answers["hold"]> {
    return this.#line.ask({ ask: "hold", release });
  }

  /** See `ServedCache.detach`. */
  detach(verify: boolean, onProgress: OnProgress): Promise<Answers["detach"]> {
    return this.#line.ask({ ask: "detach", verify }, onProgress);
  }

  /** Closes the server, then the cache, then the thread. */
  close(): Promise<void> {
    return this.#closed ??= this.#line.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Opens and serves several caches from one thread of their own; as {@linkcode RingHost.start}. */
export async function startManyOnRing(
  options: ManyOptions,
  events: HostEvents = {},
): Promise<ManyStarted & { close(): Promise<void> }> {
  const line = await Line.open(events);
  try {
    const started = await line.ask({ ask: "startMany", options }, events.onProgress);
    return { ...started, close: () => line.close() };
  } catch (error) {
    await line.close();
    throw error;
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
