/**
 * The engine's thread: cache and server over one ring. Started by `ring_host.ts` as a Worker, and good for
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
  type HostOptions,
  type ManyOptions,
  type ManyStarted,
  plainError,
  type Started,
  type ToMain,
  type ToWorker,
} from "./messages.ts";
import { type OnProgress, ServedCache } from "./served.ts";
import { type ManyServed, serveMany } from "./served_many.ts";

/** The Worker's own end; the types of the main thread's global do not know it. */
interface Port {
  postMessage(message: ToMain): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  close(): void;
}
const port = globalThis as unknown as Port;

const reactor = openReactor({ dedicated: true });
const io: Io = reactorIo(reactor);
let served: ServedCache | undefined;
let many: ManyServed | undefined;
let taken = 0;

// Messages come through Deno's event loop, which is visited until the one that the wake-up announced is here.
const wakeUp = new WakeUp(reactor, (count) => reactor.visitUntil(() => taken >= count));

const warn: Warn = (message, level) =>
  port.postMessage({ tell: "warning", message, ...(level === undefined ? {} : { level }) });

async function open(number: number, options: HostOptions | ExportOptions, warn: Warn): Promise<Cache> {
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

async function startMany(number: number, options: ManyOptions): Promise<ManyStarted> {
  const { clock } = reactor;
  many = await serveMany(options, { open: (each, warn) => open(number, each, warn), warn, io, clock });
  return { recoveries: many.recoveries, uris: many.uris };
}

async function start(number: number, options: HostOptions): Promise<Started> {
  const { clock } = reactor;
  const cache = await open(number, options, warn);
  served = await ServedCache.start(cache, {
    listen: options.listen,
    sockets: options.sockets,
    exportName: options.exportName,
    description: options.description,
    limits: options.limits,
    tls: options.tls,
    readOnly: options.readOnly,
    io,
    clock,
    warn,
  });
  return { recovery: cache.recovery, sizeBytes: cache.sizeBytes, uris: [...served.server.uris] };
}

function progressOf(number: number): OnProgress {
  return (done, total, phase) => port.postMessage({ tell: "progress", number, done, total, phase });
}

async function perform(message: ToWorker): Promise<unknown> {
  const { number } = message;
  switch (message.ask) {
    case "start":
      return await start(number, message.options);
    case "startMany":
      return await startMany(number, message.options);
    case "status":
      return served!.status();
    case "map":
      return served!.map();
    case "tune":
      return served!.tune(message.settings);
    case "mirror":
      return await served!.mirror(message.action, progressOf(number));
    case "drain":
      return await served!.drain(progressOf(number));
    case "history":
      return await served!.history(message.limit);
    case "hold":
      return await served!.hold(message.release);
    case "detach":
      return await served!.detach(message.verify, progressOf(number));
    case "stop":
      return await (served ?? many)?.close();
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
