/**
 * `deno task seed-table [--seconds N] [--cache-size GiB] [--dir DIRECTORY] [--json FILE]`: the table that dm-writeboost was shown
 * with, in one run: on loop devices that the kernel throttles to the speed of a disk and of a SATA drive.
 *
 * ```text
 * A  the slow device, random          D  nbdboost, random
 * B  the fast device, random          E  nbdboost, random, a flush every 8 writes
 * C  the fast device, sequential      F  nbdboost, random, the fast device in memory and not throttled
 * ```
 * All rows write 4 KiB at a queue depth of 64, C 512 KiB. Needs root, Linux with the blkio controller of cgroup v1, losetup
 * and fio with its nbd engine; without them it says so and does nothing. DIRECTORY gets two files as large as the devices, which
 * are removed at the end. The bar: D at least 0.985 of C.
 *
 * @module
 */

/** What the throttle makes of the devices; the figures of the published table. */
const slowWritesPerSecond = 226;
const fastWritesPerSecond = 49_300;
const fastBytesPerSecond = 266_000_000;
const slowBytes = 2 * 1024 ** 3;
const group = `/sys/fs/cgroup/blkio/nbdboost-table-${Deno.pid}`;

const options = parse(Deno.args);
const missing = await whatIsMissing();
if (missing) {
  console.log(`SKIPPED: ${missing}`);
  Deno.exit(0);
}

const rows: Record<string, number> = {};
const undo: (() => Promise<void>)[] = [];
try {
  await measure();
} finally {
  for (const action of undo.reverse()) await action().catch((error) => console.error(`${error}`));
}
if (options.json) await Deno.writeTextFile(options.json, JSON.stringify({ options, rows }, undefined, 1));

async function measure(): Promise<void> {
  const directory = await Deno.makeTempDir({ dir: options.directory, prefix: "nbdboost-table-" });
  undo.push(() => Deno.remove(directory, { recursive: true }));
  const slow = await loop(`${directory}/slow`, slowBytes);
  const fast = await loop(`${directory}/fast`, options.cacheBytes);
  await Deno.mkdir(group);
  undo.push(() => Deno.remove(group));
  for (const kind of ["read", "write"]) {
    await throttle(`${kind}_iops_device`, slow, slowWritesPerSecond);
    await throttle(`${kind}_iops_device`, fast, fastWritesPerSecond);
    await throttle(`${kind}_bps_device`, fast, fastBytesPerSecond);
  }
  await row("A", "the slow device, random", () => fioOnDevice(slow, "randwrite", "4k"));
  await row("B", "the fast device, random", () => fioOnDevice(fast, "randwrite", "4k"));
  await row("C", "the fast device, sequential", () => fioOnDevice(fast, "write", "512k"));
  await row("D", "nbdboost, random", () => fioOnServer(fast, slow, directory, []));
  await row(
    "E",
    "nbdboost, random, a flush every 8 writes",
    () => fioOnServer(fast, slow, directory, ["--fsync=8"]),
  );
  const memoryDirectory = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "nbdboost-table-" });
  undo.push(() => Deno.remove(memoryDirectory, { recursive: true }));
  const memory = await loop(`${memoryDirectory}/fast`, options.cacheBytes);
  await row(
    "F",
    "nbdboost, random, the fast device in memory",
    () => fioOnServer(memory, slow, directory, []),
  );
  console.log(
    `\nD / C: ${(rows.D! / rows.C!).toFixed(3)} (bar 0.985); D / A: ${(rows.D! / rows.A!).toFixed(0)}`,
  );
}

async function row(name: string, what: string, action: () => Promise<number>): Promise<void> {
  rows[name] = await action();
  console.log(`${name}  ${what.padEnd(44)} ${(rows[name] / 1e6).toFixed(3).padStart(9)} MB/s`);
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
  await Deno.writeTextFile(`${group}/blkio.throttle.${limit}`, `${major}:${minor} ${value}`);
}

/** Runs fio in the throttled group, straight on a device. */
function fioOnDevice(device: string, pattern: string, size: string): Promise<number> {
  return fio([`--filename=${device}`, "--ioengine=libaio", "--direct=1", `--rw=${pattern}`, `--bs=${size}`]);
}

/** Formats, serves with the server in the throttled group, and runs fio against it. */
async function fioOnServer(
  cache: string,
  backing: string,
  directory: string,
  extra: string[],
): Promise<number> {
  const socket = `${directory}/socket`;
  await output(Deno.execPath(), [
    "run",
    "-A",
    "cli.ts",
    "format",
    "--cache",
    cache,
    "--backing",
    backing,
    "--force",
  ]);
  const server = inGroup(Deno.execPath(), [
    ...["run", "-A", "cli.ts", "serve", "--cache", cache, "--backing", backing],
    ...["--listen", `nbd+unix:///?socket=${socket}`],
  ], "piped");
  try {
    await untilReady(server.stdout);
    return await fio([
      "--ioengine=nbd",
      `--uri=nbd+unix:///?socket=${socket}`,
      "--rw=randwrite",
      "--bs=4k",
      ...extra,
    ]);
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

async function fio(args: string[]): Promise<number> {
  const child = inGroup("fio", [
    ...["--name=row", "--iodepth=64", "--time_based", `--runtime=${options.seconds}`, "--output-format=json"],
    ...[`--size=${Math.min(slowBytes, options.cacheBytes)}`, ...args],
  ], "piped");
  const { success, stdout, stderr } = await child.output();
  if (!success) throw new Error(`fio failed: ${new TextDecoder().decode(stderr)}`);
  const text = new TextDecoder().decode(stdout);
  return JSON.parse(text.slice(text.indexOf("{"))).jobs[0].write.bw_bytes;
}

/** Starts a command whose I/O the kernel throttles. */
function inGroup(command: string, args: string[], stdout: "piped" | "null"): Deno.ChildProcess {
  const script = `echo $$ > ${group}/cgroup.procs && exec "$0" "$@"`;
  return new Deno.Command("sh", { args: ["-c", script, command, ...args], stdout, stderr: "piped" }).spawn();
}

async function output(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  if (!success) throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

async function whatIsMissing(): Promise<string | undefined> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return "loop devices and throttles need Linux and root";
  try {
    await Deno.stat("/sys/fs/cgroup/blkio/cgroup.procs");
  } catch {
    return "there is no blkio controller of cgroup v1 at /sys/fs/cgroup/blkio";
  }
  for (const command of ["fio", "losetup"]) {
    try {
      await output(command, ["--version"]);
    } catch {
      return `${command} is not installed`;
    }
  }
  return undefined;
}

function parse(args: string[]) {
  const value = (name: string) => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args[at + 1];
  };
  return {
    seconds: Number(value("--seconds") ?? 5),
    cacheBytes: Number(value("--cache-size") ?? 4) * 1024 ** 3,
    directory: value("--dir") ?? Deno.env.get("TMPDIR") ?? "/var/tmp",
    json: value("--json"),
  };
}
