/** Bulk copies with deep queues and several connections: what comes out is what went in. */

import { run } from "./tools.ts";
import { testTool } from "./serving.ts";
import { SeededRandom } from "../../src/random.ts";
import { assertEquals } from "../assert.ts";

const mib = 1 << 20;

const sizeBytes = 24 * mib + 512;

/** The index at which two byte arrays differ first, or -1. A plain loop: `findIndex` takes a second per image. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : shorter;
}

/** An image with data, runs of zeroes and a hole. */
function image(): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  const random = new SeededRandom(1);
  for (let at = 0; at < sizeBytes; at += 64 << 10) {
    if (random.chance(0.6)) {
      random.fill(bytes.subarray(at, Math.min(sizeBytes, at + random.below(64 << 10) + 1)));
    }
  }
  return bytes;
}

for (const transport of ["unix", "tcp"] as const) {
  for (
    const args of [[], ["--connections=1", "--requests=64"], ["--connections=4", "--requests=64"], [
      "--synchronous",
    ], ["--allocated"]]
  ) {
    const how = args.length === 0 ? "as it comes" : args.join(" ");
    const options = { sizeBytes, transport };
    testTool(
      "nbdcopy",
      `${how} over ${transport}, in and out again, is byte-equal`,
      options,
      async (served) => {
        const source = `${served.directory}/source`;
        const target = `${served.directory}/target`;
        const bytes = image();
        await Deno.writeFile(source, bytes);
        await run("nbdcopy", "--flush", ...args, source, served.uri);
        const there = new Uint8Array(sizeBytes);
        await served.volume.read(0, there);
        assertEquals(firstDifference(there, bytes), -1);
        await run("nbdcopy", ...args, served.uri, target);
        const back = await Deno.readFile(target);
        assertEquals(back.length, bytes.length);
        assertEquals(back.findIndex((byte, i) => byte !== bytes[i]), -1);
      },
    );
  }
}
