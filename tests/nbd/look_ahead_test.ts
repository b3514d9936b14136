/**
 * What the look ahead tells a volume of the requests that have arrived. Nothing else shows it, as it has no effect but on time.
 *
 * @module
 */

import { extendedRequestHeaderBytes, magic, requestHeaderBytes } from "../../src/nbd/constants.ts";
import { InputBuffer } from "../../src/nbd/input_buffer.ts";
import { LookAhead } from "../../src/nbd/look_ahead.ts";
import { assertEquals } from "../assert.ts";
import { MemoryVolume } from "./memory_volume.ts";
import { Cmd, pack } from "./wire.ts";

const request = (type: number, offset: number, length: number, requestMagic: number = magic.request) => {
  const extended = requestMagic === magic.extendedRequest;
  const payload = new Uint8Array(type === Cmd.WRITE ? length : 0).fill(0x25);
  return pack([4, requestMagic], [2, 0], [2, type], [8, 7], [8, offset], [extended ? 8 : 4, length], payload);
};

/** The offsets that are announced when `bytes` have come, `start` of which are done with; null when nothing is. */
function announced(bytes: Uint8Array, extended = false, start = 0): number[] | null {
  const volume = new MemoryVolume(1 << 20);
  let told: number[] | null = null;
  const heard = Object.assign(volume, {
    announce: (offsets: Float64Array, count: number) => told = [...offsets.subarray(0, count)],
  });
  const input = new InputBuffer(Math.max(bytes.length, 1));
  input.bytes.set(bytes);
  input.end = bytes.length;
  input.start = start;
  const [requestMagic, headerBytes] = extended
    ? [magic.extendedRequest, extendedRequestHeaderBytes]
    : [magic.request, requestHeaderBytes];
  new LookAhead(heard, requestMagic, headerBytes).announce(input);
  return told;
}

Deno.test("LookAhead: tells of reads and writes, whose payloads may still be coming", () => {
  const requests = [
    request(Cmd.WRITE, 8192, 4096),
    request(Cmd.READ, 2 ** 40 + 512, 4096),
    request(Cmd.WRITE, 0, 1),
    request(Cmd.READ, 1, 1),
  ];
  assertEquals(announced(pack(...requests)), [8192, 2 ** 40 + 512, 0, 1]);
  assertEquals(announced(pack(...requests, request(Cmd.WRITE, 5, 4096).subarray(0, 30))), [
    ...[8192, 2 ** 40 + 512, 0, 1, 5],
  ]);
  assertEquals(announced(pack(...requests, request(Cmd.READ, 5, 1).subarray(0, 27))), [
    ...[8192, 2 ** 40 + 512, 0, 1],
  ]);
  // What is done with does not count.
  assertEquals(announced(pack(...requests), false, requestHeaderBytes + 4096), [2 ** 40 + 512, 0, 1]);
});

Deno.test("LookAhead: extended headers", () => {
  const requests = [0, 4096, 2 ** 33].map((offset) => request(Cmd.WRITE, offset, 512, magic.extendedRequest));
  assertEquals(announced(pack(...requests), true), [0, 4096, 2 ** 33]);
});

Deno.test("LookAhead: one request alone is not worth a call, and no more than 64 are told", () => {
  assertEquals(announced(request(Cmd.WRITE, 8192, 4096)), null);
  assertEquals(announced(new Uint8Array(0)), null);
  const many = Array.from({ length: 100 }, (_, i) => request(Cmd.READ, i, 1));
  assertEquals(announced(pack(...many)), Array.from({ length: 64 }, (_, i) => i));
});

Deno.test("LookAhead: stops at other commands and at what is no request", () => {
  const first = [request(Cmd.READ, 1, 1), request(Cmd.READ, 2, 1)];
  const last = request(Cmd.READ, 3, 1);
  assertEquals(announced(pack(...first, request(Cmd.FLUSH, 0, 0), last)), [1, 2]);
  assertEquals(announced(pack(...first, request(Cmd.READ, 0, 0, 0x12345678), last)), [1, 2]);
  // A length that leads behind everything that has come.
  const huge = pack([4, magic.request], [2, 0], [2, Cmd.WRITE], [8, 7], [8, 9], [4, 0xffff_ffff]);
  assertEquals(announced(pack(...first, huge, last)), [1, 2, 9]);
});
