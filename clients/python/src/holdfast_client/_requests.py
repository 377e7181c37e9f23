"""What both clients make of their arguments."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Optional

from google.protobuf.field_mask_pb2 import FieldMask

from ._proto.holdfast.v1.common_pb2 import Money
from ._proto.holdfast.v1.redemption_pb2 import AccountSelector, BatchItem

#: How long a call may take that does not say how long it waits.
CALL_TIMEOUT = 30.0


def new_id() -> str:
    return str(uuid.uuid4())


def mask(fields: Optional[Iterable[str]]) -> Optional[FieldMask]:
    return None if fields is None else FieldMask(paths=fields)


def seconds(time: Optional[timedelta]) -> float:
    return 0.0 if time is None else time.total_seconds()


def named(redemption_id: Optional[str], request_id: Optional[str]) -> dict[str, str]:
    """The one of the two names that is given."""
    if (redemption_id is None) == (request_id is None):
        raise ValueError("name the redemption by redemption_id or by request_id")
    if redemption_id is not None:
        return {"redemption_id": redemption_id}
    return {"request_id": request_id or ""}


@dataclass(frozen=True)
class Item:
    """A card of a batch. Its code is not printed."""

    item_id: str
    code: str = field(repr=False)
    expected: Optional[Money] = None
    selector: Optional[AccountSelector] = None

    def message(self) -> BatchItem:
        return BatchItem(
            item_id=self.item_id, code=self.code, expected=self.expected, selector=self.selector
        )
