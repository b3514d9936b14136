/**
 * Metrics in the text format of Prometheus (version 0.0.4), by hand. Names follow its conventions: base units, which the
 * name ends with, and `_total` for what only grows. Source: prometheus.io/docs/practices/naming and
 * prometheus.io/docs/instrumenting/exposition_formats.
 *
 * Invariant: the names and labels are an interface, like the fields of the status; `docs/` has a dashboard and alerts
 * that use them, and a test compares the two.
 *
 * @module
 */

import type { CacheState } from "../cache/status.ts";
import type { EngineStatus } from "../host/served.ts";
import { latencyAtMost } from "../latency.ts";
import type { ServerStatus } from "./status.ts";
import { timedKinds } from "./status.ts";

/** The media type of the text. */
export const metricsType = "text/plain; version=0.0.4; charset=utf-8";

const states: readonly CacheState[] = [
  "serving",
  "read-only",
  "degraded",
  "poisoned",
  "draining",
  "stopping",
];

/** The buckets that are told: powers of two from 16 µs to 33.6 s, ends of ours, hence exact. */
const bucketPowers = { first: 4, last: 25 } as const;

type Labels = Readonly<Record<string, string>>;

/** A backslash, a quote and a line's end are what the format has to escape. */
function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) =>
    `${name}="${value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`
  );
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

class Page {
  readonly #lines: string[] = [];

  #head(name: string, type: string, help: string): void {
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  }

  #each(name: string, type: string, help: string, samples: readonly (readonly [Labels, number])[]): void {
    this.#head(name, type, help);
    for (const [labels, value] of samples) this.#lines.push(`${name}${labelText(labels)} ${value}`);
  }

  gauge(name: string, help: string, value: number, labels: Labels = {}): void {
    this.#each(name, "gauge", help, [[labels, value]]);
  }

  gauges(name: string, help: string, samples: readonly (readonly [Labels, number])[]): void {
    this.#each(name, "gauge", help, samples);
  }

  counter(name: string, help: string, value: number): void {
    this.#each(name, "counter", help, [[{}, value]]);
  }

  counters(name: string, help: string, label: string, values: Readonly<Record<string, number>>): void {
    this.#each(
      name,
      "counter",
      help,
      Object.entries(values).map(([kind, value]) => [{ [label]: kind }, value] as const),
    );
  }

  latencies(name: string, help: string, latencies: EngineStatus["latencies"]): void {
    this.#head(name, "histogram", help);
    for (const kind of timedKinds) {
      const counts = latencies[kind];
      for (let power = bucketPowers.first; power <= bucketPowers.last; power++) {
        const micros = 2 ** power;
        const labels = labelText({ kind, le: String(micros / 1e6) });
        this.#lines.push(`${name}_bucket${labels} ${latencyAtMost(counts, micros)}`);
      }
      this.#lines.push(
        `${name}_bucket${labelText({ kind, le: "+Inf" })} ${counts.count}`,
        `${name}_sum${labelText({ kind })} ${counts.sumMicros / 1e6}`,
        `${name}_count${labelText({ kind })} ${counts.count}`,
      );
    }
  }

  toString(): string {
    return this.#lines.join("\n") + "\n";
  }
}

/** The page that `GET /metrics` gives. */
export function metricsText(status: ServerStatus, engine: EngineStatus): string {
  const { cache, log, writeback, bytes, blocks, wear } = status;
  const { error, bytesRead: _read, bytesWritten: _written, ...kinds } = engine.requests;
  const page = new Page();
  page.gauge("nbdboost_info", "Always 1; what is running is in the labels.", 1, {
    version: status.version,
    uuid: status.uuid,
    io: status.io,
    backing: status.backing.target,
    cache: cache.path,
  });
  page.gauges(
    "nbdboost_state",
    "1 for the state that it is in, 0 for the others.",
    states.map((state) => [{ state }, status.state === state ? 1 : 0] as const),
  );
  page.gauge("nbdboost_uptime_seconds", "Since the cache was opened.", status.uptimeSeconds);
  page.gauge("nbdboost_clients", "Open NBD connections.", status.clients);

  page.counters("nbdboost_requests_total", "Requests answered, failed ones too.", "kind", kinds);
  page.counter("nbdboost_request_errors_total", "Requests answered with an error.", error);
  page.latencies(
    "nbdboost_request_duration_seconds",
    "From a request being parsed to its reply being queued.",
    engine.latencies,
  );
  page.counters("nbdboost_client_bytes_total", "Bytes that clients read and wrote.", "direction", {
    read: bytes.read,
    written: bytes.written,
  });
  page.counters(
    "nbdboost_read_blocks_total",
    "Blocks (4096 bytes) that reads found in RAM or log (hit), or asked the backing device for (miss).",
    "result",
    { hit: blocks.readHit, miss: blocks.readMiss },
  );

  page.gauge("nbdboost_backing_size_bytes", "Size of the backing device.", status.backing.sizeBytes);
  page.gauge(
    "nbdboost_backing_reachable",
    "0 while the backing device cannot be reached.",
    status.backing.away === null ? 1 : 0,
  );
  page.gauge("nbdboost_cache_size_bytes", "Size of the cache device.", cache.sizeBytes);
  page.gauge("nbdboost_ram_bytes", "RAM for index, log and write-back.", cache.ramBytes);
  page.gauge("nbdboost_log_segment_bytes", "Size of one segment of the log.", cache.segmentBytes);
  page.gauge("nbdboost_log_segments", "Segments of the log.", cache.segments);
  page.gauge("nbdboost_log_free_segments", "Segments that hold nothing that is needed.", cache.freeSegments);
  page.gauge("nbdboost_cached_blocks", "Blocks that reads find in the log.", cache.cachedBlocks);
  page.gauge("nbdboost_dirty_blocks", "Blocks that the backing device lacks.", cache.dirtyBlocks);
  page.gauge("nbdboost_zero_blocks", "Zeroed blocks that the backing device lacks.", cache.zeroBlocks);
  page.gauge("nbdboost_lost_blocks", "Blocks of which no good version is left.", cache.lostBlocks);
  page.gauge("nbdboost_log_head_sequence", "The record that is open or comes next.", cache.headSequence);
  page.gauge("nbdboost_log_tail_sequence", "The oldest record that is needed.", cache.tailSequence);
  page.gauge("nbdboost_log_durable_sequence", "The newest durable record.", cache.durableSequence);
  page.counter("nbdboost_log_bytes_total", "Bytes written to the log.", bytes.log);
  page.counter("nbdboost_log_records_total", "Records written to the log.", log.records);
  page.counter("nbdboost_log_writes_total", "Device writes for them.", log.writes);
  page.counter("nbdboost_log_syncs_total", "Device syncs for them.", log.syncs);
  page.counter(
    "nbdboost_overwritten_blocks_total",
    "Blocks overwritten in RAM, before they reached the log.",
    blocks.overwritten,
  );
  page.counter(
    "nbdboost_bypassed_blocks_total",
    "Blocks of streams that went past the log.",
    blocks.bypassed,
  );
  page.counter("nbdboost_kept_blocks_total", "Blocks that the read cache kept.", blocks.kept);
  page.counter("nbdboost_prefetched_blocks_total", "Blocks fetched ahead for it.", blocks.prefetched);
  page.counter(
    "nbdboost_cache_written_bytes_total",
    "Bytes written to the cache device, superblocks included.",
    wear.writtenBytes,
  );
  page.counter("nbdboost_cache_write_requests_total", "Requests that wrote them.", wear.writeRequests);
  page.gauge(
    "nbdboost_cache_write_amplification",
    "Bytes written to the cache device for each byte that clients wrote; 0 before they wrote any.",
    wear.amplification ?? 0,
  );
  page.gauge(
    "nbdboost_cache_life_seconds",
    "How long a new cache device would last at the average rate since the start; 0 without cache_tbw.",
    wear.lifeSeconds ?? 0,
  );

  page.gauge("nbdboost_writeback_active", "1 while something is written back.", writeback.active ? 1 : 0);
  page.gauge(
    "nbdboost_writeback_failing_seconds",
    "For how long write-back has failed; 0 when all is well.",
    // The first second counts too: an alert asks for more than 0.
    writeback.failingSeconds === null ? 0 : Math.max(1, writeback.failingSeconds),
  );
  page.counter("nbdboost_writeback_requests_total", "Requests to the backing device.", writeback.requests);
  page.counter("nbdboost_writeback_bytes_total", "Bytes written to the backing device.", bytes.writeback);
  page.counter("nbdboost_written_back_blocks_total", "Blocks written back.", blocks.writtenBack);
  pointMetrics(page, writeback.point);
  mirrorMetrics(page, status.mirror);
  return page.toString();
}

/** What the backing device alone would be, if the cache device died now; all zero in any other order than `prefix`. */
function pointMetrics(page: Page, point: ServerStatus["writeback"]["point"]): void {
  const seconds = (at: string | null | undefined) => at ? Date.parse(at) / 1000 : 0;
  page.gauge(
    "nbdboost_point_known",
    "1 when it is known which moment the backing device shows by itself (writeback_order=prefix).",
    point && point.sequence !== null ? 1 : 0,
  );
  page.gauge(
    "nbdboost_point_sequence",
    "The flush point that the backing device shows by itself.",
    point?.sequence ?? 0,
  );
  page.gauge("nbdboost_point_timestamp_seconds", "When that was.", seconds(point?.at));
  page.gauge(
    "nbdboost_point_behind_seconds",
    "What a dead cache device would cost, between two steps.",
    point?.behindSeconds ?? 0,
  );
  page.gauge(
    "nbdboost_point_step",
    "1 within a step: the backing device is partly at the next point.",
    point && point.toSequence !== null ? 1 : 0,
  );
  page.gauge("nbdboost_point_next_sequence", "The point that the step leads to.", point?.toSequence ?? 0);
  page.gauge("nbdboost_point_next_timestamp_seconds", "When that was.", seconds(point?.toAt));
  page.gauge(
    "nbdboost_point_lacking_blocks",
    "Blocks that could not be read for their step: the backing device has older ones.",
    point?.lackingBlocks ?? 0,
  );
}

/** All of them without a mirror, too, so that one alert fits every server. */
function mirrorMetrics(page: Page, mirror: ServerStatus["mirror"]): void {
  const serving = mirror?.legs.filter(({ state }) => state === "in service").length ?? 0;
  page.gauge("nbdboost_mirror_legs", "Legs of the cache device in service; 0 without a mirror.", serving);
  page.gauge(
    "nbdboost_mirror_missing_legs",
    "Legs of the cache device that are not in service.",
    mirror === null ? 0 : 2 - serving,
  );
  page.gauge(
    "nbdboost_mirror_copied_bytes",
    "Bytes copied to a new leg so far.",
    mirror?.copy?.copiedBytes ?? 0,
  );
  page.gauge(
    "nbdboost_mirror_copy_bytes",
    "Bytes to be copied to it; 0 when none is.",
    mirror?.copy?.totalBytes ?? 0,
  );
  page.counter(
    "nbdboost_mirror_mended_blocks_total",
    "Blocks that one leg had wrongly and got again from the other.",
    mirror?.mendedBlocks ?? 0,
  );
}
