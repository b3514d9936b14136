/**
 * Responses that go on: progress, and events. Each is asked for its next text only when the last one was taken, and keeps
 * only what is newest meanwhile, so that a client that does not read costs no more than one that does.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import { sleep } from "../clock.ts";
import type { OnProgress } from "../host/served.ts";

/** Progress is told at most so often. */
const progressMs = 200;
/** Events: the status is told so often. */
const statusMs = 1000;
/** Messages that wait for a slow client of events; older ones go. */
const messagesMax = 100;

const encoder = new TextEncoder();

/** A stream of what `next` resolves to, until that is null. `leave` is called once, when it ends or nobody reads on. */
function textStream(next: () => Promise<string | null>, leave: () => void): ReadableStream<Uint8Array> {
  let left = false;
  const leaveOnce = () => {
    if (!left) leave();
    left = true;
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const text = await next();
      if (text === null) {
        leaveOnce();
        controller.close();
      } else controller.enqueue(encoder.encode(text));
    },
    cancel: leaveOnce,
  }, { highWaterMark: 0 });
}

/** Something that happens, to be waited for. */
class Bell {
  #ring: () => void = () => {};
  #rung = false;

  ring(): void {
    this.#rung = true;
    this.#ring();
  }

  async next(): Promise<void> {
    if (!this.#rung) await new Promise<void>((resolve) => this.#ring = resolve);
    this.#rung = false;
  }
}

/** Something long that was started: either it ended before it told of any progress, or it has lines to tell. */
export type Started<T> = { ended: true; result: T } | { ended: false; lines: ReadableStream<Uint8Array> };

/**
 * Starts `work`. Rejects when that fails before it told of any progress. Else its progress comes as JSON lines, the last of
 * which is what `result` or `failure` makes of its end. Nobody reading on does not stop it.
 */
export async function startLong<T>(
  clock: Clock,
  work: (onProgress: OnProgress) => Promise<T>,
  result: (value: T) => object,
  failure: (error: unknown) => object,
): Promise<Started<T>> {
  const bell = new Bell();
  let latest: object | undefined;
  let last: object | undefined;
  let begun = () => {};
  const beginning = new Promise<"begun">((resolve) => begun = () => resolve("begun"));
  const ended = work((done, total, phase) => {
    latest = { phase, done, total };
    begun();
    bell.ring();
  });
  ended.then((value) => last = result(value), (error) => last = failure(error)).finally(() => bell.ring());
  const first = await Promise.race([beginning, ended.then((value) => ({ value }))]);
  if (first !== "begun") return { ended: true, result: first.value };
  let toldMs = -Infinity;
  let over = false;
  const next = async (): Promise<string | null> => {
    if (over) return null;
    await bell.next();
    const waitMs = toldMs + progressMs - clock.monotonicMs();
    if (last === undefined && waitMs > 0) await sleep(clock, waitMs);
    toldMs = clock.monotonicMs();
    over = last !== undefined;
    return JSON.stringify(last ?? latest) + "\n";
  };
  return { ended: false, lines: textStream(next, () => {}) };
}

/** A message of the server's log. */
export interface Message {
  time: string;
  level: string;
  message: string;
}

interface Subscriber {
  bell: Bell;
  wantsMap: boolean;
  /** What is to be told next: the newest status, and the newest map. */
  latest: string | undefined;
  messages: Message[];
  closed: boolean;
}

/** Everybody who listens to events. The engine is asked once for all of them, and not at all for nobody. */
export class Events {
  readonly #clock: Clock;
  readonly #status: () => Promise<object>;
  readonly #map: () => Promise<object>;
  readonly #subscribers = new Set<Subscriber>();
  #polling = false;
  #cancel: () => void = () => {};

  constructor(clock: Clock, status: () => Promise<object>, map: () => Promise<object>) {
    this.#clock = clock;
    this.#status = status;
    this.#map = map;
  }

  /** Tells all of a message. */
  tell(message: Message): void {
    for (const subscriber of this.#subscribers) {
      subscriber.messages.push(message);
      if (subscriber.messages.length > messagesMax) subscriber.messages.shift();
      subscriber.bell.ring();
    }
  }

  /** A stream of server-sent events: `status` every second, with `map` if that is wanted, `message` as they come. */
  subscribe(wantsMap: boolean): ReadableStream<Uint8Array> {
    const subscriber: Subscriber = {
      bell: new Bell(),
      wantsMap,
      latest: undefined,
      messages: [],
      closed: false,
    };
    this.#subscribers.add(subscriber);
    if (!this.#polling) this.#poll();
    const next = async (): Promise<string | null> => {
      await subscriber.bell.next();
      if (subscriber.closed) return null;
      const texts = subscriber.messages.splice(0).map((one) => eventText("message", JSON.stringify(one)));
      if (subscriber.latest !== undefined) texts.unshift(subscriber.latest);
      subscriber.latest = undefined;
      return texts.join("");
    };
    return textStream(next, () => {
      this.#subscribers.delete(subscriber);
      if (this.#subscribers.size === 0) this.#cancel();
    });
  }

  /** Ends all streams. */
  close(): void {
    this.#cancel();
    for (const subscriber of this.#subscribers) {
      subscriber.closed = true;
      subscriber.bell.ring();
    }
  }

  /** The status and the map as events. Both are asked for at once, and the map only when somebody wants it. */
  async #look(): Promise<[string, string]> {
    const mapWanted = [...this.#subscribers].some(({ wantsMap }) => wantsMap);
    const [status, map] = await Promise.all([this.#status(), mapWanted ? this.#map() : undefined]);
    return [
      eventText("status", JSON.stringify(status)),
      map === undefined ? "" : eventText("map", JSON.stringify(map)),
    ];
  }

  #poll(): void {
    this.#polling = true;
    this.#cancel = () => {
      this.#polling = false;
      cancel();
    };
    let cancel = () => {};
    const again = () => {
      if (this.#polling) cancel = this.#clock.after(statusMs, ask);
    };
    const ask = () => {
      this.#look().then(
        ([status, map]) => {
          for (const subscriber of this.#subscribers) {
            subscriber.latest = subscriber.wantsMap ? status + map : status;
            subscriber.bell.ring();
          }
        },
        (error) =>
          this.tell({ ...failureMessage(error), time: new Date(this.#clock.wallMs()).toISOString() }),
      )
        .finally(again);
    };
    ask();
  }
}

function failureMessage(error: unknown): { level: string; message: string } {
  return { level: "error", message: error instanceof Error ? error.message : String(error) };
}

function eventText(event: string, data: string): string {
  return `event: ${event}\ndata: ${data}\n\n`;
}
