/**
 * What a control address controls: one cache, wherever its engine runs.
 *
 * @module
 */

import type { Served } from "../host/served.ts";

/** A cache that can be asked and told. */
export interface ControlTarget extends Served {
  /** Which backend moves its bytes. */
  readonly io: "ring" | "portable";
  /** Why that one. */
  readonly ioReason: string;
}
