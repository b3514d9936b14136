/**
 * `deno task seed-table [--seconds N] [--rounds N] [--rows ABC…] [--speed FACTOR] [--cache-size GiB] [--dir DIRECTORY]
 * [--json FILE]`: the table that dm-writeboost was shown with, in one run: on loop devices that the kernel throttles to the speed
 * of a disk and of a SATA drive. And, with a small log, what comes when it is full.
 *
 * ```text
 * A  the slow device, random          E  nbdboost, random, a flush every 8 writes
 * B  the fast device, random          F  nbdboost, random, the fast device in memory and not throttled
 * C  the fast device, sequential      G  nbdboost, random, from an empty log of 64 MiB to well after it is full
 * D  nbdboost, random                 H  the same, full from the beginning
 * ```
 * All rows write 4 KiB at a queue depth of 64, C 512 KiB. In a round each row is measured once, one after the other; medians of
 * the rounds are shown. `--speed 0.25` makes both devices so much slower, for machines on which fio and the server together
 * are slower than the fast one. Needs root, Linux with the blkio controller of cgroup v1, losetup
 * and fio with its nbd engine; without them it says so and does nothing. DIRECTORY gets files as large as the devices, which
 * are removed at the end. The bars: D at least 0.985 of C; H not below A.
 *
 * The throttles are the root group's, which limit everybody, the kernel's own threads too: a throttle of the server's group
 * would not see what they write back of a page cache.
 *
 * @module
 */

import { availableParallelism, cpus } from "node:os";
import { group, inGroup, output, whatIsMissing } from "./throttled.ts";

/** What the throttle makes of the devices; the figures of the published table. */
const slowWritesPerSecond = 226;
const fastWritesPerSecond = 49_300;
const fastBytesPerSecond = 266_000_000;
const slowBytes = 2 * 1024 ** 3;
/** The log of rows G and H. */
const smallBytes = 65 * 1024 ** 2;

/** What a row measured. */
interface Row {
  bytesPerSecond: number;
  p999Ms: number;
  longestMs: number;
}

const options = parse(Deno.args);
const missing = await whatIsMissing("blkio.throttle.write_iops_device");
if (missing) {
  console.log(`SKIPPED: ${missing}`);
  Deno.exit(0);
}

const names: Record<string, string> = {
  A: "the slow device, random",
  B: "the fast device, random",
  C: "the fast device, sequential",
  D: "nbdboost, random",
  E: "nbdboost, random, a flush every 8 writes",
  F: "nbdboost, random, the fast device in memory",
  G: "nbdboost, random, from an empty log to a full one",
  H: "nbdboost, random, the log full",
};
const rounds: Record<string, Row>[] = [];
const undo: (() => Promise<void>)[] = [];
const machine = `${
  cpus()[0]?.model ?? "unknown"
}, ${availableParallelism()} cores, Deno ${Deno.version.deno}, commit ${
  (await output("git", ["rev-parse", "--short", "HEAD"]).catch(() => "unknown")).trim()
}`;
console.log(`${machine}; ${options.rounds} rounds of ${options.seconds} s a row, speed ${options.speed}\n`);
try {
  await measure();
} finally {
  for (const action of undo.reverse()) await action().catch((error) => console.error(`${error}`));
}
report();

async function measure(): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: options.directory, prefix: "nbdboost-table-" });
  undo.push(() => Deno.remove(directory, { recursive: true }));
  const slow = await loop(`${directory}/slow`, slowBytes);
  const fast = await loop(`${directory}/fast`, options.cacheBytes);
  const small = await loop(`${directory}/small`, smallBytes);
  for (const kind of ["read", "write"]) {
    await throttle(`${kind}_iops_device`, slow, slowWritesPerSecond);
    for (const device of [fast, small]) {
      await throttle(`${kind}_iops_device`, device, fastWritesPerSecond);
      await throttle(`${kind}_bps_device`, device, fastBytesPerSecond);
    }
  }
  const memoryDirectory = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "nbdboost-table-" });
  undo.push(() => Deno.remove(memoryDirectory, { recursive: true }));
  const memory = await loop(`${memoryDirectory}/fast`, options.cacheBytes);
  for (let i = 0; i < options.rounds; i++) {
    const round: Record<string, Row> = {};
    rounds.push(round);
    const row = async (name: string, action: () => Promise<Row>) => {
      if (!options.rows.includes(name)) return;
      const result = round[name] = await action();
      console.log(`round ${i + 1}, ${name}: ${describe(result)}`);
    };
    await row("A", () => fioOnDevice(slow, "randwrite", "4k"));
    await row("B", () => fioOnDevice(fast, "randwrite", "4k"));
    await row("C", () => fioOnDevice(fast, "write", "512k"));
    await row("D", () => onServer(fast, slow, directory, () => fioOnServer(directory, [])));
    await row("E", () => onServer(fast, slow, directory, () => fioOnServer(directory, ["--fsync=8"])));
    await row("F", () => onServer(memory, slow, directory, () => fioOnServer(directory, [])));
    if (options.rows.includes("G") || options.rows.includes("H")) {
      await onServer(small, slow, directory, async () => {
        const filling = await fioOnServer(directory, []);
        await row("G", () => Promise.resolve(filling));
        await row("H", () => fioOnServer(directory, []));
      });
    }
  }
}

function describe({ bytesPerSecond, p999Ms, longestMs }: Row): string {
  return `${(bytesPerSecond / 1e6).toFixed(3).padStart(9)} MB/s, 99.9 % within ${
    p999Ms.toFixed(0)
  } ms, longest ${longestMs.toFixed(0)} ms`;
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The median over the rounds of what `of` makes of each that measured all of `needed`. */
function over(needed: string, of: (round: Record<string, Row>) => number): number | undefined {
  const whole = rounds.filter((round) => [...needed].every((name) => round[name] !== undefined));
  return whole.length === 0 ? undefined : median(whole.map(of));
}

function report(): void {
  console.log("\n| row | MB/s | 99.9 % of writes within | longest write |\n| --- | ---: | ---: | ---: |");
  const medians: Record<string, Row> = {};
  for (const [name, what] of Object.entries(names)) {
    const bytesPerSecond = over(name, (round) => round[name]!.bytesPerSecond);
    if (bytesPerSecond === undefined) continue;
    const p999Ms = over(name, (round) => round[name]!.p999Ms)!;
    const longestMs = Math.max(...rounds.map((round) => round[name]?.longestMs ?? 0));
    medians[name] = { bytesPerSecond, p999Ms, longestMs };
    console.log(
      `| ${name} ${what} | ${(bytesPerSecond / 1e6).toFixed(3)} | ${p999Ms.toFixed(0)} ms | ${
        longestMs.toFixed(0)
      } ms |`,
    );
  }
  const share = (name: string, of: string) =>
    over(name + of, (round) => round[name]!.bytesPerSecond / round[of]!.bytesPerSecond);
  const ratios = { "D/C": share("D", "C"), "D/A": share("D", "A"), "H/A": share("H", "A") };
  console.log(
    `\nD / C: ${ratios["D/C"]?.toFixed(3)} (bar 0.985); D / A: ${ratios["D/A"]?.toFixed(0)}; H / A: ${
      ratios["H/A"]?.toFixed(2)
    } (bar 1.00)`,
  );
  if (!options.json) return;
  Deno.writeTextFileSync(
    options.json,
    JSON.stringify({ machine, options, names, medians, ratios, rounds }, undefined, 1) + "\n",
  );
}

/** Makes a file and a loop device over it; returns the device's path. */
async function loop(path: string, bytes: number): Promise<string> {
  const file = await Deno.create(path);
  await file.truncate(bytes);
  file.close();
  const device = (await output("losetup", ["--find", "--show", "--direct-io=off", path])).trim();
  undo.push(async () => void await output("losetup", ["--detach", device]));
  return device;
}

async function throttle(limit: string, device: string, value: number): Promise<void> {
  const { rdev } = await Deno.stat(device);
  const [major, minor] = [rdev! >> 8 & 0xfff, rdev! & 0xff];
  const path = `${group}/blkio.throttle.${limit}`;
  await Deno.writeTextFile(path, `${major}:${minor} ${Math.round(value * options.speed)}`);
  undo.push(() => Deno.writeTextFile(path, `${major}:${minor} 0`));
}

/** Runs fio straight on a device. */
function fioOnDevice(device: string, pattern: string, size: string): Promise<Row> {
  return fio([`--filename=${device}`, "--ioengine=libaio", "--direct=1", `--rw=${pattern}`, `--bs=${size}`]);
}

/** Runs fio against the server. */
function fioOnServer(directory: string, extra: string[]): Promise<Row> {
  const uri = `--uri=nbd+unix:///?socket=${directory}/socket`;
  return fio(["--ioengine=nbd", uri, "--rw=randwrite", "--bs=4k", ...extra]);
}

/** Formats, and serves while `body` runs. */
async function onServer<T>(
  cache: string,
  backing: string,
  directory: string,
  body: () => Promise<T>,
): Promise<T> {
  const devices = ["--cache", cache, "--backing", backing];
  await output(Deno.execPath(), ["run", "-A", "cli.ts", "format", ...devices, "--force"]);
  const server = inGroup(Deno.execPath(), [
    ...["run", "-A", "cli.ts", "serve", ...devices],
    ...["--listen", `nbd+unix:///?socket=${directory}/socket`],
  ]);
  server.stderr.pipeTo(Deno.stderr.writable, { preventClose: true }).catch(() => {});
  try {
    await untilReady(server.stdout);
    return await body();
  } finally {
    server.kill("SIGTERM");
    await server.status;
  }
}

async function untilReady(stdout: ReadableStream<Uint8Array>): Promise<void> {
  let text = "";
  for await (
    const chunk of stdout.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
  ) {
    text += chunk;
    if (/^ready$/m.test(text)) return;
  }
  throw new Error(`the server ended before it was ready: ${text}`);
}

async function fio(args: string[]): Promise<Row> {
  const child = inGroup("fio", [
    // Each run writes other blocks: those that the log holds already would cost the slow device nothing.
    ...[
      "--name=row",
      "--randrepeat=0",
      "--iodepth=64",
      "--time_based",
      `--runtime=${options.seconds}`,
      "--output-format=json",
    ],
    ...[`--size=${Math.min(slowBytes, options.cacheBytes)}`, ...args],
  ]);
  const { success, stdout, stderr } = await child.output();
  const text = new TextDecoder().decode(stdout);
  if (!success) throw new Error(`fio failed: ${new TextDecoder().decode(stderr)}\n${text.slice(0, 1000)}`);
  const { bw_bytes, clat_ns } = JSON.parse(text.slice(text.indexOf("{"))).jobs[0].write;
  return {
    bytesPerSecond: bw_bytes,
    p999Ms: (clat_ns.percentile?.["99.900000"] ?? 0) / 1e6,
    longestMs: clat_ns.max / 1e6,
  };
}

function parse(args: string[]) {
  const value = (name: string) => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args[at + 1];
  };
  return {
    seconds: Number(value("--seconds") ?? 5),
    rounds: Number(value("--rounds") ?? 3),
    rows: value("--rows") ?? "ABCDEFGH",
    speed: Number(value("--speed") ?? 1),
    cacheBytes: Number(value("--cache-size") ?? 4) * 1024 ** 3,
    directory: value("--dir") ?? Deno.env.get("TMPDIR") ?? "/var/tmp",
    json: value("--json"),
  };
}
