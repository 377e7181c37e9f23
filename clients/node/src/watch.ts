/** The outcomes of a pool's redemptions, as they are recorded, over broken connections. */
import { status as Code } from "@grpc/grpc-js";

import { type Caller } from "./caller.js";
import { HoldfastError } from "./errors.js";
import { type Message } from "./messages.js";
import { isLost, pauseOf, RECONNECT_FOR, sleep, type Reconnecting } from "./reconnect.js";
import { RedemptionServiceService, WatchRedemptionsRequest, type Redemption } from "./stubs/holdfast/v1/redemption.js";

/** An outcome. */
export interface Watched {
  redemption: Message<Redemption>;
  /** Keep it when the outcome is kept: a watch that is opened after it goes on with the next one. */
  cursor: string;
}

export interface WatchOptions {
  /** The cursor after which to go on; "now", or from the oldest outcome when not given. */
  after?: string | undefined;
  /** How long a lost connection is tried again, in milliseconds; five minutes when not given. */
  reconnectFor?: number | undefined;
  /** Told of each new cursor, also of those without an outcome. */
  onCursor?: ((cursor: string) => void) | undefined;
  /** Told each time that the stream was lost, before it is opened again: log it. */
  onReconnect?: ((event: Reconnecting) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/** Every outcome at least once. It has no end of its own. */
export async function* watch(caller: Caller, poolId: string, options: WatchOptions): AsyncGenerator<Watched, void, undefined> {
  const { signal, onCursor, onReconnect, reconnectFor = RECONNECT_FOR } = options;
  let after = options.after ?? "";
  let tries = 0;
  let wasHeard = false;
  for (let lostAt = performance.now(); ; ) {
    try {
      const stream = caller.serverStream(
        RedemptionServiceService.watchRedemptions,
        WatchRedemptionsRequest,
        { poolId, after },
        { signal },
      );
      for await (const { redemption, cursor } of stream) {
        tries = 0;
        wasHeard = true;
        if (redemption) yield { redemption, cursor };
        // Only now: what was not taken comes again.
        if (cursor !== "" && cursor !== after) {
          after = cursor;
          onCursor?.(cursor);
        }
      }
      throw new HoldfastError("the stream of outcomes ended", Code.UNAVAILABLE);
    } catch (error) {
      if (!(error instanceof HoldfastError) || !isLost(error, wasHeard)) throw error;
      tries += 1;
      if (tries === 1) lostAt = performance.now();
      const pause = pauseOf(error, tries);
      const failingFor = performance.now() - lostAt;
      if (failingFor + pause > reconnectFor) throw error;
      onReconnect?.({ error, tries, failingFor, pause });
      await sleep(pause, signal);
    }
  }
}
