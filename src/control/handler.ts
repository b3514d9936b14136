/**
 * The control address as a function from request to response: no sockets, no operating system.
 *
 * ```text
 *   GET  /           the live page, which shows the rest to people
 *   GET  /healthz    one word: the state; 503 when nothing can be served
 *   GET  /status     the status as JSON
 *   GET  /metrics    the same, and histograms, for Prometheus
 *   GET  /map        what log and backing device look like, a byte a cell as base64; see CacheMap
 *   GET  /events     server-sent events: the status every second, with latencies of that second (`recent`), and
 *                    the map (with ?map=true); messages as they come
 *   GET  /tunables   the settings;  PATCH /tunables  changes those that its JSON object names
 *   POST /mirror     changes the legs of a mirror: {"attach": PATH or null, "force": false} or {"drop": PATH}; progress as JSON lines
 *   POST /drain      writes everything back; progress as JSON lines
 *   GET  /history    the newest flush points (?limit=N of them, 0 for all); as JSON lines, like a drain's
 *   POST /hold       holds history: nothing is written back;  POST /release  lets go of it
 *   POST /detach     the same, then reads it back (all of it with ?verify=true), and ends the server
 * ```
 *
 * An error is a JSON object `{"error": {"name", "message", "exitCode"}}`. The last line of a drain's progress has either
 * that or `{"result": …}`.
 *
 * @module
 */

import { pointsStandard } from "../cache/flush_points.ts";
import { parseTunable, type Tunables } from "../cache/tunables.ts";
import type { Clock } from "../clock.ts";
import { DamageError, exitCode, NbdboostError, RefusedError, UsageError } from "../errors.ts";
import type { EngineStatus, MirrorAction, OnProgress } from "../host/served.ts";
import { type Guard, refusalOf } from "./guard.ts";
import { mapDocument } from "./map.ts";
import { metricsText, metricsType } from "./metrics.ts";
import { pageHtml, pagePolicy } from "./page_html.ts";
import { RecentLatencies } from "./recent.ts";
import { type ServerStatus, serverStatus } from "./status.ts";
import { Events, type Message, startLong } from "./streams.ts";
import type { ControlTarget } from "./target.ts";

/** An engine that has not told its status for so long is said not to answer. */
const answerMsMax = 5000;
/** A map that is not older is told again, so that many viewers cost no more than one. */
const mapMsMax = 500;
/** Responses that go on, at once. */
const streamsMax = 16;

const lineType = "application/x-ndjson";
const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff" };

const pageHeaders = {
  ...headers,
  "content-type": "text/html; charset=utf-8",
  "content-security-policy": pagePolicy,
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
};

/** An error as the address tells it. */
export interface ToldError {
  name: string;
  message: string;
  exitCode: number;
}

function toldError(error: unknown): ToldError {
  if (error instanceof NbdboostError) {
    const { name, message, exitCode } = error;
    return { name, message, exitCode };
  }
  return {
    name: "Error",
    message: error instanceof Error ? error.message : String(error),
    exitCode: exitCode.failed,
  };
}

function json(status: number, body: object, more: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body) + "\n", {
    status,
    headers: { ...headers, "content-type": "application/json", ...more },
  });
}

function failed(status: number, name: string, message: string, more?: Record<string, string>): Response {
  const code = name === "RefusedError" ? exitCode.refused : status < 500 ? exitCode.usage : exitCode.failed;
  return json(status, { error: { name, message, exitCode: code } }, more);
}

function errorResponse(error: unknown): Response {
  const status = error instanceof UsageError
    ? 400
    : error instanceof RefusedError || error instanceof DamageError
    ? 409
    : 500;
  return json(status, { error: toldError(error) });
}

/** A setting's name as the command line spells it. */
function tunableName(key: string): string {
  return key.replace(/[A-Z]/g, (upper) => `_${upper.toLowerCase()}`);
}

function spelled(tunables: Tunables): Record<string, unknown> {
  return Object.fromEntries(Object.entries(tunables).map(([key, value]) => [tunableName(key), value]));
}

/** A parameter that is true or false, and false when it is not given. */
function isTrue(url: URL, name: string): boolean {
  const text = url.searchParams.get(name) ?? "false";
  if (text === "true" || text === "false") return text === "true";
  throw new UsageError(`The parameter ${name} is "${text}": expected true or false`);
}

function limitOf(url: URL): number {
  const text = url.searchParams.get("limit") ?? String(pointsStandard);
  const limit = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(limit)) {
    throw new UsageError(`The parameter limit is "${text}": expected a whole number, 0 for all`);
  }
  return limit;
}

/** What the body of a request asks for. */
async function mirrorAction(request: Request): Promise<MirrorAction> {
  const expected =
    'expected {"attach": PATH, or null for the missing leg, "force": true or false} or {"drop": PATH}';
  let wanted: { attach?: unknown; force?: unknown; drop?: unknown } | null;
  try {
    wanted = await request.json();
  } catch {
    throw new UsageError(`The body is not JSON: ${expected}`);
  }
  const { attach, force = false, drop } = wanted ?? {};
  if (typeof drop === "string" && attach === undefined) return { do: "drop", path: drop };
  if ((typeof attach === "string" || attach === null) && drop === undefined && typeof force === "boolean") {
    return { do: "attach", force, ...(attach === null ? {} : { path: attach }) };
  }
  throw new UsageError(`The body asks for nothing that is known: ${expected}`);
}

type Route = Readonly<Record<string, (request: Request, url: URL) => Promise<Response> | Response>>;

/** Answers requests about one engine. */
export class ControlHandler {
  readonly #target: ControlTarget;
  readonly #clock: Clock;
  readonly #guard: Guard;
  readonly #events: Events;
  #streams = 0;
  #map: Promise<object> | undefined;
  #mapAtMs = -Infinity;
  readonly #routes: Readonly<Record<string, Route>> = {
    "/": { GET: () => new Response(pageHtml, { headers: pageHeaders }) },
    "/healthz": { GET: () => this.#health() },
    "/status": { GET: async () => json(200, (await this.#status()).status) },
    "/metrics": { GET: () => this.#metrics() },
    "/map": { GET: async () => json(200, await this.#inTime(this.#recentMap())) },
    "/events": {
      GET: (_request, url) => this.#streamed("text/event-stream", this.#events.subscribe(isTrue(url, "map"))),
    },
    "/tunables": {
      GET: async () => json(200, spelled((await this.#status()).engine.tunables)),
      PATCH: (request) => this.#tune(request),
    },
    "/mirror": {
      POST: async (request) => {
        const action = await mirrorAction(request);
        return await this.#long((onProgress) => this.#target.mirror(action, onProgress));
      },
    },
    "/drain": { POST: () => this.#long((onProgress) => this.#target.drain(onProgress)) },
    "/history": { GET: (_request, url) => this.#long(() => this.#target.history(limitOf(url))) },
    "/hold": { POST: () => this.#long(() => this.#target.hold(false)) },
    "/release": { POST: () => this.#long(() => this.#target.hold(true)) },
    "/detach": {
      POST: (_request, url) => {
        const verify = isTrue(url, "verify");
        return this.#long((onProgress) => this.#target.detach(verify, onProgress));
      },
    },
  };

  constructor(target: ControlTarget, clock: Clock, guard: Guard = { hosts: undefined, token: undefined }) {
    this.#target = target;
    this.#clock = clock;
    this.#guard = guard;
    const recent = new RecentLatencies();
    this.#events = new Events(clock, async () => {
      const { engine, status } = await this.#status();
      return { ...status, recent: recent.since(engine.latencies, clock.monotonicMs()) };
    }, () => this.#inTime(this.#recentMap()));
  }

  /** Tells everybody who listens to events of a message. */
  tell(message: Message): void {
    this.#events.tell(message);
  }

  /** What GET would answer, without its content. */
  async #head(request: Request): Promise<Response> {
    const { body, status, headers } = await this.handle(new Request(request, { method: "GET" }));
    await body?.cancel();
    return new Response(null, { status, headers });
  }

  /** Ends the events. */
  close(): void {
    this.#events.close();
  }

  /** Answers `request`. Never rejects. */
  async handle(request: Request): Promise<Response> {
    if (request.method === "HEAD") return await this.#head(request);
    try {
      const refusal = refusalOf(request, this.#guard);
      if (refusal !== undefined) {
        const more: Record<string, string> = refusal.status === 401 ? { "www-authenticate": "Bearer" } : {};
        return failed(refusal.status, "RefusedError", refusal.message, more);
      }
      const url = new URL(request.url);
      const route = Object.hasOwn(this.#routes, url.pathname) ? this.#routes[url.pathname] : undefined;
      if (route === undefined) {
        const known = Object.keys(this.#routes).join(", ");
        return failed(404, "UsageError", `There is nothing at ${url.pathname}: expected one of ${known}`);
      }
      const action = Object.hasOwn(route, request.method) ? route[request.method] : undefined;
      if (action === undefined) {
        const allow = Object.keys(route).join(", ");
        return failed(
          405,
          "UsageError",
          `${url.pathname} does not take ${request.method}: expected ${allow}`,
          {
            allow,
          },
        );
      }
      return await action(request, url);
    } catch (error) {
      return errorResponse(error);
    }
  }

  async #status(): Promise<{ engine: EngineStatus; status: ServerStatus }> {
    const engine = await this.#inTime(this.#target.status());
    return { engine, status: serverStatus(engine, this.#target) };
  }

  #recentMap(): Promise<object> {
    const nowMs = this.#clock.monotonicMs();
    if (this.#map === undefined || nowMs - this.#mapAtMs >= mapMsMax) {
      this.#mapAtMs = nowMs;
      this.#map = this.#target.map().then(mapDocument);
    }
    return this.#map;
  }

  /** Rejects when the engine takes too long to answer. */
  async #inTime<T>(answer: Promise<T>): Promise<T> {
    let cancel = () => {};
    const late = new Promise<never>((_resolve, reject) => {
      cancel = this.#clock.after(answerMsMax, () => {
        reject(new NbdboostError(`The engine has not answered for ${answerMsMax / 1000} s: it may hang`));
      });
    });
    try {
      return await Promise.race([answer, late]);
    } finally {
      cancel();
    }
  }

  async #health(): Promise<Response> {
    let state = "unknown";
    try {
      ({ state } = (await this.#status()).status);
    } catch {
      // What went wrong is told at /status; here one word is asked for.
    }
    const well = state === "serving" || state === "read-only" || state === "degraded" || state === "draining";
    return new Response(state + "\n", {
      status: well ? 200 : 503,
      headers: { ...headers, "content-type": "text/plain; charset=utf-8" },
    });
  }

  async #metrics(): Promise<Response> {
    const { status, engine } = await this.#status();
    return new Response(metricsText(status, engine), {
      headers: { ...headers, "content-type": metricsType },
    });
  }

  async #tune(request: Request): Promise<Response> {
    let wanted: unknown;
    try {
      wanted = await request.json();
    } catch {
      throw new UsageError('The body is not JSON: expected an object such as {"writeback": "on"}');
    }
    if (typeof wanted !== "object" || wanted === null || Array.isArray(wanted)) {
      throw new UsageError('The body is not a JSON object: expected one such as {"writeback": "on"}');
    }
    // All are checked before one is changed.
    const settings: Partial<Tunables> = {};
    for (const [key, value] of Object.entries(wanted)) {
      if (typeof value !== "string" && typeof value !== "number") {
        throw new UsageError(
          `Cannot set "${key}" to ${JSON.stringify(value)}: expected a number or a string`,
        );
      }
      Object.assign(settings, parseTunable(`${tunableName(key)}=${value}`));
    }
    return json(200, spelled(await this.#target.tune(settings)));
  }

  async #long(work: (onProgress: OnProgress) => Promise<object>): Promise<Response> {
    const started = await startLong(
      this.#clock,
      work,
      (result) => ({ result }),
      (error) => ({ error: toldError(error) }),
    );
    if (!started.ended) return this.#streamed(lineType, started.lines);
    return json(200, { result: started.result }, { "content-type": lineType });
  }

  #streamed(type: string, body: ReadableStream<Uint8Array>): Response {
    if (this.#streams >= streamsMax) {
      body.cancel();
      const message =
        `${streamsMax} responses that go on are open, and no more are allowed: close one, or ask for /status`;
      return failed(503, "NbdboostError", message);
    }
    this.#streams++;
    let over = false;
    const leave = () => {
      if (!over) this.#streams--;
      over = true;
    };
    const reader = body.getReader();
    const counted = new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { value, done } = await reader.read();
        if (done) {
          leave();
          controller.close();
        } else controller.enqueue(value);
      },
      cancel(reason) {
        leave();
        return reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
    return new Response(counted, { headers: { ...headers, "content-type": type } });
  }
}
