/**
 * The directory of `--tls-dir`, with the file names that qemu, nbdkit and libnbd use too: server-cert.pem, server-key.pem
 * and, to verify clients, ca-cert.pem.
 *
 * @module
 */

import { RefusedError, UsageError } from "../errors.ts";
import type { TlsIdentity } from "../io/io.ts";
import type { Options } from "./table.ts";

/** What `--tls` and its kin ask for; undefined for no TLS. */
export function tlsOf(options: Options): { mode: "on" | "require"; identity: TlsIdentity } | undefined {
  const mode = options.text("tls") ?? "off";
  const directory = options.text("tls-dir");
  const verifyClients = options.flag("tls-verify-clients");
  if (mode !== "on" && mode !== "require") {
    if (directory === undefined && !verifyClients) return undefined;
    throw new UsageError(
      "Option --tls-dir or --tls-verify-clients is given without --tls on or --tls require.",
    );
  }
  if (directory === undefined) {
    throw new UsageError(
      `Option --tls ${mode} needs --tls-dir PATH: expected a directory with server-cert.pem and server-key.pem.`,
    );
  }
  if (verifyClients && exists(`${directory}/ca-crl.pem`)) {
    throw new RefusedError(
      `Cannot verify clients by ${directory}: it holds ca-crl.pem, and this version cannot look whether a certificate ` +
        `was revoked; take the file away if that is meant`,
    );
  }
  return {
    mode,
    identity: {
      certificate: read(`${directory}/server-cert.pem`),
      key: read(`${directory}/server-key.pem`),
      ...(verifyClients ? { authority: read(`${directory}/ca-cert.pem`) } : {}),
      verifyClients,
    },
  };
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    throw new UsageError(
      `Cannot offer TLS: ${path} cannot be read (${(cause as Error).message}); check --tls-dir`,
      {
        cause,
      },
    );
  }
}
