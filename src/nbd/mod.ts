/**
 * The NBD server.
 *
 * @module
 */

export type { Export } from "./exports.ts";
export type { Limits } from "./limits.ts";
export { serve, type ServedExport, type ServeOptions, type Server } from "./server.ts";
export type { Observer, RequestKind, Statistics } from "./statistics.ts";
export { formatNbdUri, isNbdUri, type NbdUri, parseNbdUri } from "./uri.ts";
