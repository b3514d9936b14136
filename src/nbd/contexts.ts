/**
 * The meta contexts: what BLOCK_STATUS can tell of an export, under which name and id.
 *
 * `x-nbdboost:dirty` has bit 0 set where the backing device lacks what was written, `x-nbdboost:cached` where reads find
 * it in the log; both are 0 elsewhere. `x-nbdboost:since=N` has it set where the volume changed after the flush point N. Volumes that are no cache have `base:allocation` only.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { assert } from "../errors.ts";
import { allocation } from "./constants.ts";

/** Runs of one context: lengths and flags, as they go on the wire. */
export interface StatusRun {
  /** Bytes, > 0. */
  length: number;
  /** The context's flags. */
  flags: number;
}

/** A meta context. */
export interface MetaContext {
  /** `namespace:leaf`. */
  readonly name: string;
  /** The id under which it is selected; any values would do, as long as they differ. */
  readonly id: number;
  /** Whether the volume can tell. */
  isOf(volume: Volume): boolean;
  /** The runs from `offset` on, at most `limit`. */
  runs(volume: Volume, offset: number, length: number, limit: number): Promise<StatusRun[]>;
}

const allocationContext: MetaContext = {
  name: "base:allocation",
  id: 1,
  isOf: () => true,
  async runs(volume, offset, length, limit) {
    const extents = await volume.extents(offset, length, limit);
    return extents.map(({ length, hole, zero }) => ({
      length,
      flags: (hole ? allocation.hole : 0) | (zero ? allocation.zero : 0),
    }));
  },
};

function markContext(kind: "dirty" | "cached", id: number): MetaContext {
  return {
    name: `x-nbdboost:${kind}`,
    id,
    isOf: (volume) => volume.marks !== undefined,
    async runs(volume, offset, length, limit) {
      assert(volume.marks !== undefined, "a context was selected that the volume does not have");
      const extents = await volume.marks(kind, offset, length, limit);
      return extents.map(({ length, marked }) => ({ length, flags: marked ? 1 : 0 }));
    },
  };
}

const sinceName = /^x-nbdboost:since=(\d{1,15})$/;
/** Such contexts of one connection, and the id of the first: each costs a bitmap of the volume. */
const sinceMax = 4;
const sinceId = 16;

function sinceContexts(volume: Volume, queries: readonly string[]): MetaContext[] {
  const contexts: MetaContext[] = [];
  for (const name of new Set(queries)) {
    const digits = sinceName.exec(name)?.[1];
    if (digits === undefined || contexts.length === sinceMax) continue;
    const sequence = Number(digits);
    // Where it is not known, the context is not there: the client has to copy everything.
    if (volume.changesSince === undefined || !volume.knowsChangesSince?.(sequence)) continue;
    contexts.push({
      name,
      id: sinceId + contexts.length,
      isOf: () => true,
      async runs(volume, offset, length, limit) {
        const extents = await volume.changesSince!(sequence, offset, length, limit);
        return extents.map(({ length, marked }) => ({ length, flags: marked ? 1 : 0 }));
      },
    });
  }
  return contexts;
}

const metaContexts: readonly MetaContext[] = [
  allocationContext,
  markContext("dirty", 2),
  markContext("cached", 3),
];

function namespaceOf(name: string): string {
  return name.slice(0, name.indexOf(":") + 1);
}

/** The contexts of `volume` that one of `queries` names; for a list a namespace, or no query at all, names several. */
export function contextsFor(volume: Volume, queries: readonly string[], listing: boolean): MetaContext[] {
  const fixed = metaContexts.filter((context) => {
    if (!context.isOf(volume)) return false;
    if (queries.includes(context.name)) return true;
    return listing && (queries.length === 0 || queries.includes(namespaceOf(context.name)));
  });
  return [...fixed, ...sinceContexts(volume, queries)];
}
