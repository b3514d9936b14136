/** A backing behind `nbds://`: servers of other people's making and our own, whom we trust, and whom we do not. */

import { formatCache, openCache } from "../../mod.ts";
import { openDevice } from "../../src/device/open.ts";
import { ServerProcess } from "../../src/cli/self.ts";
import { NbdboostError } from "../../src/errors.ts";
import { serve } from "../../src/nbd/mod.ts";
import { tlsRefusal } from "../../src/io/portable_tls.ts";
import { SeededRandom } from "../../src/random.ts";
import { Temp } from "../cli/support.ts";
import { assertSame } from "../device/contract.ts";
import { MemoryVolume } from "../nbd/memory_volume.ts";
import { temporarySocket } from "../nbd/temp.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";
import { makeCertificates } from "./certificates.ts";
import { ForeignServer, nbdkit, qemuNbd } from "./servers.ts";
import { requireTool } from "./tools.ts";

const mib = 1 << 20;
const backingBytes = 32 * mib;

/** Registers a test with an authority, and certificates of it, in a directory of its own. */
function tlsTest(what: string, body: (directory: string) => Promise<void>): void {
  Deno.test(`nbds backing: ${what}`, async () => {
    if (!requireTool("openssl") || tlsRefusal() !== undefined) return;
    await using temp = await Temp.make();
    await makeCertificates(temp.path);
    await body(temp.path);
  });
}

function secure(uri: string, directory: string, more = "&tls-hostname=localhost&x-wait=10"): string {
  return `${uri.replace(/^nbds?/, "nbds")}${
    uri.includes("?") ? "&" : "?"
  }tls-certificates=${directory}${more}`;
}

/** A cache in front of `uri` takes writes, gives them back, and drains them to where they belong. */
async function cacheInFront(uri: string): Promise<void> {
  await using temp = await Temp.make();
  const cache = await temp.sparse("cache.nbb", 16 * mib);
  await formatCache({ cache, backing: uri });
  const opened = await openCache({ cache, backing: uri });
  const random = new SeededRandom(11);
  const model = new Uint8Array(backingBytes);
  for (let i = 0; i < 40; i++) {
    const at = 4096 * random.below(backingBytes / 4096 - 16);
    const bytes = new Uint8Array(4096 * (1 + random.below(16)));
    random.fill(bytes);
    await opened.write(at, bytes);
    model.set(bytes, at);
  }
  await opened.drain();
  await opened.close();
  const device = await openDevice(uri, { write: false });
  const found = new Uint8Array(backingBytes);
  await device.read(0, found);
  await device.close();
  assertSame(found, model, "the backing");
}

tlsTest("nbdkit with client certificates, through a cache", async (directory) => {
  const args = ["--tls=require", `--tls-certificates=${directory}`, "--tls-verify-peer"];
  await using server = await ForeignServer.start("nbdkit", (socket, own) => [
    ...args,
    ...nbdkit(backingBytes)(socket, own),
  ]);
  if (server === undefined) return;
  await cacheInFront(secure(server.uri, directory));
  await Deno.mkdir(`${directory}/bare`);
  await Deno.copyFile(`${directory}/ca-cert.pem`, `${directory}/bare/ca-cert.pem`);
  await assertRejects(
    () => openDevice(secure(server.uri, `${directory}/bare`), { write: true }),
    NbdboostError,
    "Cannot open",
  );
  await assertRejects(
    () => openDevice(server.uri, { write: true }),
    NbdboostError,
    "use nbds:// instead of nbd://",
  );
});

tlsTest("qemu-nbd, through a cache, also after it was killed and started again", async (directory) => {
  const creds = `tls-creds-x509,id=tls0,endpoint=server,verify-peer=yes,dir=${directory}`;
  await using server = await ForeignServer.start("qemu-nbd", (socket, own) => [
    "--object",
    creds,
    "--tls-creds",
    "tls0",
    ...qemuNbd(backingBytes)(socket, own),
  ]);
  if (server === undefined) return;
  const uri = secure(server.uri, directory);
  await cacheInFront(uri);
  const device = await openDevice(uri, { write: true });
  await device.write(4096, new Uint8Array(4096).fill(9));
  await device.sync();
  await server.kill();
  const back = server.start();
  const found = new Uint8Array(4096);
  await device.read(4096, found);
  await back;
  assertEquals(found[4095], 9);
  await device.close();
});

tlsTest("our own server on TCP; a certificate of another authority or name is refused", async (directory) => {
  const read = (name: string) => Deno.readTextFileSync(`${directory}/${name}.pem`);
  const identity = {
    certificate: read("server-cert"),
    key: read("server-key"),
    authority: read("ca-cert"),
    verifyClients: true,
  };
  const volume = new MemoryVolume(backingBytes);
  const tls = { mode: "require" as const, identity };
  await using server = await serve(volume, { listen: "nbd://127.0.0.1:0", tls, warn: () => {} });
  const uri = server.uris[0]!;
  await cacheInFront(secure(uri, directory, ""));
  await Deno.mkdir(`${directory}/other`);
  await makeCertificates(`${directory}/other`);
  const cases: [parameters: string, says: string][] = [
    [`tls-certificates=${directory}/other`, "TLS failed"],
    [`tls-certificates=${directory}&tls-hostname=elsewhere.example`, "does not match"],
    [`tls-hostname=localhost`, "TLS failed"],
    [`tls-certificates=${directory}/none`, "ca-cert.pem cannot be read"],
    [`tls-certificates=${directory}&tls-type=psk`, "expected x509"],
    [`tls-certificates=${directory}&tls-verify-peer=maybe`, "expected 0 or 1"],
  ];
  for (const [parameters, says] of cases) {
    await assertRejects(
      () => openDevice(`${uri}?${parameters}&x-wait=2`, { write: true }),
      NbdboostError,
      says,
    );
  }
  await assertRejects(
    () => openDevice(`${uri.replace("nbds:", "nbd:")}?tls-certificates=${directory}`, { write: true }),
    NbdboostError,
    "belongs to nbds://",
  );
  const careless = `tls-certificates=${directory}&tls-hostname=elsewhere.example&tls-verify-peer=0`;
  const device = await openDevice(`${uri}?${careless}`, { write: true });
  assertEquals(device.sizeBytes, backingBytes);
  await device.close();
});

Deno.test("nbds backing: a Deno that believes any certificate is refused", async () => {
  assertStringIncludes(tlsRefusal("2.6.8")!, "2.8 or newer can");
  assertEquals([tlsRefusal("2.8.0"), tlsRefusal("2.9.6"), tlsRefusal("3.0.0")], [
    undefined,
    undefined,
    undefined,
  ]);
  if (tlsRefusal() === undefined) return;
  await assertRejects(
    () => openDevice("nbds://127.0.0.1/", { write: true }),
    NbdboostError,
    "Cannot use TLS",
  );
});

Deno.test("nbds backing: nothing is said in the clear to a server without TLS, or to one that talks on", async () => {
  if (tlsRefusal() !== undefined) return;
  await using socket = await temporarySocket();
  const heard: number[] = [];
  const greeting = new Uint8Array([...new TextEncoder().encode("NBDMAGICIHAVEOPT"), 0, 3]);
  const reply = (type: number, rest: number) => {
    const bytes = new Uint8Array(20 + rest);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, 0x0003e889045565a9n);
    view.setUint32(8, 5);
    view.setUint32(12, type);
    return bytes;
  };
  // One that refuses, one with plain text behind its consent, one that says yes and answers in the clear.
  const answers = [reply(0x80000002, 0), reply(1, 20), reply(1, 0)];
  const listener = Deno.listen({ transport: "unix", path: `${socket.directory}/s` });
  const served = (async () => {
    for (const answer of answers) {
      const connection = await listener.accept();
      await connection.write(greeting);
      const buffer = new Uint8Array(1000);
      let count = 0;
      while (count < 20) count += await connection.read(buffer) ?? 20;
      heard.push(count);
      await connection.write(answer);
      // What comes now must be TLS, which begins with 22, or the end.
      const more = await connection.read(buffer);
      assert(more === null || buffer[0] === 22, `it said ${buffer.subarray(0, more ?? 0)}`);
      await connection.write(new Uint8Array(40).fill(65)).catch(() => {});
      connection.close();
    }
  })();
  for (const says of ["does not offer TLS", "plain text where TLS was to begin", "TLS failed"]) {
    await assertRejects(
      () => openDevice(socket.uri.replace("nbd+", "nbds+"), { write: true }),
      NbdboostError,
      says,
    );
  }
  await served;
  listener.close();
  // Flags and the option's header, nothing else.
  assertEquals(heard, [20, 20, 20]);
});

tlsTest("serve takes it, on the portable backend, and says why", async (directory) => {
  const args = ["--tls=require", `--tls-certificates=${directory}`];
  await using server = await ForeignServer.start("nbdkit", (socket, own) => [
    ...args,
    ...nbdkit(backingBytes)(socket, own),
  ]);
  if (server === undefined) return;
  await using temp = await Temp.make();
  const backing = secure(server.uri, directory);
  await formatCache({ cache: await temp.sparse("c.nbb", 16 * mib), backing });
  const pair = ["--cache", temp.join("c.nbb"), "--backing", backing];
  const listen = ["--listen", `nbd+unix:///?socket=${temp.join("s")}`];
  const ours = await ServerProcess.start([...pair, ...listen]);
  assertStringIncludes(ours.notes.join(), "I/O backend: portable (the ring cannot do TLS");
  assertEquals(await ours.stop(), 0);
});
