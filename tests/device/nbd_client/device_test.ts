/** A remote backing: what it promises while its server answers, hangs, goes away and comes back. */

import type { BlockDevice } from "../../../src/device/block_device.ts";
import type { NbdDevice } from "../../../src/device/nbd_client/device.ts";
import { openNbdDevice } from "../../../src/device/nbd_client/open.ts";
import { openDevice } from "../../../src/device/open.ts";
import { DeviceError, UsageError } from "../../../src/errors.ts";
import { portableIo } from "../../../src/io/portable.ts";
import { systemClock } from "../../../src/clock.ts";
import { serve, type Server } from "../../../src/nbd/mod.ts";
import type { Volume } from "../../../src/cache/volume.ts";
import { Gate, MemoryVolume } from "../../nbd/memory_volume.ts";
import { temporarySocket } from "../../nbd/temp.ts";
import { assertSame, contractBytes, testContract } from "../contract.ts";
import { Breaker } from "./breaker.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";

const kib = 1024;
const mib = 1024 * kib;
const io = portableIo;
const clock = systemClock;

interface World {
  volume: MemoryVolume;
  breaker: Breaker;
  device: NbdDevice;
}

/** A device in front of our own server, with something breakable between. */
async function withWorld(parameters: string, body: (world: World) => Promise<void>): Promise<void> {
  await using socket = await temporarySocket();
  const volume = new MemoryVolume(contractBytes);
  await using _server = await serve(volume, { listen: socket.uri, warn: () => {} });
  await using breaker = new Breaker(`${socket.directory}/b`, `${socket.directory}/s`);
  const device = await openNbdDevice(`${breaker.uri}${parameters}`, { write: true, io, clock });
  try {
    await body({ volume, breaker, device });
  } finally {
    await device.close();
  }
}

testContract("NbdDevice", async (body) => {
  await using socket = await temporarySocket();
  await using _server = await serve(new MemoryVolume(contractBytes), { listen: socket.uri, warn: () => {} });
  await body(await openDevice(socket.uri, { write: true }));
});

testContract("NbdDevice over TCP and one connection", async (body) => {
  await using server = await serve(new MemoryVolume(contractBytes), {
    listen: "nbd://127.0.0.1:0",
    warn: () => {},
  });
  await body(await openDevice(`${server.uris[0]}?x-connections=1`, { write: true }));
});

Deno.test("NbdDevice: identity is the URI without parameters, and it has several connections", async () => {
  await withWorld("&x-wait=5&x-connections=3", async ({ device, breaker }) => {
    assertEquals(await device.identity(), { kind: "nbd", id: breaker.uri, modifiedMs: 0 });
    assertEquals([device.connections, device.sizeBytes, device.away()], [3, contractBytes, undefined]);
  });
});

Deno.test("NbdDevice: long reads and writes go in pieces", async () => {
  await using socket = await temporarySocket();
  const volume = new MemoryVolume(40 * mib);
  await using _server = await serve(volume, { listen: socket.uri, warn: () => {} });
  const device = await openDevice(socket.uri, { write: true });
  const bytes = new Uint8Array(37 * mib);
  for (let at = 0; at < bytes.length; at += 512) bytes.fill(at >> 9, at, at + 512);
  await device.write(512, bytes);
  const back = new Uint8Array(bytes.length);
  await device.read(512, back);
  assertSame(back, bytes, "all of it");
  await device.zero(mib, 38 * mib, { keepAllocated: true });
  assert(volume.keptAllocated);
  await device.close();
});

Deno.test("NbdDevice: requests under way when the connection is cut are done over a new one", async () => {
  await withWorld("", async ({ device, breaker, volume }) => {
    const gate = new Gate();
    volume.before = gate.pass;
    volume.hot = false;
    volume.bytes.fill(5);
    const target = new Uint8Array(8 * kib);
    const read = device.read(0, target);
    const written = device.write(mib, new Uint8Array(64 * kib).fill(9));
    while (gate.waiting < 2) await new Promise((resolve) => setTimeout(resolve, 1));
    breaker.cut();
    gate.open();
    await Promise.all([read, written]);
    assertSame(target, new Uint8Array(8 * kib).fill(5), "read");
    assertSame(volume.bytes.slice(mib, mib + 64 * kib), new Uint8Array(64 * kib).fill(9), "written");
    assert(breaker.accepted >= 8, "a generation of new connections");
  });
});

Deno.test("NbdDevice: after a lost connection the next sync fails if anything was written, and the one after it works", async () => {
  await withWorld("", async ({ device, breaker }) => {
    const cut = async () => {
      const before = breaker.accepted;
      breaker.cut();
      while (breaker.accepted < before + 4 || device.away() !== undefined) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    const sector = new Uint8Array(512).fill(1);
    await device.write(0, sector);
    await device.sync();
    await cut();
    await device.sync();
    await device.write(512, sector);
    await cut();
    const error = await assertRejects(
      () => device.sync(),
      DeviceError,
      "the connection was lost since the last sync",
    );
    assertEquals(error.code, "EIO");
    await device.sync();
    await device.zero(0, 512, { keepAllocated: false });
    await cut();
    await device.write(512, sector);
    await assertRejects(() => device.sync(), DeviceError, "has to be written again");
    await device.sync();
  });
});

Deno.test("NbdDevice: a connection that is lost during a sync fails it", async () => {
  await withWorld("", async ({ device, breaker, volume }) => {
    await device.write(0, new Uint8Array(512));
    const gate = new Gate();
    volume.before = (call) => call === "flush" ? gate.pass() : undefined;
    const sync = device.sync();
    sync.catch(() => {});
    while (gate.waiting < 1) await new Promise((resolve) => setTimeout(resolve, 1));
    breaker.cut();
    gate.open();
    await assertRejects(() => sync, DeviceError, "the connection was lost");
    await device.sync();
  });
});

Deno.test("NbdDevice: a sync that overlaps with one that fails does not call good what that one lost", async () => {
  await withWorld("&x-connections=1", async ({ device, breaker, volume }) => {
    await device.write(0, new Uint8Array(512));
    const gate = new Gate();
    volume.before = (call) => call === "flush" ? gate.pass() : undefined;
    const first = device.sync();
    first.catch(() => {});
    while (gate.waiting < 1) await new Promise((resolve) => setTimeout(resolve, 1));
    const second = device.sync();
    second.catch(() => {});
    breaker.cut();
    gate.open();
    await assertRejects(() => first, DeviceError);
    await assertRejects(() => second, DeviceError);
    await device.sync();
  });
});

Deno.test("NbdDevice: while the server is away requests wait for the stated time and then fail; then it is back", async () => {
  await withWorld("&x-wait=1", async ({ device, breaker }) => {
    await breaker.refuse();
    breaker.cut();
    for (
      const call of [
        () => device.read(0, new Uint8Array(512)),
        () => device.write(0, new Uint8Array(512)),
        () => device.zero(0, 512, { keepAllocated: false }),
        () => device.sync(),
      ]
    ) {
      const error = await assertRejects(call, DeviceError, "the server is away");
      assertEquals(error.code, "ETIMEDOUT");
    }
    assert(device.away() !== undefined);
    const waiting = device.write(0, new Uint8Array(512).fill(3));
    breaker.listen();
    await waiting;
    assertEquals(device.away(), undefined);
    await device.sync();
  });
});

Deno.test("NbdDevice: a server that does not answer is given up after the stated time", async () => {
  await withWorld("&x-wait=1", async ({ device, breaker }) => {
    breaker.hold();
    const error = await assertRejects(
      () => device.read(0, new Uint8Array(512)),
      DeviceError,
      "the server is away",
    );
    assertEquals(error.code, "ETIMEDOUT");
    assertStringIncludes(error.message, "did not answer for 1 s");
    breaker.go();
    await device.read(0, new Uint8Array(512));
  });
});

Deno.test("NbdDevice: close does not wait for a server that is away longer than calls do", async () => {
  await withWorld("&x-wait=1", async ({ device, breaker }) => {
    await breaker.refuse();
    breaker.cut();
    const read = device.read(0, new Uint8Array(512));
    read.catch(() => {});
    await device.close();
    await assertRejects(() => read, DeviceError, "is away");
  });
});

Deno.test("NbdDevice: what the server refuses is said, with its place", async () => {
  await withWorld("", async ({ device, volume }) => {
    volume.hot = false;
    volume.before = (call) => {
      if (call === "write") throw new DeviceError("ENOSPC", "Full");
      if (call === "read" || call === "flush") throw new DeviceError("EIO", "Broken");
    };
    const full = await assertRejects(
      () => device.write(4096, new Uint8Array(512)),
      DeviceError,
      "says ENOSPC",
    );
    assertEquals(full.code, "ENOSPC");
    const broken = await assertRejects(() => device.read(8192, new Uint8Array(512)), DeviceError, "says EIO");
    assertEquals([broken.code, broken.offset], ["EIO", 8192]);
    await assertRejects(() => device.sync(), DeviceError, "says EIO");
    assertEquals(device.away(), undefined);
  });
});

Deno.test("NbdDevice: an export that comes back with another size is not taken for the old one", async () => {
  await using socket = await temporarySocket();
  const listen = (volume: Volume): Promise<Server> => serve(volume, { listen: socket.uri, warn: () => {} });
  const first = await listen(new MemoryVolume(mib));
  const device: BlockDevice = await openDevice(`${socket.uri}&x-wait=1`, { write: true });
  await first.close();
  const second = await listen(new MemoryVolume(2 * mib));
  await assertRejects(() => device.read(0, new Uint8Array(512)), DeviceError, "came back with 2097152");
  await second.close();
  const third = await listen(new MemoryVolume(mib));
  await device.read(0, new Uint8Array(512));
  await device.close();
  await third.close();
});

Deno.test("openDevice: a server that cannot be used is refused with the reason", async () => {
  await using socket = await temporarySocket("disk");
  const open = (uri: string, write = true) => openDevice(uri, { write });
  await assertRejects(() => open(socket.uri), DeviceError, "see that the server runs");
  await assertRejects(() => open("nbds://127.0.0.1/?tls-type=anon"), UsageError, "expected x509");
  await assertRejects(() => open("nbd://127.0.0.1/?tls-hostname=h"), UsageError, "belongs to nbds://");
  await assertRejects(() => open(`${socket.uri}&x-wait=0`), UsageError, "x-wait");
  await assertRejects(() => open(`${socket.uri}&x-colour=red`), UsageError, "x-colour");
  const volume = new MemoryVolume(mib, { readOnly: true });
  await using _server = await serve(volume, { listen: socket.uri, warn: () => {} });
  const error = await assertRejects(() => open(socket.uri), DeviceError, "read-only");
  assertEquals(error.code, "EROFS");
  await assertRejects(
    () => open(socket.uri.replace("disk", "other")),
    DeviceError,
    'no export named "other"',
  );
  const device = await open(socket.uri, false);
  assertEquals(device.readOnly, true);
  await device.close();
});

Deno.test("openDevice: a size that is no multiple of sectors is refused", async () => {
  await using socket = await temporarySocket();
  await using _server = await serve(new MemoryVolume(1000), { listen: socket.uri, warn: () => {} });
  await assertRejects(() => openDevice(socket.uri, { write: true }), UsageError, "multiple of 512");
});
