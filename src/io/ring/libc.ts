/**
 * The C library by FFI: what the ring backend needs besides the ring itself.
 *
 * Invariants: nobody is ever asked for a permission; lengths and results are i32 and memory goes in as ready-made
 * views, because a Number passed as `usize` costs 25 times as much per call (measured).
 *
 * @module
 */

const symbols = {
  setup: { name: "syscall", parameters: ["i32", "i32", "buffer"], result: "i32" },
  enter: {
    name: "syscall",
    parameters: ["i32", "i32", "i32", "i32", "i32", "pointer", "i32"],
    result: "i32",
  },
  enterElsewhere: {
    name: "syscall",
    parameters: ["i32", "i32", "i32", "i32", "i32", "pointer", "i32"],
    result: "i32",
    nonblocking: true,
  },
  register: { name: "syscall", parameters: ["i32", "i32", "i32", "buffer", "i32"], result: "i32" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  errno: { name: "__errno_location", parameters: [], result: "pointer" },
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  fsync: { parameters: ["i32"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "i32", "buffer"], result: "i32" },
  clockGettime: { name: "clock_gettime", parameters: ["i32", "buffer"], result: "i32" },
  eventfd: { parameters: ["i32", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "i32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getaddrinfo: { parameters: ["buffer", "buffer", "buffer", "buffer"], result: "i32" },
  freeaddrinfo: { parameters: ["pointer"], result: "void" },
} as const;

/** The C library. */
export class Libc {
  readonly #library: Deno.DynamicLibrary<typeof symbols>;
  /** The functions. */
  readonly call: Deno.DynamicLibrary<typeof symbols>["symbols"];

  private constructor() {
    this.#library = Deno.dlopen("libc.so.6", symbols);
    this.call = this.#library.symbols;
  }

  /** Opens the C library, or tells in half a sentence why that is not possible. */
  static open(): Libc | string {
    if (Deno.build.os !== "linux") return `io_uring is Linux's, and this is ${Deno.build.os}`;
    // A query first: a call that is not permitted would ask the person at the terminal.
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
      return "Deno was not given the permission to call the C library (--allow-ffi)";
    }
    try {
      return new Libc();
    } catch (error) {
      return `the C library cannot be loaded (${(error as Error).message})`;
    }
  }

  /** The errno of the call before this one, which must have failed, on this thread. */
  errno(): number {
    const pointer = this.call.errno();
    return pointer === null ? 0 : new Deno.UnsafePointerView(pointer).getInt32();
  }

  /** Releases the library. */
  close(): void {
    this.#library.close();
  }
}

/** A string as C has it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
