/**
 * As much of HTTP/1.1 as a control address needs: one request a connection, bodies with a length. Everything else is
 * answered with what is wrong. Source: RFC 9112.
 *
 * @module
 */

/** Bytes of a request's line and headers together. */
export const headBytesMax = 16 * 1024;
/** Bytes of a request's body. */
export const bodyBytesMax = 64 * 1024;

/** A request's line and headers. */
export interface RequestHead {
  method: string;
  /** The path, with its query. */
  target: string;
  headers: Headers;
  bodyBytes: number;
}

/** A request that is none. */
export class HttpError extends Error {
  override name = "HttpError";
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const reasons: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  411: "Length Required",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  503: "Service Unavailable",
  505: "HTTP Version Not Supported",
};

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Where the head in `bytes` ends, past its empty line; -1 when it does not yet. */
export function headEnd(bytes: Uint8Array): number {
  for (let at = 3; at < bytes.length; at++) {
    if (bytes[at] === 10 && bytes[at - 1] === 13 && bytes[at - 2] === 10 && bytes[at - 3] === 13) {
      return at + 1;
    }
  }
  return -1;
}

/** Reads the head, `bytes` up to and with the empty line. */
export function parseHead(bytes: Uint8Array): RequestHead {
  const lines = decoder.decode(bytes).split("\r\n");
  const line = lines[0] ?? "";
  const match = /^([A-Z]{1,16}) (\/[\x21-\x7e]*) HTTP\/(\d)\.(\d)$/.exec(line);
  if (match === null) {
    throw new HttpError(
      400,
      "The first line is no HTTP request: expected, for example, GET /status HTTP/1.1",
    );
  }
  const [, method = "", target = "", major] = match;
  if (major !== "1") throw new HttpError(505, `HTTP/${major} is not spoken here: expected HTTP/1.1`);
  const headers = new Headers();
  for (const text of lines.slice(1, -2)) {
    const header = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(text);
    // deno-lint-ignore no-control-regex -- the format forbids them
    if (header === null || /[\x00-\x08\x0a-\x1f\x7f]/.test(header[2]!)) {
      throw new HttpError(400, "A header line is malformed: expected NAME: VALUE");
    }
    const [, name = "", value = ""] = header;
    if (/^(host|content-length|origin|authorization)$/i.test(name) && headers.has(name)) {
      throw new HttpError(400, `The header ${name} is given twice: expected it once`);
    }
    headers.append(name, value);
  }
  if (!headers.has("host")) throw new HttpError(400, "The header Host is missing");
  return { method, target, headers, bodyBytes: bodyLength(headers) };
}

function bodyLength(headers: Headers): number {
  if (headers.has("transfer-encoding")) {
    throw new HttpError(411, "Transfer-Encoding is not taken here: expected a body with a Content-Length");
  }
  const length = headers.get("content-length") ?? "0";
  if (!/^\d{1,15}$/.test(length)) throw new HttpError(400, `The Content-Length "${length}" is no number`);
  if (Number(length) > bodyBytesMax) {
    throw new HttpError(413, `A body of ${length} bytes is too large: expected at most ${bodyBytesMax}`);
  }
  return Number(length);
}

/** A response's line and headers; the connection's end is the body's. */
export function responseHead(response: Response): Uint8Array<ArrayBuffer> {
  const { status } = response;
  const lines = [`HTTP/1.1 ${status} ${reasons[status] ?? ""}`];
  response.headers.forEach((value, name) => lines.push(`${name}: ${value}`));
  lines.push("connection: close", "", "");
  return encoder.encode(lines.join("\r\n"));
}
