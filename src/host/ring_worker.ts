/**
 * The engine's thread: caches and server over one ring. Started by `ring_host.ts` as a Worker, and good for
 * nothing else: it takes over its thread.
 *
 * @module
 */

import type { Cache } from "../cache/cache.ts";
import type { Warn } from "../cache/core.ts";
import { type EngineOptions, openCache } from "../cache/open.ts";
import { openDevice } from "../device/open.ts";
import type { Io } from "../io/io.ts";
import { openReactor, reactorIo } from "../io/ring/mod.ts";
import { WakeUp } from "../io/ring/wake_up.ts";
import {
  type ExportOptions,
  type ExportRequest,
  type HostOptions,
  plainError,
  type Started,
  type ToMain,
  type ToWorker,
} from "./messages.ts";
import type { OnProgress, ServedCache } from "./served.ts";
import { ServedCaches } from "./served_caches.ts";

/** The Worker's own end; the types of the main thread's global do not know it. */
interface Port {
  postMessage(message: ToMain): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  close(): void;
}
const port = globalThis as unknown as Port;

const reactor = openReactor({ dedicated: true });
const io: Io = reactorIo(reactor);
let served: ServedCaches | undefined;
let taken = 0;

// Messages come through Deno's event loop, which is visited until the one that the wake-up announced is here.
const wakeUp = new WakeUp(reactor, (count) => reactor.visitUntil(() => taken >= count));

const warn: Warn = (message, level) =>
  port.postMessage({ tell: "warning", message, ...(level === undefined ? {} : { level }) });

async function open(number: number, options: ExportOptions, warn: Warn): Promise<Cache> {
  const { clock } = reactor;
  const engine: EngineOptions = {
    ...pick(options, "cache", "mirror", "backing", "readOnly", "at", "tunables"),
    ...pick(options, "acceptMissingMirror", "resyncMirror"),
    ...pick(options, "acceptDamage", "acceptUnreadable", "acceptChangedBacking"),
    openTarget: (target, write, role) => openDevice(target, { write, io, clock, direct: role === "cache" }),
    clock,
    warn,
    onProgress: (done, total) => progressOf(number)(done, total, "recovering"),
  };
  return await openCache(engine);
}

async function start(number: number, options: HostOptions): Promise<Started> {
  const { clock } = reactor;
  served = await ServedCaches.open(options, {
    open: (each, warn) => open(number, each, warn),
    warn,
    io,
    clock,
  });
  return served.started();
}

function progressOf(number: number): OnProgress {
  return (done, total, phase) => port.postMessage({ tell: "progress", number, done, total, phase });
}

async function perform(message: ToWorker): Promise<unknown> {
  if (message.ask === "start") return await start(message.number, message.options);
  if (message.ask === "stop") return await served?.close();
  return await performOn(served!.all[message.index]!, message, progressOf(message.number));
}

async function performOn(
  one: ServedCache,
  message: ExportRequest,
  onProgress: OnProgress,
): Promise<unknown> {
  switch (message.ask) {
    case "status":
      return one.status();
    case "map":
      return one.map();
    case "tune":
      return one.tune(message.settings);
    case "mirror":
      return await one.mirror(message.action, onProgress);
    case "drain":
      return await one.drain(onProgress);
    case "history":
      return await one.history(message.limit);
    case "hold":
      return await one.hold(message.release);
    case "detach":
      return await one.detach(message.verify, onProgress);
  }
}

function pick<T extends object, K extends keyof T>(from: T, ...names: K[]): Pick<T, K> {
  const entries = names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]);
  return Object.fromEntries(entries) as Pick<T, K>;
}

port.onmessage = ({ data }) => {
  taken++;
  const { number } = data;
  perform(data).then(
    (answer) => port.postMessage({ tell: "answer", number, answer }),
    (error) => port.postMessage({ tell: "failure", number, error: plainError(error) }),
  ).finally(() => {
    if (data.ask !== "stop") return;
    wakeUp.close();
    reactor.stop();
  });
};

port.postMessage({ tell: "awake", descriptor: wakeUp.descriptor });
// Not awaited: a module that has not ended gets no messages.
reactor.run().then(() => {
  port.postMessage({ tell: "ended" });
  port.close();
});
