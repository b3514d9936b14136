/**
 * `demo`: the whole story on temporary files, with real processes, a real NBD connection and a real SIGKILL.
 *
 * It proves what it can: that a killed *process* loses nothing that was flushed. A power cut also takes what the
 * kernel had not written to the device; the demo cannot pull the plug and does not claim to.
 *
 * @module
 */

import { systemClock } from "../clock.ts";
import { exitCode } from "../errors.ts";
import { SeededRandom, systemRandom } from "../random.ts";
import { blockBytes, formatSize, mib } from "../units.ts";
import { type Findings, WrittenBlocks } from "./demo_blocks.ts";
import { DemoClient } from "./demo_client.ts";
import { formatCache, openCache } from "./engine.ts";
import type { Output } from "./output.ts";
import { StopSignal } from "./process.ts";
import { ServerProcess } from "./self.ts";
import type { Command } from "./table.ts";

const cacheBytes = 64 * mib;
const backingBytes = 256 * mib;
/** Writes go to this many blocks all over the device, so that many are overwritten. */
const hotBlocks = 6_000;
const rounds = 200;
const writesPerRound = 32;
/** Un-flushed writes that are acknowledged before the server is killed. */
const writesBeforeKill = 1_000;
const inFlight = 32;

/** The verb. */
export const demo: Command = {
  name: "demo",
  summary: "show the whole story on temporary files",
  description:
    "Formats a cache for a sparse file, serves it in a second process, writes random blocks over NBD with " +
    "flushes, kills the server in the middle of writing, serves again, verifies that everything flushed is there and " +
    "that every later write is old or new, drains, and verifies that the backing file alone has it all.",
  destroys: "nothing; it uses a fresh temporary directory (about 100 MiB for a moment) and removes it.",
  options: [],
  examples: [{ line: "nbdboost demo", says: "takes a few seconds" }],
  exits: { 4: "something that had been flushed was not there: please report it" },
  async run(_options, output) {
    const directory = await Deno.makeTempDir({ prefix: "nbdboost-demo-" });
    const story = new Story(directory, output);
    using stop = new StopSignal(() => Deno.exit(exitCode.failed));
    // Its servers are killed under the story's feet then: what it says about that is of no interest.
    const interrupted = stop.received.then(async (signal) => {
      await story.clean();
      output.note(`nbdboost: The demo was ended by ${signal}; its files are gone.`);
      Deno.exit(exitCode.failed);
    });
    try {
      return await story.tell();
    } catch (error) {
      if (stop.seen) return await interrupted;
      throw error;
    } finally {
      await story.clean();
    }
  },
};

class Story {
  readonly #directory: string;
  readonly #output: Output;
  readonly #cache: string;
  readonly #backing: string;
  readonly #written = new WrittenBlocks();
  readonly #random: SeededRandom;
  readonly #stride = Math.floor(backingBytes / blockBytes / hotBlocks);
  #server: ServerProcess | undefined;

  constructor(directory: string, output: Output) {
    this.#directory = directory;
    this.#output = output;
    this.#cache = `${directory}/cache.nbb`;
    this.#backing = `${directory}/disk.img`;
    const seed = new Uint32Array(1);
    systemRandom(new Uint8Array(seed.buffer));
    this.#random = new SeededRandom(seed[0]!);
  }

  #say(text: string): void {
    this.#output.line(text);
  }

  /** Takes everything away again. */
  async clean(): Promise<void> {
    await this.#server?.kill();
    this.#server = undefined;
    await Deno.remove(this.#directory, { recursive: true }).catch(() => {});
  }

  /** Runs it all; resolves to the exit code. */
  async tell(): Promise<number> {
    await this.#prepare();
    await this.#writeAndKill();
    const afterKill = await this.#serveAgain();
    if (afterKill.wrong.length > 0) return this.#fail("after the crash", afterKill);
    const alone = await this.#drain();
    if (alone.wrong.length > 0) return this.#fail("on the backing file alone", alone);
    this.#say(
      `PASSED: nothing flushed was lost through a SIGKILL, and after the drain the backing file alone is complete.`,
    );
    return exitCode.done;
  }

  #fail(where: string, findings: Findings): number {
    for (const line of findings.wrong.slice(0, 10)) this.#output.note(line);
    this.#say(`FAILED: ${findings.wrong.length} of ${this.#written.size} blocks are wrong ${where}.`);
    return exitCode.damage;
  }

  async #prepare(): Promise<void> {
    using file = await Deno.open(this.#backing, { write: true, createNew: true });
    await file.truncate(backingBytes);
    await formatCache({ cache: this.#cache, cacheSize: cacheBytes, backing: this.#backing });
    this.#say(
      `1. Made a sparse backing file of ${formatSize(backingBytes)} and formatted a cache of ${
        formatSize(cacheBytes)
      } for it.`,
    );
  }

  async #serve(): Promise<DemoClient> {
    this.#server = ServerProcess.spawn([
      ...["--cache", this.#cache, "--backing", this.#backing],
      ...["--listen", "nbd://127.0.0.1:0", "--set", "writeback=auto", "--control", "off"],
    ]);
    await this.#server.ready();
    return await DemoClient.connect(this.#server.uris[0]!);
  }

  #pick(taken: Set<number>): number {
    for (;;) {
      const block = this.#random.below(hotBlocks) * this.#stride;
      if (taken.has(block)) continue;
      taken.add(block);
      return block;
    }
  }

  async #writeAndKill(): Promise<void> {
    const client = await this.#serve();
    this.#say(
      `2. Serving it in process ${this.#server!.pid} at ${this.#server!.uris[0]}, and connected to it.`,
    );
    const startMs = systemClock.monotonicMs();
    for (let round = 0; round < rounds; round++) {
      const taken = new Set<number>();
      const writes = Array.from({ length: writesPerRound }, () => {
        const block = this.#pick(taken);
        return client.write(block * blockBytes, this.#written.next(block));
      });
      await Promise.all(writes);
      await client.flush();
      this.#written.flushed();
    }
    const seconds = (systemClock.monotonicMs() - startMs) / 1000;
    const writes = rounds * writesPerRound;
    this.#say(
      `3. Wrote ${writes} random blocks of 4 KiB with ${rounds} flushes in ${seconds.toFixed(2)} s (${
        Math.round(writes / seconds)
      } writes/s).`,
    );

    const { acknowledged, lost } = await this.#killWhileWriting(client);
    this.#say(
      `4. Killed the server (SIGKILL) after ${acknowledged} more writes that no flush covers, with ${lost} more under way.`,
    );
    await client.close();
  }

  async #killWhileWriting(client: DemoClient): Promise<{ acknowledged: number; lost: number }> {
    let acknowledged = 0;
    let lost = 0;
    let killed: Promise<number> | undefined;
    // One block is never written by two requests at once: their order would be the server's to choose.
    const taken = new Set<number>();
    const writer = async () => {
      while (!killed) {
        const block = this.#pick(taken);
        try {
          await client.write(block * blockBytes, this.#written.next(block));
          acknowledged++;
        } catch (error) {
          if (!killed) throw error;
          lost++;
        }
        taken.delete(block);
        if (acknowledged >= writesBeforeKill) killed ??= this.#server!.kill();
      }
    };
    await Promise.all(Array.from({ length: inFlight }, writer));
    await killed;
    this.#server = undefined;
    return { acknowledged, lost };
  }

  async #judge(read: (offset: number, into: Uint8Array<ArrayBuffer>) => Promise<void>): Promise<Findings> {
    const findings: Findings = { kept: 0, old: 0, new: 0, wrong: [] };
    const numbers = this.#written.numbers();
    for (let at = 0; at < numbers.length; at += inFlight) {
      await Promise.all(
        numbers.slice(at, at + inFlight).map(async (block) => {
          const bytes = new Uint8Array(blockBytes);
          await read(block * blockBytes, bytes);
          this.#written.judge(block, bytes, findings);
        }),
      );
    }
    return findings;
  }

  async #serveAgain(): Promise<Findings> {
    const startMs = systemClock.monotonicMs();
    const client = await this.#serve();
    const ms = systemClock.monotonicMs() - startMs;
    this.#say(`5. Served it again, ready after ${Math.round(ms)} ms (start of the process included).`);
    for (const note of this.#server!.notes) this.#say(`     ${note}`);
    const findings = await this.#judge((offset, into) => client.read(offset, into));
    this.#say(
      `6. Read all ${this.#written.size} blocks back: ${findings.kept} flushed ones are there; of those written after ` +
        `the last flush ${findings.new} are new and ${findings.old} old; ${findings.wrong.length} are wrong.`,
    );
    await client.close();
    const code = await this.#server!.stop();
    this.#server = undefined;
    if (code !== exitCode.done) {
      findings.wrong.push(`SIGTERM ended the server with exit code ${code}, expected 0`);
    }
    return findings;
  }

  async #drain(): Promise<Findings> {
    const startMs = systemClock.monotonicMs();
    const cache = await openCache({ cache: this.#cache, backing: this.#backing });
    try {
      await cache.drain();
    } finally {
      await cache.close();
    }
    const ms = systemClock.monotonicMs() - startMs;
    await Deno.remove(this.#cache);
    using file = await Deno.open(this.#backing, { read: true });
    const findings = await this.#judge((offset, into) => {
      file.seekSync(offset, Deno.SeekMode.Start);
      for (let at = 0; at < into.length;) at += file.readSync(into.subarray(at)) ?? into.length;
      return Promise.resolve();
    });
    this.#say(
      `7. Drained in ${
        Math.round(ms)
      } ms, threw the cache away and read the backing file alone: ${findings.kept} blocks right, ${findings.wrong.length} wrong.`,
    );
    return findings;
  }
}
