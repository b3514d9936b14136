/**
 * How the page gets what it shows: the server's events, by fetch, since EventSource cannot send the token in a
 * header. It connects again by itself, and asks for less while nobody looks.
 */

const retryMsMin = 1000;
const retryMsMax = 10_000;
/** The server tells the status every second; it is gone when it has been silent for so long. */
const silentMsMax = 10_000;
const tokenKey = "nbdboost-token";

/** The token: from the address's fragment, which no request carries, or from before in this tab. */
export function takeToken() {
  const match = /[#&]token=([^&]+)/.exec(location.hash);
  if (match !== null) {
    keepToken(decodeURIComponent(match[1]));
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(tokenKey);
}

/** Keeps the token for this tab, or forgets it. */
export function keepToken(token) {
  if (token === null) sessionStorage.removeItem(tokenKey);
  else sessionStorage.setItem(tokenKey, token);
}

/** The answer asks for the token. */
class TokenWanted extends Error {}

/** Somebody looks at the page again, or nobody any more. */
class Looked extends Error {}

async function ask(path, token, signal) {
  const headers = token === null ? {} : { authorization: `Bearer ${token}` };
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  if (response.status === 401) throw new TokenWanted();
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Error(told?.error?.message ?? `It answered ${response.status}.`);
  }
  return response;
}

/** Splits server-sent events out of `text` that comes in pieces. */
export class EventParser {
  #rest = "";

  /** The events that `piece` completes, as `{event, data}`. */
  take(piece) {
    const parts = (this.#rest + piece).split("\n\n");
    this.#rest = parts.pop();
    return parts.map((part) => {
      const line = (name) => new RegExp(`^${name}: (.*)$`, "m").exec(part)?.[1] ?? "";
      return { event: line("event"), data: line("data") };
    });
  }
}

/** Listens for ever. `to` has a method for each event, `status`, `map` and `message`, and `away` and `tokenWanted`. */
export async function listen(to) {
  let retryMs = retryMsMin;
  for (;;) {
    try {
      await listenOnce(to, () => retryMs = retryMsMin);
      to.away("It ended the connection.");
    } catch (error) {
      if (error instanceof Looked) continue;
      if (error instanceof TokenWanted) {
        await to.tokenWanted();
        continue;
      }
      to.away(error instanceof TypeError ? "It cannot be reached." : error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, retryMs));
    retryMs = Math.min(2 * retryMs, retryMsMax);
  }
}

async function listenOnce(to, onWell) {
  const token = takeToken();
  const stop = new AbortController();
  let timer;
  const expectMore = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stop.abort(new Error("It has gone silent.")), silentMsMax);
  };
  const onLook = () => stop.abort(new Looked());
  document.addEventListener("visibilitychange", onLook);
  try {
    expectMore();
    // For a page that nobody sees the engine need not draw a map.
    const response = await ask(document.hidden ? "/events" : "/events?map=true", token, stop.signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      expectMore();
      for (const { event, data } of parser.take(value)) {
        if (event === "status") onWell();
        to[event]?.(JSON.parse(data));
      }
    }
  } finally {
    document.removeEventListener("visibilitychange", onLook);
    clearTimeout(timer);
    stop.abort();
  }
}
