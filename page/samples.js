/**
 * What the charts show: one sample a second, made of two statuses that follow each other, kept for an hour.
 */

/** An hour of seconds. */
export const samplesMax = 3600;
/** Between samples that are further apart the lines are broken. */
const gapSeconds = 5;

/** The columns, in the order in which the charts take them. */
const names = [
  "at",
  "written",
  "read",
  "writeback",
  "requests",
  "writeMicros",
  "readMicros",
  "flushMicros",
  "dirtyBytes",
  "freeShare",
];

const kinds = ["read", "write", "flush", "trim", "zero"];

function total(requests) {
  return kinds.reduce((sum, kind) => sum + requests[kind], 0);
}

/** The latest hour. */
export class Samples {
  columns = Object.fromEntries(names.map((name) => [name, []]));
  #before;
  #beforeAt = 0;

  /** Takes the status of `at`, in seconds. */
  add(status, at) {
    const before = this.#before;
    const seconds = at - this.#beforeAt;
    this.#before = status;
    this.#beforeAt = at;
    // A server that was started again counts from 0.
    const follows = before !== undefined && status.uptimeSeconds >= before.uptimeSeconds &&
      seconds < gapSeconds;
    if (!follows && before !== undefined) this.#push({ at: this.columns.at.at(-1) + 0.001 });
    const rate = (now, then) => follows && seconds > 0 ? Math.max(0, now - then) / seconds : null;
    const micros = (kind) => {
      const one = status.recent?.latencyMicros[kind];
      return one === undefined || one.count === 0 ? null : one.p99;
    };
    this.#push({
      at,
      written: rate(status.bytes.written, before?.bytes.written),
      read: rate(status.bytes.read, before?.bytes.read),
      writeback: rate(status.bytes.writeback, before?.bytes.writeback),
      requests: rate(total(status.requests), before === undefined ? 0 : total(before.requests)),
      writeMicros: micros("write"),
      readMicros: micros("read"),
      flushMicros: micros("flush"),
      dirtyBytes: (status.cache.dirtyBlocks + status.cache.zeroBlocks) * 4096,
      freeShare: status.state === "read-only" ? null : status.cache.freeSegments / status.cache.segments,
    });
  }

  #push(sample) {
    for (const name of names) {
      const column = this.columns[name];
      column.push(sample[name] ?? null);
      if (column.length > samplesMax) column.shift();
    }
  }

  /** The newest value of a column, null when it is not known. */
  latest(name) {
    return this.columns[name].at(-1) ?? null;
  }
}
