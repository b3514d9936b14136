/**
 * Telling the service manager how far we are: sd_notify's protocol, datagrams to the unix socket that NOTIFY_SOCKET names.
 *
 * Deno has no stable call for such sockets, so it is the C library's. Nothing here is needed to serve: without Linux, the
 * variable or the permissions it does nothing, and nobody is ever asked for a permission.
 *
 * @module
 */

const familyUnix = 1;
const datagram = 2;
const closeOnExec = 0o2000000;
/** What `sockaddr_un` holds. */
const pathBytesMax = 108;

const symbols = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
} as const;

/** Tells the service manager. */
export interface Notifier {
  /** Sends lines such as `READY=1`; false when they could not be sent. */
  tell(...lines: string[]): boolean;
  /** Why nothing is told although a manager asked for it; undefined when all is well. */
  readonly why: string | undefined;
}

function silent(why: string | undefined): Notifier {
  return { tell: () => false, why };
}

/** A variable of the environment, without asking anybody. */
function variable(name: string): string | undefined {
  if (Deno.permissions.querySync({ name: "env", variable: name }).state !== "granted") return undefined;
  return Deno.env.get(name);
}

/** Finds the service manager's socket in the environment. */
export function openNotifier(path: string | undefined = variable("NOTIFY_SOCKET")): Notifier {
  if (path === undefined || path === "" || Deno.build.os !== "linux") return silent(undefined);
  const name = new TextEncoder().encode(path);
  // An abstract name begins with @ here and with a zero in the kernel's form.
  if (path.startsWith("@")) name[0] = 0;
  if ((name[0] !== 0 && !path.startsWith("/")) || name.length >= pathBytesMax) {
    return silent(
      `NOTIFY_SOCKET is "${path}", expected a path or an abstract name of at most ${pathBytesMax - 1} bytes`,
    );
  }
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
    return silent(
      "NOTIFY_SOCKET is set, but Deno was not given --allow-ffi, without which nothing can be sent there",
    );
  }
  const address = new Uint8Array(2 + name.length + (name[0] === 0 ? 0 : 1));
  new DataView(address.buffer).setUint16(0, familyUnix, true);
  address.set(name, 2);
  return {
    why: undefined,
    tell(...lines) {
      const message = new TextEncoder().encode(lines.map((line) => line.replaceAll("\n", " ")).join("\n"));
      const library = Deno.dlopen("libc.so.6", symbols);
      try {
        const { socket, sendto, close } = library.symbols;
        const descriptor = socket(familyUnix, datagram | closeOnExec, 0);
        if (descriptor < 0) return false;
        const sent = sendto(descriptor, message, BigInt(message.length), 0, address, address.length);
        close(descriptor);
        return Number(sent) === message.length;
      } finally {
        library.close();
      }
    },
  };
}
