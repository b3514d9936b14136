/**
 * What came up in simulated pasts, so that a run that tests nothing is seen.
 *
 * @module
 */

/** What came up in worlds, so that a test can see that it did. */
export interface HistoryCounts {
  views: number;
  endedViews: number;
  refusals: number;
  offline: number;
  rewinds: number;
  crashedRewinds: number;
  rewindsThatCount: number;
  crashes: number;
  heldCrashes: number;
  changes: number;
  bypassed: number;
  /** Openings with one of two legs, lives that ended with both in service, and legs that were lost. */
  oneLeg: number;
  wholeEnds: number;
  legsLost: number;
}

/** No counts yet. */
export function noCounts(): HistoryCounts {
  return {
    views: 0,
    endedViews: 0,
    refusals: 0,
    offline: 0,
    rewinds: 0,
    crashedRewinds: 0,
    rewindsThatCount: 0,
    crashes: 0,
    heldCrashes: 0,
    changes: 0,
    bypassed: 0,
    oneLeg: 0,
    wholeEnds: 0,
    legsLost: 0,
  };
}
