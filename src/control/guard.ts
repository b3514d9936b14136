/**
 * Who may ask. A control address on a TCP port can be reached by every program of this machine and, through a browser, by
 * every web page that somebody on it looks at. So a port wants a token, and no request that a page of another origin
 * caused is obeyed, whatever the address.
 *
 * The rules, by what they are against:
 * - Host, on a port, must name the port by a loopback name: against DNS rebinding. On a unix socket, which a browser
 *   reaches where somebody forwards a port to it, it must be a loopback name, or one without a dot, on any port.
 * - Origin, when there is one, must be the Host's own; Sec-Fetch-Site must not say otherwise: against forged requests.
 * - Authorization must be `Bearer TOKEN` on a port, but for `GET /` and `GET /healthz`: against other users.
 *
 * @module
 */

/** How an address is guarded. */
export interface Guard {
  /** What Host may be; undefined for a unix socket, which does not know by what port a browser may reach it. */
  readonly hosts: readonly string[] | undefined;
  /** What a request has to know; undefined where the socket's mode decides. */
  readonly token: string | undefined;
}

/** Why a request is not obeyed. */
export interface Refusal {
  status: 401 | 403;
  message: string;
}

/** What everybody may see: the page is empty without the token, and health is one word. */
const openPaths: ReadonlySet<string> = new Set(["/", "/healthz"]);

/** Names that no DNS server of somebody else's answers for: loopback, and those without a dot, such as `http://unix/`. */
const localHost = /^(127\.0\.0\.1|\[::1\]|[a-z0-9_-]+)(:\d+)?$/;

/** Compares in a time that does not depend on where the two differ. */
function isSame(given: string, wanted: string): boolean {
  let difference = given.length ^ wanted.length;
  for (let i = 0; i < given.length; i++) {
    difference |= given.charCodeAt(i) ^ wanted.charCodeAt(i % Math.max(1, wanted.length));
  }
  return difference === 0;
}

/** Why `request` is refused; undefined when it may go on. */
export function refusalOf(request: Request, guard: Guard): Refusal | undefined {
  const host = request.headers.get("host")?.toLowerCase() ?? "";
  if (guard.hosts === undefined ? !localHost.test(host) : !guard.hosts.includes(host)) {
    const expected = guard.hosts ?? ["localhost", "127.0.0.1", "[::1]"];
    return {
      status: 403,
      message: `The Host "${host}" is not this server: expected ${expected.join(" or ")}`,
    };
  }
  const origin = request.headers.get("origin")?.toLowerCase();
  const site = request.headers.get("sec-fetch-site")?.toLowerCase();
  const foreign = origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`;
  if (foreign || (site !== undefined && site !== "same-origin" && site !== "none")) {
    return {
      status: 403,
      message: `A web page of another origin (${origin ?? site}) asked for this: nothing was done`,
    };
  }
  if (guard.token === undefined) return undefined;
  if (request.method === "GET" && openPaths.has(new URL(request.url).pathname)) return undefined;
  const given = /^bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (given !== undefined && isSame(given, guard.token)) return undefined;
  return {
    status: 401,
    message: given === undefined
      ? "This address wants a token: send the header Authorization: Bearer TOKEN, with the token that the server wrote to its file"
      : "The token is not the one of this server: read it again from the file that the server wrote when it started",
  };
}
