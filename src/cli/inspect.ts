/**
 * `inspect`: what is on a cache device, read-only.
 *
 * @module
 */

import { exitCode, NbdboostError, UsageError } from "../errors.ts";
import { assumeOption, inspectForeign, isForeign } from "./dm_writeboost.ts";
import { inspectCache } from "./engine.ts";
import { logDrawing } from "./log_drawing.ts";
import { logPicture } from "./log_picture.ts";
import { refuseToReplace } from "./side_file.ts";
import { cacheOption, type Command, jsonOption, mirrorOption } from "./table.ts";

/** The verb. */
export const inspect: Command = {
  name: "inspect",
  summary: "show what is on a cache device",
  description:
    "Prints the state of the cache, its geometry, the backing device that it belongs to, and a drawing of the log: a " +
    "map of all segments, and a strip of blocks for each one in use; with --records also each record. It does not verify " +
    "data; check does. Reads caches of dm-writeboost, too.",
  destroys:
    "nothing; it only reads. With --svg it replaces FILE if that is an older picture, and nothing else.",
  options: [
    cacheOption,
    mirrorOption,
    { name: "records", kind: "flag", summary: "also list the records of the log" },
    { name: "segments", kind: "flag", summary: "draw every segment in use, or list all of them with --json" },
    { name: "svg", kind: "text", value: "FILE", summary: "also write the drawing as a picture" },
    assumeOption,
    jsonOption,
  ],
  examples: [
    { line: "nbdboost inspect --cache /ssd/cache.nbb", says: "what this file or device is" },
    { line: "nbdboost inspect --cache /ssd/cache.nbb --records --json", says: "everything, for a script" },
    { line: "nbdboost inspect --cache /ssd/cache.nbb --svg log.svg", says: "also a picture of the log" },
  ],
  exits: { 3: "refused: this is no cache, or one whose segments fit no order" },
  async run(options, output) {
    const picture = options.text("svg");
    const mirror = options.text("mirror");
    if (mirror === undefined && await isForeign(options)) {
      if (picture !== undefined) {
        throw new UsageError(
          "Option --svg draws caches of nbdboost only: leave it out for one of dm-writeboost",
        );
      }
      return await inspectForeign(options, output);
    }
    const progress = output.progress("reading", "segments");
    const { segmentList = [], ...report } = await inspectCache({
      cache: options.needed("cache"),
      ...(mirror === undefined ? {} : { mirror }),
      records: options.flag("records"),
      segments: true,
      onProgress: progress.update,
    }).finally(progress.end);
    if (picture !== undefined) writePicture(picture, logPicture(report, segmentList));
    if (options.flag("json")) {
      output.report(options.flag("segments") ? { ...report, segmentList } : report, true);
      return exitCode.done;
    }
    output.report(report, false);
    const { colours } = output.terminal;
    const columns = output.terminal.columns();
    output.line("");
    for (const line of logDrawing(segmentList, { columns, colours, all: options.flag("segments") })) {
      output.line(line);
    }
    return exitCode.done;
  },
};

function writePicture(path: string, text: string): void {
  refuseToReplace(path, { option: "--svg", kind: "the picture", pattern: /^<(svg|\?xml)\b/, stream: true });
  try {
    Deno.writeTextFileSync(path, text);
  } catch (cause) {
    throw new NbdboostError(
      `Cannot write the picture to --svg ${path}: ${(cause as Error).message}; name another file`,
      { cause },
    );
  }
}
