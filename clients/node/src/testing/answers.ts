/** What the fake's answers have in common. */
import { durationOf } from "../messages.js";
import type { Account, Lease, LeaseRef } from "../stubs/holdfast/v1/account.js";
import type { AccountState, Model } from "./model.js";
import { Fields, notFound } from "./refusal.js";

/** An account as it is told now, with its lease. */
export function told(model: Model, state: AccountState): Account {
  model.expire(state);
  const { account, lease } = state;
  if (!lease) return { ...account, lease: undefined };
  const told: Lease = {
    ref: refOf(state),
    holder: lease.holder,
    acquireTime: new Date(lease.acquireTime),
    expireTime: new Date(lease.ends),
    remaining: durationOf(Math.max(0, lease.ends - model.now())),
    principal: "",
  };
  return { ...account, lease: told };
}

export function refOf({ account, token }: AccountState): LeaseRef {
  return { poolId: account.poolId, accountId: account.accountId, fencingToken: token };
}

/** The fields of a change: those that the mask names, or that are set. */
export function masked<T extends object, K extends keyof T & string>(given: T, empty: T, allowed: readonly K[], mask: string[] | undefined): Partial<Pick<T, K>> {
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

export function pageOf<T>(all: T[], { pageSize, pageToken }: { pageSize: number; pageToken: string }, key: (it: T) => string) {
  const from = pageToken === "" ? 0 : all.findIndex((it) => key(it) === pageToken) + 1;
  if (pageToken !== "" && from === 0) throw notFound("page", pageToken);
  const page = all.slice(from, from + (pageSize || 100));
  const nextPageToken = from + page.length < all.length ? key(page.at(-1)!) : "";
  return { page, nextPageToken };
}

export function by<T>(key: (it: T) => string) {
  return (a: T, b: T) => (key(a) < key(b) ? -1 : 1);
}
