/** The fake's RPCs of accounts. */
import { Account, AccountStatus, LoginStatus, type ImportFailure } from "../stubs/holdfast/v1/account.js";
import * as accounts from "../stubs/holdfast/v1/account.js";
import { by, masked, pageOf, told } from "./answers.js";
import type { AccountState, Model } from "./model.js";
import { exists, Fields, precondition, Refusal } from "./refusal.js";

export class AccountServices {
  readonly #model: Model;

  constructor(model: Model) {
    this.#model = model;
  }

  async createAccount({ account }: accounts.CreateAccountRequest): Promise<accounts.CreateAccountResponse> {
    return { account: told(this.#model, this.#create(account)) };
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
    return { account: told(this.#model, this.#model.account(request.poolId, request.accountId)) };
  }

  async listAccounts(request: accounts.ListAccountsRequest): Promise<accounts.ListAccountsResponse> {
    const states = [...this.#model.pool(request.poolId).accounts.values()];
    const all = states.map((state) => told(this.#model, state)).sort(by((it) => it.accountId));
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
    return { account: told(this.#model, state) };
  }

  async listAccountEvents(request: accounts.ListAccountEventsRequest): Promise<accounts.ListAccountEventsResponse> {
    const { events } = this.#model.account(request.poolId, request.accountId);
    const { page, nextPageToken } = pageOf(events, request, (it) => String(it.version));
    return { accountEvents: page, nextPageToken };
  }
}
