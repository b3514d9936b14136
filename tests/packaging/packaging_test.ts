/** What a package is made of: units that systemd takes, a tarball that works by itself. @module */

import { version } from "../../src/version.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { Temp } from "../cli/support.ts";

const root = new URL("../../", import.meta.url).pathname;
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

interface Ended {
  code: number;
  out: string;
  err: string;
}

/** Runs a program to its end; undefined, loudly, where it is missing (in CI that is a failure). */
async function runTool(program: string, args: string[], cwd = root): Promise<Ended | undefined> {
  try {
    const { code, stdout, stderr } = await new Deno.Command(program, { args, cwd, stdin: "null" }).output();
    return { code, out: decode(stdout), err: decode(stderr) };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) || Deno.env.get("CI") === "true") throw error;
    console.warn(`SKIPPED: ${program} is not installed`);
    return undefined;
  }
}

const unitNames = [...Deno.readDirSync(`${root}packaging/systemd`)].map(({ name }) => name)
  .filter((name) => /@\.(service|socket)$/.test(name));

Deno.test("systemd units: systemd finds nothing wrong with them", async () => {
  assertEquals(unitNames.toSorted(), ["nbdboost@.service", "nbdboost@.socket"]);
  await using temp = await Temp.make();
  for (const name of unitNames) {
    const text = await Deno.readTextFile(`${root}packaging/systemd/${name}`);
    // The check wants a program that exists.
    await Deno.writeTextFile(
      temp.join(name.replace("@.", "@mail.")),
      text.replaceAll("/usr/local/bin/nbdboost", "/bin/true"),
    );
  }
  for (const name of unitNames) {
    const checked = await runTool("systemd-analyze", [
      "verify",
      "--man=no",
      "--recursive-errors=no",
      temp.join(name.replace("@.", "@mail.")),
    ]);
    if (checked === undefined) return;
    assertEquals([checked.code, checked.err], [0, ""], name);
  }
});

Deno.test("systemd units: what the server's exit codes say is not tried again", async () => {
  const text = await Deno.readTextFile(`${root}packaging/systemd/nbdboost@.service`);
  assertStringIncludes(text, "RestartPreventExitStatus=2 3 4");
  assertStringIncludes(text, "Type=notify");
  assert(!/^MemoryDenyWriteExecute=|^PrivateDevices=|^SystemCallFilter=/m.test(text));
});

Deno.test("deno pack: the tarball has no dependency and no command line, and works by itself", async () => {
  await using temp = await Temp.make();
  const tarball = temp.join("nbdboost.tgz");
  const packed = await runTool(Deno.execPath(), ["pack", "--allow-dirty", "--output", tarball]);
  if (packed!.code !== 0 && packed!.err.includes("unrecognized subcommand")) {
    console.warn("SKIPPED: this Deno has no pack");
    return;
  }
  assertEquals(packed!.code, 0, packed!.err);
  const unpacked = await runTool("tar", ["xzf", tarball, "-C", temp.join("")]);
  assertEquals(unpacked?.code, 0);
  const facts = JSON.parse(await Deno.readTextFile(temp.join("package/package.json")));
  assertEquals([facts.version, facts.dependencies ?? {}], [version, {}]);
  assertEquals(await Deno.stat(temp.join("package/src/cli")).then(() => true, () => false), false);
  await Deno.writeTextFile(
    temp.join("uses.js"),
    `import { formatCache, MemoryDevice, openCache } from "./package/mod.js";
     const [fast, slow] = [new MemoryDevice(16 << 20), new MemoryDevice(32 << 20)];
     await formatCache({ cache: fast, backing: slow });
     const cache = await openCache({ cache: fast, backing: slow });
     await cache.write(5000, new Uint8Array(700).fill(9), { fua: true });
     await cache.drain();
     const bytes = new Uint8Array(512);
     await slow.read(5120, bytes);
     await cache.close();
     console.log(bytes.every((byte) => byte === 9));`,
  );
  const used = await runTool(Deno.execPath(), ["run", "--no-prompt", "uses.js"], temp.join(""));
  assertEquals([used?.code, used?.out, used?.err], [0, "true\n", ""]);
});
