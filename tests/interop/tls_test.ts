/** TLS with clients of other people's making: offered, required, with and without certificates of their own. */

import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { serve } from "../../src/nbd/mod.ts";
import type { TlsIdentity } from "../../src/io/io.ts";
import { tlsRefusal } from "../../src/io/portable_tls.ts";
import { ServerProcess } from "../../src/cli/self.ts";
import { assertSame } from "../device/contract.ts";
import { runHere, Temp } from "../cli/support.ts";
import { RawClient } from "../nbd/client.ts";
import { MemoryVolume } from "../nbd/memory_volume.ts";
import { clientFlags, Opt, optionBytes, pack, Rep } from "../nbd/wire.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { makeCertificates } from "./certificates.ts";
import { requireTool, type Tool, tryRun } from "./tools.ts";

const mib = 1 << 20;

async function identityIn(directory: string, verifyClients: boolean): Promise<TlsIdentity> {
  const read = (name: string) => Deno.readTextFile(`${directory}/${name}.pem`);
  return {
    certificate: await read("server-cert"),
    key: await read("server-key"),
    authority: await read("ca-cert"),
    verifyClients,
  };
}

/** Registers a test with certificates at hand, for a program that must be there. */
function tlsTest(tool: Tool, what: string, body: (directory: string) => Promise<void>): void {
  Deno.test(`${tool}: ${what}`, async () => {
    if (!requireTool(tool) || !requireTool("openssl") || tlsRefusal() !== undefined) return;
    await using temp = await Temp.make();
    await makeCertificates(temp.path);
    await body(temp.path);
  });
}

/** Whether a client with the certificate in `directory` gets an answer to an option after STARTTLS. */
async function greetedOverTls(uri: string, directory: string): Promise<boolean> {
  const { hostname, port } = new URL(uri.replace(/^nbds?:/, "http:"));
  const socket = connect(Number(port), hostname);
  const next = (from: Socket) => new Promise<Uint8Array>((resolve) => from.once("data", resolve));
  try {
    await next(socket);
    socket.write(pack(clientFlags(), optionBytes(Opt.STARTTLS)));
    await next(socket);
    socket.removeAllListeners();
    const [cert, key] = ["client-cert", "client-key"].map((name) =>
      Deno.readTextFileSync(`${directory}/${name}.pem`)
    );
    const secure = connectTls({ socket, cert: cert!, key: key!, rejectUnauthorized: false });
    return await new Promise<boolean>((resolve) => {
      secure.once("secureConnect", () => secure.write(optionBytes(Opt.LIST)));
      secure.once("data", () => resolve(true));
      secure.once("error", () => resolve(false));
      secure.once("close", () => resolve(false));
    }).finally(() => secure.destroy());
  } finally {
    socket.destroy();
  }
}

/** nbds://…, with the client's directory of certificates. */
function secure(uri: string, directory: string): string {
  return `${uri.replace(/^nbds?(\+unix)?:/, "nbds$1:")}${
    uri.includes("?") ? "&" : "?"
  }tls-certificates=${directory}&tls-hostname=localhost`;
}

for (const transport of ["tcp", "unix"] as const) {
  tlsTest(
    "nbdinfo",
    `reads and writes over TLS on ${transport}, in the clear only where that is allowed`,
    async (directory) => {
      const volume = new MemoryVolume(8 * mib);
      await volume.write(0, new Uint8Array(8 * mib).fill(7));
      for (const mode of ["on", "require"] as const) {
        const listen = transport === "tcp" ? "nbd://127.0.0.1:0" : `nbd+unix:///?socket=${directory}/s`;
        const identity = await identityIn(directory, false);
        await using server = await serve(volume, { listen, tls: { mode, identity }, warn: () => {} });
        const uri = server.uris[0]!;
        assertEquals(uri.startsWith("nbds"), mode === "require");
        const info = await tryRun("nbdinfo", "--json", secure(uri, directory));
        assertEquals(info.code, 0, info.stderr);
        assertEquals(JSON.parse(info.stdout).TLS, true);
        const copied = await tryRun("nbdcopy", secure(uri, directory), `${directory}/copy`);
        assertEquals(copied.code, 0, copied.stderr);
        assertSame(await Deno.readFile(`${directory}/copy`), volume.bytes, "the copy");
        const plain = await tryRun("nbdinfo", "--size", uri.replace(/^nbds/, "nbd"));
        assertEquals(plain.code === 0, mode === "on", plain.stderr);
      }
    },
  );
}

tlsTest(
  "nbdinfo",
  "without a certificate of its own it is refused where clients are verified",
  async (directory) => {
    const identity = await identityIn(directory, true);
    const warnings: string[] = [];
    const tls = { mode: "require" as const, identity };
    await using server = await serve(new MemoryVolume(mib), {
      listen: "nbd://127.0.0.1:0",
      tls,
      warn: (message) => warnings.push(message),
    });
    const uri = server.uris[0]!;
    assertEquals((await tryRun("nbdinfo", "--size", secure(uri, directory))).stdout.trim(), String(mib));
    await Deno.mkdir(`${directory}/bare`);
    await Deno.copyFile(`${directory}/ca-cert.pem`, `${directory}/bare/ca-cert.pem`);
    const refused = await tryRun("nbdinfo", "--size", secure(uri, `${directory}/bare`));
    assert(refused.code !== 0, refused.stdout);
    // libnbd does not show a certificate of another authority; this client does.
    await Deno.mkdir(`${directory}/other`);
    await makeCertificates(`${directory}/other`);
    assertEquals(await greetedOverTls(uri, `${directory}/other`), false);
    assertEquals(await greetedOverTls(uri, directory), true);
    assertStringIncludes(warnings.join(), "TLS failed");
    assertEquals((await tryRun("nbdinfo", "--size", secure(uri, directory))).stdout.trim(), String(mib));
  },
);

tlsTest(
  "nbdinfo",
  "serve --tls, a handshake of garbage, and what does not go together",
  async (directory) => {
    await using temp = await Temp.make();
    const { pair } = await temp.pair();
    const files = ["--tls-dir", directory];
    const server = await ServerProcess.start([
      ...pair,
      "--listen",
      "nbd://127.0.0.1:0",
      "--tls",
      "require",
      ...files,
    ]);
    const uri = server.uris[0]!;
    assertEquals((await tryRun("nbdinfo", "--size", secure(uri, directory))).stdout.trim(), String(64 * mib));
    const raw = await RawClient.connect(uri);
    await raw.greet();
    assertEquals((await raw.option(Opt.LIST)).map(({ type }) => type), [Rep.ERR_UNSUP + 4]);
    assertEquals((await raw.option(Opt.STARTTLS)).map(({ type }) => type), [Rep.ACK]);
    await raw.send(new Uint8Array(500).fill(0x41));
    await raw.rest();
    raw.close();
    assertEquals((await tryRun("nbdinfo", "--size", secure(uri, directory))).code, 0);
    assertEquals(await server.stop(), 0);
    const cases: [string[], number, string][] = [
      [["--tls", "on"], 2, "needs --tls-dir"],
      [["--tls-dir", directory], 2, "without --tls on"],
      [["--tls", "on", "--tls-dir", temp.path], 2, "server-cert.pem cannot be read"],
      [["--tls", "on", "--io", "ring", ...files], 3, "or --io portable"],
    ];
    for (const [args, code, words] of cases) {
      const ended = await runHere("serve", ...pair, ...args);
      assertEquals(ended.code, code, ended.err);
      assertStringIncludes(ended.err, words);
    }
    await Deno.writeTextFile(`${directory}/ca-crl.pem`, "");
    const revoked = await runHere("serve", ...pair, "--tls", "on", ...files, "--tls-verify-clients");
    assertEquals(revoked.code, 3, revoked.err);
  },
);

tlsTest(
  "openssl",
  "a client that dawdles in the TLS handshake has no more time than any other",
  async (directory) => {
    const warnings: string[] = [];
    await using server = await serve(new MemoryVolume(mib), {
      listen: "nbd://127.0.0.1:0",
      tls: { mode: "require", identity: await identityIn(directory, false) },
      limits: { handshakeSeconds: 1 },
      warn: (message) => warnings.push(message),
    });
    const uri = server.uris[0]!.replace(/^nbds/, "nbd");
    for (const beginning of [[], [22], [22, 3, 1, 2, 0, 1, 0, 1, 252]]) {
      const raw = await RawClient.connect(uri);
      await raw.greet();
      assertEquals((await raw.option(Opt.STARTTLS)).map(({ type }) => type), [Rep.ACK]);
      await raw.send(new Uint8Array(beginning));
      // It gets nothing, and then the end.
      await raw.rest();
      raw.close();
    }
    assertEquals(warnings.filter((warning) => warning.includes("no export was chosen within 1 s")).length, 3);
  },
);
