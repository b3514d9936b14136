/**
 * The command line of nbdboost: `deno run -A cli.ts --help`, or the executable that `deno task compile` makes.
 *
 * @module
 */

import { run } from "./src/cli/run.ts";

if (import.meta.main) Deno.exit(await run(Deno.args));
