/**
 * What the state of a server means for the data, in plain words: one to three sentences for the status screen and the live
 * page, made where the status is made so that both say the same.
 *
 * @module
 */

import { blockBytes, formatCount, formatSeconds, formatSize } from "../units.ts";
import type { ServerStatus } from "./status.ts";

/** What the words are made of. */
export type MeaningFacts = Pick<ServerStatus, "state" | "backing" | "cache" | "mirror" | "writeback">;

function count(number: number, one: string, many: string): string {
  return `${formatCount(number)} ${number === 1 ? one : many}`;
}

function blocks(number: number): string {
  return count(number, "block", "blocks");
}

/** What waits to be written back, as the subject of a sentence with its verb. */
function waiting({ cache }: MeaningFacts): string {
  const number = cache.dirtyBlocks + cache.zeroBlocks;
  if (number === 0) return "nothing waits to be written back";
  const dirty = cache.zeroBlocks === 0 ? "dirty " : "";
  return `${formatCount(number)} ${dirty}${number === 1 ? "block waits" : "blocks wait"} in the cache, and ` +
    `${number === 1 ? "it is not lost" : "none of them is lost"}`;
}

function lost({ cache: { lostBlocks } }: MeaningFacts): string {
  if (lostBlocks === 0) return "";
  return lostBlocks === 1
    ? "1 block is lost: reading it fails until it is written again; see nbdboost check."
    : `${
      formatCount(lostBlocks)
    } blocks are lost: reading them fails until they are written again; see nbdboost check.`;
}

/** Why writers wait, when they do. */
function holdUp({ cache, writeback }: MeaningFacts): string {
  if (cache.waitingWriters === 0) return "";
  const pace = writeback.bytesPerSecond > 0
    ? `the backing device takes ${formatSize(writeback.bytesPerSecond)}/s`
    : "nothing is written back just now";
  return `${count(cache.waitingWriters, "write waits", "writes wait")} for room in the log; ${pace}.`;
}

function sentences(...parts: string[]): string {
  return parts.filter((part) => part !== "").join(" ");
}

/** What a mirror with one leg alone means, and what becomes of the other. */
function halfMirror({ mirror }: MeaningFacts): string {
  if (mirror === null || mirror.whole) return "";
  const { copy } = mirror;
  const next = copy === null
    ? "if it fails too, what is dirty is lost; give it another leg"
    : `the other is being copied, ${Math.floor(100 * copy.copiedBytes / Math.max(1, copy.totalBytes))}% done`;
  return `The mirror has one leg alone: ${next}.`;
}

/** The words for a status. */
export function stateMeaning(facts: MeaningFacts): string {
  const { state, cache, writeback, backing } = facts;
  const left = cache.dirtyBlocks + cache.zeroBlocks;
  switch (state) {
    case "serving":
      if (left === 0) return sentences("All is well, and nothing waits to be written back.", holdUp(facts));
      return sentences(
        `All is well: ${blocks(left)} ${left === 1 ? "waits" : "wait"} in the cache to be written back.`,
        writeback.mode === "off" ? "Write-back is off: it begins when the log fills, or with a drain." : "",
        holdUp(facts),
      );
    case "draining":
      return sentences(
        left === 0
          ? "Everything is being written back: it is about to end."
          : `Everything is being written back: ${blocks(left)} (${formatSize(left * blockBytes)}) to go.`,
        holdUp(facts),
      );
    case "stopping":
      return "It is stopping: clients are refused, and what they wrote is made durable.";
    case "read-only":
      return sentences(
        left === 0
          ? "Writes are refused, and nothing waits to be written back."
          : `Writes are refused, and nothing is written back: ${blocks(left)} ${
            left === 1 ? "waits" : "wait"
          } in the cache.`,
        lost(facts),
      );
    case "poisoned":
      return "The log cannot be written any more: writes and flushes fail, reads go on. What was flushed before is safe; " +
        "see to the cache device, then stop this server and start it again.";
    case "degraded":
      return sentences(
        trouble(facts, backing.away, writeback.lastError),
        halfMirror(facts),
        lost(facts),
        holdUp(facts),
      );
  }
}

function trouble(facts: MeaningFacts, away: string | null, lastError: string | null): string {
  if (away !== null) {
    const since = formatSeconds(facts.backing.awaySeconds ?? 0);
    return `The backing device has not answered for ${since} (${away}): ${
      waiting(facts)
    }. Writes go on as long as the ` +
      "log has room, and so do reads of what the cache holds; other reads wait.";
  }
  if (lastError === null) return "";
  const since = formatSeconds(facts.writeback.failingSeconds ?? 0);
  return `The backing device has failed for ${since} (${lastError}): ${waiting(facts)}. It is tried again.`;
}
