/**
 * CPU time and memory of a server with all the processes that it forked, from `/proc`.
 *
 * Kernel threads that write the page cache back later are nobody's children: what a server leaves to them is not counted.
 *
 * @module
 */

/** A line of /proc/PID/stat, as far as it matters here. */
interface ProcessFacts {
  parent: number;
  zombie: boolean;
  /** Of itself and of those children that ended and were waited for. */
  ticks: number;
}

/** Reads the text of /proc/PID/stat; the name may hold spaces and brackets. */
export function parseStat(text: string): ProcessFacts {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  // The first field here is the third of proc(5): state; utime, stime, cutime, cstime are the 14th to the 17th.
  const ticks = [11, 12, 13, 14].reduce((sum, field) => sum + Number(fields[field]), 0);
  return { parent: Number(fields[1]), zombie: fields[0] === "Z", ticks };
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    // The process ended meanwhile.
    return undefined;
  }
}

/** Whether there is a process `pid` that has not ended. */
export function isAlive(pid: number): boolean {
  const text = readText(`/proc/${pid}/stat`);
  return text !== undefined && !parseStat(text).zombie;
}

/** `root` and its descendants, as far as they live. */
function family(root: number): Map<number, ProcessFacts> {
  const all = new Map<number, ProcessFacts>();
  for (const { name } of Deno.readDirSync("/proc")) {
    const text = /^\d+$/.test(name) ? readText(`/proc/${name}/stat`) : undefined;
    if (text !== undefined) all.set(Number(name), parseStat(text));
  }
  const members = new Map<number, ProcessFacts>();
  const take = (pid: number) => {
    const facts = all.get(pid);
    if (!facts || members.has(pid)) return;
    members.set(pid, facts);
    for (const [child, { parent }] of all) if (parent === pid) take(child);
  };
  take(root);
  return members;
}

/** Clock ticks in a second, as /proc counts them: 100 on every Linux that Deno runs on. */
const ticksPerSecond = 100;

/** Seconds of user and system time that `root` and its descendants have used. */
export function cpuSeconds(root: number): number {
  let ticks = 0;
  for (const facts of family(root).values()) ticks += facts.ticks;
  return ticks / ticksPerSecond;
}

/** The sum of the peaks of resident memory of `root` and of those of its descendants that live just now. */
export function peakRssBytes(root: number): number {
  let bytes = 0;
  for (const pid of family(root).keys()) {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readText(`/proc/${pid}/status`) ?? "");
    if (line) bytes += Number(line[1]) * 1024;
  }
  return bytes;
}

/** Looks at the memory of `root` again and again, since forked children come and go. */
export class MemoryWatch implements Disposable {
  readonly #root: number;
  readonly #timer: ReturnType<typeof setInterval>;
  #peak = 0;

  /** Looks at once and then every `intervalMs`. */
  constructor(root: number, intervalMs = 250) {
    this.#root = root;
    this.#look();
    this.#timer = setInterval(() => this.#look(), intervalMs);
  }

  #look(): void {
    this.#peak = Math.max(this.#peak, peakRssBytes(this.#root));
  }

  /** The most that was seen. */
  get peakBytes(): number {
    this.#look();
    return this.#peak;
  }

  /** Stops looking. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
