/**
 * `deno task every-bit [--stride N] [--first N] [--workers N] [--image clean|lapped|crashed|torn]`: every bit of the images of
 * `bit_images.ts`. `--stride 64 --first 5` tries one bit in 64, from the sixth of each region on: 64 machines, or 64 short
 * runs, share the work so. Exit code 1 at the first bit that is not as demanded; the last line is a summary.
 *
 * @module
 */

import { emptyTally, type Tally } from "./every_bit.ts";

const option = (name: string): string | undefined => {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? undefined : Deno.args[at + 1];
};
const stride = Number(option("stride") ?? 1);
const first = Number(option("first") ?? 0);
const workers = Number(option("workers") ?? 2);
const image = option("image");

const startMs = performance.now();
const tallies = new Map<string, Tally>();
let nextNoteMs = startMs;

type Message = { image: string; tally: Tally } | { done: true } | { failure: string };

function run(index: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL("./every_bit_worker.ts", import.meta.url), { type: "module" });
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = ({ data }: MessageEvent<Message>) => {
      if ("failure" in data) reject(new Error(data.failure));
      else if ("done" in data) resolve();
      else note(data.image, data.tally);
    };
    worker.postMessage({ first: first + index * stride, stride: stride * workers, image });
  });
}

function note(name: string, tally: Tally): void {
  const sum = tallies.get(name) ?? emptyTally();
  for (const key of Object.keys(sum) as (keyof Tally)[]) sum[key] += tally[key];
  tallies.set(name, sum);
  if (performance.now() < nextNoteMs || !Deno.stderr.isTerminal()) return;
  nextNoteMs = performance.now() + 1000;
  console.error(summary());
}

function countOf(tally: Tally): number {
  return Object.values(tally).reduce((sum, count) => sum + count, 0);
}

function summary(): string {
  const total = [...tallies.values()].reduce((sum, tally) => sum + countOf(tally), 0);
  const seconds = (performance.now() - startMs) / 1000;
  return `${total} images, ${seconds.toFixed(1)} s, ${Math.round(total / seconds)} images/s`;
}

let failure: string | undefined;
try {
  await Promise.all(Array.from({ length: workers }, (_, i) => run(i)));
} catch (error) {
  failure = (error as Error).message;
}
for (const [name, tally] of tallies) {
  const { corrected, lost, dropped, untold, dead } = tally;
  console.log(
    `${name}: ${countOf(tally)} images; noticed and corrected ${corrected}, noticed and EIO ${lost}, ` +
      `dropped and reported ${dropped}, newest record gone untold ${untold}, dead space ${dead}`,
  );
}
if (failure !== undefined) console.log(failure);
console.log(
  `${
    failure === undefined ? "ok" : "FAILED"
  }: one bit in ${stride}, from bit ${first} of each region on: ${summary()}`,
);
Deno.exit(failure === undefined ? 0 : 1);
