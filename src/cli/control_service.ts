/**
 * The control address of a server: its socket, or its port and token, and the link by which it is found.
 *
 * @module
 */

import { systemClock } from "../clock.ts";
import { ControlHandler } from "../control/handler.ts";
import { HttpServer } from "../control/http_server.ts";
import type { Message } from "../control/streams.ts";
import type { ControlTarget } from "../control/target.ts";
import { NbdboostError } from "../errors.ts";
import type { IoListener, SocketAddress } from "../io/io.ts";
import { listenPortable } from "../io/portable_socket.ts";
import { systemRandom } from "../random.ts";
import {
  besideCache,
  formatControlAddress,
  isPermitted,
  makeRuntimeFolder,
  parseControlAddress,
} from "./control_address.ts";
import { refuseToReplace } from "./side_file.ts";

/** Only the owner of the server may use its socket or read its token. */
const ownerOnly = 0o600;
const tokenBytes = 24;

/** What is wanted. */
export interface ControlOptions {
  /** `--control`: an address, `off`, or nothing. */
  control: string | undefined;
  /** `--token-file`. */
  tokenFile: string | undefined;
  /** The path of the cache device. */
  cache: string;
}

/** A control address that listens already and answers once `start` is called. */
export class ControlService {
  /** The address, as people write it. */
  readonly address: string;
  /** The file with the token, on a port. */
  readonly tokenFile: string | undefined;
  readonly #listener: IoListener;
  readonly #token: string | undefined;
  readonly #undo: (() => void)[] = [];
  #handler: ControlHandler | undefined;
  #server: HttpServer | undefined;

  private constructor(listener: IoListener, token: string | undefined, tokenFile: string | undefined) {
    this.#listener = listener;
    this.#token = token;
    this.tokenFile = tokenFile;
    const { address } = listener;
    this.address = formatControlAddress(
      address.transport === "unix" ? { ...address, path: Deno.realPathSync(address.path) } : address,
    );
  }

  /**
   * Listens. Resolves to undefined when it is switched off, and, with a sentence to `warn`, when nobody asked for it and it
   * cannot be had: what is served does not depend on it.
   */
  static async open(
    options: ControlOptions,
    warn: (message: string) => void,
  ): Promise<ControlService | undefined> {
    if (options.control === "off") return undefined;
    if (options.control !== undefined) {
      return await ControlService.#listen(parseControlAddress(options.control), options);
    }
    if (Deno.build.os === "windows") return undefined;
    const beside = besideCache(options.cache, true);
    const path = `${beside}.sock`;
    const say = (why: string) =>
      warn(
        `there is no control address: ${why}; all is served the same. Name one by --control ADDRESS, or say --control off`,
      );
    if (beside === undefined) {
      say("no runtime directory can be made for it");
      return undefined;
    }
    const permitted = isPermitted({ name: "read", path }) && isPermitted({ name: "write", path }) &&
      isPermitted({ name: "net", host: `unix:${path}` });
    if (!permitted) {
      say(`Deno was not given the permission for ${path}`);
      return undefined;
    }
    try {
      return await ControlService.#listen({ transport: "unix", path }, options);
    } catch (error) {
      if (!(error instanceof NbdboostError)) throw error;
      say(error.message);
      return undefined;
    }
  }

  static async #listen(address: SocketAddress, options: ControlOptions): Promise<ControlService> {
    const listener = await listenPortable(address, { mode: ownerOnly });
    try {
      if (address.transport === "unix") {
        const service = new ControlService(listener, undefined, undefined);
        service.#link(address.path);
        return service;
      }
      const beside = besideCache(options.cache, true);
      const tokenFile = options.tokenFile ?? (beside === undefined ? undefined : `${beside}.token`);
      if (tokenFile === undefined) {
        throw new NbdboostError(
          "There is no directory for the token's file: expected one to be named by --token-file PATH",
        );
      }
      const token = writeToken(tokenFile);
      const service = new ControlService(listener, token, tokenFile);
      service.#undo.push(() => Deno.removeSync(tokenFile));
      return service;
    } catch (error) {
      listener.close();
      throw error;
    }
  }

  /** Lets clients find the socket that lies beside a file. */
  #link(path: string): void {
    const folder = makeRuntimeFolder();
    if (folder === undefined) return;
    try {
      const real = Deno.realPathSync(path);
      if (real.startsWith(`${Deno.realPathSync(folder)}/`)) return;
      removeDeadLinks(folder);
      const link = `${folder}/${Deno.pid}-${real.replace(/^.*\//, "").replace(/\.sock$/, "")}.sock`;
      Deno.symlinkSync(real, link);
      this.#undo.push(() => Deno.removeSync(link));
    } catch {
      // It is a convenience: --control and --cache find the socket without it.
    }
  }

  /** Answers from now on. */
  start(target: ControlTarget, warn: (message: string) => void): void {
    const hosts = this.#listener.address.transport === "tcp"
      ? hostsOf(this.#listener.address.port)
      : undefined;
    const handler = new ControlHandler(target, systemClock, { hosts, token: this.#token });
    this.#handler = handler;
    this.#server = new HttpServer(this.#listener, (request) => handler.handle(request), systemClock, warn);
  }

  /** Tells those who listen to events. */
  tell(message: Message): void {
    this.#handler?.tell(message);
  }

  /** Lets responses under way end, and takes the files away. */
  async close(): Promise<void> {
    this.#handler?.close();
    if (this.#server) await this.#server.close();
    else this.#listener.close();
    for (const undo of this.#undo.splice(0)) {
      try {
        undo();
      } catch {
        // Somebody else took it away.
      }
    }
  }
}

function hostsOf(port: number): string[] {
  return ["127.0.0.1", "localhost", "[::1]"].map((name) => `${name}:${port}`);
}

function writeToken(path: string): string {
  const bytes = new Uint8Array(tokenBytes);
  systemRandom(bytes);
  const token = bytes.toHex();
  refuseToReplace(path, { option: "--token-file", kind: "the token", pattern: /^[0-9a-f]{48}\s*$/ });
  try {
    // Never into a file that was there: its mode, or whoever has it open, would give the token away.
    try {
      Deno.removeSync(path);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    Deno.writeTextFileSync(path, token + "\n", { createNew: true, mode: ownerOnly });
  } catch (cause) {
    throw new NbdboostError(
      `Cannot write the token to ${path}: ${(cause as Error).message}; name another by --token-file`,
      { cause },
    );
  }
  return token;
}

/** Links that servers left behind which did not get to take them away. */
function removeDeadLinks(folder: string): void {
  for (const { name, isSymlink } of Deno.readDirSync(folder)) {
    if (!isSymlink || !name.endsWith(".sock")) continue;
    try {
      Deno.statSync(`${folder}/${name}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) Deno.removeSync(`${folder}/${name}`);
    }
  }
}
