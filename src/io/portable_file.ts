/**
 * Files and block devices by Deno's own `FsFile`, which has one position and hence serves one read or write at a
 * time: a small pool of handles per file, one for each call in flight.
 *
 * Invariants: the primary handle never reads or writes where the pool has handles of its own; it syncs, stats and
 * holds the lock. Every handle of the pool is the very file that the primary one is, though its path be replaced. What
 * waits for a handle is served first come, first served.
 *
 * @module
 */

import { systemClock } from "../clock.ts";
import { assert, DeviceError } from "../errors.ts";
import type { IoFile, PathFacts } from "./io.ts";
import { errnoName, isUnsupported, LinuxFile, openLinuxFile } from "./linux.ts";

/** Most handles of one file that read or write at once; further calls queue. */
export const handlesMax = 32;
/** How long a lock is waited for where the platform has no call that does not wait. */
const lockWaitMsMax = 500;
/** A lock on Windows keeps other handles of the same process from reading and writing, so all go through one. */
const lockBindsHandles = Deno.build.os === "windows";

/** Tells what Deno knows of a file. */
export function pathFacts(info: Deno.FileInfo): PathFacts {
  const kind = info.isFile
    ? "file"
    : info.isDirectory
    ? "directory"
    : info.isBlockDevice
    ? "block"
    : info.isCharDevice
    ? "character"
    : info.isFifo
    ? "fifo"
    : info.isSocket
    ? "socket"
    : "other";
  return {
    kind,
    sizeBytes: info.size,
    allocatedBytes: info.blocks === null ? undefined : info.blocks * 512,
    filesystem: info.dev,
    inode: info.ino ?? 0,
    deviceNumber: kind === "block" && info.rdev !== null ? deviceNumber(info.rdev) : "",
    modifiedMs: info.mtime?.getTime() ?? 0,
  };
}

/** The encoding of the C library: 32 bits of major and of minor number, interleaved. */
function deviceNumber(rdev: number): string {
  const bits = BigInt(rdev);
  const major = ((bits >> 8n) & 0xfffn) | ((bits >> 32n) & 0xfffff000n);
  const minor = (bits & 0xffn) | ((bits >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

/** Opens `path`, with one handle for reads and writes in the pool, so that a later call cannot fail to get one. */
export async function openPortableFile(
  path: string,
  options: { write: boolean; create?: boolean },
): Promise<PortableFile> {
  const create = options.create ? { createNew: true, mode: 0o600 } : {};
  const primary = await Deno.open(path, { read: true, write: options.write, ...create });
  try {
    // From here on independent of the working directory.
    const absolute = await Deno.realPath(path);
    const facts = pathFacts(await primary.stat());
    const file = new PortableFile(absolute, options.write, primary, facts);
    await file.start();
    return file;
  } catch (error) {
    primary.close();
    throw error;
  }
}

/** A file with a pool of handles. Use {@linkcode openPortableFile}. */
export class PortableFile implements IoFile {
  #path: string;
  #write: boolean;
  #facts: PathFacts;
  #primary: Deno.FsFile;
  #idle: Deno.FsFile[] = [];
  #handles = 0;
  #handlesLimit = handlesMax;
  #waiting: ((handle: Deno.FsFile) => void)[] = [];
  #callsUnderWay = 0;
  #closed: Promise<void> | undefined;
  #whenIdle: (() => void) | undefined;
  /** Undefined until first wanted, null when not available. */
  #linux: LinuxFile | null | undefined;

  /** Use {@linkcode openPortableFile}. */
  constructor(path: string, write: boolean, primary: Deno.FsFile, facts: PathFacts) {
    this.#path = path;
    this.#write = write;
    this.#primary = primary;
    this.#facts = facts;
  }

  /** Opens the first handle of the pool. */
  async start(): Promise<void> {
    if (lockBindsHandles) {
      this.#handlesLimit = 1;
      this.#idle.push(this.#primary);
    } else {
      this.#idle.push(await this.#openHandle());
    }
    this.#handles = 1;
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#call(async () => {
      const handle = await this.#acquire();
      try {
        handle.seekSync(offset, Deno.SeekMode.Start);
        return await handle.read(into) ?? 0;
      } finally {
        this.#release(handle);
      }
    });
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#call(async () => {
      const handle = await this.#acquire();
      try {
        handle.seekSync(offset, Deno.SeekMode.Start);
        return await handle.write(bytes);
      } finally {
        this.#release(handle);
      }
    });
  }

  sync(): Promise<void> {
    return this.#onPrimary((handle) => handle.syncData());
  }

  stat(): Promise<PathFacts> {
    return this.#onPrimary(async (handle) => pathFacts(await handle.stat()));
  }

  size(): Promise<number> {
    if (this.#facts.kind === "file") return this.#onPrimary(async (handle) => (await handle.stat()).size);
    return this.#onPrimary((handle) => {
      const bytes = this.#linuxFile()?.deviceBytes();
      return bytes !== undefined ? Promise.resolve(bytes) : handle.seek(0, Deno.SeekMode.End);
    });
  }

  tryLock(exclusive: boolean): Promise<boolean> {
    return this.#onPrimary((handle) => {
      // Since Deno 2.9 or so; the types of older ones do not know it either.
      const modern = handle as unknown as { tryLock?: (exclusive: boolean) => Promise<boolean> };
      if (modern.tryLock) return modern.tryLock(exclusive);
      const linux = this.#linuxFile();
      if (linux) return Promise.resolve(linux.tryLock(exclusive));
      return lockWithin(handle, exclusive);
    });
  }

  claim(): Promise<boolean> {
    return this.#call(() => {
      assert(this.#linux === undefined, "a claim comes before all other calls that need a descriptor");
      if (this.#facts.kind !== "block") return Promise.resolve(true);
      return Promise.resolve(this.#openLinux(true) !== "busy");
    });
  }

  zeroFast(offset: number, length: number, keepAllocated: boolean): Promise<boolean> {
    return this.#call(async () => {
      const linux = this.#linuxFile();
      if (!linux) return false;
      if (this.#facts.kind === "file") {
        return await (keepAllocated ? linux.zeroRange(offset, length) : linux.punchHole(offset, length));
      }
      // A hole in a block device: the kernel unmaps only what is then guaranteed to read as zeroes.
      return (!keepAllocated && await linux.punchHole(offset, length)) || await linux.zeroOut(offset, length);
    });
  }

  allocate(offset: number, length: number): Promise<boolean> {
    return this.#call(async () => {
      const errno = await this.#linuxFile()?.allocate(offset, length);
      if (errno === undefined || isUnsupported(errno)) return false;
      if (errno === 0) return true;
      const code = errnoName(errno);
      throw Object.assign(new Error(`fallocate failed with ${code}`), { code });
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#callsUnderWay > 0) await new Promise<void>((resolve) => this.#whenIdle = resolve);
    assert(this.#waiting.length === 0 && this.#idle.length === this.#handles, "no handle is in use");
    this.#linux?.close();
    for (const handle of this.#idle) if (handle !== this.#primary) handle.close();
    this.#primary.close();
  }

  /** Counts a call, so that `close` can wait for it. */
  async #call<Result>(action: () => Promise<Result>): Promise<Result> {
    if (this.#closed) throw new DeviceError("ESHUTDOWN", `Cannot use ${this.#path}: it is closed`);
    this.#callsUnderWay++;
    try {
      return await action();
    } finally {
      if (--this.#callsUnderWay === 0) this.#whenIdle?.();
    }
  }

  #onPrimary<Result>(action: (handle: Deno.FsFile) => Promise<Result>): Promise<Result> {
    return this.#call(async () => {
      if (!lockBindsHandles) return await action(this.#primary);
      const handle = await this.#acquire();
      try {
        return await action(handle);
      } finally {
        this.#release(handle);
      }
    });
  }

  #acquire(): Deno.FsFile | Promise<Deno.FsFile> {
    const handle = this.#idle.pop();
    if (handle) return handle;
    const turn = new Promise<Deno.FsFile>((resolve) => this.#waiting.push(resolve));
    if (this.#handles < this.#handlesLimit) this.#grow();
    return turn;
  }

  #release(handle: Deno.FsFile): void {
    const next = this.#waiting.shift();
    if (next) next(handle);
    else this.#idle.push(handle);
  }

  /**
   * Opens one more handle for whoever waits longest. Where that fails (the path is gone, too many open files) the
   * pool stays as it is: those who wait get a handle that is released.
   */
  #grow(): void {
    this.#handles++;
    this.#callsUnderWay++;
    this.#openHandle().then((handle) => this.#release(handle), () => {
      this.#handles--;
      this.#handlesLimit = this.#handles;
    }).finally(() => {
      if (--this.#callsUnderWay === 0) this.#whenIdle?.();
    });
  }

  async #openHandle(): Promise<Deno.FsFile> {
    const handle = await Deno.open(this.#path, { read: true, write: this.#write });
    try {
      const facts = pathFacts(await handle.stat());
      // Writing into a file that took the path of ours would destroy it.
      if (!isSame(facts, this.#facts)) throw new Error(`${this.#path} was replaced while it was open`);
      return handle;
    } catch (error) {
      handle.close();
      throw error;
    }
  }

  #linuxFile(): LinuxFile | undefined {
    if (this.#linux === undefined) this.#openLinux(false);
    return this.#linux ?? undefined;
  }

  #openLinux(claim: boolean): LinuxFile | "busy" | undefined {
    const linux = openLinuxFile(this.#path, { write: this.#write, claim });
    this.#linux = linux instanceof LinuxFile ? linux : null;
    if (linux instanceof LinuxFile && !isSame(pathFacts(Deno.statSync(this.#path)), this.#facts)) {
      linux.close();
      this.#linux = null;
    }
    return linux;
  }
}

function isSame(a: PathFacts, b: PathFacts): boolean {
  return a.inode === b.inode && a.filesystem === b.filesystem && a.deviceNumber === b.deviceNumber;
}

/**
 * Locks with the call that waits, for no longer than a moment. When that is over the call still waits, and would get
 * the lock one day, but its handle is closed by then.
 */
async function lockWithin(handle: Deno.FsFile, exclusive: boolean): Promise<boolean> {
  let cancel = () => {};
  const timeout = new Promise<boolean>((resolve) => {
    cancel = systemClock.after(lockWaitMsMax, () => resolve(false));
  });
  const locked = handle.lock(exclusive).then(() => true);
  locked.catch(() => {});
  return await Promise.race([locked, timeout]).finally(() => cancel());
}
