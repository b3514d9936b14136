/**
 * Connecting on the ring.
 *
 * The resolver blocks the thread that asks it, so a host's name is looked up once; later connections of this process go
 * to the same address, until one fails.
 *
 * @module
 */

import type { IoConnection, SocketAddress } from "../io.ts";
import { operation, socketConstant, sqe } from "./abi.ts";
import { type NativeAddress, tcpAddress, unixAddress } from "./address.ts";
import { RingConnection } from "./connection.ts";
import { errnoError } from "./errno.ts";
import { addressOf } from "./memory.ts";
import type { Reactor } from "./reactor.ts";

const { stream, closeOnExec, levelSocket, keepAlive, levelTcp, noDelay, familyUnix } = socketConstant;
const on = new Uint8Array(new Int32Array([1]).buffer);
const looked = new Map<string, NativeAddress>();

function nativeAddress(reactor: Reactor, address: SocketAddress): NativeAddress {
  if (address.transport === "unix") return unixAddress(address.path);
  const { hostname, port } = address;
  const key = `${hostname} ${port}`;
  let found = looked.get(key);
  if (found === undefined) looked.set(key, found = tcpAddress(reactor.libc, hostname, port, "connect to"));
  return found;
}

/** Connects to `address`. See `Io.connect`. */
export async function connectRing(reactor: Reactor, address: SocketAddress): Promise<IoConnection> {
  reactor.acquire();
  try {
    const native = nativeAddress(reactor, address);
    const { libc } = reactor;
    const descriptor = libc.call.socket(native.family, stream | closeOnExec, 0);
    if (descriptor < 0) throw errnoError("socket", libc.errno());
    const result = await connected(reactor, descriptor, native.bytes);
    if (result < 0) {
      libc.call.close(descriptor);
      if (address.transport === "tcp") looked.delete(`${address.hostname} ${address.port}`);
      throw errnoError("connect", -result);
    }
    if (native.family !== familyUnix) {
      libc.call.setsockopt(descriptor, levelTcp, noDelay, on, on.length);
      libc.call.setsockopt(descriptor, levelSocket, keepAlive, on, on.length);
    }
    return new RingConnection(reactor, descriptor);
  } finally {
    reactor.release();
  }
}

function connected(reactor: Reactor, descriptor: number, bytes: Uint8Array<ArrayBuffer>): Promise<number> {
  return new Promise((resolve) => {
    const completion = {
      completed(result: number) {
        reactor.settled();
        resolve(result);
      },
    };
    const at = reactor.prepare(operation.connect, descriptor, completion, 0, bytes);
    // The length of the address goes where others have their offset.
    reactor.ring.putWide(at + sqe.offsetLow, bytes.length);
    reactor.ring.putWide(at + sqe.addressLow, addressOf(bytes));
    reactor.ring.sqes[at + sqe.length] = 0;
    reactor.ring.sqes[at + sqe.flags] = 0;
  });
}
