import { NbdboostError, RefusedError, UsageError } from "../../src/errors.ts";
import type { IoConnection, IoListener, SocketAddress } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { socketPathBytesMax } from "../../src/io/portable_socket.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { withDirectory } from "../device/temp.ts";

const noUnixSockets = Deno.build.os === "windows";

function connect(address: SocketAddress): Promise<Deno.Conn> {
  return address.transport === "tcp"
    ? Deno.connect({ hostname: address.hostname, port: address.port })
    : Deno.connect({ transport: "unix", path: address.path });
}

async function pair(listener: IoListener): Promise<{ ours: IoConnection; theirs: Deno.Conn }> {
  const [ours, theirs] = await Promise.all([listener.accept(), connect(listener.address)]);
  assert(ours !== null);
  return { ours, theirs };
}

const exists = (path: string) => Deno.lstat(path).then(() => true, () => false);

async function exchange(listener: IoListener): Promise<void> {
  const { ours, theirs } = await pair(listener);
  await theirs.write(new Uint8Array([1, 2, 3]));
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const into = new Uint8Array(memory.buffer as ArrayBuffer, 100, 50);
  assertEquals(await ours.read(into), 3);
  assertEquals([...into.subarray(0, 3)], [1, 2, 3]);
  assertEquals(await ours.write(into.subarray(1, 3)), 2);
  const answer = new Uint8Array(10);
  assertEquals(await theirs.read(answer), 2);
  theirs.close();
  assertEquals(await ours.read(into), null);
  ours.close();
  ours.close();
}

Deno.test("portableIo.listen: serves TCP and tells the port that it got", async () => {
  const listener = await portableIo.listen({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  assert(listener.address.transport === "tcp" && listener.address.port > 0);
  await exchange(listener);
  listener.close();
  listener.close();
});

Deno.test({
  name: "portableIo.listen: serves a unix socket and removes its path when closed",
  ignore: noUnixSockets,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/socket`;
      const listener = await portableIo.listen({ transport: "unix", path });
      assertEquals(listener.address, { transport: "unix", path });
      await exchange(listener);
      listener.close();
      assertEquals(await exists(path), false);
    }),
});

Deno.test("IoListener.accept: is null when closed, before or meanwhile", async () => {
  const listener = await portableIo.listen({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  const waiting = listener.accept();
  await Promise.resolve();
  listener.close();
  assertEquals(await waiting, null);
  assertEquals(await listener.accept(), null);
});

Deno.test("IoConnection.close: ends a read under way, and later calls", async () => {
  const listener = await portableIo.listen({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  const { ours, theirs } = await pair(listener);
  const reading = ours.read(new Uint8Array(10));
  ours.close();
  assertEquals(await reading, null);
  assertEquals(await ours.read(new Uint8Array(10)), null);
  await assertRejects(() => ours.write(new Uint8Array(10)));
  theirs.close();
  listener.close();
});

Deno.test("portableIo.listen: refuses a TCP address that is taken, missing or no address", async () => {
  const listener = await portableIo.listen({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  const { address } = listener;
  assert(address.transport === "tcp");
  await assertRejects(
    () => portableIo.listen(address),
    RefusedError,
    `127.0.0.1:${address.port}: the address is in use`,
  );
  listener.close();
  const bad = (hostname: string, port: number) => () =>
    portableIo.listen({ transport: "tcp", hostname, port });
  // 203.0.113.0/24 is for documentation only (RFC 5737), .invalid never resolves (RFC 2606).
  await assertRejects(bad("203.0.113.1", 0), UsageError, "no such address");
  await assertRejects(
    bad("no-such-host.invalid", 0),
    NbdboostError,
    "Cannot listen on no-such-host.invalid:0",
  );
  for (const port of [-1, 65536, 1.5, NaN]) {
    await assertRejects(bad("127.0.0.1", port), UsageError, "a port is a number from 0 to 65535");
  }
});

Deno.test({
  name: "portableIo.listen: refuses a unix socket that answers, and replaces one that does not",
  ignore: noUnixSockets,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/socket`;
      const address: SocketAddress = { transport: "unix", path };
      const listener = await portableIo.listen(address);
      await assertRejects(
        () => portableIo.listen(address),
        RefusedError,
        "another process answers on this socket",
      );
      // The one that answers got a visitor that left at once, and goes on.
      (await listener.accept())?.close();
      await exchange(listener);
      listener.close();
      await leaveStaleSocket(path);
      assertEquals(await exists(path), true);
      const next = await portableIo.listen(address);
      await exchange(next);
      next.close();
      assertEquals(await exists(path), false);
    }),
});

Deno.test({
  name: "portableIo.listen: never removes a path of another kind",
  ignore: noUnixSockets,
  fn: () =>
    withDirectory(async (directory) => {
      await Deno.writeTextFile(`${directory}/file`, "precious");
      await Deno.mkdir(`${directory}/directory`);
      await Deno.symlink("nowhere", `${directory}/link`);
      for (const name of ["file", "directory", "link"]) {
        const path = `${directory}/${name}`;
        await assertRejects(
          () => portableIo.listen({ transport: "unix", path }),
          RefusedError,
          "something that is not a socket is there already",
        );
        assertEquals(await exists(path), true);
      }
      assertEquals(await Deno.readTextFile(`${directory}/file`), "precious");
    }),
});

Deno.test({
  name: "portableIo.listen: says what is wrong with a unix socket's path",
  ignore: noUnixSockets,
  fn: () =>
    withDirectory(async (directory) => {
      const bad = (path: string) => () => portableIo.listen({ transport: "unix", path });
      await assertRejects(bad(""), UsageError, "expected the path of a file");
      await assertRejects(bad("a\0b"), UsageError, "expected the path of a file");
      await assertRejects(bad(`${directory}/none/socket`), UsageError, "a path in an existing directory");
      const long = `${directory}/${"x".repeat(socketPathBytesMax - directory.length)}`;
      await assertRejects(bad(long), UsageError, `and a unix socket's has at most ${socketPathBytesMax}`);
      const listener = await portableIo.listen({ transport: "unix", path: long.slice(0, -1) });
      listener.close();
    }),
});

/** Leaves what a killed server leaves: a socket that nobody listens on. */
async function leaveStaleSocket(path: string): Promise<void> {
  const script = `Deno.listen({ transport: "unix", path: ${
    JSON.stringify(path)
  } }); Deno.kill(Deno.pid, "SIGKILL");`;
  const child = new Deno.Command(Deno.execPath(), { args: ["eval", script], stdout: "null", stderr: "null" });
  assertEquals((await child.output()).signal, "SIGKILL");
}
