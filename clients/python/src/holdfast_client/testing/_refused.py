"""How the fake refuses: the codes, reasons and details of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ..errors import DOMAIN, STATUS_KEY
from .._proto.holdfast.v1.common_pb2 import Money

Code = grpc.StatusCode


class Refused(Exception):
    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        metadata: Optional[Mapping[str, str]] = None,
        *,
        violations: Optional[Mapping[str, str]] = None,
        resource: Optional[tuple[str, str]] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        details: list[Message] = [
            error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
        ]
        if violations:
            details.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=field, description=why)
                        for field, why in violations.items()
                    ]
                )
            )
        if resource:
            details.append(
                error_details_pb2.ResourceInfo(resource_type=resource[0], resource_name=resource[1])
            )
        self.status = status_pb2.Status(code=code.value[0], message=message)
        for detail in details:
            packed = Packed()
            packed.Pack(detail)
            self.status.details.append(packed)

    def end(self, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(((STATUS_KEY, self.status.SerializeToString()),))
        context.abort(self.code, self.status.message)


def not_found(kind: str, name: str) -> Refused:
    message = f"there is no {kind} {name}"
    reason = f"{kind.upper()}_NOT_FOUND"
    return Refused(Code.NOT_FOUND, reason, message, resource=(kind, name))


def exists(kind: str, name: str) -> Refused:
    reason = f"{kind.upper()}_ALREADY_EXISTS"
    message = f"there is a {kind} {name} already"
    return Refused(Code.ALREADY_EXISTS, reason, message, resource=(kind, name))


def precondition(reason: str, message: str, metadata: Optional[Mapping[str, str]] = None) -> Refused:
    return Refused(Code.FAILED_PRECONDITION, reason, message, metadata)


def lease_lost(cause: str) -> Refused:
    return Refused(Code.ABORTED, "LEASE_LOST", f"the lease is lost: {cause}", {"cause": cause})


class Fields:
    """What is wrong with a request: all of it is told at once."""

    def __init__(self) -> None:
        self._wrong: dict[str, str] = {}

    def text(self, field: str, value: str, longest: int) -> None:
        if not 1 <= len(value) <= longest:
            self._wrong[field] = f"must be 1 to {longest} characters"

    def code(self, value: str) -> None:
        bare = value.strip().replace(" ", "").replace("-", "")
        if not (4 <= len(value.strip()) <= 128 and len(bare) >= 4 and value.isascii()):
            self._wrong["code"] = (
                "must be 4 to 128 printable ASCII characters, 4 of them other than ' ' and '-'"
            )

    def amount(self, field: str, value: Money, currency: str) -> None:
        if value.amount_minor < 1:
            self._wrong[f"{field}.amount_minor"] = "must be between 1 and 1000000000000000"
        if value.currency_code != currency:
            self._wrong[f"{field}.currency_code"] = f"must be the pool's, {currency}"

    def priority(self, field: str, value: int) -> None:
        if not 0 <= value <= 9:
            self._wrong[field] = "must be between 0 and 9"

    def end(self) -> None:
        if self._wrong:
            message = "; ".join(f"{field}: {why}" for field, why in self._wrong.items())
            raise Refused(
                Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", message, violations=self._wrong
            )
