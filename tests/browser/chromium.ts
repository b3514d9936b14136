/**
 * Headless Chromium, driven over its own debugging protocol: enough of it to open a page, look into it, and take a picture.
 * Source: chromedevtools.github.io/devtools-protocol.
 *
 * @module
 */

import { requireTool } from "../interop/tools.ts";

/** Nothing in a test takes so long that is not stuck. */
const answerMsMax = 60_000;
const pollMs = 50;

/** Whether there is a browser; where CI asks for one it has to be there. */
export function requireChromium(): boolean {
  return requireTool("chromium");
}

type Json = Record<string, unknown>;
interface Waiting {
  resolve: (result: Json) => void;
  reject: (error: Error) => void;
}

/** A browser with one page. */
export class Chromium implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #socket: WebSocket;
  readonly #profile: string;
  readonly #drained: Promise<void>;
  readonly #waiting = new Map<number, Waiting>();
  #number = 0;
  #session: string | undefined;
  /** What pages wrote to the console as errors, and exceptions that nothing caught. */
  readonly complaints: string[] = [];
  /** Every address that was asked for. */
  readonly requested: string[] = [];

  private constructor(child: Deno.ChildProcess, socket: WebSocket, profile: string, drained: Promise<void>) {
    this.#child = child;
    this.#socket = socket;
    this.#profile = profile;
    this.#drained = drained;
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
  }

  /** Starts it. */
  static async start(): Promise<Chromium> {
    const profile = await Deno.makeTempDir({ prefix: "nbdboost-chromium-" });
    const child = new Deno.Command("chromium", {
      args: [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
        `--user-data-dir=${profile}`,
        "about:blank",
      ],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    let text = "";
    let found!: (address: string) => void;
    let failed!: (error: Error) => void;
    const address = new Promise<string>((resolve, reject) => {
      found = resolve;
      failed = reject;
    });
    const drained = (async () => {
      for await (const piece of child.stderr.pipeThrough(new TextDecoderStream())) {
        text += piece;
        const match = /DevTools listening on (ws:\S+)/.exec(text);
        if (match) found(match[1]!);
      }
      failed(new Error(`chromium ended: ${text}`));
    })();
    const socket = new WebSocket(await address);
    await new Promise<void>((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onerror = () => reject(new Error("chromium's debugging socket cannot be reached"));
    });
    const browser = new Chromium(child, socket, profile, drained);
    const { targetId } = await browser.#ask("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.#ask("Target.attachToTarget", { targetId, flatten: true });
    browser.#session = sessionId as string;
    for (const domain of ["Page", "Runtime", "Network", "Log"]) await browser.#ask(`${domain}.enable`);
    return browser;
  }

  #ask(method: string, params: Json = {}): Promise<Json> {
    return new Promise((resolve, reject) => {
      const id = ++this.#number;
      const timer = setTimeout(() => reject(new Error(`chromium does not answer ${method}`)), answerMsMax);
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(id);
      };
      this.#waiting.set(id, {
        resolve: (result) => {
          end();
          resolve(result);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      });
      const session = this.#session === undefined ? {} : { sessionId: this.#session };
      this.#socket.send(JSON.stringify({ id, method, params, ...session }));
    });
  }

  #take(
    message: { id?: number; method?: string; params?: Json; result?: Json; error?: { message: string } },
  ): void {
    if (message.id !== undefined) {
      const waiting = this.#waiting.get(message.id);
      if (message.error) waiting?.reject(new Error(message.error.message));
      else waiting?.resolve(message.result ?? {});
      return;
    }
    const params = message.params ?? {};
    if (message.method === "Network.requestWillBeSent") {
      this.requested.push((params.request as { url: string }).url);
    } else if (message.method === "Runtime.exceptionThrown") {
      this.complaints.push(JSON.stringify(params.exceptionDetails));
    } else if (message.method === "Log.entryAdded") {
      const { level, text } = params.entry as { level: string; text: string };
      if (level === "error") this.complaints.push(text);
    } else if (message.method === "Runtime.consoleAPICalled" && params.type === "error") {
      this.complaints.push(JSON.stringify(params.args));
    }
  }

  /** The size of the window, in CSS pixels, and whether it is a phone's. */
  async resize(width: number, height: number, phone = false): Promise<void> {
    const deviceScaleFactor = phone ? 2 : 1;
    await this.#ask("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor,
      mobile: phone,
    });
  }

  /** What the person prefers. */
  async prefer(scheme: "light" | "dark"): Promise<void> {
    await this.#ask("Emulation.setEmulatedMedia", {
      features: [{ name: "prefers-color-scheme", value: scheme }],
    });
  }

  /** Goes to an address. */
  async open(url: string): Promise<void> {
    await this.#ask("Page.navigate", { url });
  }

  /** What an expression is in the page; plain data. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#ask("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: T }).value;
  }

  /** Waits until an expression is true in the page. */
  async until(expression: string): Promise<void> {
    for (const end = performance.now() + answerMsMax;;) {
      // While a page loads there may be nothing to ask.
      if (await this.evaluate<boolean>(`Boolean(${expression})`).catch(() => false)) return;
      if (performance.now() > end) {
        const text = await this.evaluate<string>("document.body.innerText").catch(String);
        throw new Error(
          `it never was so that ${expression}; complaints: ${this.complaints.join("; ")}; page: ${text}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs));
    }
  }

  /** A picture, as PNG; of all of the page, or of the window. */
  async picture(whole: boolean): Promise<Uint8Array> {
    const { data } = await this.#ask("Page.captureScreenshot", { captureBeyondViewport: whole });
    return Uint8Array.fromBase64(data as string);
  }

  /** Ends it, and takes its files away. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#socket.onclose = resolve);
    this.#session = undefined;
    await this.#ask("Browser.close").catch(() => this.#child.kill("SIGKILL"));
    await this.#child.status;
    await this.#drained.catch(() => {});
    await closed;
    // Helpers of it may still be writing there.
    for (let tries = 0; tries < 50; tries++) {
      try {
        return await Deno.remove(this.#profile, { recursive: true });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }
}
