"""What both clients make of their arguments."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Optional

from google.protobuf.field_mask_pb2 import FieldMask

from ._proto.holdfast.v1.common_pb2 import Money
from ._proto.holdfast.v1.redemption_pb2 import AccountSelector, AcquireAccountRequest, BatchItem

#: How long a call may take that does not say how long it waits.
CALL_TIMEOUT = 30.0


def new_id() -> str:
    return str(uuid.uuid4())


def mask(fields: Optional[Iterable[str]]) -> Optional[FieldMask]:
    return None if fields is None else FieldMask(paths=fields)


def seconds(time: Optional[timedelta]) -> float:
    return 0.0 if time is None else time.total_seconds()


def zoned(moment: Optional[datetime]) -> Optional[datetime]:
    """A point in time, which has a zone: without one it would be taken for UTC."""
    if moment is not None and moment.utcoffset() is None:
        raise ValueError("a time needs a zone: datetime.now(timezone.utc), not datetime.now()")
    return moment


def waits_of(request: AcquireAccountRequest) -> float:
    """How long the server is to wait: until not_before, by this machine's clock, and then for an account."""
    wait = request.wait_timeout.ToTimedelta().total_seconds()
    if request.HasField("not_before"):
        wait += max(0.0, request.not_before.ToNanoseconds() / 1e9 - time.time())
    return wait


def named(redemption_id: Optional[str], request_id: Optional[str]) -> dict[str, str]:
    """The one of the two names that is given."""
    if (redemption_id is None) == (request_id is None):
        raise ValueError("name the redemption by redemption_id or by request_id")
    if redemption_id is not None:
        return {"redemption_id": redemption_id}
    return {"request_id": request_id or ""}


@dataclass(frozen=True)
class Item:
    """A card of a batch. Its code is not printed.

    Of the items that wait for an account, one of a higher `priority` (0 to 9) is served first. An item is not begun before
    `not_before`: a time with a zone, at most 24 hours from now.
    """

    item_id: str
    code: str = field(repr=False)
    expected: Optional[Money] = None
    selector: Optional[AccountSelector] = None
    priority: int = 0
    not_before: Optional[datetime] = None

    def __post_init__(self) -> None:
        zoned(self.not_before)

    def message(self) -> BatchItem:
        return BatchItem(
            item_id=self.item_id,
            code=self.code,
            expected=self.expected,
            selector=self.selector,
            priority=self.priority,
            not_before=self.not_before,
        )
