/** Sockets that others open: a service manager (LISTEN_FDS), a client that starts its server, and standard input and output. */

import { selfCommand } from "../../src/cli/self.ts";
import { probeRing } from "../../src/io/ring/mod.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { Temp } from "../cli/support.ts";
import { requireTool, tryRun } from "./tools.ts";

const backends = probeRing().usable ? ["ring", "portable"] : ["portable"];
/** The first Deno that takes over a listening socket by its descriptor. */
const canTakeOver = Number(Deno.version.deno.split(".")[1]) >= 9 || !Deno.version.deno.startsWith("2.");

/** A fresh pair, and the command that serves it. */
async function withCommand(body: (command: string[], temp: Temp) => Promise<void>): Promise<void> {
  if (Deno.build.os !== "linux") return;
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const { program, words } = selfCommand();
  await body([program, ...words, "serve", ...pair, "--control", "off"], temp);
}

for (const io of backends) {
  if (io === "portable" && !canTakeOver) continue;

  Deno.test(`nbdinfo: starts the server, and passes it a socket (${io})`, async () => {
    if (!requireTool("nbdinfo")) return;
    await withCommand(async (command) => {
      const { code, stdout, stderr } = await tryRun(
        "nbdinfo",
        "--size",
        "--",
        "[",
        ...command,
        "--io",
        io,
        "]",
      );
      assertEquals(code, 0, stderr);
      assertStringIncludes(stdout, `${64 << 20}`);
      assertStringIncludes(stderr, `I/O backend: ${io}`);
    });
  });

  for (const family of ["tcp", "unix"]) {
    Deno.test(`nbdsh: a manager's socket outlives the server, nobody is turned away (${io}, ${family})`, async () => {
      if (!requireTool("nbdsh")) return;
      await withCommand(async (command, temp) => {
        const options = JSON.stringify({ command: [...command, "--io", io], path: temp.join("s"), family });
        const { code, stdout, stderr } = await tryRun(
          "nbdsh",
          "-c",
          `options = ${options}`,
          "-c",
          managerProgram,
        );
        assertEquals(code, 0, stderr);
        assertStringIncludes(stdout, "the second has what the first took");
      });
    });
  }
}

/** What a service manager does: listens without ever accepting, starts a server, and another one when that has ended. */
const managerProgram = `
import os, signal, socket
if options["family"] == "tcp":
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    uri = "nbd://127.0.0.1:%d" % listening.getsockname()[1]
else:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(options["path"])
    uri = "nbd+unix:///?socket=" + options["path"]
listening.listen(16)
listening.setblocking(False)

def start():
    pid = os.fork()
    if pid != 0:
        return pid
    os.dup2(listening.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ["LISTEN_FDS"] = "1"
    os.execvp(options["command"][0], options["command"])

def stop(pid):
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0, "the server did not end in order"

first = start()
client = nbd.NBD()
client.connect_uri(uri)
client.pwrite(b"g" * 4096, 8192)
client.flush()
client.shutdown()
stop(first)
# Nobody serves now: who comes waits in the socket's queue.
early = socket.socket(listening.family)
early.connect(listening.getsockname())
second = start()
late = nbd.NBD()
late.connect_socket(early.detach())
assert late.pread(4096, 8192) == b"g" * 4096
late.shutdown()
stop(second)
print("the second has what the first took")
`;

Deno.test("nbdsh: serve --stdio is one client's server, and ends with it", async () => {
  if (!requireTool("nbdsh")) return;
  await withCommand(async (command) => {
    const program = `
h.connect_command(${JSON.stringify([...command, "--stdio"])})
h.pwrite(b"s" * 512, 512)
h.flush()
assert h.pread(512, 512) == b"s" * 512
h.shutdown()
print("written")
`;
    const outcome = await tryRun("nbdsh", "-c", program);
    assertEquals(outcome.code, 0, outcome.stderr);
    assertStringIncludes(outcome.stdout, "written");
    assert(!outcome.stdout.includes("ready"), "standard output is the client's");
    assertStringIncludes(
      outcome.stderr,
      "I/O backend: portable (the ring cannot do standard input and output",
    );
    // Closed in order, so the next one finds nothing to recover and all that was written.
    const again = await tryRun("nbdsh", "-c", program.replace('h.pwrite(b"s" * 512, 512)', "pass"));
    assertEquals(again.code, 0, again.stderr);
    assertStringIncludes(again.stderr, "closed in order");
    const ring = await new Deno.Command(command[0]!, {
      args: [...command.slice(1), "--stdio", "--io", "ring"],
      stdin: "null",
    }).output();
    assertEquals(ring.code, 3, new TextDecoder().decode(ring.stderr));
    assertEquals(ring.stdout.length, 0);
  });
});

for (const io of backends) {
  Deno.test(`serve: a descriptor that is no listening socket is refused with a sentence (${io})`, async () => {
    await withCommand(async (command) => {
      const line = `exec 3</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec ${
        command.join(" ")
      } --io ${io}`;
      const { code, stderr } = await new Deno.Command("sh", { args: ["-c", line], stdin: "null" }).output();
      assertEquals(code, 3, new TextDecoder().decode(stderr));
      assertStringIncludes(new TextDecoder().decode(stderr), "Cannot listen on descriptor 3");
    });
  });
}
