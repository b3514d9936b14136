/**
 * Files that verbs write beside their real work never cost anybody a cache, an image or a letter, and a log that cannot be
 * written costs nobody the server.
 *
 * @module
 */

import { assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { refuseToReplace } from "../../src/cli/side_file.ts";
import { RefusedError } from "../../src/errors.ts";
import { cliPath, runHere, Temp } from "./support.ts";

Deno.test("refuseToReplace: what is missing, empty or an earlier one of its kind may go, and nothing else", async () => {
  await using temp = await Temp.make();
  const file = { option: "--x", kind: "the figure", pattern: /^\d+\s*$/ };
  const path = temp.join("file");
  refuseToReplace(path, file);
  for (const mine of ["", "123\n"]) {
    Deno.writeTextFileSync(path, mine);
    refuseToReplace(path, file);
  }
  const why = (target: string, what = file) => {
    try {
      refuseToReplace(target, what);
      return "";
    } catch (error) {
      assertEquals(error instanceof RefusedError, true, String(error));
      return (error as Error).message;
    }
  };
  Deno.writeTextFileSync(path, "123 is what I owe you");
  assertStringIncludes(
    why(path),
    `Cannot write the figure to --x ${path}: something else is there (21 bytes)`,
  );
  Deno.symlinkSync(path, temp.join("link"));
  assertStringIncludes(why(temp.join("link")), "something else is there");
  assertStringIncludes(why(temp.path), "it is a directory");
  assertStringIncludes(why("/dev/null"), "it is no regular file");
  assertEquals(why("/dev/null", { ...file, stream: true } as typeof file), "");
});

Deno.test("inspect, serve: an option that names the cache or the image by mistake destroys neither", async () => {
  await using temp = await Temp.make();
  const { cache, backing, pair } = await temp.pair(1 << 20, "8MiB");
  Deno.writeTextFileSync(backing, "precious");
  await Deno.truncate(backing, 1 << 20);
  const size = Deno.statSync(cache).size;
  const image = Deno.readFileSync(backing);
  const serve = ["serve", ...pair, "--listen", `nbd+unix:///?socket=${temp.join("s")}`, "--run", "true"];
  for (const victim of [cache, backing]) {
    for (
      const [args, option] of [
        [["inspect", "--cache", cache, "--svg", victim], "--svg"],
        [[...serve, "--pid-file", victim], "--pid-file"],
        [[...serve, "--control", "127.0.0.1:0", "--token-file", victim], "--token-file"],
      ] as const
    ) {
      const { code, err } = await runHere(...args);
      assertEquals(code, 3, `${option}: ${err}`);
      assertMatch(
        err,
        new RegExp(`Cannot write the .* to ${option} .*: something else is there .*; name a file`),
      );
    }
  }
  // The cache was opened and closed meanwhile, and is one still.
  assertEquals(Deno.statSync(cache).size, size);
  assertEquals((await runHere("check", ...pair)).code, 0);
  assertEquals(Deno.readFileSync(backing), image);
  const control = await runHere(...serve, "--control", backing);
  assertStringIncludes(control.err, backing);
  assertEquals(Deno.readFileSync(backing), image);
});

Deno.test("serve: a log on a full disk does not end it", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const line = [
    ...[Deno.execPath(), "run", "--quiet", "-A", cliPath, "serve", ...pair],
    ...["--listen", `nbd+unix:///?socket=${temp.join("s")}`, "--run", "exit 9"],
  ];
  const quoted = line.map((word) => `'${word}'`).join(" ");
  const { code } = await new Deno.Command("sh", { args: ["-c", `${quoted} 2>/dev/full`] }).output();
  assertEquals(code, 9);
});

Deno.test("inspect: facts that cannot be written are a failure that names standard output", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using temp = await Temp.make();
  const { cache } = await temp.pair();
  const { code, stderr } = await new Deno.Command("sh", {
    args: ["-c", `'${Deno.execPath()}' run --quiet -A '${cliPath}' inspect --cache '${cache}' >/dev/full`],
  }).output();
  assertEquals(code, 1);
  assertStringIncludes(new TextDecoder().decode(stderr), "Cannot write to standard output: No space left");
});
