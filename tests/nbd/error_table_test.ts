/** Every row of the protocol's error table, by name. */

import { DeviceError, type DeviceErrorCode } from "../../src/errors.ts";
import { MemoryVolume } from "./memory_volume.ts";
import { Peer, type PeerOptions } from "./peer.ts";
import { Cmd, Errno, Flag, pack, type Request } from "./wire.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";

const size = 1 << 20;
const mib = 1 << 20;

function transmitting(options: PeerOptions = {}, sizeBytes = size): Peer {
  return Peer.transmitting(new MemoryVolume(sizeBytes), options);
}

/** Every request is answered with its error, and the connection is in order afterwards. */
async function expectErrors(peer: Peer, cases: [Request, number][]): Promise<void> {
  for (const [request, error] of cases) {
    const reply = await peer.request(request);
    assertEquals(reply?.error, error, Deno.inspect({ ...request, payload: request.payload?.length }));
  }
  const last = await peer.request({ type: Cmd.READ, offset: 0, length: 16 });
  assertEquals([last?.error, last?.data.length], [0, 16]);
}

const everyForm: [string, PeerOptions][] = [
  ["simple", {}],
  ["structured", { structured: true }],
  ["extended", { extended: true }],
];

for (const [form, options] of everyForm) {
  Deno.test(`error table (${form}): bad request magic ends the connection after the replies before it`, async () => {
    const peer = transmitting(options);
    const good = peer.encode({ type: Cmd.READ, length: 8 });
    await peer.exchange(pack(good, new Uint8Array(32)));
    assertEquals((await peer.replies()).map(({ error }) => error), [0]);
    assert(peer.session.isClosed);
    assertStringIncludes(peer.warnings[0]!, "bad request magic");
  });

  Deno.test(`error table (${form}): unknown commands get EINVAL, their length is no payload`, async () => {
    await expectErrors(transmitting(options), [
      [{ type: 99, length: 4096 }, Errno.EINVAL],
      [{ type: Cmd.RESIZE, offset: 2 * size }, Errno.EINVAL],
      [{ type: 0xffff, length: 0xffffffff, offset: 0xffffffffffffffffn }, Errno.EINVAL],
    ]);
  });

  Deno.test(`error table (${form}): unknown or misplaced flags get EINVAL, a WRITE's payload is consumed`, async () => {
    const peer = transmitting(options);
    const payload = new Uint8Array(5000).fill(7);
    const cases: [Request, number][] = [];
    const payloadFlags = options.extended ? [] : [Flag.PAYLOAD_LEN];
    for (const flags of [Flag.NO_HOLE, Flag.DF, Flag.REQ_ONE, Flag.FAST_ZERO, ...payloadFlags, 0x8000]) {
      cases.push([{ type: Cmd.WRITE, flags, payload }, Errno.EINVAL]);
      cases.push([{ type: Cmd.WRITE, flags, payload: new Uint8Array(400_000) }, Errno.EINVAL]);
      for (const type of [Cmd.FLUSH, Cmd.TRIM, Cmd.CACHE]) cases.push([{ type, flags }, Errno.EINVAL]);
    }
    for (const flags of [Flag.NO_HOLE, Flag.REQ_ONE, Flag.FAST_ZERO, 0x4000]) {
      cases.push([{ type: Cmd.READ, flags, length: 8 }, Errno.EINVAL]);
    }
    for (const flags of [Flag.DF, Flag.REQ_ONE, 0x4000]) {
      cases.push([{ type: Cmd.WRITE_ZEROES, flags, length: 8 }, Errno.EINVAL]);
    }
    await expectErrors(peer, cases);
    assertEquals((await peer.request({ type: Cmd.READ, length: 8 }))!.data, new Uint8Array(8));
  });

  Deno.test(`error table (${form}): READ, TRIM and CACHE past the end get EINVAL`, async () => {
    const cases: [Request, number][] = [];
    for (const type of [Cmd.READ, Cmd.TRIM, Cmd.CACHE]) {
      for (
        const [offset, length] of [
          [size, 1],
          [size - 1, 2],
          [size + 1, 0],
          [0, size + 1],
          [0x1_0000_0000, 1],
          [2n ** 53n, 1],
          [2n ** 63n, 4096],
          [2n ** 64n - 512n, 512],
          [2n ** 64n - 1n, 0xffff],
        ] as const
      ) cases.push([{ type, offset, length }, Errno.EINVAL]);
    }
    await expectErrors(transmitting(options), cases);
  });

  Deno.test(`error table (${form}): WRITE and WRITE_ZEROES past the end get ENOSPC`, async () => {
    const cases: [Request, number][] = [];
    for (const offset of [size, size - 1, size + 1, 0x1_0000_0000, 2n ** 64n - 2n]) {
      cases.push([{ type: Cmd.WRITE, offset, payload: new Uint8Array(2) }, Errno.ENOSPC]);
      cases.push([{ type: Cmd.WRITE_ZEROES, offset, length: 2 }, Errno.ENOSPC]);
    }
    cases.push([{ type: Cmd.WRITE, payload: new Uint8Array(2 * size) }, Errno.ENOSPC]);
    cases.push([{ type: Cmd.WRITE_ZEROES, length: 0xffffffff }, Errno.ENOSPC]);
    await expectErrors(transmitting(options), cases);
  });

  Deno.test(`error table (${form}): every kind of write on a read-only export gets EPERM`, async () => {
    const payload = new Uint8Array(100);
    const cases: [Request, number][] = [
      [{ type: Cmd.WRITE, payload }, Errno.EPERM],
      [{ type: Cmd.WRITE, payload, flags: Flag.FUA }, Errno.EPERM],
      [{ type: Cmd.WRITE, payload: new Uint8Array(500_000) }, Errno.EPERM],
      [{ type: Cmd.WRITE, offset: size, payload }, Errno.EPERM],
      [{ type: Cmd.TRIM, length: 100 }, Errno.EPERM],
      [{ type: Cmd.WRITE_ZEROES, length: 100 }, Errno.EPERM],
      [{ type: Cmd.FLUSH }, Errno.OK],
      [{ type: Cmd.CACHE, length: 100 }, Errno.OK],
    ];
    await expectErrors(transmitting({ ...options, readOnly: true }), cases);
    await expectErrors(Peer.transmitting(new MemoryVolume(size, { readOnly: true }), options), cases);
  });

  Deno.test(`error table (${form}): any alignment is served`, async () => {
    const peer = transmitting(options);
    await expectErrors(peer, [
      [{ type: Cmd.WRITE, offset: 5, payload: pack("abc") }, Errno.OK],
      [{ type: Cmd.READ, offset: 1, length: 1 }, Errno.OK],
      [{ type: Cmd.TRIM, offset: 3, length: 7 }, Errno.OK],
      [{ type: Cmd.WRITE, offset: 5, payload: pack("abc") }, Errno.OK],
      [{ type: Cmd.WRITE_ZEROES, offset: 6, length: 1 }, Errno.OK],
      [{ type: Cmd.CACHE, offset: 9, length: 1 }, Errno.OK],
    ]);
    assertEquals((await peer.request({ type: Cmd.READ, offset: 4, length: 5 }))!.data, pack("\0a\0c\0"));
  });

  Deno.test(`error table (${form}): length 0 succeeds and does nothing`, async () => {
    const peer = transmitting(options);
    const cases: [Request, number][] = [];
    for (const type of [Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES]) {
      cases.push([{ type }, Errno.OK], [{ type, offset: size }, Errno.OK], [
        { type, flags: Flag.FUA },
        Errno.OK,
      ]);
    }
    await expectErrors(peer, cases);
    assertEquals(peer.statistics.error, 0);
  });

  Deno.test(`error table (${form}): payloads from 32 MiB to 64 MiB are taken, larger ones end the connection`, async () => {
    const peer = transmitting(options, 64 * mib);
    for (const length of [32 * mib, 33 * mib, 64 * mib]) {
      const payload = new Uint8Array(length).fill(9);
      assertEquals((await peer.request({ type: Cmd.WRITE, payload }))!.error, Errno.OK);
    }
    assertEquals((await peer.request({ type: Cmd.READ, offset: 64 * mib - 1, length: 1 }))!.data[0], 9);
    const flags = options.extended ? Flag.PAYLOAD_LEN : 0;
    peer.feed(peer.encode({ type: Cmd.WRITE, flags, length: 64 * mib + 1 }));
    assert(peer.session.isClosed);
    assertStringIncludes(peer.warnings[0]!, "a payload of 67108865 bytes");
  });

  Deno.test(`error table (${form}): FLUSH with a range gets EINVAL`, async () => {
    await expectErrors(transmitting(options), [
      [{ type: Cmd.FLUSH, offset: 512, length: 0 }, Errno.EINVAL],
      [{ type: Cmd.FLUSH, length: 1 }, Errno.EINVAL],
      [{ type: Cmd.FLUSH }, Errno.OK],
    ]);
  });

  Deno.test(`error table (${form}): FUA is accepted on every command`, async () => {
    const flags = Flag.FUA;
    await expectErrors(transmitting({ ...options, allocation: form !== "simple" }), [
      [{ type: Cmd.READ, flags, length: 8 }, Errno.OK],
      [{ type: Cmd.WRITE, flags, payload: pack("x") }, Errno.OK],
      [{ type: Cmd.FLUSH, flags }, Errno.OK],
      [{ type: Cmd.TRIM, flags, length: 8 }, Errno.OK],
      [{ type: Cmd.CACHE, flags, length: 8 }, Errno.OK],
      [{ type: Cmd.WRITE_ZEROES, flags, length: 8 }, Errno.OK],
      [{ type: Cmd.BLOCK_STATUS, flags, length: 8 }, form === "simple" ? Errno.EINVAL : Errno.OK],
    ]);
  });

  Deno.test(`error table (${form}): BLOCK_STATUS without a context gets EINVAL`, async () => {
    await expectErrors(transmitting(options), [[{ type: Cmd.BLOCK_STATUS, length: 512 }, Errno.EINVAL]]);
  });

  Deno.test(`error table (${form}): new requests get ESHUTDOWN while shutting down, those under way finish`, async () => {
    const volume = new MemoryVolume(size, { hot: false });
    const peer = Peer.transmitting(volume, options);
    peer.feed(peer.encode({ type: Cmd.READ, length: 8, cookie: 1n }));
    peer.session.shutdown();
    const payload = new Uint8Array(400_000);
    await peer.exchange(pack(
      peer.encode({ type: Cmd.WRITE, payload, cookie: 2n }),
      peer.encode({ type: Cmd.FLUSH, cookie: 3n }),
      peer.encode({ type: 99, cookie: 4n }),
    ));
    const errors = new Map((await peer.replies()).map(({ cookie, error }) => [cookie, error]));
    assertEquals([1n, 2n, 3n, 4n].map((cookie) => errors.get(cookie)), [0, 108, 108, 108]);
    assertEquals(volume.calls.map(({ call }) => call), ["read"]);
  });

  Deno.test(`error table (${form}): what the volume throws goes on the wire as one of the allowed errors`, async () => {
    const volume = new MemoryVolume(size, { hot: false });
    const peer = Peer.transmitting(volume, options);
    const expected: [DeviceErrorCode, number][] = [
      ["EIO", Errno.EIO],
      ["ENOSPC", Errno.ENOSPC],
      ["EINVAL", Errno.EINVAL],
      ["EROFS", Errno.EPERM],
      ["ETIMEDOUT", Errno.EIO],
      ["ENODEV", Errno.EIO],
      ["ESHUTDOWN", Errno.ESHUTDOWN],
    ];
    for (const [code, error] of expected) {
      volume.before = () => {
        throw new DeviceError(code, "Cannot reach /dev/secret");
      };
      for (const type of [Cmd.READ, Cmd.WRITE, Cmd.FLUSH, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES]) {
        const request = type === Cmd.WRITE
          ? { type, payload: pack("x") }
          : { type, length: type === 3 ? 0 : 8 };
        const reply = await peer.request(request);
        assertEquals(reply!.error, error, `${code} by command ${type}`);
        assert(!reply!.message.includes("secret"));
      }
    }
    assertEquals(peer.warnings, []);
    volume.before = () => {
      throw new TypeError("a bug");
    };
    assertEquals((await peer.request({ type: Cmd.FLUSH }))!.error, Errno.EIO);
    assertStringIncludes(peer.warnings[0]!, "a bug");
    for (let i = 0; i < 100; i++) await peer.request({ type: Cmd.FLUSH });
    assert(peer.warnings.length < 10, "warnings are limited");
    volume.before = () => {};
    assertEquals((await peer.request({ type: Cmd.FLUSH }))!.error, 0);
  });

  Deno.test(`error table (${form}): failures of the synchronous calls are EIO, and the server lives on`, async () => {
    const volume = new MemoryVolume(size);
    const peer = Peer.transmitting(volume, options);
    const { readNow, writeNow } = volume;
    volume.readNow = volume.writeNow = () => {
      throw new RangeError("a bug");
    };
    assertEquals((await peer.request({ type: Cmd.READ, length: 8 }))!.error, Errno.EIO);
    assertEquals((await peer.request({ type: Cmd.WRITE, payload: pack("x") }))!.error, Errno.EIO);
    Object.assign(volume, { readNow, writeNow });
    assertEquals((await peer.request({ type: Cmd.WRITE, payload: pack("x") }))!.error, 0);
  });

  Deno.test(`error table (${form}): a partial header or payload at the end has no effect`, () => {
    const volume = new MemoryVolume(size);
    for (const payload of [new Uint8Array(4096).fill(1), new Uint8Array(500_000).fill(1)]) {
      const request = pack([4, 0x25609513], [2, 0], [2, 1], [8, 1], [8, 0], [4, payload.length], payload);
      for (const count of [1, 27, 28, 29, payload.length, request.length - 1]) {
        const peer = Peer.transmitting(volume, options);
        peer.feed(request.subarray(0, count), 100_000);
        peer.session.ended();
        peer.drain();
        assert(peer.session.isClosed);
        assertEquals(peer.received.length, 0);
      }
    }
    assertEquals(volume.bytes, new Uint8Array(size));
    assertEquals(volume.calls, []);
  });
}

Deno.test("error table: DF without structured replies gets EINVAL", async () => {
  await expectErrors(transmitting(), [[{ type: Cmd.READ, flags: Flag.DF, length: 8 }, Errno.EINVAL]]);
});

Deno.test("error table: READs up to 64 MiB are served, longer ones get EINVAL, structured EOVERFLOW", async () => {
  const sizeBytes = 65 * mib;
  const volume = new MemoryVolume(sizeBytes);
  await volume.write(0, new Uint8Array(sizeBytes).fill(1));
  const [simple, structured] = [Peer.transmitting(volume), Peer.transmitting(volume, { structured: true })];
  const read = (length: number, flags = 0) => ({ type: Cmd.READ, length, flags });
  await expectErrors(simple, [
    [read(33 * mib), Errno.OK],
    [read(64 * mib), Errno.OK],
    [read(64 * mib + 1), Errno.EINVAL],
  ]);
  await expectErrors(structured, [
    [read(64 * mib), Errno.OK],
    [read(64 * mib + 1), Errno.EOVERFLOW],
    [read(65536, Flag.DF), Errno.OK],
    [read(32 * mib, Flag.DF), Errno.OK],
    [read(32 * mib + 1, Flag.DF), Errno.EOVERFLOW],
  ]);
  assertEquals((await structured.request(read(32 * mib)))!.chunks, 1);
  assertEquals((await structured.request(read(33 * mib)))!.chunks, 2);
});

Deno.test("error table: commands without payload are never too long", async () => {
  const peer = transmitting({ allocation: true });
  const { session } = peer;
  for (const type of [Cmd.TRIM, Cmd.CACHE, Cmd.BLOCK_STATUS, 99]) {
    assertEquals((await peer.request({ type, length: 0xffffffff }))!.error, Errno.EINVAL);
  }
  assert(!session.isClosed);
});

Deno.test("error table: BLOCK_STATUS past the end, or of nothing, gets EINVAL", async () => {
  await expectErrors(transmitting({ allocation: true }), [
    [{ type: Cmd.BLOCK_STATUS, offset: 0, length: 0 }, Errno.EINVAL],
    [{ type: Cmd.BLOCK_STATUS, offset: size - 1, length: 2 }, Errno.EINVAL],
    [{ type: Cmd.BLOCK_STATUS, offset: 2n ** 64n - 512n, length: 512 }, Errno.EINVAL],
    [{ type: Cmd.BLOCK_STATUS, offset: 0, length: 1, flags: Flag.NO_HOLE }, Errno.EINVAL],
    [{ type: Cmd.BLOCK_STATUS, offset: 0, length: size }, Errno.OK],
  ]);
});

Deno.test("error table: structured errors carry words for people", async () => {
  const reply = await transmitting({ structured: true }).request({ type: 99 });
  assertEquals(reply!.form, "structured");
  assertStringIncludes(reply!.message, "unknown command");
});
