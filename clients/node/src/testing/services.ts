/** The fake's RPCs: they read requests, ask the model, and write answers. */
import { randomUUID } from "node:crypto";

import { status as Code, type ServerDuplexStream } from "@grpc/grpc-js";

import { durationOf, millisecondsOf } from "../messages.js";
import { Account, AccountStatus, Lease, LoginStatus, type ImportFailure, type LeaseRef } from "../stubs/holdfast/v1/account.js";
import * as accounts from "../stubs/holdfast/v1/account.js";
import { AmountMismatchPolicy, Plan, Pool } from "../stubs/holdfast/v1/pool.js";
import * as pools from "../stubs/holdfast/v1/pool.js";
import * as pb from "../stubs/holdfast/v1/redemption.js";
import { type AccountState, Model, leaseLost } from "./model.js";
import { exists, Fields, notFound, precondition, Refusal, reused } from "./refusal.js";

const MAX_WAIT = 600_000;
const COUNTED = [
  "not_selected", "completed", "inactive", "paused", "draining", "unwritable", "too_full", "denomination", "remainder",
  "day_full", "on_hold", "next_day", "cooling_down", "locked", "free",
];

export class Services {
  readonly #model: Model;

  constructor(model: Model) {
    this.#model = model;
  }

  async acquireAccount(request: pb.AcquireAccountRequest, signal: AbortSignal): Promise<pb.AcquireAccountResponse> {
    const fields = new Fields().pool(request.poolId).name("holder", request.holder, 256);
    if (request.requestId !== "") fields.requestId(request.requestId);
    const waits = duration(fields, "wait_timeout", request.waitTimeout, 0, MAX_WAIT) ?? 0;
    const asked = duration(fields, "lease_duration", request.leaseDuration, 1_000, 86_400_000);
    fields.amount("selector.expected", request.selector?.expected);
    fields.done();
    const state = await this.#lock({ ...request, requestId: request.requestId || randomUUID() }, waits, asked, signal);
    const account = this.#told(state);
    return { lease: account.lease, account };
  }

  async #lock(
    request: Pick<pb.AcquireAccountRequest, "poolId" | "requestId" | "holder" | "selector">,
    waits: number,
    asked: number | undefined,
    signal: AbortSignal,
  ): Promise<AccountState> {
    const model = this.#model;
    const { poolId, requestId, holder, selector } = request;
    const { pool } = model.pool(poolId);
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
    for (const ends = model.now() + waits; ; ) {
      this.#checkOpen(pool, true);
      const picked = model.pick(model.pool(poolId), selector);
      if (!(picked instanceof Map)) {
        model.lock(picked, { requestId, holder, selector, ends: model.now() + lasts });
        return picked;
      }
      const left = ends - model.now();
      if (left <= 0) throw nothingFree(poolId, picked);
      if (signal.aborted) throw new Refusal(Code.CANCELLED, "DEADLINE_PASSED", "the caller has gone");
      // Leases end without anybody's call, so the time is asked for again soon.
      await model.wait(Math.min(left, 50), signal);
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
    return { lease: this.#told(state).lease };
  }

  async releaseAccount(request: pb.ReleaseAccountRequest): Promise<pb.ReleaseAccountResponse> {
    const fields = new Fields();
    const ref = refIn(fields, request.lease);
    fields.done();
    this.#model.pool(ref.poolId);
    return { account: this.#told(this.#model.release(ref)) };
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
    const { requestId, poolId, holder, code, expected, selector } = request;
    const fields = new Fields().requestId(requestId).pool(poolId).name("holder", holder, 256).code(code);
    fields.amount("expected", expected);
    const waits = duration(fields, "wait_timeout", request.waitTimeout, 0, MAX_WAIT) ?? 0;
    if (selector?.expected) fields.refuse("selector.expected", "must not be set: the card's is meant");
    fields.done();
    return this.#redeemInto(requestId, { poolId, holder, code, expected, selector }, waits, signal, 1);
  }

  /** Acquires, redeems and releases. */
  async #redeemInto(
    requestId: string,
    card: Pick<pb.RedeemCardRequest, "poolId" | "holder" | "code" | "expected" | "selector">,
    waits: number,
    signal: AbortSignal,
    attempt: number,
  ): Promise<pb.RedeemCardResponse> {
    const model = this.#model;
    const { poolId, holder, code, expected } = card;
    const { pool } = model.pool(poolId);
    currencyOf(expected, pool);
    const before = attempt === 1 ? model.replayed(poolId, requestId, code, expected) : undefined;
    if (before) {
      await before.settled;
      return { redemption: before.redemption, replayed: true };
    }
    model.checkCode(poolId, code);
    const selector = pb.AccountSelector.fromPartial({ ...card.selector, expected: expected ?? card.selector?.expected });
    const state = await this.#lock({ poolId, requestId: randomUUID(), holder, selector }, waits, undefined, signal);
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
      fields.done();
      const requestId = `batch:${open.batchId}:${itemId}`;
      const before = this.#before(open.poolId, requestId, code, expected);
      const isAgain = before?.failure?.retryable ?? false;
      const card = { poolId: open.poolId, holder: open.holder, code, expected: expected ?? before?.expected, selector: merged(open, item) };
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

  async createAccount({ account }: accounts.CreateAccountRequest): Promise<accounts.CreateAccountResponse> {
    return { account: this.#told(this.#create(account)) };
  }

  #create(given: Account | undefined): AccountState {
    const account = given ?? Account.fromPartial({});
    const fields = new Fields().pool(account.poolId, "account.pool_id").name("account.account_id", account.accountId, 256);
    fields.done();
    const pool = this.#model.pool(account.poolId);
    if (account.planId) this.#model.plan(account.poolId, account.planId);
    if (pool.accounts.has(account.accountId)) throw exists("account", account.accountId);
    const currencyCode = pool.pool.currencyCode;
    const now = new Date(this.#model.now());
    const loginStatus = account.loginStatus === LoginStatus.UNSPECIFIED ? LoginStatus.ACTIVE : account.loginStatus;
    const balance = { amountMinor: account.balance?.amountMinor ?? 0n, currencyCode };
    const { paused = false, draining = false } = account;
    const made = { ...account, loginStatus, balance, paused, draining, credentials: {}, createTime: now, updateTime: now, planDay: 1 };
    return this.#model.create(pool, made);
  }

  async importAccounts(stream: AsyncIterable<accounts.ImportAccountsRequest>): Promise<accounts.ImportAccountsResponse> {
    const failures: ImportFailure[] = [];
    let received = 0n;
    for await (const { account } of stream) {
      try {
        this.#create(account);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        if (received === 0n && account && !this.#model.pools.has(account.poolId)) throw error;
        failures.push({ index: received, accountId: account?.accountId ?? "", error: error.status });
      }
      received += 1n;
    }
    const failed = BigInt(failures.length);
    return { received, created: received - failed, failed, failures };
  }

  async getAccount(request: accounts.GetAccountRequest): Promise<accounts.GetAccountResponse> {
    return { account: this.#told(this.#model.account(request.poolId, request.accountId)) };
  }

  async listAccounts(request: accounts.ListAccountsRequest): Promise<accounts.ListAccountsResponse> {
    const states = [...this.#model.pool(request.poolId).accounts.values()];
    const all = states.map((state) => this.#told(state)).sort(by((it) => it.accountId));
    const listed = all.filter(
      (it) =>
        (request.status === AccountStatus.UNSPECIFIED || it.status === request.status) &&
        (request.loginStatus === LoginStatus.UNSPECIFIED || it.loginStatus === request.loginStatus) &&
        (request.planId === "" || it.planId === request.planId),
    );
    const { page, nextPageToken } = pageOf(listed, request, (it) => it.accountId);
    return { accounts: page, nextPageToken };
  }

  async updateAccount({ account, updateMask }: accounts.UpdateAccountRequest): Promise<accounts.UpdateAccountResponse> {
    const given = account ?? Account.fromPartial({});
    const state = this.#model.account(given.poolId, given.accountId);
    const allowed = ["loginStatus", "planId", "countryCode", "labels", "paused", "draining", "hold"] as const;
    const changed = masked(given, Account.fromPartial({}), allowed, updateMask);
    if (changed.planId !== undefined) {
      if (changed.planId) this.#model.plan(given.poolId, changed.planId);
      if (state.account.status === AccountStatus.LOCKING) {
        const metadata = { pool_id: given.poolId, account_id: given.accountId };
        throw precondition("ACCOUNT_LOCKED", "the plan of an account under a lease cannot be changed", metadata);
      }
    }
    this.#model.update(state, changed);
    if (state.account.status !== AccountStatus.LOCKING) {
      state.account.status = this.#model.freeStatus(state, state.account.status);
    }
    return { account: this.#told(state) };
  }

  async listAccountEvents(request: accounts.ListAccountEventsRequest): Promise<accounts.ListAccountEventsResponse> {
    const { events } = this.#model.account(request.poolId, request.accountId);
    const { page, nextPageToken } = pageOf(events, request, (it) => String(it.version));
    return { accountEvents: page, nextPageToken };
  }

  async createPool({ pool: given }: pools.CreatePoolRequest): Promise<pools.CreatePoolResponse> {
    const pool = given ?? Pool.fromPartial({});
    const fields = new Fields().pool(pool.poolId, "pool.pool_id");
    if (!/^[A-Z]{3}$/.test(pool.currencyCode)) fields.refuse("pool.currency_code", "must be three upper-case letters");
    fields.done();
    if (this.#model.pools.has(pool.poolId)) throw exists("pool", pool.poolId);
    const now = new Date(this.#model.now());
    const made: Pool = {
      ...pool,
      defaultLeaseDuration: pool.defaultLeaseDuration ?? durationOf(60_000),
      maxLeaseDuration: pool.maxLeaseDuration ?? durationOf(600_000),
      minLeaseDuration: pool.minLeaseDuration ?? durationOf(1_000),
      paused: pool.paused ?? false,
      draining: pool.draining ?? false,
      amountMismatchPolicy: AmountMismatchPolicy.ACCEPT,
      holderSharePercent: pool.holderSharePercent || 50,
      providerId: pool.providerId || "holdfast",
      createTime: now,
      updateTime: now,
    };
    this.#model.pools.set(pool.poolId, { pool: made, plans: new Map(), accounts: new Map() });
    return { pool: made };
  }

  async getPool({ poolId }: pools.GetPoolRequest): Promise<pools.GetPoolResponse> {
    return { pool: this.#model.pool(poolId).pool };
  }

  async listPools(request: pools.ListPoolsRequest): Promise<pools.ListPoolsResponse> {
    const all = [...this.#model.pools.values()].map((it) => it.pool).sort(by((it) => it.poolId));
    const { page, nextPageToken } = pageOf(all, request, (it) => it.poolId);
    return { pools: page, nextPageToken };
  }

  async updatePool({ pool: given, updateMask }: pools.UpdatePoolRequest): Promise<pools.UpdatePoolResponse> {
    const { pool } = this.#model.pool(given?.poolId ?? "");
    const allowed = ["defaultLeaseDuration", "minLeaseDuration", "maxLeaseDuration", "paused", "draining", "holderSharePercent"] as const;
    Object.assign(pool, masked(given!, Pool.fromPartial({}), allowed, updateMask), { updateTime: new Date(this.#model.now()) });
    this.#model.changed();
    return { pool };
  }

  async deletePool({ poolId }: pools.DeletePoolRequest): Promise<pools.DeletePoolResponse> {
    const { accounts } = this.#model.pool(poolId);
    if (accounts.size > 0) {
      const redemptions = [...this.#model.redemptions.values()].filter((it) => it.redemption.poolId === poolId).length;
      const metadata = { pool_id: poolId, accounts: String(accounts.size), redemptions: String(redemptions) };
      throw precondition("POOL_IN_USE", `the pool ${poolId} has or had accounts`, metadata);
    }
    this.#model.pools.delete(poolId);
    return {};
  }

  async createPlan({ plan: given }: pools.CreatePlanRequest): Promise<pools.CreatePlanResponse> {
    const plan = given ?? Plan.fromPartial({});
    const fields = new Fields().pool(plan.poolId, "plan.pool_id").pool(plan.planId, "plan.plan_id");
    if (!plan.target) fields.refuse("plan.target", "must be set");
    fields.amount("plan.target", plan.target).done();
    const { plans } = this.#model.pool(plan.poolId);
    if (plans.has(plan.planId)) throw exists("plan", plan.planId);
    const now = new Date(this.#model.now());
    const made: Plan = {
      ...plan,
      dayInterval: plan.dayInterval ?? durationOf(86_400_000),
      redemptionInterval: plan.redemptionInterval ?? durationOf(0),
      createTime: now,
      updateTime: now,
    };
    plans.set(plan.planId, made);
    return { plan: made };
  }

  async getPlan({ poolId, planId }: pools.GetPlanRequest): Promise<pools.GetPlanResponse> {
    return { plan: this.#model.plan(poolId, planId) };
  }

  async listPlans(request: pools.ListPlansRequest): Promise<pools.ListPlansResponse> {
    const all = [...this.#model.pool(request.poolId).plans.values()].sort(by((it) => it.planId));
    const { page, nextPageToken } = pageOf(all, request, (it) => it.planId);
    return { plans: page, nextPageToken };
  }

  async updatePlan({ plan: given, updateMask }: pools.UpdatePlanRequest): Promise<pools.UpdatePlanResponse> {
    const plan = this.#model.plan(given?.poolId ?? "", given?.planId ?? "");
    const allowed = ["target", "dayAmounts", "dayTolerance", "dayInterval", "redemptionInterval", "denominations"] as const;
    Object.assign(plan, masked(given!, Plan.fromPartial({}), allowed, updateMask), { updateTime: new Date(this.#model.now()) });
    this.#model.changed();
    return { plan };
  }

  async deletePlan({ poolId, planId }: pools.DeletePlanRequest): Promise<pools.DeletePlanResponse> {
    this.#model.plan(poolId, planId);
    const { accounts, plans } = this.#model.pool(poolId);
    const user = [...accounts.values()].find((it) => it.account.planId === planId);
    if (user) {
      const metadata = { pool_id: poolId, plan_id: planId, account_id: user.account.accountId };
      throw precondition("PLAN_IN_USE", `accounts are bound to the plan ${planId}`, metadata);
    }
    plans.delete(planId);
    return {};
  }

  /** An account as it is told now, with its lease. */
  #told(state: AccountState): Account {
    this.#model.expire(state);
    const { account, lease } = state;
    if (!lease) return { ...account, lease: undefined };
    const told: Lease = {
      ref: refOf(state),
      holder: lease.holder,
      acquireTime: new Date(lease.acquireTime),
      expireTime: new Date(lease.ends),
      remaining: durationOf(Math.max(0, lease.ends - this.#model.now())),
      principal: "",
    };
    return { ...account, lease: told };
  }
}

function refOf({ account, token }: AccountState): LeaseRef {
  return { poolId: account.poolId, accountId: account.accountId, fencingToken: token };
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

function nothingFree(poolId: string, counts: Map<string, number>): Refusal {
  const counted = Object.fromEntries(COUNTED.map((name) => [name, String(counts.get(name) ?? 0)]));
  return new Refusal(Code.RESOURCE_EXHAUSTED, "NO_ACCOUNT_AVAILABLE", `no account of ${poolId} is available`, {
    metadata: { pool_id: poolId, position: "1", waiting: "1", ...counted },
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

/** The fields of a change: those that the mask names, or that are set. */
function masked<T extends object, K extends keyof T & string>(given: T, empty: T, allowed: readonly K[], mask: string[] | undefined): Partial<Pick<T, K>> {
  const named = (mask ?? []).map((path) => path.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()));
  const isSet = (key: K) => JSON.stringify(given[key], text) !== JSON.stringify(empty[key], text);
  const keys = allowed.filter((key) => (named.length > 0 ? named.includes(key) : isSet(key)));
  const other = named.find((name) => !allowed.some((key) => key === name));
  if (other !== undefined) {
    const fields = new Fields();
    fields.refuse("update_mask", `must not name ${other}`);
    fields.done();
  }
  return Object.fromEntries(keys.map((key) => [key, given[key]])) as Partial<Pick<T, K>>;
}

function text(_: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

function pageOf<T>(all: T[], { pageSize, pageToken }: { pageSize: number; pageToken: string }, key: (it: T) => string) {
  const from = pageToken === "" ? 0 : all.findIndex((it) => key(it) === pageToken) + 1;
  if (pageToken !== "" && from === 0) throw notFound("page", pageToken);
  const page = all.slice(from, from + (pageSize || 100));
  const nextPageToken = from + page.length < all.length ? key(page.at(-1)!) : "";
  return { page, nextPageToken };
}

function by<T>(key: (it: T) => string) {
  return (a: T, b: T) => (key(a) < key(b) ? -1 : 1);
}
