/**
 * `mirror`: the two legs of a cache device, through the server that uses them.
 *
 * @module
 */

import type { MirrorStatus } from "../cache/mirror.ts";
import { createFile } from "../device/create.ts";
import { lookUpPath } from "../device/open.ts";
import { exitCode, RefusedError, UsageError } from "../errors.ts";
import { isNbdUri } from "../nbd/uri.ts";
import { formatSize } from "../units.ts";
import { ControlClient } from "./control_client.ts";
import type { ServerStatus } from "../control/status.ts";
import type { Output } from "./output.ts";
import { PhaseProgress } from "./progress.ts";
import { type Command, jsonOption, type Options, serverOptions } from "./table.ts";

/** The verb. */
export const mirror: Command = {
  name: "mirror",
  summary: "show, replace or bring back the legs of a mirrored cache",
  description:
    "Shows the legs of a running server's cache device. With --replace copies what counts to another device, while clients " +
    "go on, and takes it into service in the place of the missing leg; with --resync does the same with the missing leg itself, " +
    "when it is back. A leg counts once its copy is complete and durable: until then everything is on the other leg alone. " +
    "With --drop gives up a leg that is still in service, to take it out.",
  destroys:
    "with --replace: what the new device holds; anything but an empty device and a stale leg of this cache is refused without --force.",
  options: [
    ...serverOptions,
    {
      name: "replace",
      kind: "text",
      value: "TARGET",
      summary: "the device that becomes the missing leg; a missing regular file is created",
    },
    { name: "resync", kind: "flag", summary: "bring the missing leg back" },
    { name: "drop", kind: "text", value: "TARGET", summary: "give up this leg, as the status names it" },
    { name: "force", kind: "flag", summary: "overwrite whatever the new device holds" },
    jsonOption,
  ],
  examples: [
    { line: "nbdboost mirror", says: "the legs of the only server that runs" },
    {
      line: "nbdboost mirror --replace /dev/nvme2n1p3",
      says: "a new SSD for one that died, without stopping anything",
    },
    { line: "nbdboost mirror --drop /dev/nvme1n1p3", says: "before a worn SSD is taken out" },
  ],
  exits: {
    1: "failed: no server answers, or the new leg failed; the other goes on alone",
    3: "refused: no leg is missing, or the device holds something; nothing was changed",
  },
  run: runMirror,
};

async function runMirror(options: Options, output: Output): Promise<number> {
  const [replace, drop, resync] = [options.text("replace"), options.text("drop"), options.flag("resync")];
  const given = [replace !== undefined, drop !== undefined, resync].filter((each) => each).length;
  if (given > 1) {
    throw new UsageError("Options --replace, --resync and --drop exclude each other: expected one of them");
  }
  const client = await ControlClient.find(options);
  const before = await client.ask("GET", "/status") as ServerStatus;
  if (before.mirror === null) {
    throw new RefusedError(
      `The cache ${before.cache.path} has no mirror: drain it, and make one that has by nbdboost format --mirror`,
    );
  }
  let status: MirrorStatus = before.mirror;
  if (given > 0) {
    const made = replace !== undefined && await createMissing(replace, before.cache.sizeBytes, output);
    const body = drop !== undefined ? { drop } : { attach: replace ?? null, force: options.flag("force") };
    const progress = new PhaseProgress(output);
    try {
      status = await client.long("/mirror", progress.update, { body }).finally(progress.end) as MirrorStatus;
    } catch (error) {
      // What was refused leaves nothing behind; what failed later may be half a leg, which is left for who looks into it.
      if (made && error instanceof RefusedError) Deno.removeSync(replace);
      throw error;
    }
  }
  if (options.flag("json")) output.report(status, true);
  else for (const line of mirrorLines(status)) output.line(line);
  return exitCode.done;
}

async function createMissing(path: string, sizeBytes: number, output: Output): Promise<boolean> {
  if (isNbdUri(path) || await lookUpPath(path, "create")) return false;
  const progress = output.progress("creating", "bytes");
  await createFile(path, sizeBytes, { onProgress: progress.update }).finally(progress.end);
  return true;
}

/** The legs, for people. */
export function mirrorLines({ legs, copy }: MirrorStatus): string[] {
  return legs.map(({ path, state, reason, readErrors }) => {
    const share = state === "copying" && copy !== null && copy.totalBytes > 0
      ? `, ${formatSize(copy.copiedBytes)} of ${formatSize(copy.totalBytes)}`
      : "";
    const errors = readErrors === 0 ? "" : `, ${readErrors} reads failed and were answered by the other`;
    return `${path}: ${state}${share}${reason === null ? "" : ` (${reason})`}${errors}`;
  });
}
