/** What goes wrong: one class for each reason of the contract, and {@link HoldfastError} for all of them. */
import { status as Code, type Metadata } from "@grpc/grpc-js";

import { detailsOf, type Details, type FieldViolation, type ResourceInfo } from "./details.js";
import { Status } from "./stubs/google/rpc/status.js";

export type { FieldViolation, ResourceInfo };

/** An error status of the server's, or of the way to it. Never holds a card's code or a token. */
export class HoldfastError extends Error {
  /** Why, in a word of the contract (`LEASE_LOST`); not set where no Holdfast answered. */
  readonly reason: string | undefined;
  /** The code of gRPC, as in `status` of @grpc/grpc-js. */
  readonly code: number;
  /** What else the server says, by reason: see Holdfast's page of errors. */
  readonly metadata: Readonly<Record<string, string>>;
  /** After how many milliseconds the same call may be sent again. */
  readonly retryAfter: number | undefined;
  /** The fields that are not as they must be: all of them at once. */
  readonly fieldViolations: readonly FieldViolation[];
  /** What the error is about. */
  readonly resource: ResourceInfo | undefined;

  constructor(message: string, code: number, details?: Partial<Details>) {
    super(message);
    this.name = new.target.name;
    this.reason = details?.reason;
    this.code = code;
    this.metadata = details?.metadata ?? {};
    this.retryAfter = details?.retryAfter;
    this.fieldViolations = details?.fieldViolations ?? [];
    this.resource = details?.resource;
  }

  /** The code's name: `UNAVAILABLE`. */
  get codeName(): string {
    return Code[this.code] ?? String(this.code);
  }

  toJSON(): Record<string, unknown> {
    const { name, message, reason, codeName, metadata, retryAfter, fieldViolations, resource } = this;
    return { name, message, reason, code: codeName, metadata, retryAfter, fieldViolations, resource };
  }
}

/** The server cannot be reached: the message says why, and what to do. Or something between here and there answered in its stead. */
export class ConnectionError extends HoldfastError {}
/** Client and server do not agree about TLS. Trying again does not help until somebody changes something. */
export class TlsError extends ConnectionError {}
/** The call's own time was over. What was begun goes on: ask again with the same request id. */
export class CallTimeoutError extends HoldfastError {}

export class InvalidArgumentError extends HoldfastError {}
export class PoolNotFoundError extends HoldfastError {}
export class PlanNotFoundError extends HoldfastError {}
export class AccountNotFoundError extends HoldfastError {}
export class RedemptionNotFoundError extends HoldfastError {}
export class ProviderNotFoundError extends HoldfastError {}
export class UnauthenticatedError extends HoldfastError {}
export class PermissionDeniedError extends HoldfastError {}
export class TokenNotFoundError extends HoldfastError {}
export class TokenExistsError extends HoldfastError {}
export class SubscriptionNotFoundError extends HoldfastError {}
export class SubscriptionAlreadyExistsError extends HoldfastError {}
export class TooManySubscriptionsError extends HoldfastError {}
export class PoolAlreadyExistsError extends HoldfastError {}
export class PlanAlreadyExistsError extends HoldfastError {}
export class AccountAlreadyExistsError extends HoldfastError {}
export class ProviderVersionExistsError extends HoldfastError {}
export class RequestIdReusedError extends HoldfastError {}
export class RedemptionAlreadySettledError extends HoldfastError {}
export class RedemptionAlreadyReversedError extends HoldfastError {}
export class RedemptionNotSucceededError extends HoldfastError {}
export class ReversalNotSupportedError extends HoldfastError {}
export class ReversalOpenError extends HoldfastError {}
export class ReversalNotFoundError extends HoldfastError {}
export class BalanceTooLowError extends HoldfastError {}
export class ResolutionChangedError extends HoldfastError {}
export class BalanceChangedError extends HoldfastError {}
export class NoAccountAvailableError extends HoldfastError {}
/** The lease is over: `metadata.cause` is `expired`, `released` or `taken_over`, or `unknown` where only this side knows. */
export class LeaseLostError extends HoldfastError {}
export class RedemptionOpenError extends HoldfastError {}
export class CodeInUseError extends HoldfastError {}
export class CardNotRedeemableError extends HoldfastError {}
export class CurrencyMismatchError extends HoldfastError {}
export class CountryMismatchError extends HoldfastError {}
export class InquiryFailedError extends HoldfastError {}
export class PoolPausedError extends HoldfastError {}
export class PoolDrainingError extends HoldfastError {}
export class AccountPausedError extends HoldfastError {}
export class AccountNotReadyError extends HoldfastError {}
export class AmountDoesNotFitError extends HoldfastError {}
export class PoolInUseError extends HoldfastError {}
export class PlanInUseError extends HoldfastError {}
export class AccountLockedError extends HoldfastError {}
export class OverloadedError extends HoldfastError {}
export class DeadlinePassedError extends HoldfastError {}
export class RequestIncompleteError extends HoldfastError {}
export class StreamIdleError extends HoldfastError {}
/** The database no longer has the outcomes that a cursor comes after: it was restored from a backup. */
export class CursorLostError extends HoldfastError {}
export class ShuttingDownError extends HoldfastError {}
export class ProviderUnavailableError extends HoldfastError {}
export class DatabaseUnavailableError extends HoldfastError {}
export class InternalError extends HoldfastError {}

const CLASSES = [
  InvalidArgumentError, PoolNotFoundError, PlanNotFoundError, AccountNotFoundError, RedemptionNotFoundError,
  ProviderNotFoundError, UnauthenticatedError, PermissionDeniedError, TokenNotFoundError, TokenExistsError,
  PoolAlreadyExistsError, PlanAlreadyExistsError, AccountAlreadyExistsError, ProviderVersionExistsError,
  RequestIdReusedError, RedemptionAlreadySettledError, RedemptionAlreadyReversedError, RedemptionNotSucceededError,
  ReversalNotSupportedError, ReversalOpenError, ReversalNotFoundError, BalanceTooLowError, BalanceChangedError,
  ResolutionChangedError, NoAccountAvailableError, LeaseLostError, RedemptionOpenError, CodeInUseError, CardNotRedeemableError, CurrencyMismatchError,
  CountryMismatchError, InquiryFailedError, PoolPausedError, PoolDrainingError, AccountPausedError,
  AccountNotReadyError, AmountDoesNotFitError, PoolInUseError, PlanInUseError, AccountLockedError, OverloadedError,
  DeadlinePassedError, RequestIncompleteError, StreamIdleError, CursorLostError, ShuttingDownError, ProviderUnavailableError,
  DatabaseUnavailableError, InternalError, SubscriptionNotFoundError, SubscriptionAlreadyExistsError,
  TooManySubscriptionsError,
];

/** The class of each reason: `LEASE_LOST` is a {@link LeaseLostError}. */
export const ERRORS_BY_REASON: ReadonlyMap<string, typeof HoldfastError> = new Map(
  CLASSES.map((each) => [reasonOf(each.name), each]),
);

function reasonOf(className: string): string {
  return className.replace(/Error$/, "").replace(/(?<=.)[A-Z]/g, "_$&").toUpperCase();
}

/** The error of a status, in the class of its reason. */
export function errorOf(status: Status): HoldfastError {
  const details = detailsOf(status);
  const named = details.domain === "holdfast" ? ERRORS_BY_REASON.get(details.reason ?? "") : undefined;
  const Class = named ?? unnamed(status.code, details);
  return new Class(status.message, status.code, details);
}

/** The class of a status without a reason that is known here. */
function unnamed(code: number, { reason }: Details): typeof HoldfastError {
  if (reason !== undefined) return HoldfastError;
  if (code === Code.UNAVAILABLE) return ConnectionError;
  return code === Code.DEADLINE_EXCEEDED ? CallTimeoutError : HoldfastError;
}

/** The error of a call that grpc-js says has failed. */
export function fromGrpc(error: unknown): unknown {
  if (error instanceof HoldfastError) return error;
  const { code, details, metadata } = (error ?? {}) as { code?: number; details?: string; metadata?: Metadata };
  if (typeof code !== "number") return error;
  const [packed] = metadata?.get("grpc-status-details-bin") ?? [];
  if (packed instanceof Uint8Array) {
    try {
      return errorOf(Status.decode(packed));
    } catch {
      // Whatever made that was no Holdfast: the status itself is what is known.
    }
  }
  return errorOf({ code, message: details ?? "", details: [] });
}
