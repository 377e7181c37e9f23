export { Batch, type BatchItem, type BatchOptions, type BatchResult, type BatchSummary } from "./batch.js";
export type { CallOptions } from "./caller.js";
export {
  Holdfast,
  type AcquireOptions,
  type Card,
  type Filter,
  type HoldfastOptions,
  type Redeemed,
  type RedemptionName,
} from "./client.js";
export type { ConnectOptions } from "./connect.js";
export * from "./errors.js";
export { Lease, type LeasedCard } from "./lease.js";
export type { Input, Message } from "./messages.js";
export { currencyExponent, formatMoney, money, parseMoney, type Money } from "./money.js";
export type { Reconnecting } from "./reconnect.js";
export { Role } from "./stubs/holdfast/v1/access.js";
export { AccountStatus, HoldCause, LoginStatus } from "./stubs/holdfast/v1/account.js";
export { AmountMismatchPolicy } from "./stubs/holdfast/v1/pool.js";
export { AcquireVerdict, RedemptionState, ReversalOutcome, ReversalState } from "./stubs/holdfast/v1/redemption.js";
export type { Watched, WatchOptions } from "./watch.js";
