/**
 * What fio does to a server: a table. A new row is a new job; nothing else knows the jobs by name but the bars, the
 * charts and the tests.
 *
 * @module
 */

import { mib } from "../../src/units.ts";

/** One load. */
export interface Job {
  /** What `--only` takes and what the results carry. */
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** fio's options, without engine, address, size and time. */
  readonly fio: readonly string[];
  /** What its rate is best told in. */
  readonly unit: "IOPS" | "MB/s";
  /** It always goes over TCP on loopback; the others go over what `--transport` says. */
  readonly tcp?: true;
  /** It makes no sense against what keeps nothing on a disk: there is nothing to sync, or to be far away. */
  readonly needsDisk?: true;
  /** First the client writes this many bytes from offset 0 and flushes; the job stays inside them. */
  readonly writtenBytes?: number;
  /** The same load without any server, on a file of the same filesystem: options for fio's psync engine. */
  readonly device?: readonly string[];
  /** What else to know. */
  readonly note?: string;
}

/** Bytes that the job of hits writes and then reads. */
const hitBytes = 256 * mib;

/** All jobs, in the order of the report. */
export const jobs: readonly Job[] = [
  {
    name: "randwrite-qd1",
    title: "random 4 KiB writes, QD1",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    unit: "IOPS",
  },
  {
    name: "randwrite-qd64",
    title: "random 4 KiB writes, QD64",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=64"],
    unit: "IOPS",
  },
  {
    name: "randwrite-4x16",
    title: "random 4 KiB writes, 4 connections × QD16",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--numjobs=4"],
    unit: "IOPS",
  },
  {
    name: "randwrite-qd64-tcp",
    title: "random 4 KiB writes, QD64, TCP on loopback",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=64"],
    unit: "IOPS",
    tcp: true,
  },
  {
    name: "randwrite-fsync32",
    title: "random 4 KiB writes, QD16, fsync every 32",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=32"],
    unit: "IOPS",
    needsDisk: true,
  },
  {
    name: "sync-1",
    title: "1 client, 4 KiB write + flush each",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"],
    unit: "IOPS",
    needsDisk: true,
    device: ["--rw=write", "--bs=4k", "--direct=1", "--fdatasync=1"],
    note:
      "the device alone: 4 KiB O_DIRECT write + fdatasync, one after the other, into a file written before",
  },
  {
    name: "sync-16",
    title: "16 clients, 4 KiB write + flush each",
    fio: ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1", "--numjobs=16"],
    unit: "IOPS",
    needsDisk: true,
  },
  {
    name: "randread-hit-qd64",
    title: "random 4 KiB reads, QD64, hits",
    fio: ["--rw=randread", "--bs=4k", "--iodepth=64"],
    unit: "IOPS",
    writtenBytes: hitBytes,
    note: "of what the same client wrote just before",
  },
  {
    name: "randread-miss-qd64",
    title: "random 4 KiB reads, QD64, misses",
    fio: ["--rw=randread", "--bs=4k", "--iodepth=64"],
    unit: "IOPS",
    needsDisk: true,
    note: "of what only the backing file holds, which is in the kernel's page cache for all alike",
  },
  {
    name: "mixed-qd64",
    title: "random 4 KiB, 70 % reads, QD64",
    fio: ["--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=64"],
    unit: "IOPS",
    note: "the slower of reads and writes counts for the latency",
  },
  {
    name: "write-128k",
    title: "sequential 128 KiB writes, QD16",
    fio: ["--rw=write", "--bs=128k", "--iodepth=16"],
    unit: "MB/s",
  },
  {
    name: "write-1m",
    title: "sequential 1 MiB writes, QD8",
    fio: ["--rw=write", "--bs=1m", "--iodepth=8"],
    unit: "MB/s",
  },
  {
    name: "read-128k",
    title: "sequential 128 KiB reads, QD16, misses",
    fio: ["--rw=read", "--bs=128k", "--iodepth=16"],
    unit: "MB/s",
    needsDisk: true,
  },
  {
    name: "read-1m",
    title: "sequential 1 MiB reads, QD8, misses",
    fio: ["--rw=read", "--bs=1m", "--iodepth=8"],
    unit: "MB/s",
    needsDisk: true,
  },
];
