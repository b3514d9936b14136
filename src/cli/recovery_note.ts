/**
 * What opening a cache found, on stderr, in the same words for every verb that opens one.
 *
 * @module
 */

import type { RecoveryReport } from "./engine.ts";

/** Tells of `report` in one line. */
export function noteRecovery(report: RecoveryReport, output: { note(text: string): void }): void {
  const { clean, records, kept, dropped, dirtyBlocks, zeroBlocks, lostBlocks } = report;
  const left = `${dirtyBlocks} dirty and ${zeroBlocks} zeroed blocks to write back` +
    (lostBlocks > 0 ? `, ${lostBlocks} blocks lost` : "");
  if (clean) output.note(`opened a cache that was closed in order: ${records} records, ${left}`);
  else {
    output.note(
      `recovered a cache that was not closed in order: replayed ${records} records (${kept} past the durable mark), ` +
        `dropped ${dropped} unfinished ones; ${left}`,
    );
  }
}
