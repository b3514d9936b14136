/**
 * The rules of the house that a machine can check. Each test lists every place that breaks its rule.
 *
 * @module
 */

import { assertEquals } from "./assert.ts";
import { version } from "../src/version.ts";

const root = new URL("../", import.meta.url);
/** Not ours, or made by a machine. */
const leaveAlone = /^(\.git|dist|coverage|node_modules)\//;
const generated = new Set(["src/wasm/kernels_wasm.ts", "src/control/page_html.ts"]);
const linesMax = 450;

interface SourceFile {
  path: string;
  text: string;
}

function* walk(folder = ""): Generator<SourceFile> {
  for (const entry of Deno.readDirSync(new URL(folder || ".", root))) {
    const path = folder + entry.name;
    if (entry.isDirectory) {
      if (!leaveAlone.test(path + "/")) yield* walk(path + "/");
    } else if (entry.isFile) {
      yield { path, text: new TextDecoder().decode(Deno.readFileSync(new URL(path, root))) };
    }
  }
}

const files = [...walk()].filter(({ path }) => path !== ".git").sort((a, b) => a.path < b.path ? -1 : 1);
const scripts = files.filter(({ path }) => path.endsWith(".ts"));
const library = scripts.filter(({ path }) => path.startsWith("src/") && !generated.has(path));

/** The text with comments blanked out and the contents of strings kept. */
function withoutComments(text: string): string {
  const pattern =
    /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\/[^\n]*|\/\*[\s\S]*?\*\/|\/(?![*/])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[dgimsuvy]*(?=\s*[.,;)\]\s])/g;
  return text.replace(pattern, (found) => /^\/[/*]/.test(found) ? found.replace(/[^\n]/g, " ") : found);
}

/** `path:line` of each match of `pattern`. */
function places({ path, text }: SourceFile, pattern: RegExp): string[] {
  return text.split("\n").flatMap((line, i) =>
    pattern.test(line) ? [`${path}:${i + 1}: ${line.trim()}`] : []
  );
}

function code(file: SourceFile): SourceFile {
  return { path: file.path, text: withoutComments(file.text) };
}

function specifiers({ text }: SourceFile): string[] {
  const found = withoutComments(text).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*["']([^"'\n]+)["']/g);
  return [...found].map((match) => match[1]!);
}

Deno.test("withoutComments: comments go, strings and line numbers stay", () => {
  const text = 'const a = "// no"; // gone\n/* gone\n too */ const b = 1;';
  const lines = withoutComments(text).split("\n").map((line) => line.trimEnd());
  assertEquals(lines, ['const a = "// no";', "", "        const b = 1;"]);
});

// `new Date(given)` only spells a given time; asking for the present one is what is forbidden.
Deno.test("house: the operating system, time and chance enter src/ only in their places", () => {
  const allowed = /^src\/(io\/|cli\/|clock\.ts$|random\.ts$)/;
  const found = library.filter(({ path }) => !allowed.test(path)).flatMap((file) =>
    places(
      code(file),
      /\bDeno\.|\bDate\.now\b|\bDate\(\s*\)|\bperformance\b|\bMath\.random\b|\bsetTimeout\b|\bsetInterval\b|\bgetRandomValues\b/,
    )
  );
  assertEquals(found, []);
});

Deno.test("house: below src/ imports are relative, but for each parser in its one adapter", () => {
  const found = library.flatMap((file) =>
    specifiers(file).filter((name) => !/^\.\.?\//.test(name)).map((name) => `${file.path}: ${name}`)
  );
  // node:fs and its kin come with the runtime; they are the portable backend's business alone.
  const others = found.filter((line) => !/^src\/io\/\w+\.ts: node:/.test(line));
  assertEquals(others, [
    "src/cli/commander_adapter.ts: npm:commander@15.1.0",
    "src/cli/toml_adapter.ts: npm:smol-toml@1.9.1",
  ]);
});

// The protocol's numbers and URIs are no part of the server: the client of remote devices speaks it too.
const protocol = /\/nbd\/(constants|uri)\.ts$/;

Deno.test("house: the cache knows neither the server nor the command line", () => {
  const found = library.filter(({ path }) => /^src\/(cache|log|device|wasm)\//.test(path)).flatMap((file) =>
    specifiers(file).filter((name) => /\/(nbd|control|cli)\//.test(name) && !protocol.test(name)).map((
      name,
    ) => `${file.path}: ${name}`)
  );
  assertEquals(found, []);
});

Deno.test("house: properties take their seed from one place", () => {
  const found = scripts.filter((file) => specifiers(file).includes("fast-check")).map(({ path }) => path);
  assertEquals(found, ["tests/property.ts"]);
});

Deno.test("house: no hand-written file is longer than its limit", () => {
  const found = scripts.filter(({ path }) => !generated.has(path)).flatMap(({ path, text }) => {
    const lines = text.split("\n").length - 1;
    return lines > linesMax ? [`${path}: ${lines} lines, at most ${linesMax}`] : [];
  });
  assertEquals(found, []);
});

Deno.test("house: every file below src/ opens with what it is", () => {
  const found = library.filter(({ path, text }) =>
    !generated.has(path) && !/^\/\*\*[\s\S]*?@module[\s\S]*?\*\//.test(text)
  );
  assertEquals(found.map(({ path }) => path), []);
});

Deno.test("house: nothing is left for later in the code", () => {
  const mark = new RegExp(["TO" + "DO", "FIX" + "ME", "XX" + "X"].map((word) => `\\b${word}\\b`).join("|"));
  assertEquals(scripts.filter(({ path }) => !generated.has(path)).flatMap((file) => places(file, mark)), []);
});

Deno.test("house: no file names a registry's host, a second registry or a path of one machine", () => {
  const words = [
    "registry\\." + "npmjs",
    "npm" + "mirror",
    "\\bjs" + "r:",
    "js" + "r\\.io",
    "(?<![\\w.}/-])/(work|ro" + "ot|tmp/bin)/",
  ];
  const mark = new RegExp(words.join("|"));
  const texts = files.filter(({ path }) => !generated.has(path) && !/\.(svg|png|xz|gz)$/.test(path));
  assertEquals(texts.flatMap((file) => places(file, mark)), []);
});

Deno.test("version: src/version.ts and deno.json agree", () => {
  const config = JSON.parse(files.find(({ path }) => path === "deno.json")!.text);
  assertEquals(version, config.version);
});

Deno.test("deno task test: names every directory with tests but that of the kill test", () => {
  // With --doc, Deno's --ignore leaves nothing out.
  const config = JSON.parse(files.find(({ path }) => path === "deno.json")!.text);
  const named = config.tasks.test.command.split(" ").filter((word: string) => word.startsWith("tests/"));
  const found = files.filter(({ path }) => path.startsWith("tests/") && path.endsWith("_test.ts"))
    .map(({ path }) => path.split("/").slice(0, 2).join("/"));
  assertEquals(named.sort(), [...new Set(found)].filter((path) => path !== "tests/crash").sort());
});
