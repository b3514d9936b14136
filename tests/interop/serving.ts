/**
 * Registers a test that serves a fresh volume to a real client, over a unix socket or TCP, on both backends.
 *
 * @module
 */

import type { Volume } from "../../src/cache/volume.ts";
import type { Io } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { ringIo } from "../../src/io/ring/mod.ts";
import { serve, type ServeOptions } from "../../src/nbd/mod.ts";
import { skipRingTests, untilRingCloses } from "../io/ring.ts";
import { temporarySocket } from "../nbd/temp.ts";
import { requireTool, type Tool } from "./tools.ts";
import { makeVolume } from "./volume.ts";

/** What a test gets. */
export interface Served {
  /** The URI to give to the client. */
  uri: string;
  /** A temporary directory, removed afterwards. */
  directory: string;
  /** What is served. */
  volume: Volume;
}

/** Where and what to serve. */
export interface ServedOptions extends Partial<ServeOptions> {
  sizeBytes: number;
  transport?: "unix" | "tcp";
}

/** Registers tests of `tool` against a volume served by this process. */
export function testTool(
  tool: Tool,
  what: string,
  options: ServedOptions,
  body: (served: Served) => Promise<void>,
): void {
  for (const io of [portableIo, ringIo]) {
    const ignore = io === ringIo && skipRingTests;
    const name = `${tool}: ${what} (${io.name})`;
    Deno.test({ name, ignore, fn: untilRingCloses(() => serveTool(tool, options, io, body)) });
  }
}

async function serveTool(
  tool: Tool,
  options: ServedOptions,
  io: Io,
  body: (served: Served) => Promise<void>,
): Promise<void> {
  if (!requireTool(tool)) return;
  const { sizeBytes, transport = "unix", ...serveOptions } = options;
  await using socket = await temporarySocket();
  await using made = await makeVolume(sizeBytes, io);
  const listen = transport === "unix" ? socket.uri : "nbd://127.0.0.1:0";
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  await using server = await serve(made.volume, { listen, warn, io, ...serveOptions });
  await body({ uri: server.uris[0]!, directory: socket.directory, volume: made.volume });
  // A client in good standing never gives reason for a warning.
  if (warnings.length > 0) throw new Error(`the server warned: ${warnings.join("\n")}`);
}
