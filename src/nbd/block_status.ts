/**
 * BLOCK_STATUS: which contexts a request asks for, and what they say.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { assert } from "../errors.ts";
import { extentsPerReplyMax, statusPayloadHeadBytes } from "./constants.ts";
import type { MetaContext, StatusRun } from "./contexts.ts";

/** What one context says. */
export interface ContextStatus {
  /** The context's id. */
  readonly id: number;
  /** At least one. */
  readonly runs: readonly StatusRun[];
}

/**
 * Takes the payload of a request apart. `contexts` is undefined when it names one that was not selected, or one twice.
 */
export function decodeContextList(
  payload: Uint8Array<ArrayBuffer>,
  selected: readonly MetaContext[],
): { length: number; contexts: MetaContext[] | undefined } {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const length = view.getUint32(0) * 0x1_0000_0000 + view.getUint32(4);
  const contexts: MetaContext[] = [];
  for (let at = statusPayloadHeadBytes; at < payload.length; at += 4) {
    const id = view.getUint32(at);
    const context = selected.find((each) => each.id === id);
    if (context === undefined || contexts.includes(context)) return { length, contexts: undefined };
    contexts.push(context);
  }
  return { length, contexts };
}

/** Asks the volume, one context after the other; with `one` for a single run of each. */
export async function queryStatus(
  volume: Volume,
  contexts: readonly MetaContext[],
  offset: number,
  length: number,
  one: boolean,
): Promise<ContextStatus[]> {
  const limit = one ? 1 : extentsPerReplyMax;
  const all: ContextStatus[] = [];
  for (const context of contexts) {
    const runs = await context.runs(volume, offset, length, limit);
    assert(runs.length > 0 && runs.length <= limit, "a volume returned no or too many extents");
    all.push({ id: context.id, runs });
  }
  return all;
}
