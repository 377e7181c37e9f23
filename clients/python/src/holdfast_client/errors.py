"""What calls raise: one class for each reason that the server gives, all of them `HoldfastError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Optional

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

STATUS_KEY = "grpc-status-details-bin"
DOMAIN = "holdfast"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class HoldfastError(Exception):
    """A call that was refused, or did not come through. `reason` says why, where the server did."""

    REASON: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Optional[Mapping[str, str]] = None,
        retry_after: Optional[timedelta] = None,
        field_violations: Optional[Mapping[str, str]] = None,
        resource: Optional[tuple[str, str]] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or self.REASON
        #: What the reason says besides, such as `cause` or `needs`.
        self.metadata = dict(metadata or {})
        #: When the same call may be sent again, where the server says so.
        self.retry_after = retry_after
        #: What is wrong with which field of the request.
        self.field_violations = dict(field_violations or {})
        #: The type and the name of what the error is about.
        self.resource = resource

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class InvalidArgument(HoldfastError):
    REASON = "INVALID_ARGUMENT"


class NotFound(HoldfastError):
    """Something that the request names is not there."""


class PoolNotFound(NotFound):
    REASON = "POOL_NOT_FOUND"


class PlanNotFound(NotFound):
    REASON = "PLAN_NOT_FOUND"


class AccountNotFound(NotFound):
    REASON = "ACCOUNT_NOT_FOUND"


class RedemptionNotFound(NotFound):
    REASON = "REDEMPTION_NOT_FOUND"


class ProviderNotFound(NotFound):
    REASON = "PROVIDER_NOT_FOUND"


class TokenNotFound(NotFound):
    REASON = "TOKEN_NOT_FOUND"


class SubscriptionNotFound(NotFound):
    REASON = "SUBSCRIPTION_NOT_FOUND"


class Unauthenticated(HoldfastError):
    REASON = "UNAUTHENTICATED"


class PermissionDenied(HoldfastError):
    REASON = "PERMISSION_DENIED"


class AlreadyExists(HoldfastError):
    """Something of this name is there, or was."""


class TokenExists(AlreadyExists):
    REASON = "TOKEN_EXISTS"


class PoolAlreadyExists(AlreadyExists):
    REASON = "POOL_ALREADY_EXISTS"


class PlanAlreadyExists(AlreadyExists):
    REASON = "PLAN_ALREADY_EXISTS"


class SubscriptionAlreadyExists(AlreadyExists):
    REASON = "SUBSCRIPTION_ALREADY_EXISTS"


class AccountAlreadyExists(AlreadyExists):
    REASON = "ACCOUNT_ALREADY_EXISTS"


class ProviderVersionExists(AlreadyExists):
    REASON = "PROVIDER_VERSION_EXISTS"


class RequestIdReused(HoldfastError):
    REASON = "REQUEST_ID_REUSED"


class RedemptionAlreadySettled(HoldfastError):
    REASON = "REDEMPTION_ALREADY_SETTLED"


class RedemptionAlreadyReversed(HoldfastError):
    REASON = "REDEMPTION_ALREADY_REVERSED"


class RedemptionNotSucceeded(HoldfastError):
    REASON = "REDEMPTION_NOT_SUCCEEDED"


class ReversalNotSupported(HoldfastError):
    REASON = "REVERSAL_NOT_SUPPORTED"


class ReversalOpen(HoldfastError):
    REASON = "REVERSAL_OPEN"


class ReversalNotFound(HoldfastError):
    REASON = "REVERSAL_NOT_FOUND"


class BalanceTooLow(HoldfastError):
    REASON = "BALANCE_TOO_LOW"


class ResolutionChanged(HoldfastError):
    """Another resolution counts by now; `metadata` has its number, and who said so: read the redemption."""

    REASON = "RESOLUTION_CHANGED"


class BalanceChanged(HoldfastError):
    """The account has another balance than the one that was compared: read it, and compare again."""

    REASON = "BALANCE_CHANGED"


class NoAccountAvailable(HoldfastError):
    """No account fits now; `metadata` counts them by why."""

    REASON = "NO_ACCOUNT_AVAILABLE"


class LeaseLost(HoldfastError):
    """The lease has ended; `metadata["cause"]` is expired, released or taken_over."""

    REASON = "LEASE_LOST"


class RedemptionOpen(HoldfastError):
    REASON = "REDEMPTION_OPEN"


class CodeInUse(HoldfastError):
    REASON = "CODE_IN_USE"


class CardNotRedeemable(HoldfastError):
    REASON = "CARD_NOT_REDEEMABLE"


class CurrencyMismatch(HoldfastError):
    REASON = "CURRENCY_MISMATCH"


class CountryMismatch(HoldfastError):
    REASON = "COUNTRY_MISMATCH"


class PoolPaused(HoldfastError):
    REASON = "POOL_PAUSED"


class PoolDraining(HoldfastError):
    REASON = "POOL_DRAINING"


class AccountPaused(HoldfastError):
    REASON = "ACCOUNT_PAUSED"


class AccountNotReady(HoldfastError):
    REASON = "ACCOUNT_NOT_READY"


class AmountDoesNotFit(HoldfastError):
    REASON = "AMOUNT_DOES_NOT_FIT"


class TooManySubscriptions(HoldfastError):
    REASON = "TOO_MANY_SUBSCRIPTIONS"


class PoolInUse(HoldfastError):
    REASON = "POOL_IN_USE"


class PlanInUse(HoldfastError):
    REASON = "PLAN_IN_USE"


class AccountLocked(HoldfastError):
    REASON = "ACCOUNT_LOCKED"


class CursorLost(HoldfastError):
    """The database no longer has what the cursor comes after: it was restored."""

    REASON = "CURSOR_LOST"


class Overloaded(HoldfastError):
    """Nothing was begun: send the same call again after `retry_after`."""

    REASON = "OVERLOADED"


class DeadlineExceeded(HoldfastError):
    """The time is over. What was begun goes on: the same request id finds out."""


class DeadlinePassed(DeadlineExceeded):
    REASON = "DEADLINE_PASSED"


class RequestIncomplete(DeadlineExceeded):
    REASON = "REQUEST_INCOMPLETE"


class StreamIdle(DeadlineExceeded):
    REASON = "STREAM_IDLE"


class Unavailable(HoldfastError):
    """The server cannot be reached, or takes no calls now: send the same call again later."""


class ConnectionFailed(Unavailable):
    """There is no connection to the server: the message says why, and what to do."""


class TlsFailed(ConnectionFailed):
    """Client and server do not agree about TLS. Trying again does not help until somebody changes something."""


class InquiryFailed(Unavailable):
    REASON = "INQUIRY_FAILED"


class ShuttingDown(Unavailable):
    REASON = "SHUTTING_DOWN"


class ProviderUnavailable(Unavailable):
    REASON = "PROVIDER_UNAVAILABLE"


class DatabaseUnavailable(Unavailable):
    """It is not known whether anything was done: repeat the call with the same request id."""

    REASON = "DATABASE_UNAVAILABLE"


class Internal(HoldfastError):
    REASON = "INTERNAL"


def _classes(kind: type[HoldfastError]) -> Iterable[type[HoldfastError]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from _classes(inner)


#: The class of each reason.
BY_REASON: dict[str, type[HoldfastError]] = {
    kind.REASON: kind for kind in _classes(HoldfastError) if kind.REASON
}

# For an error without a reason: of gRPC itself, or of a proxy.
_BY_CODE: dict[grpc.StatusCode, type[HoldfastError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.INTERNAL: Internal,
}


def from_status(status: status_pb2.Status) -> HoldfastError:
    """The error that a google.rpc.Status is."""
    return _error(CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status.details)


def from_rpc_error(error: grpc.RpcError) -> HoldfastError:
    """The error that gRPC raised, with its details decoded."""
    call: Any = error
    code = call.code() or grpc.StatusCode.UNKNOWN
    for key, value in call.trailing_metadata() or ():
        if key == STATUS_KEY:
            status = status_pb2.Status.FromString(value)
            return _error(code, status.message, status.details)
    return _error(code, call.details() or "", ())


def _error(code: grpc.StatusCode, message: str, details: Iterable[Packed]) -> HoldfastError:
    info = error_details_pb2.ErrorInfo()
    more: dict[str, Any] = {}
    for packed in details:
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            packed.Unpack(info)
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            packed.Unpack(retry)
            more["retry_after"] = retry.retry_delay.ToTimedelta()
        elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            packed.Unpack(bad)
            more["field_violations"] = {v.field: v.description for v in bad.field_violations}
        elif packed.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
            resource = error_details_pb2.ResourceInfo()
            packed.Unpack(resource)
            more["resource"] = (resource.resource_type, resource.resource_name)
    reason = info.reason if info.domain == DOMAIN else ""
    kind = BY_REASON.get(reason) or _BY_CODE.get(code, HoldfastError)
    # A reason that this version does not know is told as it is; a guess from the code has none.
    error = kind(message, code=code, metadata=info.metadata, **more)
    error.reason = reason
    return error
