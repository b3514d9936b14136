/**
 * What the cache costs its device: flash wears out by what is written to it.
 *
 * @module
 */

/** Wear of the cache device since the cache was opened; with two legs, of each of them. */
export interface CacheWear {
  /** Bytes written to it: the log, headers and copies included, and superblocks. */
  writtenBytes: number;
  /** Requests that wrote them. */
  writeRequests: number;
  /** Bytes written to it for each byte that clients wrote; null before they wrote any. */
  amplification: number | null;
  /** What it is rated for, in bytes over its whole life (the tunable `cache_tbw`); null while that is not known. */
  ratedBytes: number | null;
  /** How long a new one would last at the average rate since the cache was opened; null while one of both is not known. */
  lifeSeconds: number | null;
}

/** Puts the wear together. */
export function makeWear(facts: {
  writtenBytes: number;
  writeRequests: number;
  clientBytes: number;
  ratedBytes: number;
  uptimeMs: number;
}): CacheWear {
  const { writtenBytes, writeRequests, clientBytes, ratedBytes, uptimeMs } = facts;
  const isRated = ratedBytes > 0;
  return {
    writtenBytes,
    writeRequests,
    amplification: clientBytes === 0 ? null : writtenBytes / clientBytes,
    ratedBytes: isRated ? ratedBytes : null,
    lifeSeconds: isRated && writtenBytes > 0 ? Math.round(ratedBytes / writtenBytes * uptimeMs / 1000) : null,
  };
}
