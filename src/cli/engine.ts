/**
 * What the verbs need from the library, in one place: they use the same façade as any other program, so that
 * nothing can be done from the command line that cannot be done from a program.
 *
 * @module
 */

export { checkCache, formatCache, inspectCache, openCache, recoverCache, serve } from "../../mod.ts";
export { checkDmWriteboost, inspectDmWriteboost, isDmWriteboost, recoverDmWriteboost } from "../../mod.ts";
export { listHistory, planRewind, rewindCache } from "../../mod.ts";
export type {
  Cache,
  HistoryReport,
  HistoryStatus,
  Limits,
  RecoveryReport,
  ServeOptions,
  Tunables,
} from "../../mod.ts";
export { defaultTunables, parseTunable } from "../cache/tunables.ts";
export { limitNames, parseLimit } from "../nbd/limits.ts";
