/**
 * What the verbs that look at a cache do when it is one of dm-writeboost.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { checkDmWriteboost, inspectDmWriteboost, isDmWriteboost, recoverDmWriteboost } from "./engine.ts";
import type { Output } from "./output.ts";
import type { Options, OptionSpec } from "./table.ts";

/** `--assume-dm-writeboost`, the same wherever it is needed. */
export const assumeOption: OptionSpec = {
  name: "assume-dm-writeboost",
  kind: "flag",
  summary: "read the device as a cache of dm-writeboost though its magic is gone",
};

/** Whether the verb has to do with a cache of dm-writeboost. */
export async function isForeign(options: Options): Promise<boolean> {
  return options.flag(assumeOption.name) || await isDmWriteboost(options.needed("cache"));
}

function common(options: Options) {
  return { cache: options.needed("cache"), assumeDmWriteboost: options.flag(assumeOption.name) };
}

/** `inspect` of such a cache. */
export async function inspectForeign(options: Options, output: Output): Promise<number> {
  const progress = output.progress("reading", "bytes");
  const { recordList, ...report } = await inspectDmWriteboost({
    ...common(options),
    onProgress: progress.update,
  }).finally(progress.end);
  output.report(options.flag("records") ? { ...report, recordList } : report, options.flag("json"));
  return exitCode.done;
}

/** `check` of such a cache. */
export async function checkForeign(options: Options, output: Output): Promise<number> {
  const progress = output.progress("checking", "bytes");
  const backing = options.text("backing");
  const report = await checkDmWriteboost({
    ...common(options),
    ...(backing === undefined ? {} : { backing }),
    onProgress: progress.update,
  }).finally(progress.end);
  output.report(report, options.flag("json"));
  return report.problems.length === 0 ? exitCode.done : exitCode.damage;
}

/** `recover` of such a cache. */
export async function recoverForeign(options: Options, output: Output): Promise<number> {
  const progress = output.progress("recovering", "bytes");
  const copy = options.text("output");
  const report = await recoverDmWriteboost({
    ...common(options),
    backing: options.needed("backing"),
    dryRun: options.flag("dry-run"),
    acceptLoss: options.flag("accept-loss"),
    ...(copy === undefined ? {} : { output: copy }),
    onProgress: progress.update,
  }).finally(progress.end);
  output.report(report, options.flag("json"));
  if (report.wrote === "backing") {
    output.note(
      "The cache device was left as it is: once the backing device is in use, do not recover from it again.",
    );
  }
  return report.problems.length > 0 && !options.flag("accept-loss") ? exitCode.damage : exitCode.done;
}
