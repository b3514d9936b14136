import fc from "../property.ts";
import { InputBuffer } from "../../src/nbd/input_buffer.ts";
import { OutputBuffer } from "../../src/nbd/output_buffer.ts";
import { pack } from "./wire.ts";
import { assert, assertEquals, assertLess } from "../assert.ts";

const capacity = 128 * 1024;

function arrive(input: InputBuffer, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    const space = input.space();
    const count = Math.min(space.length, bytes.length - at);
    space.set(bytes.subarray(at, at + count));
    input.received(count);
    at += count;
  }
}

Deno.test("InputBuffer: unread bytes move to the front when the end comes near, unchanged", () => {
  const input = new InputBuffer(capacity);
  arrive(input, new Uint8Array(100_000).fill(1));
  input.consume(99_990);
  const space = input.space();
  assertEquals([input.start, input.end, space.length], [0, 10, capacity - 10]);
  assertEquals(input.bytes.subarray(0, 10), new Uint8Array(10).fill(1));
  input.received(0);
  input.consume(10);
  assertEquals([input.start, input.end], [0, 0]);
});

Deno.test("InputBuffer: collect takes what is here and then what comes, and gives it away", () => {
  const input = new InputBuffer(capacity);
  arrive(input, pack("abc"));
  input.collect(200_000);
  assert(input.isBusy);
  assertEquals(input.space().length, 199_997);
  input.received(0);
  arrive(input, new Uint8Array(199_997).fill(9));
  assert(!input.isBusy);
  const payload = input.takePayload();
  assertEquals([payload.length, payload[2], payload[3], payload.at(-1)], [200_000, 99, 9, 9]);
  arrive(input, pack("next"));
  assertEquals(input.bytes.subarray(input.start, input.end), pack("next"));
});

Deno.test("InputBuffer: collect leaves what follows its bytes", () => {
  const input = new InputBuffer(capacity);
  arrive(input, pack("abcdef"));
  input.collect(4);
  assert(!input.isBusy);
  assertEquals(input.takePayload(), pack("abcd"));
  assertEquals(input.bytes.subarray(input.start, input.end), pack("ef"));
});

Deno.test("InputBuffer: discard throws away exactly as much as was asked for", () => {
  const input = new InputBuffer(capacity);
  arrive(input, pack("abc"));
  input.discard(1_000_000);
  assert(input.isBusy);
  arrive(input, pack(new Uint8Array(999_997), "next"));
  assert(!input.isBusy);
  assertEquals(input.bytes.subarray(input.start, input.end), pack("next"));
});

/** Either a reserved reply, a reservation that is given up, a pushed reply, or a send of some bytes. */
const step = fc.oneof(
  fc.record({ do: fc.constant("reserve" as const), bytes: fc.integer({ min: 1, max: capacity }) }),
  fc.record({ do: fc.constant("forget" as const), bytes: fc.integer({ min: 1, max: capacity }) }),
  fc.record({ do: fc.constant("push" as const), bytes: fc.integer({ min: 1, max: 300_000 }) }),
  fc.record({ do: fc.constant("begin" as const), bytes: fc.constant(0) }),
  fc.record({ do: fc.constant("sent" as const), bytes: fc.integer({ min: 1, max: 200_000 }) }),
);

Deno.test("OutputBuffer: what is queued comes out in order, and never changes while it is being sent", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const out = new OutputBuffer(capacity);
      const expected: number[] = [];
      let queued = 0;
      let sentBytes = 0;
      let sending: Uint8Array | null = null;
      let copy = new Uint8Array();
      let stamp = 0;
      const check = (bytes: Uint8Array) => {
        // Stamps are compared in runs: each reply is filled with one value.
        let at = sentBytes;
        for (const byte of bytes) assertEquals(byte, expected[at++]);
        sentBytes = at;
      };
      const settle = (count: number) => {
        assertEquals(sending!.slice(), copy);
        const taken = Math.min(count, copy.length);
        check(copy.subarray(0, Math.min(taken, 50)));
        sentBytes += taken - Math.min(taken, 50);
        out.sent(taken);
        queued -= taken;
        sending = null;
      };
      const begin = () => {
        sending = out.output();
        if (sending !== null) copy = sending.slice();
      };
      for (const { do: what, bytes } of steps) {
        stamp = (stamp + 1) % 251;
        if (what === "sent" && sending !== null) settle(bytes);
        else if (what === "begin" && sending === null) begin();
        else if (what === "reserve" || what === "forget") {
          const at = out.reserve(bytes);
          out.bytes.fill(what === "forget" ? 255 : stamp, at, at + bytes);
          if (what === "forget") continue;
          out.commit(bytes);
        } else if (what === "push") out.push(new Uint8Array(bytes).fill(stamp));
        else continue;
        if (what === "reserve" || what === "push") {
          for (let i = 0; i < bytes; i++) expected.push(stamp);
          queued += bytes;
        }
        assertEquals(out.queuedBytes, queued);
      }
      for (;;) {
        if (sending === null) begin();
        if (sending === null) break;
        settle(Infinity);
      }
      assertEquals([out.queuedBytes, sentBytes], [0, expected.length]);
    }),
    { numRuns: 60 },
  );
});

Deno.test("OutputBuffer: a little before a large reply does not hold on to a whole buffer", () => {
  const out = new OutputBuffer(capacity);
  let heldBytes = 0;
  for (let i = 0; i < 10; i++) {
    out.commit(16 + 0 * out.reserve(16));
    out.push(new Uint8Array(40_000));
  }
  for (let bytes = out.output(); bytes !== null; bytes = out.output()) {
    heldBytes += bytes.buffer.byteLength;
    out.sent(bytes.length);
  }
  assertLess(heldBytes, 450_000);
});

Deno.test("InputBuffer.adopt: what is unread goes along, and the next receive comes there", () => {
  const input = new InputBuffer(capacity);
  arrive(input, pack("abcdef"));
  input.consume(2);
  const memory = new Uint8Array(capacity + 64).subarray(64);
  input.adopt(memory);
  arrive(input, pack("gh"));
  assertEquals(input.bytes.subarray(input.start, input.end), pack("cdefgh"));
  assert(input.bytes === memory);
  assertEquals(input.view.getUint8(input.start), 99);
});

Deno.test("OutputBuffer.adopt: what is queued stays as it is, though a send of it is under way", () => {
  for (const sending of [false, true]) {
    const out = new OutputBuffer(capacity);
    out.bytes.set(pack("ab"), out.reserve(2));
    out.commit(2);
    const before = sending ? out.output()! : null;
    const [memory, spare] = [new Uint8Array(capacity + 8).subarray(8), new Uint8Array(capacity)];
    out.adopt(memory, spare);
    assert(out.bytes === memory);
    out.bytes.set(pack("cd"), out.reserve(2));
    out.commit(2);
    if (before !== null) assertEquals(before, pack("ab"));
    assertEquals(out.output(), pack("ab"));
    out.sent(2);
    assertEquals(out.output(), pack("cd"));
    // Full, and on the way: another one is next.
    out.reserve(capacity - 1);
    assert(out.bytes !== memory);
    out.sent(2);
    assertEquals(out.output(), null);
  }
});
