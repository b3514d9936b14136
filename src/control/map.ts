/**
 * The maps of log and backing device as JSON: `GET /map`.
 *
 * @module
 */

import type { CacheMap } from "../cache/map.ts";

/** A map whose cells are base64, one byte each: JSON's lists would be four times as long. */
export interface MapDocument {
  segments: Omit<CacheMap["segments"], "dirty" | "live"> & { dirty: string; live: string };
  backing: Omit<CacheMap["backing"], "dirty"> & { dirty: string };
}

/** Puts it together. */
export function mapDocument({ segments, backing }: CacheMap): MapDocument {
  return {
    segments: { ...segments, dirty: segments.dirty.toBase64(), live: segments.live.toBase64() },
    backing: { ...backing, dirty: backing.dirty.toBase64() },
  };
}
