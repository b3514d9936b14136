/**
 * `deno task sequential [--rounds N] [--mib N] [--speed FACTOR] [--dir DIRECTORY] [--json FILE]`: one large sequential write, in one
 * run: straight to a slow device, and through nbdboost in front of it, with and without `bypass_sequential`, with a log that
 * is larger than the stream and with one that is an eighth of it.
 *
 * The devices are loop devices that the kernel throttles, by bytes, to the speed of a disk and of a SATA drive. Written is 1 GiB
 * in requests of 1 MiB at a queue depth of 8, with a flush at the end, which is part of the time. Needs root, Linux with the
 * blkio controller of cgroup v1, losetup and fio with its nbd engine; without them it says so and does nothing. The bar: each
 * row at least 0.95 of the bare device.
 *
 * @module
 */

import { availableParallelism, cpus } from "node:os";
import { group, inGroup, output, whatIsMissing } from "./throttled.ts";

const slowBytesPerSecond = 120_000_000;
const fastBytesPerSecond = 266_000_000;
const bar = 0.95;

interface Row {
  bytesPerSecond: number;
  /** What the server wrote to the cache device, in bytes for each that the client wrote, and what went past it. */
  cacheBytesPerByte?: number;
  bypassedBytes?: number;
}

const options = parse(Deno.args);
const missing = await whatIsMissing("blkio.throttle.write_bps_device");
if (missing) {
  console.log(`SKIPPED: ${missing}`);
  Deno.exit(0);
}

const bypass = ["--set", "bypass_sequential=4M"];
const names = {
  bare: "the slow device alone",
  log: "nbdboost, log larger than the stream",
  logBypass: "the same, bypass_sequential=4M",
  small: "nbdboost, log an eighth of the stream",
  smallBypass: "the same, bypass_sequential=4M",
} as const;
type Name = keyof typeof names;
const rounds: Record<Name, Row>[] = [];
const undo: (() => Promise<void>)[] = [];
const machine = `${
  cpus()[0]?.model ?? "unknown"
}, ${availableParallelism()} cores, Deno ${Deno.version.deno}, commit ${
  (await output("git", ["rev-parse", "--short", "HEAD"]).catch(() => "unknown")).trim()
}`;
console.log(`${machine}; ${options.rounds} rounds of ${options.mib} MiB a row, speed ${options.speed}\n`);
try {
  await measure();
} finally {
  for (const action of undo.reverse()) await action().catch((error) => console.error(`${error}`));
}
report();

async function measure(): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: options.directory, prefix: "nbdboost-sequential-" });
  undo.push(() => Deno.remove(directory, { recursive: true }));
  const bytes = options.mib * 1024 ** 2;
  const slow = await loop(`${directory}/slow`, bytes, slowBytesPerSecond);
  const large = await loop(`${directory}/large`, bytes * 3 / 2, fastBytesPerSecond);
  const small = await loop(`${directory}/small`, bytes / 8, fastBytesPerSecond);
  for (let round = 1; round <= options.rounds; round++) {
    const say = (name: Name, row: Row) => {
      console.log(`round ${round}, ${names[name]}: ${(row.bytesPerSecond / 1e6).toFixed(1)} MB/s`);
      return row;
    };
    rounds.push({
      bare: say("bare", await write([`--filename=${slow}`, "--ioengine=libaio", "--direct=1"])),
      log: say("log", await onServer(large, slow, directory, [])),
      logBypass: say("logBypass", await onServer(large, slow, directory, bypass)),
      small: say("small", await onServer(small, slow, directory, [])),
      smallBypass: say("smallBypass", await onServer(small, slow, directory, bypass)),
    });
  }
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[sorted.length >> 1]! + sorted[(sorted.length - 1) >> 1]!) / 2;
}

function report(): void {
  console.log("\n| row | MB/s | of the bare device | bytes to the cache device per byte | past the log |");
  console.log("|---|---:|---:|---:|---:|");
  const ratios: Record<string, number> = {};
  for (const name of Object.keys(names) as Name[]) {
    const speed = median(rounds.map((round) => round[name].bytesPerSecond));
    const ratio = median(rounds.map((round) => round[name].bytesPerSecond / round.bare.bytesPerSecond));
    if (name !== "bare") ratios[name] = ratio;
    const last = rounds.at(-1)![name];
    const past = last.bypassedBytes === undefined
      ? "-"
      : `${(last.bypassedBytes / 1024 ** 2).toFixed(0)} MiB`;
    console.log(
      `| ${names[name]} | ${(speed / 1e6).toFixed(1)} | ${ratio.toFixed(3)} | ` +
        `${last.cacheBytesPerByte?.toFixed(3) ?? "-"} | ${past} |`,
    );
  }
  const worst = Math.min(...Object.values(ratios));
  console.log(
    `\nworst: ${worst.toFixed(3)} of the bare device (bar ${bar}): ${worst >= bar ? "met" : "MISSED"}`,
  );
  if (!options.json) return;
  const json = JSON.stringify({ machine, options, names, ratios, rounds }, undefined, 1) + "\n";
  Deno.writeTextFileSync(options.json, json);
}

/** Makes a file and a throttled loop device over it; returns the device's path. */
async function loop(path: string, bytes: number, bytesPerSecond: number): Promise<string> {
  const file = await Deno.create(path);
  await file.truncate(bytes);
  file.close();
  const device = (await output("losetup", ["--find", "--show", "--direct-io=off", path])).trim();
  undo.push(async () => void await output("losetup", ["--detach", device]));
  const { rdev } = await Deno.stat(device);
  const [major, minor] = [rdev! >> 8 & 0xfff, rdev! & 0xff];
  for (const kind of ["read", "write"]) {
    const limit = `${group}/blkio.throttle.${kind}_bps_device`;
    await Deno.writeTextFile(limit, `${major}:${minor} ${Math.round(bytesPerSecond * options.speed)}`);
    undo.push(() => Deno.writeTextFile(limit, `${major}:${minor} 0`));
  }
  return device;
}

/** The stream, by fio, timed from its start to the end of its flush. */
async function write(target: string[]): Promise<Row> {
  const startMs = performance.now();
  const child = inGroup("fio", [
    ...["--name=stream", "--rw=write", "--bs=1m", "--iodepth=8", `--size=${options.mib}m`, "--end_fsync=1"],
    ...target,
  ]);
  const { success, stderr } = await child.output();
  if (!success) throw new Error(`fio failed: ${new TextDecoder().decode(stderr)}`);
  return { bytesPerSecond: options.mib * 1024 ** 2 / (performance.now() - startMs) * 1000 };
}

/** Formats, serves, and lets the stream come. */
async function onServer(cache: string, backing: string, directory: string, extra: string[]): Promise<Row> {
  const nbdboost = (...args: string[]) => ["run", "-A", "cli.ts", ...args];
  const devices = ["--cache", cache, "--backing", backing];
  const control = `${directory}/control.sock`;
  await output(Deno.execPath(), nbdboost("format", ...devices, "--force"));
  const server = inGroup(Deno.execPath(), [
    ...nbdboost("serve", ...devices, "--control", control, ...extra),
    ...["--listen", `nbd+unix:///?socket=${directory}/socket`],
  ]);
  // Nobody reads what it says, but it must not wait for that either.
  server.stderr.pipeTo(new WritableStream()).catch(() => {});
  try {
    await untilReady(server.stdout);
    const row = await write(["--ioengine=nbd", `--uri=nbd+unix:///?socket=${directory}/socket`]);
    const text = await output(Deno.execPath(), nbdboost("status", "--json", "--control", control));
    const { wear, blocks } = JSON.parse(text);
    return { ...row, cacheBytesPerByte: wear.amplification, bypassedBytes: blocks.bypassed * 4096 };
  } finally {
    server.kill("SIGTERM");
    await server.status;
  }
}

async function untilReady(stdout: ReadableStream<Uint8Array>): Promise<void> {
  let text = "";
  const lines = stdout.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>);
  for await (const chunk of lines) {
    text += chunk;
    if (/^ready$/m.test(text)) return;
  }
  throw new Error(`the server ended before it was ready: ${text}`);
}

function parse(args: string[]) {
  const value = (name: string) => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args[at + 1];
  };
  return {
    rounds: Number(value("--rounds") ?? 3),
    mib: Number(value("--mib") ?? 1024),
    speed: Number(value("--speed") ?? 1),
    directory: value("--dir") ?? Deno.env.get("TMPDIR") ?? "/var/tmp",
    json: value("--json"),
  };
}
