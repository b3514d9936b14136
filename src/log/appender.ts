/**
 * What the log's writer says and is told: who asks for space and what each leaves to the others (log-rules.md 11), and counters.
 *
 * @module
 */

import { segmentsReserved } from "./layout.ts";

/**
 * Who asks for log space. Clients leave the engine's reserve alone; the engine leaves one segment of it for what lets the
 * tail move, which gives a whole segment back for at most one that it takes.
 */
export type Appender = "client" | "engine" | "tail";

/** Why a block cannot be appended right now; "none" when it can. */
export type Wait = "none" | "space" | "buffer" | "sync" | "failed";

/** Free segments that each appender leaves alone. */
export const segmentsLeft: Readonly<Record<Appender, number>> = {
  client: segmentsReserved,
  engine: 1,
  tail: 0,
};

/** Counters for status. */
export interface LogStatistics {
  records: number;
  writes: number;
  syncs: number;
  bytes: number;
  /** Calls of `makeDurable` that had to wait for a sync. */
  flushes: number;
}
