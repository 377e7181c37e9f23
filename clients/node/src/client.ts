/** The client of one Holdfast. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";

import { Batch, type BatchItem, type BatchOptions } from "./batch.js";
import { Caller, type CallOptions } from "./caller.js";
import { optionsFromEnv, type ConnectOptions } from "./connect.js";
import { Lease } from "./lease.js";
import { toStub, type Input, type Message } from "./messages.js";
import type { Money } from "./money.js";
import * as access from "./stubs/holdfast/v1/access.js";
import * as account from "./stubs/holdfast/v1/account.js";
import * as pool from "./stubs/holdfast/v1/pool.js";
import * as provider from "./stubs/holdfast/v1/provider.js";
import * as redemption from "./stubs/holdfast/v1/redemption.js";
import { watch, type Watched, type WatchOptions } from "./watch.js";

const redemptions = redemption.RedemptionServiceService;
const accounts = account.AccountServiceService;
const pools = pool.PoolServiceService;
const providers = provider.ProviderServiceService;
const tokens = access.AccessServiceService;

export interface HoldfastOptions extends ConnectOptions {
  /** Who asks, in the accounts' events; this machine's name and the process when not given. */
  holder?: string | undefined;
}

/** The lock that is wanted. Durations are in milliseconds. */
export interface AcquireOptions extends CallOptions {
  poolId: string;
  /** The idempotency key of the acquisition; a fresh UUID when not given. */
  requestId?: string | undefined;
  /** Who asks; the client's own when not given. */
  holder?: string | undefined;
  /** How long the lease lasts unless it is renewed; the pool's default when not given. */
  leaseDuration?: number | undefined;
  /** How long to wait for an account to be free; not at all when not given. */
  waitTimeout?: number | undefined;
  /** Which accounts may be picked; any of the pool when not given. */
  selector?: Input<redemption.AccountSelector> | undefined;
  /** 0 to 9: of those who wait for an account, a higher one is served first. 0 when not given. */
  priority?: number | undefined;
  /** Nothing is locked before this time, at most 10 min from now; `waitTimeout` counts from then. */
  notBefore?: Date | undefined;
  /** Whether the lease renews itself. True when not given. */
  renew?: boolean | undefined;
}

/** A card to redeem into an account that is picked for it. Durations are in milliseconds. */
export interface Card extends CallOptions {
  poolId: string;
  /** The idempotency key: store it with the card. A retry that repeats it never redeems the card again. */
  requestId: string;
  /** The card's code. */
  code: string;
  /** What the card should be worth; any amount when not given. */
  expected?: Money | undefined;
  holder?: string | undefined;
  selector?: Input<redemption.AccountSelector> | undefined;
  waitTimeout?: number | undefined;
  /** 0 to 9: of those who wait for an account, a higher one is served first. 0 when not given. */
  priority?: number | undefined;
}

/** What is known of a redemption now: read its state. */
export interface Redeemed {
  redemption: Message<redemption.Redemption>;
  /** True when an earlier call with this request id began it. */
  replayed: boolean;
}

/** Names a redemption: by its own id, or by its request's. */
export type RedemptionName = { poolId: string } & (
  | { redemptionId: string; requestId?: undefined }
  | { requestId: string; redemptionId?: undefined }
);

/** Filters of a list; pages are read as they are needed. */
export type Filter<Q> = Omit<Input<Q>, "pageToken" | "poolId">;

/** A client of one Holdfast: one channel, whatever number of calls. */
export class Holdfast {
  readonly #caller: Caller;
  readonly #holder: string;

  constructor(options: HoldfastOptions = {}) {
    this.#caller = new Caller(options);
    this.#holder = options.holder ?? `${hostname()}:${process.pid}`;
  }

  /**
   * A client by the variables of the command `holdfast`: HOLDFAST_SERVER, HOLDFAST_CA_FILE, HOLDFAST_CERT_FILE,
   * HOLDFAST_KEY_FILE, HOLDFAST_TOKEN_FILE and HOLDFAST_TOKEN.
   */
  static fromEnv(options: HoldfastOptions = {}): Holdfast {
    return new Holdfast({ ...optionsFromEnv(process.env), ...options });
  }

  /** Closes the channel. Calls that are under way are finished. */
  close(): void {
    this.#caller.close();
  }

  /** Locks a free account. The lease renews itself until it is released: `await using lease = await client.acquire(…)`. */
  async acquire(options: AcquireOptions): Promise<Lease> {
    const { signal, callTimeout, renew = true, ...asked } = options;
    const request = { ...asked, requestId: asked.requestId ?? randomUUID(), holder: asked.holder ?? this.#holder };
    const { lease, account } = await this.#caller.unary(
      redemptions.acquireAccount,
      redemption.AcquireAccountRequest,
      request,
      { signal, callTimeout },
      until(asked.notBefore) + (asked.waitTimeout ?? 0),
    );
    return new Lease(this.#caller, lease!, account!, asked.leaseDuration, renew);
  }

  /** Locks a free account while `work` goes on, and releases it at the end. `signal` aborts when the lease is lost. */
  async withLease<T>(options: AcquireOptions, work: (lease: Lease, signal: AbortSignal) => Promise<T> | T): Promise<T> {
    const lease = await this.acquire(options);
    try {
      return await work(lease, lease.signal);
    } finally {
      await lease[Symbol.asyncDispose]();
    }
  }

  /** Redeems a card into an account that is picked for it: acquire, redeem and release in one call. */
  async redeemCard(card: Card): Promise<Redeemed> {
    const { signal, callTimeout, ...asked } = card;
    const request = { ...asked, holder: asked.holder ?? this.#holder };
    const reply = await this.#caller.unary(
      redemptions.redeemCard,
      redemption.RedeemCardRequest,
      request,
      { signal, callTimeout },
      asked.waitTimeout,
    );
    return { redemption: reply.redemption!, replayed: reply.replayed };
  }

  /** Waits for an outcome, for `timeout` milliseconds at most (30,000), and answers with the redemption as it is then. */
  async awaitRedemption(
    options: RedemptionName & CallOptions & { timeout?: number },
  ): Promise<Message<redemption.Redemption>> {
    const { poolId, redemptionId, requestId, timeout = 30_000, ...call } = options;
    const name =
      redemptionId !== undefined
        ? { $case: "redemptionId" as const, redemptionId }
        : { $case: "requestId" as const, requestId: requestId! };
    const request = { poolId, name, timeout };
    const reply = await this.#caller.unary(
      redemptions.awaitRedemption,
      redemption.AwaitRedemptionRequest,
      request,
      call,
      timeout,
    );
    return reply.redemption!;
  }

  /** Redeems many cards, and answers with their results as they come. It goes on by itself when the connection breaks. */
  redeemBatch(items: Iterable<BatchItem> | AsyncIterable<BatchItem>, options: BatchOptions): Batch {
    return new Batch(this.#caller, items, { ...options, holder: options.holder ?? this.#holder });
  }

  async getRedemption(name: RedemptionName, options?: CallOptions): Promise<Message<redemption.Redemption>> {
    const reply = await this.#caller.unary(redemptions.getRedemption, redemption.GetRedemptionRequest, name, options);
    return reply.redemption!;
  }

  /** The redemptions of a pool, newest first. */
  async *listRedemptions(
    poolId: string,
    filter: Filter<redemption.ListRedemptionsRequest> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<redemption.Redemption>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(
        redemptions.listRedemptions,
        redemption.ListRedemptionsRequest,
        { ...filter, poolId, pageToken },
        options,
      );
    yield* pages(read, (reply) => reply.redemptions);
  }

  /** Every outcome of the pool's redemptions at least once. It goes on after the last cursor when the connection breaks. */
  watchRedemptions(poolId: string, options: WatchOptions = {}): AsyncGenerator<Watched, void, undefined> {
    return watch(this.#caller, poolId, options);
  }

  /** Closes a redemption by a person's word. */
  async resolveRedemption(
    request: Input<redemption.ResolveRedemptionRequest>,
    options?: CallOptions,
  ): Promise<Message<redemption.Redemption>> {
    const reply = await this.#caller.unary(
      redemptions.resolveRedemption,
      redemption.ResolveRedemptionRequest,
      request,
      options,
    );
    return reply.redemption!;
  }

  /** Takes back what a redemption brought, by a person's order. */
  async reverseRedemption(
    request: Input<redemption.ReverseRedemptionRequest>,
    options?: CallOptions,
  ): Promise<Message<redemption.Redemption>> {
    const reply = await this.#caller.unary(
      redemptions.reverseRedemption,
      redemption.ReverseRedemptionRequest,
      request,
      options,
    );
    return reply.redemption!;
  }

  /** Which accounts an acquisition would pick now, and why each of the others is passed over. */
  explainAcquire(
    request: Input<redemption.ExplainAcquireRequest>,
    options?: CallOptions,
  ): Promise<Message<redemption.ExplainAcquireResponse>> {
    return this.#caller.unary(redemptions.explainAcquire, redemption.ExplainAcquireRequest, request, options);
  }

  async createPool(request: Input<pool.Pool>, options?: CallOptions): Promise<Message<pool.Pool>> {
    const reply = await this.#caller.unary(pools.createPool, pool.CreatePoolRequest, { pool: request }, options);
    return reply.pool!;
  }

  async getPool(poolId: string, options?: CallOptions): Promise<Message<pool.Pool>> {
    const reply = await this.#caller.unary(pools.getPool, pool.GetPoolRequest, { poolId }, options);
    return reply.pool!;
  }

  async *listPools(
    filter: Filter<pool.ListPoolsRequest> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<pool.Pool>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(pools.listPools, pool.ListPoolsRequest, { ...filter, pageToken }, options);
    yield* pages(read, (reply) => reply.pools);
  }

  /** Changes the fields of `updateMask`, in the contract's names; those that are set, without it. */
  async updatePool(
    changed: Input<pool.Pool>,
    options?: CallOptions & { updateMask?: string[] },
  ): Promise<Message<pool.Pool>> {
    const request = { pool: changed, updateMask: options?.updateMask };
    return (await this.#caller.unary(pools.updatePool, pool.UpdatePoolRequest, request, options)).pool!;
  }

  async deletePool(poolId: string, options?: CallOptions): Promise<void> {
    await this.#caller.unary(pools.deletePool, pool.DeletePoolRequest, { poolId }, options);
  }

  async createPlan(plan: Input<pool.Plan>, options?: CallOptions): Promise<Message<pool.Plan>> {
    return (await this.#caller.unary(pools.createPlan, pool.CreatePlanRequest, { plan }, options)).plan!;
  }

  async getPlan(poolId: string, planId: string, options?: CallOptions): Promise<Message<pool.Plan>> {
    return (await this.#caller.unary(pools.getPlan, pool.GetPlanRequest, { poolId, planId }, options)).plan!;
  }

  async *listPlans(
    poolId: string,
    filter: Filter<pool.ListPlansRequest> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<pool.Plan>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(pools.listPlans, pool.ListPlansRequest, { ...filter, poolId, pageToken }, options);
    yield* pages(read, (reply) => reply.plans);
  }

  async updatePlan(
    plan: Input<pool.Plan>,
    options?: CallOptions & { updateMask?: string[] },
  ): Promise<Message<pool.Plan>> {
    const request = { plan, updateMask: options?.updateMask };
    return (await this.#caller.unary(pools.updatePlan, pool.UpdatePlanRequest, request, options)).plan!;
  }

  async deletePlan(poolId: string, planId: string, options?: CallOptions): Promise<void> {
    await this.#caller.unary(pools.deletePlan, pool.DeletePlanRequest, { poolId, planId }, options);
  }

  async createAccount(created: Input<account.Account>, options?: CallOptions): Promise<Message<account.Account>> {
    const request = { account: created };
    return (await this.#caller.unary(accounts.createAccount, account.CreateAccountRequest, request, options)).account!;
  }

  /** Creates many accounts of one pool. Those that are not created are in `failures`. */
  importAccounts(
    imported: Iterable<Input<account.Account>> | AsyncIterable<Input<account.Account>>,
    options?: CallOptions,
  ): Promise<Message<account.ImportAccountsResponse>> {
    async function* messages() {
      for await (const each of imported) {
        yield account.ImportAccountsRequest.fromPartial(toStub({ account: each }));
      }
    }
    return this.#caller.clientStream(accounts.importAccounts, messages, options);
  }

  async getAccount(poolId: string, accountId: string, options?: CallOptions): Promise<Message<account.Account>> {
    const request = { poolId, accountId };
    return (await this.#caller.unary(accounts.getAccount, account.GetAccountRequest, request, options)).account!;
  }

  async *listAccounts(
    poolId: string,
    filter: Filter<account.ListAccountsRequest> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<account.Account>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(accounts.listAccounts, account.ListAccountsRequest, { ...filter, poolId, pageToken }, options);
    yield* pages(read, (reply) => reply.accounts);
  }

  async updateAccount(
    changed: Input<account.Account>,
    options?: CallOptions & { updateMask?: string[] },
  ): Promise<Message<account.Account>> {
    const request = { account: changed, updateMask: options?.updateMask };
    return (await this.#caller.unary(accounts.updateAccount, account.UpdateAccountRequest, request, options)).account!;
  }

  /** Gives an account the balance that a person saw at the provider, where it still has `expectedBalance`. */
  async correctBalance(
    correction: Input<account.CorrectBalanceRequest>,
    options?: CallOptions,
  ): Promise<Message<account.Account>> {
    return (await this.#caller.unary(accounts.correctBalance, account.CorrectBalanceRequest, correction, options)).account!;
  }

  /** What happened to an account, newest first. */
  async *listAccountEvents(
    poolId: string,
    accountId: string,
    filter: Omit<Filter<account.ListAccountEventsRequest>, "accountId"> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<account.AccountEvent>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(
        accounts.listAccountEvents,
        account.ListAccountEventsRequest,
        { ...filter, poolId, accountId, pageToken },
        options,
      );
    yield* pages(read, (reply) => reply.accountEvents);
  }

  async applyProvider(profile: string, options?: CallOptions): Promise<Message<provider.Provider>> {
    const reply = await this.#caller.unary(providers.applyProvider, provider.ApplyProviderRequest, { profile }, options);
    return reply.provider!;
  }

  checkProvider(profile: string, options?: CallOptions): Promise<Message<provider.CheckProviderResponse>> {
    return this.#caller.unary(providers.checkProvider, provider.CheckProviderRequest, { profile }, options);
  }

  /** A provider's profile: the version that is named, or the newest. */
  async getProvider(providerId: string, options?: CallOptions & { version?: number }): Promise<Message<provider.Provider>> {
    const request = { providerId, version: options?.version };
    return (await this.#caller.unary(providers.getProvider, provider.GetProviderRequest, request, options)).provider!;
  }

  async *listProviders(
    filter: Filter<provider.ListProvidersRequest> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<provider.Provider>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(providers.listProviders, provider.ListProvidersRequest, { ...filter, pageToken }, options);
    yield* pages(read, (reply) => reply.providers);
  }

  /** Makes a token. Its secret is answered this once. */
  createToken(
    request: Input<access.CreateTokenRequest>,
    options?: CallOptions,
  ): Promise<Message<access.CreateTokenResponse>> {
    return this.#caller.unary(tokens.createToken, access.CreateTokenRequest, request, options);
  }

  async *listTokens(
    filter: Filter<access.ListTokensRequest> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<access.Token>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(tokens.listTokens, access.ListTokensRequest, { ...filter, pageToken }, options);
    yield* pages(read, (reply) => reply.tokens);
  }

  async revokeToken(name: string, options?: CallOptions): Promise<Message<access.Token>> {
    return (await this.#caller.unary(tokens.revokeToken, access.RevokeTokenRequest, { name }, options)).token!;
  }

  async *listAuditEvents(
    filter: Omit<Input<access.ListAuditEventsRequest>, "pageToken"> = {},
    options?: CallOptions,
  ): AsyncGenerator<Message<access.AuditEvent>, void, undefined> {
    const read = (pageToken: string) =>
      this.#caller.unary(tokens.listAuditEvents, access.ListAuditEventsRequest, { ...filter, pageToken }, options);
    yield* pages(read, (reply) => reply.events);
  }
}

/** What a list has on all its pages, each of which is read when it is needed. */
async function* pages<R extends { nextPageToken: string }, T>(
  read: (pageToken: string) => Promise<R>,
  of: (reply: R) => T[],
): AsyncGenerator<T, void, undefined> {
  let pageToken = "";
  do {
    const reply = await read(pageToken);
    yield* of(reply);
    pageToken = reply.nextPageToken;
  } while (pageToken !== "");
}

/** How long it is until a time, by this machine's clock. */
function until(time: Date | undefined): number {
  if (time === undefined) return 0;
  if (Number.isNaN(time.getTime())) throw new TypeError("notBefore must be a valid Date");
  return Math.max(0, time.getTime() - Date.now());
}
