/**
 * The control addresses of `serve`, one for each cache.
 *
 * Invariant: a cache that is detached leaves the others served; with the last one the serving is at an end.
 *
 * @module
 */

import { exitCode, NbdboostError } from "../errors.ts";
import { ControlService } from "./control_service.ts";
import type { EngineExport, EngineHost } from "./engine_host.ts";
import type { Log } from "./log.ts";
import { labelOf, type ServePlan } from "./serve_plan.ts";

/** Control addresses, in the order of the exports. */
export class Controls {
  readonly #plan: ServePlan;
  readonly #log: Log;
  readonly #services: (ControlService | undefined)[] = [];

  constructor(plan: ServePlan, log: Log) {
    this.#plan = plan;
    this.#log = log;
  }

  /** Listens on all of them that are to be had. */
  async listen(warn: (message: string) => void): Promise<void> {
    for (const [index, { control, tokenFile, cache }] of this.#plan.exports.entries()) {
      const label = labelOf(this.#plan, index);
      const options = { control, tokenFile, cache };
      this.#services.push(await ControlService.open(options, (message) => warn(`${label}${message}`)));
    }
  }

  /** Answers from now on; resolves to the exit code when clients detached every cache. */
  async start(host: EngineHost): Promise<number> {
    this.#log.onMessage = (message) => {
      for (const service of this.#services) service?.tell(message);
    };
    let left = host.exports.length;
    const codes = await Promise.all(host.exports.map(async (each, index) => {
      const code = await this.#start(each, index);
      // Of the last one the end waits until all is closed.
      if (--left > 0) await this.#services[index]?.close();
      return code;
    }));
    return Math.max(...codes);
  }

  #start(served: EngineExport, index: number): Promise<number> {
    const service = this.#services[index];
    const label = labelOf(this.#plan, index);
    const tell = (level: "info" | "warning" | "error", text: string) =>
      this.#log.tell(level, `${label}${text}`);
    // A second detach is refused, which says nothing of the one that is under way.
    let isDetaching = false;
    return new Promise((resolve) => {
      if (service === undefined) return;
      service.start({
        ...served,
        async tune(settings) {
          const all = await served.tune(settings);
          tell("info", `settings were changed: ${JSON.stringify(settings)}`);
          return all;
        },
        async detach(verify, onProgress) {
          const isOnly = !isDetaching;
          isDetaching = true;
          tell(
            "info",
            "detaching was asked for: everything is written back, then clients are disconnected",
          );
          try {
            const report = await served.detach(verify, onProgress);
            const { comparedBlocks } = report;
            tell(
              "info",
              `detached: the backing device alone is complete (${comparedBlocks} blocks read back)`,
            );
            resolve(exitCode.done);
            return report;
          } catch (error) {
            const reason = error instanceof Error ? error.message : String(error);
            const { serving } = await served.status();
            tell("error", `not detached: ${reason}${serving ? "; it goes on serving" : ""}`);
            if (!serving && isOnly) {
              resolve(error instanceof NbdboostError ? error.exitCode : exitCode.failed);
            }
            throw error;
          } finally {
            if (isOnly) isDetaching = false;
          }
        },
      }, (message) => tell("warning", message));
      const token = service.tokenFile === undefined ? "" : `, with the token in ${service.tokenFile}`;
      tell("info", `control address: ${service.address}${token}`);
    });
  }

  /** Lets responses under way end. */
  async close(): Promise<void> {
    for (const service of this.#services) await service?.close();
  }
}
