/** fio with verification: random writes on several connections, each block checked when it is read back. */

import { run } from "./tools.ts";
import { testTool } from "./serving.ts";
import { assert, assertEquals } from "../assert.ts";

const mib = 1 << 20;

interface FioReport {
  jobs: { error: number; write: { total_ios: number }; read: { total_ios: number } }[];
}

async function fio(uri: string, directory: string, ...args: string[]): Promise<FioReport> {
  // The nbd engine prints "connected to NBD server" on stdout, hence the report goes to a file.
  const output = `${directory}/report`;
  const common = [
    "--name=job",
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--output-format=json",
    `--output=${output}`,
  ];
  await run("fio", ...common, `--aux-path=${directory}`, ...args);
  return JSON.parse(await Deno.readTextFile(output));
}

const fourConnections = ["--iodepth=16", "--numjobs=4", "--size=16M", "--offset_increment=16M"];
const verified = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1"];
const mixes: [string, string[]][] = [
  ["4 KiB blocks, verified by crc32c", ["--rw=randwrite", "--bs=4k", ...verified]],
  [
    "sizes from 512 B to 128 KiB with flushes, verified by crc32c",
    ["--rw=randwrite", "--bsrange=512-128k", "--fsync=16", ...verified],
  ],
  // fio does not wait for a trim before it writes the same block, so there is nothing that could be verified.
  ["trims between", ["--rw=randtrimwrite", "--bs=4k"]],
];
for (const transport of ["unix", "tcp"] as const) {
  for (const [what, args] of mixes) {
    const name = `4 connections over ${transport}, ${what}`;
    testTool("fio", name, { sizeBytes: 64 * mib, transport }, async ({ uri, directory }) => {
      const report = await fio(uri, directory, ...fourConnections, ...args);
      assertEquals(report.jobs.map(({ error }) => error), [0, 0, 0, 0]);
      // What was verified was read back.
      if (args.includes("--do_verify=1")) assert(report.jobs.every(({ read }) => read.total_ios > 100));
    });
  }
}
