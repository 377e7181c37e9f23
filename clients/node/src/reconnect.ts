/** When and how a stream that was lost is opened again. */
import { status as Code } from "@grpc/grpc-js";

import { HoldfastError, TlsError } from "./errors.js";

/** How long a lost connection is tried again, in milliseconds, where nothing else is said. */
export const RECONNECT_FOR = 300_000;
const LONGEST_PAUSE = 5_000;
/** Codes of streams that were cut, by whatever is between here and the server. */
const CUT = new Set<number>([Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED]);

/** A stream was lost, or could not be opened, and is opened again. */
export interface Reconnecting {
  /** Why. */
  error: HoldfastError;
  /** How many times in a row this is, from 1. */
  tries: number;
  /** For how many milliseconds nothing has come of connecting. */
  failingFor: number;
  /** After how many milliseconds it is opened again: 200 at first, then longer, up to 5,000. */
  pause: number;
}

/** Whether opening the stream again may help. `wasHeard`: the server said something on it, or on one before. */
export function isLost(error: HoldfastError, wasHeard: boolean): boolean {
  const { code, reason } = error;
  // What was right once may be so again: a certificate is being renewed.
  if (error instanceof TlsError && !wasHeard) return false;
  if (reason === undefined) return CUT.has(code);
  return code === Code.UNAVAILABLE || reason === "OVERLOADED" || reason === "REQUEST_INCOMPLETE";
}

/** How long to wait after so many losses in a row. */
export function pauseOf(lost: HoldfastError, tries: number): number {
  const backoff = Math.min(LONGEST_PAUSE, 200 * 2 ** Math.min(tries - 1, 10)) * (0.8 + 0.4 * Math.random());
  return Math.max(backoff, lost.retryAfter ?? 0);
}

/** Waits, unless the signal aborts: then it throws its reason. */
export function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(done, milliseconds);
    const stop = () => done(signal!.reason);
    function done(why?: unknown) {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
      why === undefined ? resolve() : reject(why);
    }
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}
