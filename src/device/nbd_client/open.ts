/**
 * From an NBD URI to a device: connecting, and refusing what cannot be used as one.
 *
 * @module
 */

import type { Clock } from "../../clock.ts";
import { DeviceError, NbdboostError, RefusedError, UsageError } from "../../errors.ts";
import type { Io, IoConnection, SocketAddress, TlsTrust } from "../../io/io.ts";
import { transmissionFlag } from "../../nbd/constants.ts";
import { sectorBytes } from "../../units.ts";
import { ByteStream } from "./byte_stream.ts";
import { NbdDevice, takesSectors } from "./device.ts";
import { type ExportFacts, shakeHands } from "./handshake.ts";
import { Link } from "./link.ts";
import {
  connectMsMax,
  type NbdSettings,
  nbdSettings,
  payloadBytesMin,
  type TlsSettings,
} from "./settings.ts";

type OnLost = (link: Link, reason: string) => void;

/** Opens the export that `uri` names. Rejects when the server cannot be reached now, or cannot be used. */
export async function openNbdDevice(
  uri: string,
  { write, io, clock }: { write: boolean; io: Io; clock: Clock },
): Promise<NbdDevice> {
  const settings = nbdSettings(uri);
  const connect = (onLost: OnLost) => connectAll(settings, io, clock, onLost);
  let device: NbdDevice;
  try {
    device = await NbdDevice.open({ settings, readOnly: !write, clock, connect });
  } catch (cause) {
    throw openError(uri, cause);
  }
  try {
    checkFacts(uri, device.facts, write);
  } catch (error) {
    await device.close();
    throw error;
  }
  return device;
}

/** All connections of one generation: one, or, where the server lets them share a view, as many as wanted. */
async function connectAll(settings: NbdSettings, io: Io, clock: Clock, onLost: OnLost): Promise<Link[]> {
  const first = await connectOne(settings, io, clock, onLost);
  const links = [first];
  if ((first.facts.flags & transmissionFlag.canMultiConn) === 0) return links;
  while (links.length < settings.connections) {
    // A server that takes no more is used over those that it took.
    const link = await connectOne(settings, io, clock, onLost).catch(() => undefined);
    if (link === undefined) break;
    links.push(link);
  }
  return links;
}

async function connectOne(settings: NbdSettings, io: Io, clock: Clock, onLost: OnLost): Promise<Link> {
  const { address, tls } = settings;
  // Certificates are read each time, as they are renewed while a cache runs.
  const trust = tls === undefined ? undefined : await readTrust(tls, io);
  const socket = await within(
    clock,
    "it did not accept a connection",
    trust === undefined ? io.connect(address) : connectTls(io, address, trust),
    (late) => {
      late.close();
    },
  );
  const stream = new ByteStream(socket);
  try {
    const facts = await within(
      clock,
      "it did not end the handshake",
      shakeHands(
        stream,
        settings.exportName,
        trust === undefined ? undefined : () => socket.startTls!(new Uint8Array(0)),
      ),
    );
    return new Link(stream, facts, clock, onLost);
  } catch (error) {
    stream.close();
    throw error;
  }
}

function connectTls(io: Io, address: SocketAddress, trust: TlsTrust): Promise<IoConnection> {
  if (io.connectTls !== undefined) return io.connectTls(address, trust);
  throw new RefusedError(`the ${io.name} backend cannot use TLS; use the portable one (--io portable)`);
}

async function readTrust({ serverName, verify, directory }: TlsSettings, io: Io): Promise<TlsTrust> {
  if (directory === undefined) return { serverName, verify };
  const read = (name: string) => io.readText(`${directory}/${name}.pem`);
  const [authority, certificate, key] = await Promise.all(["ca-cert", "client-cert", "client-key"].map(read));
  if (verify && authority === undefined) {
    throw new UsageError(
      `tls-certificates is "${directory}", where ca-cert.pem cannot be read; expected a directory with the certificate of ` +
        `the server's authority, which Deno may read`,
    );
  }
  if ((certificate === undefined) !== (key === undefined)) {
    throw new UsageError(
      `of client-cert.pem and client-key.pem in "${directory}" only one can be read; expected both or none`,
    );
  }
  return { serverName, verify, authority, certificate, key };
}

/** Waits for `work` for so long; what it resolves to afterwards is given to `late`. */
async function within<T>(
  clock: Clock,
  what: string,
  work: Promise<T>,
  late: (value: T) => void = () => {},
): Promise<T> {
  let isLate = false;
  let cancel = () => {};
  const limit = new Promise<never>((_, reject) => {
    cancel = clock.after(connectMsMax, () => {
      isLate = true;
      reject(new DeviceError("ETIMEDOUT", `${what} within ${connectMsMax / 1000} s`));
    });
  });
  work.then((value) => isLate ? late(value) : undefined, () => {});
  try {
    return await Promise.race([work, limit]);
  } finally {
    cancel();
  }
}

function checkFacts(uri: string, facts: ExportFacts, write: boolean): void {
  const { sizeBytes, flags, blockBytesMin, payloadBytesMax } = facts;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes === 0 || sizeBytes % sectorBytes !== 0) {
    throw new UsageError(
      `Cannot use ${uri} as a device: its size is ${sizeBytes} bytes, expected a multiple of ${sectorBytes} above 0`,
    );
  }
  if (!takesSectors(facts)) {
    throw new UsageError(
      `Cannot use ${uri} as a device: the server takes requests of multiples of ${blockBytesMin} and at most ` +
        `${payloadBytesMax} bytes, expected multiples of ${sectorBytes} and at least ${payloadBytesMin}; put something between that ` +
        `can, such as nbdkit's blocksize filter`,
    );
  }
  if (!write) return;
  if ((flags & transmissionFlag.readOnly) !== 0) {
    throw new DeviceError("EROFS", `Cannot open ${uri} for writing: the server offers this export read-only`);
  }
  if ((flags & transmissionFlag.sendFlush) === 0) {
    throw new RefusedError(
      `Cannot open ${uri} for writing: the server has no FLUSH for this export, so nothing that is written to it could ` +
        `ever be called durable; use a server, or an option of it, that has`,
    );
  }
}

function openError(uri: string, cause: unknown): NbdboostError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  if (cause instanceof UsageError) {
    return reason.startsWith("Cannot") ? cause : new UsageError(`Cannot open ${uri}: ${reason}`, { cause });
  }
  if (cause instanceof RefusedError) {
    return reason.startsWith("Cannot open")
      ? cause
      : new RefusedError(`Cannot open ${uri}: ${reason}`, { cause });
  }
  if (cause instanceof Error && cause.name === "NotCapable") {
    return new RefusedError(
      `Cannot open ${uri}: Deno does not permit it (${reason}); run with --allow-net of that address (and, for a unix ` +
        `socket, --allow-read and --allow-write of its path)`,
      { cause },
    );
  }
  return new DeviceError(
    "ENODEV",
    `Cannot open ${uri}: ${reason}; see that the server runs and can be reached`,
    {
      cause,
    },
  );
}
