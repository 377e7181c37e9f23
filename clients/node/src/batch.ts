/** A batch that goes on by itself: over broken connections, and over restarts of the server. */
import { status as Code, type ClientDuplexStream } from "@grpc/grpc-js";

import { type Caller } from "./caller.js";
import { errorOf, fromGrpc, HoldfastError } from "./errors.js";
import { fromStub, toStub, type Input, type Message } from "./messages.js";
import type { Money } from "./money.js";
import { isLost, pauseOf, RECONNECT_FOR, sleep, type Reconnecting } from "./reconnect.js";
import {
  AwaitRedemptionRequest,
  BatchRedeemRequest,
  RedemptionServiceService,
  RedemptionState,
  type AccountSelector,
  type BatchItemResult,
  type BatchProgress,
  type BatchRedeemResponse,
  type Redemption,
} from "./stubs/holdfast/v1/redemption.js";

/** A card of a batch. */
export interface BatchItem {
  /** Names the item in its batch. The same id again is the same item. */
  itemId: string;
  /** The card's code. */
  code: string;
  /** What the card should be worth; the provider is asked when not given, if it can be. */
  expected?: Money | undefined;
  /** Replaces, field by field, what the batch's selector says. */
  selector?: Input<AccountSelector> | undefined;
  /** 0 to 9: of those who wait for an account, a higher one is served first. 0 when not given. */
  priority?: number | undefined;
  /** The item is not begun before this time, at most 24 h from now; `itemTimeout` counts from then. */
  notBefore?: Date | undefined;
}

/** What became of an item: a redemption, or the reason why it was not begun. */
export type BatchResult = { itemId: string; replayed: boolean } & (
  | { redemption: Message<Redemption>; error?: undefined }
  | { error: HoldfastError; redemption?: undefined }
);

/** Counts of a batch's results, over all its connections. */
export interface BatchSummary {
  /** Items with a result. */
  received: number;
  succeeded: number;
  failed: number;
  /** The outcome is not known yet: IN_DOUBT, NEEDS_REVIEW or SUBMITTED. */
  inDoubt: number;
  /** Items that were not begun. */
  rejected: number;
  /** Of those that failed: their cards are not spent, and are redeemed again when the batch is opened again. */
  retryable: number;
  /** Items that an earlier opening of the batch had begun. */
  replayed: number;
}

export interface BatchOptions {
  /** Names the batch in its pool: the same batch opened again goes on where it was. */
  batchId: string;
  poolId: string;
  /** Who asks; the client's own name when not given. */
  holder?: string | undefined;
  /** Which accounts may be picked, for every item. */
  selector?: Input<AccountSelector> | undefined;
  /** How many items may be under way at once: 1 to 1024; 64 when not given. */
  maxInFlight?: number | undefined;
  /** How long an item waits for an account, in milliseconds; 30,000 when not given. */
  itemTimeout?: number | undefined;
  /** How long a lost connection is tried again, in milliseconds; five minutes when not given. */
  reconnectFor?: number | undefined;
  /** Told what the server says of the batch: about every second while something changes. */
  onProgress?: ((progress: Message<BatchProgress>) => void) | undefined;
  /** Told each time that the connection was lost, before it is opened again: log it. */
  onReconnect?: ((event: Reconnecting) => void) | undefined;
  /** Ends the batch. What was begun is finished by the server; the same batch opened again goes on. */
  signal?: AbortSignal | undefined;
}

const MAX_IN_FLIGHT = 64;
/** How long the outcome is waited for of items that another opening of the batch is at work on. */
const SETTLE = 30_000;
/** Reasons of an item's error that say nothing of the item. */
const TRANSIENT = new Set(["SHUTTING_DOWN", "DATABASE_UNAVAILABLE", "OVERLOADED"]);

type Call = ClientDuplexStream<BatchRedeemRequest, BatchRedeemResponse>;

/**
 * The results of a batch, as they come. Iterate it once; {@link summary} has the counts.
 *
 * Items are read no faster than the server takes them, and results no faster than they are taken here.
 */
export class Batch implements AsyncIterable<BatchResult> {
  /** The counts so far; of all items once the iteration has ended. */
  readonly summary: BatchSummary = {
    received: 0, succeeded: 0, failed: 0, inDoubt: 0, rejected: 0, retryable: 0, replayed: 0,
  };

  readonly #caller: Caller;
  readonly #options: BatchOptions;
  readonly #source: AsyncIterator<BatchItem> | Iterator<BatchItem>;
  /** Items without a final result: all that is sent again. */
  readonly #waiting = new Map<string, BatchItem>();
  /** Items that were begun elsewhere, whose outcome is asked for at the end. */
  readonly #late: Message<BatchItemResult>[] = [];
  #next: Promise<IteratorResult<BatchItem>> | undefined;
  #isExhausted = false;
  #isIterated = false;
  #changed = deferred();
  /** Whether the server said anything, on any connection. */
  #wasHeard = false;
  /** Since when nothing has come of connecting. */
  #failingSince: number | undefined;

  /** @internal */
  constructor(caller: Caller, items: Iterable<BatchItem> | AsyncIterable<BatchItem>, options: BatchOptions) {
    this.#caller = caller;
    this.#options = options;
    this.#source = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  }

  [Symbol.asyncIterator](): AsyncGenerator<BatchResult, void, undefined> {
    if (this.#isIterated) throw new TypeError("a batch is iterated once: open it again");
    this.#isIterated = true;
    return this.#run();
  }

  async *#run(): AsyncGenerator<BatchResult, void, undefined> {
    try {
      for (let tries = 1; ; tries += 1) {
        const lost: HoldfastError | undefined = yield* this.#connection();
        if (!lost) break;
        if (this.#failingSince === undefined) {
          this.#failingSince = performance.now();
          tries = 1;
        }
        await this.#pause(lost, tries);
      }
      yield* this.#settled();
    } finally {
      if (!this.#isExhausted) void Promise.resolve(this.#source.return?.()).catch(() => {});
    }
  }

  /** One connection. Answers why it was lost, or nothing when all items have a result. */
  async *#connection(): AsyncGenerator<BatchResult, HoldfastError | undefined, undefined> {
    const { signal } = this.#options;
    const opened = await this.#caller.duplex(RedemptionServiceService.batchRedeem, { signal }).catch((error) => this.#lost(error));
    if (opened instanceof HoldfastError) return opened;
    const { call, end } = opened;
    const state: Connection = { call, isOver: false };
    const writing = this.#write(state).catch((error: unknown) => {
      state.fault ??= { error };
      call.cancel();
    });
    let ended: unknown;
    try {
      let isWhole = false;
      for await (const { message } of call as AsyncIterable<BatchRedeemResponse>) {
        this.#wasHeard = true;
        if (message?.$case === "result") {
          const result = this.#take(state, fromStub(message.result));
          if (result) yield result;
        } else if (message?.$case === "progress") {
          if (!state.refusal) this.#failingSince = undefined;
          this.#options.onProgress?.(fromStub(message.progress));
        } else if (message?.$case === "summary") {
          isWhole = true;
        }
      }
      if (isWhole && this.#isExhausted && this.#waiting.size === 0) return undefined;
      return state.refusal ?? new HoldfastError("the stream ended before the batch was through", Code.UNAVAILABLE);
    } catch (error) {
      ended = error;
      if (signal?.aborted) throw signal.reason;
      if (state.fault) throw state.fault.error;
      return this.#lost(await this.#caller.told(fromGrpc(error)));
    } finally {
      state.isOver = true;
      end(ended);
      this.#wake();
      void writing;
    }
  }

  /** Answers an error after which the batch is opened again, and throws any other. */
  #lost(error: unknown): HoldfastError {
    if (error instanceof HoldfastError && isLost(error, this.#wasHeard)) return error;
    throw error;
  }

  /** Writes the opening, what has no result yet, and then new items. */
  async #write(state: Connection): Promise<void> {
    const { batchId, poolId, holder, selector, maxInFlight, itemTimeout } = this.#options;
    const open = { batchId, poolId, holder, selector, maxInFlight, itemTimeout };
    await this.#send(state, { $case: "open", open });
    for (const item of [...this.#waiting.values()]) {
      if (state.isOver || state.refusal) break;
      await this.#send(state, { $case: "item", item });
    }
    for (;;) {
      const item = await this.#read(state);
      if (!item) break;
      if (this.#waiting.has(item.itemId)) {
        throw new TypeError(`two items of the batch are called ${item.itemId}`);
      }
      this.#waiting.set(item.itemId, item);
      await this.#send(state, { $case: "item", item });
    }
    if (!state.isOver) state.call.end();
  }

  /** The next item, once there is room for it; nothing when no more are to be sent on this connection. */
  async #read(state: Connection): Promise<BatchItem | undefined> {
    // What is on its way to the server is held here too, so it is bounded.
    const room = 2 * (this.#options.maxInFlight || MAX_IN_FLIGHT);
    while (!this.#isExhausted && !state.isOver && !state.refusal) {
      if (this.#waiting.size >= room) {
        await this.#changed.promise;
        continue;
      }
      // Kept when the connection is lost meanwhile: the next one goes on with it.
      this.#next ??= Promise.resolve(this.#source.next());
      const next = await Promise.race([this.#next, this.#changed.promise]);
      if (!next) continue;
      this.#next = undefined;
      if (!next.done) return next.value;
      this.#isExhausted = true;
    }
    return undefined;
  }

  /** Writes a message, and waits until another one may follow. */
  async #send(state: Connection, message: any): Promise<void> {
    if (state.isOver) return;
    if (state.call.write(BatchRedeemRequest.fromPartial(toStub({ message })))) return;
    let isDrained = false;
    state.call.once("drain", () => {
      isDrained = true;
      this.#wake();
    });
    while (!isDrained && !state.isOver) await this.#changed.promise;
  }

  /** Counts a result, unless it is none yet. */
  #take(state: Connection, { itemId, outcome, replayed }: Message<BatchItemResult>): BatchResult | undefined {
    if (!this.#waiting.has(itemId) || !outcome) return undefined;
    if (outcome.$case === "error") {
      const error = errorOf(outcome.error as never);
      if (TRANSIENT.has(error.reason ?? "")) {
        // The stream is ended, and the item sent again on the next one.
        state.refusal ??= error;
        this.#wake();
        return undefined;
      }
      this.#finish(itemId);
      return this.#count({ itemId, replayed, error });
    }
    this.#finish(itemId);
    if (outcome.redemption.state === RedemptionState.SUBMITTED) {
      this.#late.push({ itemId, outcome, replayed });
      return undefined;
    }
    return this.#count({ itemId, replayed, redemption: outcome.redemption });
  }

  #finish(itemId: string): void {
    this.#waiting.delete(itemId);
    this.#failingSince = undefined;
    this.#wake();
  }

  #count(result: BatchResult): BatchResult {
    const { summary } = this;
    summary.received += 1;
    if (result.replayed) summary.replayed += 1;
    const { redemption } = result;
    if (!redemption) summary.rejected += 1;
    else if (redemption.state === RedemptionState.SUCCEEDED) summary.succeeded += 1;
    else if (redemption.state !== RedemptionState.FAILED) summary.inDoubt += 1;
    else {
      summary.failed += 1;
      if (redemption.failure?.retryable) summary.retryable += 1;
    }
    return result;
  }

  /** Waits for the outcomes of what another opening of the batch, on a connection that broke, has begun. */
  async *#settled(): AsyncGenerator<BatchResult, void, undefined> {
    const { poolId, signal } = this.#options;
    const settled = this.#late.map(async ({ itemId, outcome, replayed }) => {
      const begun = (outcome as { redemption: Message<Redemption> }).redemption;
      const name = { $case: "redemptionId" as const, redemptionId: begun.redemptionId };
      const request = { poolId, name, timeout: SETTLE };
      const reply = await this.#caller
        .unary(RedemptionServiceService.awaitRedemption, AwaitRedemptionRequest, request, { signal }, SETTLE)
        // What is known is what the batch said.
        .catch(() => undefined);
      return { itemId, replayed, redemption: reply?.redemption ?? begun };
    });
    for (const result of settled) yield this.#count(await result);
    signal?.throwIfAborted();
  }

  /** Waits before the next connection, or gives up. */
  async #pause(lost: HoldfastError, tries: number): Promise<void> {
    const { reconnectFor = RECONNECT_FOR, onReconnect, signal } = this.#options;
    const pause = pauseOf(lost, tries);
    const failingFor = performance.now() - this.#failingSince!;
    if (failingFor + pause > reconnectFor) throw lost;
    onReconnect?.({ error: lost, tries, failingFor, pause });
    await sleep(pause, signal);
  }

  #wake(): void {
    const changed = this.#changed;
    this.#changed = deferred();
    changed.resolve();
  }
}

/** One connection of a batch. */
interface Connection {
  call: Call;
  /** Nothing more is written. */
  isOver: boolean;
  /** Why items were not begun that are to be sent again. */
  refusal?: HoldfastError;
  /** What the caller's items threw. */
  fault?: { error: unknown };
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((it) => (resolve = it));
  return { promise, resolve };
}
