/** What the fake remembers, and its rules: accounts, leases, redemptions. Without gRPC. */
import { createHmac, randomBytes, randomUUID } from "node:crypto";

import { status as Code } from "@grpc/grpc-js";

import { AccountStatus, LoginStatus, type Account, type AccountEvent, type LeaseRef } from "../stubs/holdfast/v1/account.js";
import type { Money } from "../stubs/holdfast/v1/common.js";
import type { Plan, Pool } from "../stubs/holdfast/v1/pool.js";
import { Redemption, RedemptionState, type AccountSelector } from "../stubs/holdfast/v1/redemption.js";
import { misfit } from "./fit.js";
import { notFound, precondition, Refusal, reused } from "./refusal.js";

/** What becomes of a card at the fake's provider. */
export interface Outcome {
  state?: "SUCCEEDED" | "FAILED" | "IN_DOUBT" | "NEEDS_REVIEW";
  /** What is credited, in minor units; what was expected, or 1000, when not given. */
  amountMinor?: bigint;
  /** Why it failed. */
  reason?: string;
  message?: string;
  codeSpent?: boolean;
  retryable?: boolean;
  /** Waited for before the outcome is there. */
  after?: Promise<unknown>;
}

export interface PoolState {
  pool: Pool;
  plans: Map<string, Plan>;
  accounts: Map<string, AccountState>;
  /** Who wants an account now, or waits for one: who is served first comes first. */
  waiters?: Waiter[];
}

export interface Waiter {
  selector: AccountSelector | undefined;
  priority: number;
  signal: AbortSignal;
}

export interface AccountState {
  account: Account;
  token: bigint;
  version: bigint;
  lease: LeaseState | undefined;
  /** The tokens of leases that were released: that is told for good. */
  released: Set<bigint>;
  resume: AccountStatus;
  /** The lease bound the account to its plan. */
  isBoundByLease: boolean;
  usedAt: number;
  events: AccountEvent[];
}

export interface LeaseState {
  requestId: string;
  holder: string;
  selector: AccountSelector | undefined;
  token: bigint;
  acquireTime: number;
  ends: number;
  isReleasing: boolean;
}

interface Begun {
  redemption: Redemption;
  fingerprint: string;
  settled: Promise<void>;
  settle: () => void;
}

export class Model {
  readonly pools = new Map<string, PoolState>();
  /** By pool and redemption_id, in the order of their beginning. */
  readonly redemptions = new Map<string, Begun>();
  /** The redemptions that have an outcome, in the order of that. */
  readonly outcomes: string[] = [];
  readonly #requests = new Map<string, string>();
  readonly #key = randomBytes(32);
  #offset = 0;
  readonly #waiters = new Set<() => void>();
  /** What the provider makes of a card: asked for each redemption that begins. */
  outcome: (card: { code: string; poolId: string }) => Outcome = () => ({});

  now(): number {
    return Date.now() + this.#offset;
  }

  advance(milliseconds: number): void {
    this.#offset += milliseconds;
    this.changed();
  }

  /** Wakes who waits for an account or a time. */
  changed(): void {
    for (const wake of [...this.#waiters]) wake();
  }

  /** Waits until something changes, for so many milliseconds at most. */
  wait(milliseconds: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, Math.max(0, milliseconds));
      this.#waiters.add(done);
      signal?.addEventListener("abort", done);
    });
  }

  pool(poolId: string): PoolState {
    const pool = this.pools.get(poolId);
    if (!pool) throw notFound("pool", poolId);
    return pool;
  }

  plan(poolId: string, planId: string): Plan {
    const plan = this.pools.get(poolId)?.plans.get(planId);
    if (!plan) throw notFound("plan", planId);
    return plan;
  }

  account(poolId: string, accountId: string): AccountState {
    const state = this.pools.get(poolId)?.accounts.get(accountId);
    if (!state) throw notFound("account", accountId);
    this.expire(state);
    return state;
  }

  /** Ends the lease of an account whose time is over, unless a redemption is open. */
  expire(state: AccountState): void {
    const { lease, account } = state;
    if (lease && lease.ends <= this.now() && account.openRedemptionId === "") this.#end(state, "expired", "sweeper");
  }

  #end(state: AccountState, how: "expired" | "released", actor: string): void {
    state.lease = undefined;
    if (how === "released") state.released.add(state.token);
    if (state.isBoundByLease) state.account.planId = "";
    state.isBoundByLease = false;
    state.usedAt = this.now();
    this.#event(state, how, actor, { status: state.resume, lease: undefined, reserved: undefined });
  }

  /** Changes an account, and notes the event. */
  #event(state: AccountState, reason: string, actor: string, next: Partial<Account>, redemptionId = ""): void {
    const { account } = state;
    const from = account.status;
    Object.assign(account, next, { updateTime: new Date(this.now()) });
    state.version += 1n;
    state.events.unshift({
      poolId: account.poolId,
      accountId: account.accountId,
      version: state.version,
      eventTime: new Date(this.now()),
      actor,
      reason,
      fromStatus: state.version === 1n ? AccountStatus.UNSPECIFIED : from,
      toStatus: account.status,
      fencingToken: state.token,
      redemptionId,
      balance: account.balance,
      leaseExpireTime: state.lease && new Date(state.lease.ends),
      principal: "",
    });
    this.changed();
  }

  create(pool: PoolState, account: Account): AccountState {
    const state: AccountState = {
      account, token: 0n, version: 0n, lease: undefined, released: new Set(), resume: AccountStatus.WAITING,
      isBoundByLease: false, usedAt: 0, events: [],
    };
    state.resume = this.freeStatus(state, AccountStatus.WAITING);
    pool.accounts.set(account.accountId, state);
    this.#event(state, "created", "api", { status: state.resume });
    return state;
  }

  update(state: AccountState, changed: Partial<Account>): void {
    this.#event(state, "updated", "api", changed);
  }

  /** The status of a free account: COMPLETED when it has its plan's target. */
  freeStatus({ account }: AccountState, otherwise: AccountStatus): AccountStatus {
    const target = this.#planOf(account)?.target?.amountMinor;
    const isFull = target !== undefined && (account.balance?.amountMinor ?? 0n) >= target;
    return isFull ? AccountStatus.COMPLETED : otherwise;
  }

  #planOf({ poolId, planId }: Account): Plan | undefined {
    return planId === "" ? undefined : this.pools.get(poolId)?.plans.get(planId);
  }

  headroom(account: Account, planId = account.planId): bigint | undefined {
    const plan = this.#planOf({ ...account, planId });
    return plan?.target && plan.target.amountMinor - (account.balance?.amountMinor ?? 0n);
  }

  /** Why an account is not picked, or nothing. */
  verdict(state: AccountState, selector: AccountSelector | undefined): string | undefined {
    this.expire(state);
    const { account } = state;
    if (selector && !isSelected(account, selector)) return "not_selected";
    if (account.status === AccountStatus.COMPLETED) return "completed";
    if (account.loginStatus !== LoginStatus.ACTIVE) return "inactive";
    if (account.paused) return "paused";
    if (account.draining) return "draining";
    const planId = account.planId || selector?.planId || "";
    const headroom = this.headroom(account, planId);
    const wanted = selector?.minHeadroom?.amountMinor ?? 1n;
    if (headroom !== undefined && headroom < wanted) return "too_full";
    const plan = this.#planOf({ ...account, planId });
    const bad = plan && selector?.expected && misfit(plan, headroom!, selector.expected.amountMinor);
    if (bad) return bad;
    return account.status === AccountStatus.LOCKING ? "locked" : undefined;
  }

  /** The best free account for a selector, or how many are passed over by why. */
  pick(pool: PoolState, selector: AccountSelector | undefined, taken = new Set<AccountState>()): AccountState | Map<string, number> {
    const counts = new Map<string, number>();
    const fit: AccountState[] = [];
    for (const state of pool.accounts.values()) {
      const verdict = this.verdict(state, selector) ?? (taken.has(state) ? "locked" : undefined);
      if (verdict === undefined) fit.push(state);
      else counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
    }
    const rank = ({ account }: AccountState) => [
      selector?.planId && account.planId === selector.planId ? 0 : 1,
      account.status === AccountStatus.PROCESSING ? 0 : 1,
      Number(this.headroom(account, account.planId || selector?.planId) ?? 2n ** 60n),
    ];
    fit.sort((a, b) => compare([...rank(a), a.usedAt], [...rank(b), b.usedAt]));
    return fit[0] ?? counts;
  }

  /** Queues a waiter: behind those of its priority, before those of a lower one. */
  queue(pool: PoolState, waiter: Waiter): void {
    const waiters = (pool.waiters ??= []);
    const at = waiters.findIndex(({ priority }) => priority < waiter.priority);
    waiters.splice(at < 0 ? waiters.length : at, 0, waiter);
  }

  /** What a waiter may have when those before it have theirs. Who has none to wait for delays nobody. */
  turn(pool: PoolState, waiter: Waiter): AccountState | Map<string, number> {
    const taken = new Set<AccountState>();
    for (const other of pool.waiters ?? []) {
      if (other === waiter) break;
      const picked = other.signal.aborted ? undefined : this.pick(pool, other.selector, taken);
      if (picked && !(picked instanceof Map)) taken.add(picked);
    }
    return this.pick(pool, waiter.selector, taken);
  }

  lock(state: AccountState, lease: Omit<LeaseState, "token" | "acquireTime" | "isReleasing">): void {
    const { account } = state;
    state.resume = account.status;
    state.token += 1n;
    state.lease = { ...lease, token: state.token, acquireTime: this.now(), isReleasing: false };
    const planId = lease.selector?.planId ?? "";
    state.isBoundByLease = account.planId === "" && planId !== "";
    if (state.isBoundByLease) account.planId = planId;
    this.#event(state, "acquired", lease.holder, {
      status: AccountStatus.LOCKING,
      reserved: lease.selector?.expected,
    });
  }

  /** The account under a lease that lives, or LEASE_LOST. */
  leased(ref: LeaseRef): AccountState & { lease: LeaseState } {
    const state = this.account(ref.poolId, ref.accountId);
    const { lease } = state;
    const isOurs = lease?.token === ref.fencingToken;
    if (isOurs && !lease.isReleasing && lease.ends > this.now()) return state as AccountState & { lease: LeaseState };
    if (isOurs) throw leaseLost(ref, lease.isReleasing ? "released" : "expired");
    throw leaseLost(ref, this.#ended(state, ref));
  }

  #ended(state: AccountState, { fencingToken }: LeaseRef): string {
    if (state.released.has(fencingToken)) return "released";
    return state.token === fencingToken ? "expired" : "taken_over";
  }

  renew(ref: LeaseRef, duration: number): AccountState {
    const state = this.leased(ref);
    state.lease.ends = this.now() + duration;
    this.#event(state, "renewed", state.lease.holder, {});
    return state;
  }

  release(ref: LeaseRef): AccountState {
    const state = this.account(ref.poolId, ref.accountId);
    const { lease, account } = state;
    if (lease?.token !== ref.fencingToken) {
      if (state.released.has(ref.fencingToken)) return state;
      throw leaseLost(ref, this.#ended(state, ref));
    }
    if (account.openRedemptionId === "") {
      this.#end(state, "released", lease.holder);
    } else if (!lease.isReleasing) {
      lease.isReleasing = true;
      this.#event(state, "release_requested", lease.holder, {});
    }
    return state;
  }

  find(poolId: string, name: { redemptionId?: string | undefined; requestId?: string | undefined }): Begun {
    const id = name.redemptionId || this.#requests.get(`${poolId}/${name.requestId}`) || "";
    const begun = this.redemptions.get(id);
    if (!begun || begun.redemption.poolId !== poolId) {
      throw notFound("redemption", name.redemptionId || name.requestId || "");
    }
    return begun;
  }

  /** The redemption that a request began before, if it did and asks for the same. */
  replayed(poolId: string, requestId: string, code: string, expected: Money | undefined): Begun | undefined {
    const begun = this.redemptions.get(this.#requests.get(`${poolId}/${requestId}`) ?? "");
    if (!begun) return undefined;
    const differ: string[] = [];
    if (begun.fingerprint !== this.fingerprint(code)) differ.push("code");
    if (begun.redemption.expected?.amountMinor !== expected?.amountMinor) differ.push("expected");
    if (differ.length > 0) throw reused(requestId, differ);
    return begun;
  }

  /** Refuses a code that is being redeemed, or was. */
  checkCode(poolId: string, code: string): void {
    const fingerprint = this.fingerprint(code);
    for (const { redemption, fingerprint: other } of this.redemptions.values()) {
      const isFree = redemption.state === RedemptionState.FAILED && !redemption.failure?.codeSpent;
      if (redemption.poolId === poolId && other === fingerprint && !isFree) {
        const { redemptionId, requestId } = redemption;
        const state = redemption.state.replace("REDEMPTION_STATE_", "");
        const message = `the code is in redemption ${redemptionId}, for request_id ${requestId}`;
        const metadata = { redemption_id: redemptionId, request_id: requestId, state };
        throw precondition("CODE_IN_USE", message, metadata);
      }
    }
  }

  /** Begins a redemption under a lease. Its outcome comes when the provider's is there. */
  begin(state: AccountState, requestId: string, code: string, expected: Money | undefined, attempt: number): Begun {
    const { account, lease } = state;
    if (account.openRedemptionId !== "") {
      const metadata = { redemption_id: account.openRedemptionId };
      throw precondition("REDEMPTION_OPEN", "the account has another redemption that is open", metadata);
    }
    this.checkCode(account.poolId, code);
    if (account.paused) {
      const metadata = { pool_id: account.poolId, account_id: account.accountId };
      throw precondition("ACCOUNT_PAUSED", `the account ${account.accountId} is paused`, metadata);
    }
    this.#checkFit(account, expected);
    const { bare } = normalised(code);
    const redemption = Redemption.fromPartial({
      redemptionId: randomUUID(), requestId, poolId: account.poolId, accountId: account.accountId,
      fencingToken: state.token, state: RedemptionState.SUBMITTED, expected, attempts: 1, attempt,
      codeLast4: bare.length < 8 ? "" : bare.slice(-4),
      createTime: new Date(this.now()), providerId: "holdfast", providerVersion: 1,
    });
    let settle!: () => void;
    const settled = new Promise<void>((resolve) => (settle = resolve));
    const begun = { redemption, fingerprint: this.fingerprint(code), settled, settle };
    this.redemptions.set(redemption.redemptionId, begun);
    this.#requests.set(`${account.poolId}/${requestId}`, redemption.redemptionId);
    const { redemptionId } = redemption;
    this.#event(state, "redeem_begun", lease!.holder, { openRedemptionId: redemptionId, reserved: expected }, redemptionId);
    const outcome = this.outcome({ code, poolId: account.poolId });
    void Promise.resolve(outcome.after).then(() => this.settle(redemptionId, outcome));
    return begun;
  }

  #checkFit(account: Account, expected: Money | undefined): void {
    const plan = this.#planOf(account);
    if (!plan) return;
    const headroom = this.headroom(account)!;
    const cause = headroom <= 0n ? "too_full" : expected && misfit(plan, headroom, expected.amountMinor);
    if (!cause) return;
    const { accountId, planId } = account;
    const metadata = {
      account_id: accountId, plan_id: planId, cause, headroom_minor: String(headroom), day_headroom_minor: String(headroom),
    };
    throw precondition("AMOUNT_DOES_NOT_FIT", `the plan ${planId} of ${accountId} does not take this amount`, metadata);
  }

  /** Records the outcome of a redemption that is open. */
  settle(redemptionId: string, outcome: Outcome): void {
    const begun = this.redemptions.get(redemptionId);
    if (!begun) throw notFound("redemption", redemptionId);
    const { redemption } = begun;
    const state = this.account(redemption.poolId, redemption.accountId);
    const { account } = state;
    if (account.openRedemptionId !== redemptionId) return;
    const named = outcome.state ?? "SUCCEEDED";
    redemption.state = RedemptionState[named];
    if (named !== "SUCCEEDED" && named !== "IN_DOUBT") {
      const { reason = "CARD_REFUSED", message = "the provider refused the card", codeSpent = false } = outcome;
      redemption.failure = { reason, message, codeSpent, retryable: outcome.retryable ?? false };
    }
    begun.settle();
    if (named === "IN_DOUBT" || named === "NEEDS_REVIEW") {
      this.changed();
      return;
    }
    redemption.finishTime = new Date(this.now());
    this.outcomes.push(redemptionId);
    const { pool } = this.pool(account.poolId);
    const actor = state.lease?.holder ?? "reconciler";
    const next: Partial<Account> = { openRedemptionId: "", reserved: undefined };
    if (named === "SUCCEEDED") {
      const amountMinor = outcome.amountMinor ?? redemption.expected?.amountMinor ?? 1000n;
      redemption.failure = undefined;
      redemption.amount = { amountMinor, currencyCode: pool.currencyCode };
      redemption.amountMismatch = redemption.expected !== undefined && redemption.expected.amountMinor !== amountMinor;
      const balance = (account.balance?.amountMinor ?? 0n) + amountMinor;
      account.balance = { amountMinor: balance, currencyCode: pool.currencyCode };
      state.isBoundByLease = false;
      state.resume = this.freeStatus(state, AccountStatus.PROCESSING);
    }
    this.#event(state, named === "SUCCEEDED" ? "redeemed" : "redeem_failed", actor, next, redemptionId);
    if (state.lease?.isReleasing) this.#end(state, "released", actor);
    this.expire(state);
    this.changed();
  }

  /** A card's fingerprint: the code itself is not kept. */
  fingerprint(code: string): string {
    return createHmac("sha256", this.#key).update(normalised(code).bare).digest("hex");
  }
}

function normalised(code: string): { bare: string } {
  return { bare: code.replace(/[ -]/g, "").toUpperCase() };
}

function isSelected(account: Account, selector: AccountSelector): boolean {
  const { accountId, countryCode, planId, labels, excludeAccountIds } = selector;
  return (
    (accountId === "" || account.accountId === accountId) &&
    (countryCode === "" || account.countryCode === countryCode) &&
    (planId === "" || account.planId === planId || account.planId === "") &&
    Object.entries(labels).every(([key, value]) => account.labels[key] === value) &&
    !excludeAccountIds.includes(account.accountId)
  );
}

function compare(a: number[], b: number[]): number {
  const at = a.findIndex((each, index) => each !== b[index]);
  return at < 0 ? 0 : a[at]! - b[at]!;
}

export function leaseLost(ref: LeaseRef, cause: string): Refusal {
  return new Refusal(Code.ABORTED, "LEASE_LOST", `the lease on ${ref.accountId} is lost: ${cause}`, {
    metadata: { cause, pool_id: ref.poolId, account_id: ref.accountId, fencing_token: String(ref.fencingToken) },
  });
}
