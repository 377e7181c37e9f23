/** The fake's RPCs of leases and redemptions: they read requests, ask the model, and write answers. */
import { randomUUID } from "node:crypto";

import { status as Code, type ServerDuplexStream } from "@grpc/grpc-js";

import { millisecondsOf } from "../messages.js";
import type { LeaseRef } from "../stubs/holdfast/v1/account.js";
import type { Pool } from "../stubs/holdfast/v1/pool.js";
import * as pb from "../stubs/holdfast/v1/redemption.js";
import { pageOf, refOf, told } from "./answers.js";
import { type AccountState, type Model, leaseLost } from "./model.js";
import { Fields, precondition, Refusal, reused } from "./refusal.js";

const MAX_WAIT = 600_000;
/** How far notBefore may be ahead, of an acquisition and of an item of a batch. */
const MAX_AHEAD = 600_000;
const MAX_AHEAD_ITEM = 86_400_000;
const COUNTED = [
  "not_selected", "completed", "inactive", "paused", "draining", "unwritable", "too_full", "denomination", "remainder",
  "day_full", "on_hold", "next_day", "cooling_down", "locked", "free",
];

export class RedemptionServices {
  readonly #model: Model;

  constructor(model: Model) {
    this.#model = model;
  }

  async acquireAccount(request: pb.AcquireAccountRequest, signal: AbortSignal): Promise<pb.AcquireAccountResponse> {
    const fields = new Fields().pool(request.poolId).name("holder", request.holder, 256);
    if (request.requestId !== "") fields.requestId(request.requestId);
    const waits = duration(fields, "wait_timeout", request.waitTimeout, 0, MAX_WAIT) ?? 0;
    const asked = duration(fields, "lease_duration", request.leaseDuration, 1_000, 86_400_000);
    fields.amount("selector.expected", request.selector?.expected).priority("priority", request.priority);
    fields.done();
    await this.#waitUntil(request.notBefore, "not_before", MAX_AHEAD, signal);
    const state = await this.#lock({ ...request, requestId: request.requestId || randomUUID() }, waits, asked, signal);
    const account = told(this.#model, state);
    return { lease: account.lease, account };
  }

  /** Waits for a time by the fake's clock, which may not be too far ahead. */
  async #waitUntil(time: Date | undefined, field: string, most: number, signal: AbortSignal): Promise<void> {
    if (!time) return;
    const left = () => time.getTime() - this.#model.now();
    if (left() > most) {
      const fields = new Fields();
      fields.refuse(field, `must be at most ${most} ms from now, by the database's clock`);
      fields.done();
    }
    while (left() > 0) {
      if (signal.aborted) throw gone();
      await this.#model.wait(left(), signal);
    }
  }

  async #lock(
    request: Pick<pb.AcquireAccountRequest, "poolId" | "requestId" | "holder" | "selector" | "priority">,
    waits: number,
    asked: number | undefined,
    signal: AbortSignal,
  ): Promise<AccountState> {
    const model = this.#model;
    const { poolId, requestId, holder, selector, priority } = request;
    const state = model.pool(poolId);
    const { pool } = state;
    const lasts = asked ?? millisecondsOf(pool.defaultLeaseDuration!);
    const bounds = [pool.minLeaseDuration!, pool.maxLeaseDuration!].map(millisecondsOf);
    if (lasts < bounds[0]! || lasts > bounds[1]!) {
      const fields = new Fields();
      fields.refuse("lease_duration", `must be between ${bounds[0]} ms and ${bounds[1]} ms in this pool`);
      fields.done();
    }
    const replayed = this.#replayedLease(request);
    if (replayed) return replayed;
    if (selector?.planId) model.plan(poolId, selector.planId);
    if (selector?.accountId) model.account(poolId, selector.accountId);
    const waiter = { selector, priority, signal };
    model.queue(state, waiter);
    try {
      for (const ends = model.now() + waits; ; ) {
        if (signal.aborted) throw gone();
        this.#checkOpen(pool, true);
        const picked = model.turn(state, waiter);
        if (!(picked instanceof Map)) {
          model.lock(picked, { requestId, holder, selector, ends: model.now() + lasts });
          return picked;
        }
        const left = ends - model.now();
        if (left <= 0) throw nothingFree(poolId, picked, state.waiters!.indexOf(waiter) + 1, state.waiters!.length);
        // Leases end without anybody's call, so the time is asked for again soon.
        await model.wait(Math.min(left, 50), signal);
      }
    } finally {
      state.waiters!.splice(state.waiters!.indexOf(waiter), 1);
    }
  }

  /** The lease of a request that is repeated. */
  #replayedLease(request: Pick<pb.AcquireAccountRequest, "poolId" | "requestId" | "holder" | "selector">) {
    const { poolId, requestId, holder, selector } = request;
    for (const state of this.#model.pool(poolId).accounts.values()) {
      this.#model.expire(state);
      const { lease } = state;
      if (lease?.requestId !== requestId) continue;
      const differ: string[] = [];
      if (lease.holder !== holder) differ.push("holder");
      if (lease.selector?.expected?.amountMinor !== selector?.expected?.amountMinor) differ.push("selector.expected");
      if ((lease.selector?.accountId ?? "") !== (selector?.accountId ?? "")) differ.push("selector.account_id");
      if ((lease.selector?.planId ?? "") !== (selector?.planId ?? "")) differ.push("selector.plan_id");
      if (differ.length > 0) throw reused(requestId, differ);
      const ref = refOf(state);
      if (lease.isReleasing || lease.ends <= this.#model.now()) {
        throw leaseLost(ref, lease.isReleasing ? "released" : "expired");
      }
      return state;
    }
    return undefined;
  }

  #checkOpen({ poolId, paused, draining }: Pool, forLease: boolean): void {
    if (paused) throw precondition("POOL_PAUSED", `the pool ${poolId} is paused`, { pool_id: poolId });
    if (forLease && draining) throw precondition("POOL_DRAINING", `the pool ${poolId} is draining`, { pool_id: poolId });
  }

  async renewLease(request: pb.RenewLeaseRequest): Promise<pb.RenewLeaseResponse> {
    const fields = new Fields();
    const asked = duration(fields, "lease_duration", request.leaseDuration, 1_000, 86_400_000);
    const ref = refIn(fields, request.lease);
    fields.done();
    const { pool } = this.#model.pool(ref.poolId);
    const state = this.#model.renew(ref, asked ?? millisecondsOf(pool.defaultLeaseDuration!));
    return { lease: told(this.#model, state).lease };
  }

  async releaseAccount(request: pb.ReleaseAccountRequest): Promise<pb.ReleaseAccountResponse> {
    const fields = new Fields();
    const ref = refIn(fields, request.lease);
    fields.done();
    this.#model.pool(ref.poolId);
    return { account: told(this.#model, this.#model.release(ref)) };
  }

  async redeem(request: pb.RedeemRequest): Promise<pb.RedeemResponse> {
    const { requestId, code, expected } = request;
    const fields = new Fields().requestId(requestId).code(code).amount("expected", expected);
    const ref = refIn(fields, request.lease);
    fields.done();
    const { pool } = this.#model.pool(ref.poolId);
    currencyOf(expected, pool);
    const before = this.#model.replayed(ref.poolId, requestId, code, expected);
    if (before) {
      await before.settled;
      return { redemption: before.redemption, replayed: true };
    }
    this.#checkOpen(pool, false);
    const state = this.#model.leased(ref);
    const { redemption, settled } = this.#model.begin(state, requestId, code, expected, 1);
    await settled;
    if (request.releaseOnCompletion && state.lease?.token === ref.fencingToken) this.#model.release(ref);
    return { redemption, replayed: false };
  }

  async redeemCard(request: pb.RedeemCardRequest, signal: AbortSignal): Promise<pb.RedeemCardResponse> {
    const { requestId, poolId, holder, code, expected, selector, priority } = request;
    const fields = new Fields().requestId(requestId).pool(poolId).name("holder", holder, 256).code(code);
    fields.amount("expected", expected).priority("priority", priority);
    const waits = duration(fields, "wait_timeout", request.waitTimeout, 0, MAX_WAIT) ?? 0;
    if (selector?.expected) fields.refuse("selector.expected", "must not be set: the card's is meant");
    fields.done();
    return this.#redeemInto(requestId, { poolId, holder, code, expected, selector, priority }, waits, signal, 1);
  }

  /** Acquires, redeems and releases. */
  async #redeemInto(
    requestId: string,
    card: Pick<pb.RedeemCardRequest, "poolId" | "holder" | "code" | "expected" | "selector" | "priority">,
    waits: number,
    signal: AbortSignal,
    attempt: number,
  ): Promise<pb.RedeemCardResponse> {
    const model = this.#model;
    const { poolId, holder, code, expected, priority } = card;
    const { pool } = model.pool(poolId);
    currencyOf(expected, pool);
    const before = attempt === 1 ? model.replayed(poolId, requestId, code, expected) : undefined;
    if (before) {
      await before.settled;
      return { redemption: before.redemption, replayed: true };
    }
    model.checkCode(poolId, code);
    const selector = pb.AccountSelector.fromPartial({ ...card.selector, expected: expected ?? card.selector?.expected });
    const state = await this.#lock({ poolId, requestId: randomUUID(), holder, selector, priority }, waits, undefined, signal);
    const ref = refOf(state);
    try {
      const { redemption, settled } = model.begin(state, requestId, code, expected, attempt);
      model.release(ref);
      await settled;
      return { redemption, replayed: false };
    } catch (error) {
      model.release(ref);
      throw error;
    }
  }

  async getRedemption(request: pb.GetRedemptionRequest): Promise<pb.GetRedemptionResponse> {
    return { redemption: this.#model.find(request.poolId, request).redemption };
  }

  async awaitRedemption(request: pb.AwaitRedemptionRequest, signal: AbortSignal): Promise<pb.AwaitRedemptionResponse> {
    const fields = new Fields().pool(request.poolId);
    const waits = duration(fields, "timeout", request.timeout, 0, MAX_WAIT) ?? 30_000;
    if (!request.name) fields.refuse("name", "must be set: redemption_id or request_id");
    fields.done();
    const { redemption } = this.#model.find(request.poolId, { ...request.name });
    const ends = this.#model.now() + waits;
    while (redemption.finishTime === undefined && this.#model.now() < ends && !signal.aborted) {
      await this.#model.wait(ends - this.#model.now(), signal);
    }
    return { redemption };
  }

  async listRedemptions(request: pb.ListRedemptionsRequest): Promise<pb.ListRedemptionsResponse> {
    this.#model.pool(request.poolId);
    const { states, accountId, batchId } = request;
    const all = [...this.#model.redemptions.values()].map((it) => it.redemption).reverse();
    const listed = all.filter(
      (it) =>
        it.poolId === request.poolId &&
        (states.length === 0 || states.includes(it.state)) &&
        (accountId === "" || it.accountId === accountId) &&
        (batchId === "" || it.requestId.startsWith(`batch:${batchId}:`)) &&
        (!request.createTimeFrom || it.createTime! >= request.createTimeFrom) &&
        (!request.createTimeTo || it.createTime! < request.createTimeTo),
    );
    const { page, nextPageToken } = pageOf(listed, request, (it) => it.redemptionId);
    return { redemptions: page, nextPageToken };
  }

  /** Outcomes in the order in which they were recorded; a cursor is how many came before. */
  async watchRedemptions({ poolId, after }: pb.WatchRedemptionsRequest, signal: AbortSignal, stream: { write(message: unknown): boolean }) {
    this.#model.pool(poolId);
    const { outcomes } = this.#model;
    let at = after === "now" ? outcomes.length : Number(after || 0);
    if (!(at <= outcomes.length)) throw precondition("CURSOR_LOST", "the outcomes before this cursor are not here", { pool_id: poolId });
    stream.write({ redemption: undefined, cursor: String(at) });
    while (!signal.aborted) {
      for (; at < outcomes.length; at += 1) {
        const { redemption } = this.#model.redemptions.get(outcomes[at]!)!;
        if (redemption.poolId === poolId) stream.write({ redemption, cursor: String(at + 1) });
      }
      await this.#model.wait(10_000, signal);
      if (at === outcomes.length && !signal.aborted) stream.write({ redemption: undefined, cursor: String(at) });
    }
  }

  async batchRedeem(stream: ServerDuplexStream<pb.BatchRedeemRequest, pb.BatchRedeemResponse>, signal: AbortSignal) {
    let open: pb.BatchOpen | undefined;
    const counts = { received: 0n, inFlight: 0n, succeeded: 0n, failed: 0n, inDoubt: 0n, rejected: 0n, retryable: 0n };
    const underWay = new Set<Promise<void>>();
    const tell = () => stream.write({ message: { $case: "progress", progress: { ...counts, heldBack: 0n } } });
    const ticking = setInterval(tell, 1_000);
    try {
      // The end of what is read is not the end of what is answered.
      const requests: AsyncIterable<pb.BatchRedeemRequest> = stream.iterator({ destroyOnReturn: false });
      for await (const { message } of requests) {
        if (message?.$case === "open") {
          open = message.open;
          this.#checkBatch(open);
        } else if (message?.$case === "item" && open) {
          counts.received += 1n;
          counts.inFlight += 1n;
          const item = this.#item(open, message.item, signal).then((result) => {
            underWay.delete(item);
            counts.inFlight -= 1n;
            counts[kindOf(result)] += 1n;
            if (result.outcome?.$case === "redemption" && result.outcome.redemption.failure?.retryable) counts.retryable += 1n;
            stream.write({ message: { $case: "result", result } });
          });
          underWay.add(item);
          if (underWay.size >= (open.maxInFlight || 64)) await Promise.race(underWay);
        } else {
          const fields = new Fields();
          fields.refuse("message", "must be open first, and then items");
          fields.done();
        }
      }
      await Promise.all(underWay);
      stream.write({ message: { $case: "summary", summary: counts } });
    } finally {
      clearInterval(ticking);
    }
  }

  #checkBatch(open: pb.BatchOpen): void {
    const fields = new Fields().batch(open.batchId, "open.batch_id").pool(open.poolId, "open.pool_id");
    fields.name("open.holder", open.holder, 256).done();
    this.#model.pool(open.poolId);
    if (open.selector?.planId) this.#model.plan(open.poolId, open.selector.planId);
  }

  async #item(open: pb.BatchOpen, item: pb.BatchItem, signal: AbortSignal): Promise<pb.BatchItemResult> {
    const { itemId, code, expected } = item;
    try {
      const fields = new Fields().name("item_id", itemId, 128).code(code).amount("expected", expected);
      fields.priority("item.priority", item.priority).done();
      const requestId = `batch:${open.batchId}:${itemId}`;
      const before = this.#before(open.poolId, requestId, code, expected);
      const isAgain = before?.failure?.retryable ?? false;
      if (!before || isAgain) await this.#waitUntil(item.notBefore, "item.not_before", MAX_AHEAD_ITEM, signal);
      const { poolId, holder } = open;
      const card = { poolId, holder, code, expected: expected ?? before?.expected, selector: merged(open, item), priority: item.priority };
      const waits = open.itemTimeout ? millisecondsOf(open.itemTimeout) : 30_000;
      const attempt = isAgain ? before!.attempt + 1 : 1;
      const { redemption, replayed } = await this.#redeemInto(requestId, card, waits, signal, attempt);
      return { itemId, replayed, outcome: { $case: "redemption", redemption: redemption! } };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { itemId, replayed: false, outcome: { $case: "error", error: error.status } };
    }
  }

  #before(poolId: string, requestId: string, code: string, expected: pb.BatchItem["expected"]): pb.Redemption | undefined {
    try {
      const { redemption } = this.#model.find(poolId, { requestId });
      this.#model.replayed(poolId, requestId, code, expected ?? redemption.expected);
      return redemption;
    } catch (error) {
      if (error instanceof Refusal && error.status.code === Code.NOT_FOUND) return undefined;
      throw error;
    }
  }
}

function refIn(fields: Fields, ref: LeaseRef | undefined): LeaseRef {
  if (!ref) fields.refuse("lease", "must be set");
  else fields.pool(ref.poolId, "lease.pool_id").name("lease.account_id", ref.accountId, 256);
  return ref!;
}

function duration(fields: Fields, field: string, given: Parameters<typeof millisecondsOf>[0] | undefined, least: number, most: number) {
  if (!given) return undefined;
  const milliseconds = millisecondsOf(given);
  if (milliseconds < least || milliseconds > most) fields.refuse(field, `must be between ${least} ms and ${most} ms`);
  return milliseconds;
}

function currencyOf(expected: pb.RedeemRequest["expected"], pool: Pool): void {
  new Fields().amount("expected", expected, pool.currencyCode).done();
}

function gone(): Refusal {
  return new Refusal(Code.CANCELLED, "DEADLINE_PASSED", "the caller has gone");
}

function nothingFree(poolId: string, counts: Map<string, number>, position: number, waiting: number): Refusal {
  const counted = Object.fromEntries(COUNTED.map((name) => [name, String(counts.get(name) ?? 0)]));
  return new Refusal(Code.RESOURCE_EXHAUSTED, "NO_ACCOUNT_AVAILABLE", `no account of ${poolId} is available`, {
    metadata: { pool_id: poolId, position: String(position), waiting: String(waiting), ...counted },
    retryAfter: 1_000,
  });
}

/** The batch's selector, with what the item's says instead. */
function merged({ selector: all }: pb.BatchOpen, { selector: own }: pb.BatchItem): pb.AccountSelector | undefined {
  if (!all || !own) return own ?? all;
  const isSet = (value: unknown) => value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0);
  return { ...all, ...Object.fromEntries(Object.entries(own).filter(([, value]) => isSet(value))) };
}

function kindOf({ outcome }: pb.BatchItemResult): "succeeded" | "failed" | "inDoubt" | "rejected" {
  if (outcome?.$case !== "redemption") return "rejected";
  if (outcome.redemption.state === pb.RedemptionState.SUCCEEDED) return "succeeded";
  return outcome.redemption.state === pb.RedemptionState.FAILED ? "failed" : "inDoubt";
}
