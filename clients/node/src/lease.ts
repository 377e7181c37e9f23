/** A lease on an account: it renews itself, tells when it is lost, and is released at the end. */
import { status as Code } from "@grpc/grpc-js";

import { type CallOptions, type Caller } from "./caller.js";
import { HoldfastError, LeaseLostError } from "./errors.js";
import { type Input, type Message } from "./messages.js";
import { type Account, type Lease as LeaseStub } from "./stubs/holdfast/v1/account.js";
import { ReleaseAccountRequest, RedeemRequest, RedemptionServiceService, RenewLeaseRequest } from "./stubs/holdfast/v1/redemption.js";
import type { Money } from "./money.js";
import type { Redeemed } from "./client.js";

// Node 18 before 18.18 does not have it, and TypeScript's own helpers ask for this one.
const ASYNC_DISPOSE: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");
if (!Symbol.asyncDispose) {
  Object.defineProperty(Symbol, "asyncDispose", { value: ASYNC_DISPOSE });
}

const RETRY_RENEWAL = 1_000;
/** What a renewal answers that no other one will answer otherwise. */
const FINAL = new Set<number>([Code.ABORTED, Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT]);
const { redeem, releaseAccount, renewLease } = RedemptionServiceService;

/** A card to redeem under a lease. */
export interface LeasedCard {
  /** The idempotency key: store it with the card. A retry that repeats it never redeems the card again. */
  requestId: string;
  /** The card's code. */
  code: string;
  /** What the card should be worth; any amount when not given. */
  expected?: Money | undefined;
  /** Ends the lease when the outcome is known. */
  releaseOnCompletion?: boolean | undefined;
}

/** The right to use one account, for as long as {@link Lease.signal} has not aborted. */
export class Lease {
  /** The account under the lease, as it was when it was acquired. */
  readonly account: Message<Account>;
  readonly poolId: string;
  readonly accountId: string;
  /** Rises by one at each acquisition of the account. Every call under the lease repeats it. */
  readonly fencingToken: bigint;
  readonly holder: string;

  readonly #caller: Caller;
  readonly #duration: number | undefined;
  readonly #lost = new AbortController();
  /** When the lease ends, on this process's monotonic clock, unless it is renewed. */
  #ends: number;
  #timer: NodeJS.Timeout | undefined;
  #released: Promise<Message<Account> | undefined> | undefined;

  /** @internal */
  constructor(caller: Caller, lease: Message<LeaseStub>, account: Message<Account>, duration: number | undefined, renew: boolean) {
    this.account = account;
    this.poolId = lease.ref?.poolId ?? "";
    this.accountId = lease.ref?.accountId ?? "";
    this.fencingToken = lease.ref?.fencingToken ?? 0n;
    this.holder = lease.holder;
    this.#caller = caller;
    this.#duration = duration;
    this.#ends = performance.now() + (lease.remaining ?? 0);
    this.#schedule(renew);
  }

  /** Aborts with a {@link LeaseLostError} when the lease is lost. Give it to whatever works under the lease. */
  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  /** How many milliseconds the lease still lasts unless it is renewed; 0 when it is lost or released. */
  get remaining(): number {
    return this.signal.aborted || this.#released ? 0 : Math.max(0, this.#ends - performance.now());
  }

  /**
   * Redeems a card into the account. When the lease is lost it fails at once, without a call; a redemption that was
   * begun before goes on at the server, and answers here.
   */
  async redeem(card: LeasedCard, options: CallOptions = {}): Promise<Redeemed> {
    this.signal.throwIfAborted();
    const request = { ...card, lease: this.#ref() };
    try {
      const { redemption, replayed } = await this.#caller.unary(redeem, RedeemRequest, request, options);
      return { redemption: redemption!, replayed };
    } catch (error) {
      if (error instanceof LeaseLostError) this.#lose(error);
      throw error;
    }
  }

  /** Makes the lease end later: `leaseDuration` milliseconds from now. It does so by itself too. */
  async renew(leaseDuration: number | undefined = this.#duration, options: CallOptions = {}): Promise<void> {
    this.signal.throwIfAborted();
    const sent = performance.now();
    try {
      const request = { lease: this.#ref(), leaseDuration };
      const { lease } = await this.#caller.unary(renewLease, RenewLeaseRequest, request, options);
      // Counted from before it was sent: never later than the database's own end.
      this.#ends = Math.max(this.#ends, sent + (lease?.remaining ?? 0));
    } catch (error) {
      if (error instanceof HoldfastError && FINAL.has(error.code)) this.#lose(error);
      throw error;
    }
  }

  /** Ends the lease. Doing so twice is like doing so once. */
  release(options: CallOptions = {}): Promise<Message<Account> | undefined> {
    this.#released ??= this.#release(options).catch((error) => {
      this.#released = undefined;
      throw error;
    });
    return this.#released;
  }

  async #release(options: CallOptions): Promise<Message<Account> | undefined> {
    clearTimeout(this.#timer);
    const reply = await this.#caller.unary(releaseAccount, ReleaseAccountRequest, { lease: this.#ref() }, options);
    return reply.account;
  }

  /** Releases the lease at the end of `await using`. One that cannot be released ends by itself. */
  async [ASYNC_DISPOSE](): Promise<void> {
    clearTimeout(this.#timer);
    if (this.signal.aborted) return;
    await this.release().catch(() => {});
  }

  #ref(): Input<NonNullable<LeaseStub["ref"]>> {
    return { poolId: this.poolId, accountId: this.accountId, fencingToken: this.fencingToken };
  }

  /** Renews when a third of what remains is over, or says that the lease is lost when all of it is. */
  #schedule(renew: boolean, soonest = 0): void {
    const left = this.#ends - performance.now();
    if (left <= 0) return this.#lose(expired(this));
    const wait = renew ? Math.min(left, Math.max(left / 3, soonest)) : left;
    this.#timer = setTimeout(() => void this.#due(renew), wait);
  }

  async #due(renew: boolean): Promise<void> {
    const left = this.#ends - performance.now();
    let soonest = 0;
    if (renew && left > 0) {
      try {
        // No longer than the lease lasts: then it is lost, whatever the answer would be.
        await this.renew(this.#duration, { callTimeout: left });
      } catch {
        soonest = Math.min(RETRY_RENEWAL, left / 3);
      }
    }
    if (!this.signal.aborted && !this.#released) this.#schedule(renew, soonest);
  }

  #lose(why: unknown): void {
    clearTimeout(this.#timer);
    if (this.#released) return;
    this.#lost.abort(why instanceof LeaseLostError ? why : lost(this, why));
  }
}

function expired(lease: Lease): LeaseLostError {
  return lostBy(lease, "expired", "the lease has run out: it was not renewed in time");
}

function lost(lease: Lease, why: unknown): LeaseLostError {
  const error = lostBy(lease, "unknown", "the lease cannot be renewed any more");
  error.cause = why;
  return error;
}

function lostBy({ poolId, accountId, fencingToken }: Lease, cause: string, message: string): LeaseLostError {
  const metadata = { cause, pool_id: poolId, account_id: accountId, fencing_token: String(fencingToken) };
  return new LeaseLostError(message, Code.ABORTED, { reason: "LEASE_LOST", metadata });
}
