/**
 * The files that the peers serve, in a directory that is there for one benchmark and goes away whatever happens.
 *
 * They are written before anything is measured: on a disk in use, blocks are allocated and the log has lapped. Otherwise
 * each sync would carry the filesystem's own bookkeeping, for some peers more than for others.
 *
 * @module
 */

import { NbdboostError, UsageError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { formatSize, mib } from "../../src/units.ts";

/** What a unix socket's path may take, its end included (sockaddr_un). */
const socketPathBytesMax = 108;
/** The longest of the names that end up under the directory. */
const socketNameBytes = "/run-0000/control".length;

/** Takes what is clean of `path` out of the page cache. Where there is no such dd it stays, at a cost in time only. */
async function dropPages(path: string): Promise<void> {
  const args = [`of=${path}`, "oflag=nocache", "conv=notrunc,fdatasync", "count=0"];
  await new Deno.Command("dd", { args, stdin: "null", stdout: "null", stderr: "null" }).output().catch(
    () => {},
  );
}

/** Brings `path` into the page cache. */
async function loadPages(path: string): Promise<void> {
  using file = await Deno.open(path);
  const piece = new Uint8Array(mib);
  while (await file.read(piece) !== null);
}

/** Files and directories of one benchmark. */
export class Workspace {
  readonly #directory: string;
  #runs = 0;
  /** What the peers serve. */
  readonly disk: string;
  /** Our log. */
  readonly cache: string;
  /** For the rate of the device alone. */
  readonly raw: string;

  private constructor(directory: string) {
    this.#directory = directory;
    this.disk = `${directory}/disk.img`;
    this.cache = `${directory}/cache.nbb`;
    this.raw = `${directory}/raw.img`;
  }

  /** Makes a fresh directory below `parent`. */
  static async make(parent: string): Promise<Workspace> {
    let directory: string;
    try {
      directory = await Deno.makeTempDir({ dir: await Deno.realPath(parent), prefix: "nbdboost-bench-" });
    } catch (cause) {
      throw new NbdboostError(`Cannot make a directory below ${parent}: ${(cause as Error).message}.`, {
        cause,
      });
    }
    if (directory.length + socketNameBytes >= socketPathBytesMax) {
      await Deno.remove(directory);
      throw new UsageError(
        `Option --directory has the value "${parent}": expected a path short enough for unix sockets below it, ` +
          `at most ${
            parent.length - (directory.length + socketNameBytes - socketPathBytesMax) - 1
          } characters.`,
      );
    }
    return new Workspace(directory);
  }

  /** Where it all lies. */
  get directory(): string {
    return this.#directory;
  }

  /** Writes the files. `shouldStop` is asked between pieces. */
  async fill(sizeBytes: number, cacheBytes: number, shouldStop: () => void): Promise<void> {
    const rawBytes = Math.min(sizeBytes, 64 * mib);
    const piece = new Uint8Array(mib);
    // A file of zeroes might be stored as holes, or read in no time.
    new SeededRandom(1).fill(piece);
    for (
      const [path, bytes] of [[this.disk, sizeBytes], [this.raw, rawBytes], [this.cache, cacheBytes]] as const
    ) {
      using file = await Deno.open(path, { write: true, createNew: true });
      try {
        for (let at = 0; at < bytes;) {
          shouldStop();
          at += await file.write(piece.subarray(0, Math.min(piece.length, bytes - at)));
        }
        await file.sync();
      } catch (cause) {
        if (!(cause instanceof Error) || !("code" in cause)) throw cause;
        throw new NbdboostError(
          `Cannot write ${
            formatSize(bytes)
          } to ${path}: ${cause.message}; choose another --directory, --size or --cache-size.`,
          { cause },
        );
      }
    }
  }

  /**
   * A fresh directory for one run; give it back with {@linkcode endRun}. The page cache is the same each time: all of
   * the disk is in it, since the run before may have pushed parts out, or none of it for one who goes around it (`direct`)
   * and would pay for throwing pages out; nothing of the log.
   */
  async startRun(direct: boolean): Promise<string> {
    const directory = `${this.#directory}/run-${++this.#runs}`;
    await Deno.mkdir(directory);
    await Promise.all([this.cache, this.raw].map(dropPages));
    await (direct ? dropPages : loadPages)(this.disk);
    return directory;
  }

  /** Removes what a run left, and waits until the kernel has written what it left in the page cache. */
  async endRun(directory: string): Promise<void> {
    await Deno.remove(directory, { recursive: true });
    for (const path of [this.disk, this.cache, this.raw]) {
      using file = await Deno.open(path, { write: true });
      await file.sync();
    }
  }

  /** Removes everything. */
  async remove(): Promise<void> {
    await Deno.remove(this.#directory, { recursive: true });
  }
}
