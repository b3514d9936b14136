/**
 * Socket addresses as the C library has them.
 *
 * @module
 */

import { UsageError } from "../../errors.ts";
import type { SocketAddress } from "../io.ts";
import { socketConstant } from "./abi.ts";
import { cString, type Libc } from "./libc.ts";

const familyInet = 2;
const familyInet6 = 10;
/** Bytes of the largest address, and where things are in it. */
const addressBytesMax = 128;

/** A `sockaddr`. */
export interface NativeAddress {
  family: number;
  bytes: Uint8Array<ArrayBuffer>;
}

/** The address of a unix socket, whose path must be short enough. */
export function unixAddress(path: string): NativeAddress {
  const text = new TextEncoder().encode(path);
  const bytes = new Uint8Array(2 + text.length + 1);
  new DataView(bytes.buffer).setUint16(0, socketConstant.familyUnix, true);
  bytes.set(text, 2);
  return { family: socketConstant.familyUnix, bytes };
}

/** Looks up a host name or a numeric address for listening or connecting. Waits for the resolver. */
export function tcpAddress(
  libc: Libc,
  hostname: string,
  port: number,
  purpose: "listen on" | "connect to" = "listen on",
): NativeAddress {
  // struct addrinfo: flags, family, socktype, protocol as i32.
  const hints = new Int32Array(12);
  hints[0] = purpose === "listen on" ? socketConstant.passive : 0;
  hints[2] = socketConstant.stream;
  const out = new BigUint64Array(1);
  const failure = libc.call.getaddrinfo(
    cString(hostname),
    cString(String(port)),
    new Uint8Array(hints.buffer),
    new Uint8Array(out.buffer),
  );
  const list = Deno.UnsafePointer.create(out[0]!);
  if (failure !== 0 || list === null) {
    throw new UsageError(
      `Cannot ${purpose} ${hostname}:${port}: there is no such address (the name is not known, resolver error ` +
        `${failure}); expected a host name or an address${purpose === "listen on" ? " of this machine" : ""}`,
    );
  }
  try {
    const first = new Deno.UnsafePointerView(list);
    const bytes = new Uint8Array(first.getUint32(16));
    const address = first.getPointer(24);
    if (address !== null) new Deno.UnsafePointerView(address).copyInto(bytes);
    return { family: first.getInt32(4), bytes };
  } finally {
    libc.call.freeaddrinfo(list);
  }
}

/** The address that a socket is bound to; undefined when the descriptor is no socket of TCP or of a unix path. */
export function socketAddress(libc: Libc, descriptor: number): SocketAddress | undefined {
  const bytes = new Uint8Array(addressBytesMax);
  const length = new Uint32Array([addressBytesMax]);
  if (libc.call.getsockname(descriptor, bytes, new Uint8Array(length.buffer)) !== 0) return undefined;
  const family = new DataView(bytes.buffer).getUint16(0, true);
  if (family === familyInet || family === familyInet6) return boundAddress(libc, descriptor);
  if (family !== socketConstant.familyUnix || bytes[2] === 0) return undefined;
  const end = bytes.indexOf(0, 2);
  return { transport: "unix", path: new TextDecoder().decode(bytes.subarray(2, end < 0 ? length[0]! : end)) };
}

/** The address that a TCP socket is bound to. */
export function boundAddress(libc: Libc, descriptor: number): SocketAddress & { transport: "tcp" } {
  const bytes = new Uint8Array(addressBytesMax);
  const length = new Uint8Array(new Uint32Array([addressBytesMax]).buffer);
  libc.call.getsockname(descriptor, bytes, length);
  const view = new DataView(bytes.buffer);
  const port = view.getUint16(2);
  const family = view.getUint16(0, true);
  if (family === familyInet) return { transport: "tcp", hostname: bytes.subarray(4, 8).join("."), port };
  const groups = family === familyInet6 ? Array.from({ length: 8 }, (_, i) => view.getUint16(8 + 2 * i)) : [];
  return { transport: "tcp", hostname: shortenedIpv6(groups), port };
}

/** The usual form, in which the longest run of zero groups is left out. */
function shortenedIpv6(groups: number[]): string {
  const text = groups.map((group) => group.toString(16)).join(":");
  return new URL(`http://[${text}]/`).hostname.slice(1, -1);
}
