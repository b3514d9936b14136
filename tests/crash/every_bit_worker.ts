/**
 * One thread of `deno task every-bit`: makes the images, takes its share of the bits, and posts what came of them.
 *
 * @module
 */

import { imageNames, makeImage } from "./bit_images.ts";
import { bitsOf, emptyTally, groupsOf, type Tally } from "./bit_choice.ts";
import { type Effort, Prober } from "./every_bit.ts";

/** Tries between two reports. */
const reportEvery = 2000;

/** What a thread is to do. */
export interface Task {
  first: number;
  stride: number;
  image: string | undefined;
  full: boolean;
}

/** What a thread tells. */
export type Message =
  | { image: string; kind: string; tally: Tally }
  | { image: string; effort: Effort; unreadBits: number }
  | { done: true }
  | { failure: string };

// Errors are what is met most, and nobody looks at where they come from.
Error.stackTraceLimit = 0;

const scope = self as unknown as Worker;
const post = (message: Message) => scope.postMessage(message);

async function tryImage(image: string, { first, stride, full }: Task): Promise<void> {
  const prober = new Prober(await makeImage(image as typeof imageNames[number]), full);
  await prober.tryUndamaged();
  let unreadBits = 0;
  for (const region of prober.image.regions) {
    const { kind, expect, from, to } = region;
    if (expect === "unread") unreadBits += (to - from) * 8;
    let tally = emptyTally();
    let count = 0;
    for (const bit of bitsOf(region, first, stride)) {
      tally[await prober.tryBit(region, bit)]++;
      if (++count % reportEvery > 0) continue;
      post({ image, kind, tally });
      tally = emptyTally();
    }
    for (const group of groupsOf(region, first, stride)) tally[await prober.tryGroup(region, group)]++;
    post({ image, kind, tally });
  }
  prober.assertUnread();
  post({ image, effort: prober.effort, unreadBits });
}

scope.onmessage = async ({ data }: MessageEvent<Task>) => {
  try {
    for (const name of imageNames) {
      if (data.image === undefined || name === data.image) await tryImage(name, data);
    }
    post({ done: true });
  } catch (error) {
    post({ failure: (error as Error).message });
  }
};
