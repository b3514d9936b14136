/**
 * `deno task every-bit [--stride N] [--first N] [--workers N] [--image NAME] [--full] [--faults NAME|all]`: every bit of the
 * images of `bit_images.ts`. `--stride 64 --first 5` tries one bit in 64, from the sixth of each region on: 64 machines, or
 * 64 short runs, share the work so. `--full` does without the shortcuts of `every_bit.ts`. `--faults` plants the faults of
 * `every_bit_faults.ts` into copies of the engine, one after the other, and must find all of them.
 *
 * It prints what became of the bits of each kind of region. Exit code 1 at the first bit that is not as demanded, or when a
 * planted fault is not found; the last line is a summary.
 *
 * @module
 */

import process from "node:process";
import { imageNames } from "./bit_images.ts";
import { emptyTally, type Tally } from "./bit_choice.ts";
import type { Effort } from "./every_bit.ts";
import { huntFaults } from "./every_bit_faults.ts";
import type { Message, Task } from "./every_bit_worker.ts";

const option = (name: string): string | undefined => {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? undefined : Deno.args[at + 1];
};
const stride = Number(option("stride") ?? 1);
const first = Number(option("first") ?? 0);
const workers = Number(option("workers") ?? 2);
const image = option("image");
const full = Deno.args.includes("--full");
if (image !== undefined && !(imageNames as string[]).includes(image)) {
  console.log(`There is no image ${image}; there are ${imageNames.join(", ")}`);
  Deno.exit(2);
}
const faults = option("faults");
if (faults !== undefined) Deno.exit(await huntFaults(faults) ? 0 : 1);

const startMs = performance.now();
/** By image, then by kind of region. */
const tallies = new Map<string, Map<string, Tally>>();
const unread = new Map<string, number>();
const effort: Effort = { full: 0, known: 0, crossChecked: 0 };
let nextNoteMs = startMs;

function run(index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./every_bit_worker.ts", import.meta.url), { type: "module" });
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }: MessageEvent<Message>) => {
      if ("failure" in data) reject(new Error(data.failure));
      else if ("done" in data) resolve();
      else if ("kind" in data) note(data.image, data.kind, data.tally);
      else {
        unread.set(data.image, data.unreadBits);
        for (const key of Object.keys(effort) as (keyof Effort)[]) effort[key] += data.effort[key];
      }
    };
    const task: Task = { first: first + index * stride, stride: stride * workers, image, full };
    worker.postMessage(task);
  });
}

function note(name: string, kind: string, tally: Tally): void {
  const kinds = tallies.get(name) ?? new Map<string, Tally>();
  tallies.set(name, kinds);
  const sum = kinds.get(kind) ?? emptyTally();
  kinds.set(kind, sum);
  for (const key of Object.keys(sum) as (keyof Tally)[]) sum[key] += tally[key];
  if (performance.now() < nextNoteMs || !Deno.stderr.isTerminal()) return;
  nextNoteMs = performance.now() + 1000;
  console.error(summary());
}

function countOf(tally: Tally): number {
  return Object.values(tally).reduce((sum, count) => sum + count, 0);
}

function summary(): string {
  let total = 0;
  for (const kinds of tallies.values()) for (const tally of kinds.values()) total += countOf(tally);
  const seconds = (performance.now() - startMs) / 1000;
  const { user, system } = process.cpuUsage();
  const cpuSeconds = (user + system) / 1e6;
  return `${total} images, ${seconds.toFixed(1)} s, ${cpuSeconds.toFixed(1)} s of CPU, ${
    Math.round(total / cpuSeconds)
  } images per second of CPU`;
}

let failure: string | undefined;
try {
  await Promise.all(Array.from({ length: workers }, (_, i) => run(i)));
} catch (error) {
  failure = (error as Error).message;
}
console.log(
  "| image | region | flipped one by one | noticed, nothing lost | noticed, EIO | dropped, told | dropped, untold | dead | groups |",
);
console.log("|---|---|---|---|---|---|---|---|---|");
for (const [name, kinds] of tallies) {
  for (const [kind, tally] of kinds) {
    if (countOf(tally) === 0) continue;
    const { corrected, lost, dropped, untold, dead, groups } = tally;
    const cells = [name, kind, countOf(tally) - groups, corrected, lost, dropped, untold, dead, groups];
    console.log(`| ${cells.join(" | ")} |`);
  }
  console.log(`| ${name} | never read: ${unread.get(name) ?? "?"} bits | 0 | | | | | | |`);
}
console.log(
  `opened, read and drained to the end ${effort.full}; known after recovery ${effort.known}, of which ${effort.crossChecked} ` +
    "were gone through all the same",
);
if (failure !== undefined) console.log(failure);
console.log(
  `${
    failure === undefined ? "ok" : "FAILED"
  }: one bit in ${stride}, from bit ${first} of each region on: ${summary()}`,
);
Deno.exit(failure === undefined ? 0 : 1);
