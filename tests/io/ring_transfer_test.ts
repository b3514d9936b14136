// Why: a kernel seldom cuts a transfer short or interrupts it, and a log write that then counts as whole is lost data.
import { operation, sqe } from "../../src/io/ring/abi.ts";
import { errno } from "../../src/io/ring/errno.ts";
import type { Reactor } from "../../src/io/ring/reactor.ts";
import type { Completion } from "../../src/io/ring/ring.ts";
import { Transfers } from "../../src/io/ring/transfer.ts";
import { assertEquals } from "../assert.ts";

const gib = 2 ** 30;
const directDescriptor = 8;
const bufferedDescriptor = 7;

/** Lets `answer` be the kernel; returns what was submitted, how often something ended, and the results told. */
function transferred(
  code: number,
  answer: (submission: { descriptor: number; offset: number; length: number }, count: number) => number,
) {
  const sqes = new Int32Array(sqe.words);
  let completion: Completion | undefined;
  const ring = {
    sqes,
    putWide(at: number, value: number) {
      sqes[at] = value;
      sqes[at + 1] = Math.floor(value / 2 ** 32);
    },
  };
  const prepare = (_code: number, descriptor: number, to: Completion) => {
    sqes[sqe.descriptor] = descriptor;
    completion = to;
    return 0;
  };
  let settled = 0;
  const reactor = { ring, prepare, settled: () => settled++ } as unknown as Reactor;
  let ended = 0;
  const owner = { transferEnded: () => ended++, directRefused: () => bufferedDescriptor };
  const transfers = new Transfers(reactor, owner);
  const results: number[] = [];
  const to = {
    transferred(result: number, tag: number) {
      assertEquals(tag, 3);
      results.push(result);
      return true;
    },
  };
  const memory = new Uint8Array(8192);
  const from = 5 * gib - 1024;
  transfers.start(code, directDescriptor, from, memory, 512, 4096, to, 3);
  const address = sqes[sqe.addressLow]!;
  const submissions: [descriptor: number, offset: number, length: number][] = [];
  for (let count = 0; completion !== undefined; count++) {
    const offset = (sqes[sqe.offsetHigh]! * 2 ** 32) + (sqes[sqe.offsetLow]! >>> 0) - from;
    assertEquals((sqes[sqe.addressLow]! - address) | 0, offset, "memory and file go on alike");
    const submission = { descriptor: sqes[sqe.descriptor]!, offset, length: sqes[sqe.length]! };
    submissions.push([submission.descriptor, offset, submission.length]);
    const now = completion;
    completion = undefined;
    now.completed(answer(submission, count), 0);
  }
  assertEquals([results.length, ended, settled], [1, 1, 1]);
  return { result: results[0], submissions };
}

const script = (...results: number[]) => (_: unknown, count: number) => results[count]!;

Deno.test("Transfers: what the kernel cuts short or interrupts goes on where it ended", () => {
  const { result, submissions } = transferred(
    operation.write,
    script(1024, -errno.EINTR, 2048, -errno.EAGAIN, 1024),
  );
  assertEquals(result, 4096);
  assertEquals(submissions, [[8, 0, 4096], [8, 1024, 3072], [8, 1024, 3072], [8, 3072, 1024], [
    8,
    3072,
    1024,
  ]]);
});

Deno.test("Transfers: a part that fails makes all of it fail; a file's end is told by fewer bytes", () => {
  assertEquals(transferred(operation.write, script(1024, -errno.ENOSPC)).result, -errno.ENOSPC);
  assertEquals(transferred(operation.write, script(1024, 0)).result, 1024);
  assertEquals(transferred(operation.read, script(512, 512, 0)).result, 1024);
  assertEquals(transferred(operation.read, script(-errno.EINVAL)).result, -errno.EINVAL);
});

Deno.test("Transfers: interruptions without end are a failure", () => {
  const { result, submissions } = transferred(operation.read, () => -errno.EINTR);
  assertEquals([result, submissions.length], [-errno.EINTR, 101]);
});

Deno.test("Transfers: a direct write that is refused goes on through the page cache, and only once", () => {
  const { result, submissions } = transferred(
    operation.write,
    ({ descriptor, length }, count) => count === 0 ? 1536 : descriptor === 8 ? -errno.EINVAL : length,
  );
  assertEquals([result, submissions.map(([descriptor]) => descriptor)], [4096, [8, 8, 7]]);
  assertEquals(transferred(operation.write, () => -errno.EINVAL).submissions.length, 2);
});
