/**
 * `set`: tunes a running server.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import { parseTunable } from "./engine.ts";
import { type Command, jsonOption, serverOptions } from "./table.ts";

/** The verb. */
export const set: Command = {
  name: "set",
  summary: "tune a running server",
  description:
    "Changes settings of a running server at once, all of them or, when one is wrong, none; prints how all are set then. " +
    "They hold until the server ends: give them to serve with --set to keep them.",
  destroys: "nothing.",
  operands: {
    name: "KEY=VALUE",
    value: "KEY=VALUE",
    kind: "setting",
    required: true,
    repeatable: true,
    summary: "a setting, as serve --set takes it",
  },
  options: [...serverOptions, jsonOption],
  examples: [
    { line: "nbdboost set writeback=on", says: "writes back whenever something is dirty" },
    {
      line: "nbdboost set writeback=off full_timeout=300 --cache /ssd/cache.nbb",
      says: "leaves the backing device alone while there is room",
    },
  ],
  exits: { 1: "failed: no server answers" },
  async run(options, output) {
    const settings = options.list("KEY=VALUE");
    // A mistake is told of without a server.
    for (const setting of settings) parseTunable(setting);
    const client = await ControlClient.find(options);
    const body = Object.fromEntries(settings.map((setting) => setting.split(/=(.*)/s).slice(0, 2)));
    const tunables = await client.ask("PATCH", "/tunables", body) as Record<string, unknown>;
    if (options.flag("json")) output.report(tunables, true);
    else for (const [key, value] of Object.entries(tunables)) output.line(`${key}=${value}`);
    return exitCode.done;
  },
};
