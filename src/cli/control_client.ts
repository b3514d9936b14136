/**
 * Talks to the control address of a running server.
 *
 * @module
 */

import { systemClock } from "../clock.ts";
import type { ToldError } from "../control/handler.ts";
import { NbdboostError } from "../errors.ts";
import { revivedError } from "../host/messages.ts";
import type { SocketAddress } from "../io/io.ts";
import { besideCache, findServer, formatControlAddress } from "./control_address.ts";
import type { Options } from "./table.ts";

/** A server that has not begun to answer for so long is said not to. */
const answerMsMax = 15_000;
const headBytesMax = 64 * 1024;

/** A response whose body is still to be read. */
interface Answer {
  status: number;
  body: AsyncGenerator<Uint8Array<ArrayBuffer>>;
}

/** A running server. */
export class ControlClient {
  readonly #address: SocketAddress;
  readonly #token: string | undefined;

  private constructor(address: SocketAddress, token: string | undefined) {
    this.#address = address;
    this.#token = token;
  }

  /** The server that `--control`, `--cache` or chance names. */
  static async find(options: Options): Promise<ControlClient> {
    const cache = options.text("cache");
    const address = await findServer(options.text("control"), cache);
    if (address.transport === "unix") return new ControlClient(address, undefined);
    const beside = cache === undefined ? undefined : besideCache(cache, false);
    const tokenFile = options.text("token-file") ?? (beside === undefined ? undefined : `${beside}.token`);
    return new ControlClient(address, tokenFile === undefined ? undefined : readToken(tokenFile));
  }

  /** Where it is. */
  get name(): string {
    return formatControlAddress(this.#address);
  }

  /** Asks, and resolves to the JSON that is answered. Errors that are told come as the typed errors that they were. */
  async ask(method: string, path: string, body?: object): Promise<unknown> {
    const answer = await this.#request(method, path, body);
    let text = "";
    const decoder = new TextDecoder();
    for await (const piece of answer.body) text += decoder.decode(piece, { stream: true });
    return this.#checked(this.#parsed(text));
  }

  /** Asks for something long: tells of its progress, resolves to its result. */
  async long(
    path: string,
    onProgress: (done: number, total: number, phase: string) => void,
    { method = "POST", body }: { method?: string; body?: object } = {},
  ): Promise<unknown> {
    const answer = await this.#request(method, path, body);
    const decoder = new TextDecoder();
    let rest = "";
    for await (const piece of answer.body) {
      const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const told = this.#checked(this.#parsed(line)) as Record<string, unknown>;
        if ("result" in told) return told.result;
        onProgress(Number(told.done), Number(told.total), String(told.phase));
      }
    }
    throw new NbdboostError(
      `The server at ${this.name} went away before it was done: what it had written back stays so; see its messages, and ` +
        "nbdboost check",
    );
  }

  #parsed(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new NbdboostError(`What answers at ${this.name} is no nbdboost server: its answer is no JSON`, {
        cause,
      });
    }
  }

  #checked(answer: unknown): unknown {
    const error = (answer as { error?: ToldError } | null)?.error;
    if (error !== undefined) throw revivedError(error);
    return answer;
  }

  async #request(method: string, path: string, body?: object): Promise<Answer> {
    const connection = await this.#connect();
    let late = false;
    const cancel = systemClock.after(answerMsMax, () => {
      late = true;
      connection.close();
    });
    try {
      const text = body === undefined ? "" : JSON.stringify(body);
      const head = [`${method} ${path} HTTP/1.1`, `host: ${this.#host()}`];
      if (this.#token !== undefined) head.push(`authorization: Bearer ${this.#token}`);
      if (text !== "") head.push("content-type: application/json");
      const bytes = new TextEncoder().encode(text);
      head.push(`content-length: ${bytes.length}`, "connection: close", "", "");
      const all = new TextEncoder().encode(head.join("\r\n") + text);
      for (let at = 0; at < all.length;) at += await connection.write(all.subarray(at));
      return await this.#answer(connection);
    } catch (cause) {
      connection.close();
      if (late) {
        throw new NbdboostError(`The server at ${this.name} has not answered for ${answerMsMax / 1000} s`, {
          cause,
        });
      }
      throw cause;
    } finally {
      cancel();
    }
  }

  #host(): string {
    return this.#address.transport === "unix" ? "localhost" : this.name.replace("http://", "");
  }

  async #connect(): Promise<Deno.Conn> {
    const address = this.#address;
    try {
      return address.transport === "unix"
        ? await Deno.connect({ transport: "unix", path: address.path })
        : await Deno.connect({ transport: "tcp", hostname: address.hostname, port: address.port });
    } catch (cause) {
      const gone = cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.ConnectionRefused;
      const why = gone
        ? "no server answers there"
        : cause instanceof Deno.errors.PermissionDenied
        ? "only the user that runs the server may"
        : (cause as Error).message;
      throw new NbdboostError(
        `Cannot connect to the control address ${this.name}: ${why}; expected a running nbdboost serve, see --control`,
        { cause },
      );
    }
  }

  async #answer(connection: Deno.Conn): Promise<Answer> {
    const foreign = () =>
      new NbdboostError(`What answers at ${this.name} is no nbdboost server: its answer is no HTTP`);
    let bytes = new Uint8Array(0);
    const buffer = new Uint8Array(16 * 1024);
    for (;;) {
      const text = new TextDecoder("latin1").decode(bytes);
      const end = text.indexOf("\r\n\r\n");
      if (end >= 0) {
        const status = /^HTTP\/1\.\d (\d{3}) /.exec(text)?.[1];
        if (status === undefined) throw foreign();
        return { status: Number(status), body: bodyOf(connection, bytes.slice(end + 4)) };
      }
      const count = bytes.length > headBytesMax ? null : await connection.read(buffer);
      if (count === null) throw foreign();
      const longer = new Uint8Array(bytes.length + count);
      longer.set(bytes);
      longer.set(buffer.subarray(0, count), bytes.length);
      bytes = longer;
    }
  }
}

/** What came with the head, then what still comes, until the connection ends. */
async function* bodyOf(
  connection: Deno.Conn,
  first: Uint8Array<ArrayBuffer>,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  try {
    if (first.length > 0) yield first;
    const buffer = new Uint8Array(16 * 1024);
    for (;;) {
      const count = await connection.read(buffer);
      if (count === null) return;
      yield buffer.slice(0, count);
    }
  } finally {
    connection.close();
  }
}

function readToken(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (cause) {
    throw new NbdboostError(
      `Cannot read the token from ${path}: ${(cause as Error).message}; see --token-file`,
      { cause },
    );
  }
}
