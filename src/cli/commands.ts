/**
 * All verbs, in the order of the help.
 *
 * @module
 */

import { bench } from "./bench.ts";
import { check } from "./check.ts";
import { completions } from "./completions.ts";
import { demo } from "./demo.ts";
import { detach } from "./detach.ts";
import { drain } from "./drain.ts";
import { format } from "./format.ts";
import { history } from "./history.ts";
import { hold } from "./hold.ts";
import { inspect } from "./inspect.ts";
import { man } from "./man.ts";
import { mirror } from "./mirror.ts";
import { recover } from "./recover.ts";
import { rewind } from "./rewind.ts";
import { serve } from "./serve.ts";
import { set } from "./set.ts";
import { status } from "./status.ts";
import type { Command } from "./table.ts";

/** The command table. */
export const commands: readonly Command[] = [
  format,
  serve,
  status,
  set,
  mirror,
  drain,
  detach,
  check,
  inspect,
  recover,
  history,
  hold,
  rewind,
  demo,
  bench,
  completions,
  man,
];
