"""What is known of a batch across its streams: which items have no result, and how many have which."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Optional

import grpc

from ._proto.holdfast.v1 import redemption_pb2 as pb
from ._requests import Item
from .errors import (
    DatabaseUnavailable,
    HoldfastError,
    Overloaded,
    RequestIncomplete,
    ShuttingDown,
    TlsFailed,
    Unavailable,
    from_status,
)

log = logging.getLogger("holdfast_client")

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 5.0
# The first time between two warnings of one failure. Each further one is twice as long.
FIRST_SILENCE = 5.0


@dataclass(frozen=True)
class BatchSummary:
    """How a batch ended, over all its streams."""

    received: int = 0
    succeeded: int = 0
    failed: int = 0
    in_doubt: int = 0
    #: Not begun; they may be sent again.
    rejected: int = 0
    #: Of those that failed: their cards are not spent, and the same batch redeems them when it is opened again.
    retryable: int = 0


@dataclass(frozen=True)
class BatchResult:
    """An item's outcome: a redemption, or the error that kept it from being begun."""

    item_id: str
    redemption: Optional[pb.Redemption]
    error: Optional[HoldfastError]
    replayed: bool


class Tally:
    def __init__(self) -> None:
        #: Items that were sent, and have no result.
        self.pending: dict[str, Item] = {}
        # What those say that the server could not begin, but may the next time.
        self._refused: dict[str, BatchResult] = {}
        self._counts = dict.fromkeys(BatchSummary.__dataclass_fields__, 0)

    def take(self, message: pb.BatchItemResult) -> Optional[BatchResult]:
        """The result, unless its item is to be sent again."""
        item_id = message.item_id
        error = from_status(message.error) if message.HasField("error") else None
        redemption = message.redemption if message.HasField("redemption") else None
        result = BatchResult(item_id, redemption, error, message.replayed)
        if isinstance(error, (ShuttingDown, DatabaseUnavailable, Overloaded)):
            self._refused[item_id] = result
            return None
        self.pending.pop(item_id, None)
        self._refused.pop(item_id, None)
        return self._counted(result)

    def give_up(self) -> list[BatchResult]:
        """The results of the items that the server could not begin."""
        results = [self._counted(result) for result in self._refused.values()]
        for item_id in self._refused:
            self.pending.pop(item_id, None)
        self._refused = {}
        return results

    def _counted(self, result: BatchResult) -> BatchResult:
        self._counts["received"] += 1
        if result.redemption is None:
            self._counts["rejected"] += 1
        elif result.redemption.state == pb.REDEMPTION_STATE_SUCCEEDED:
            self._counts["succeeded"] += 1
        elif result.redemption.state == pb.REDEMPTION_STATE_FAILED:
            self._counts["failed"] += 1
            self._counts["retryable"] += result.redemption.failure.retryable
        else:
            self._counts["in_doubt"] += 1
        return result

    def summary(self) -> BatchSummary:
        return BatchSummary(**self._counts)


def can_go_on(error: HoldfastError) -> bool:
    """Whether a batch whose stream ended so is opened again."""
    if isinstance(error, (Unavailable, Overloaded, RequestIncomplete)):
        return True
    # A connection that was cut says so in one of these ways, without a reason.
    cut = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
    return not error.reason and error.code in cut


class Pauses:
    """How long to wait before the next stream, and when to stop: when nothing was heard for too long.

    Each failure is logged when it begins, and then after 5 s, 10 s, 20 s and so on.
    """

    def __init__(self, limit: float, now: float, what: str) -> None:
        self._limit = limit
        self._next = FIRST_PAUSE
        self._heard = now
        # What it is that goes on, for the log.
        self._what = what
        self._was_heard = False
        self._failing_since: Optional[float] = None
        self._next_warning = now
        self._silence = FIRST_SILENCE

    def heard(self, now: float) -> None:
        self._heard = now
        self._next = FIRST_PAUSE
        self._was_heard = True
        if self._failing_since is not None:
            log.warning("%s goes on, after %.0f s", self._what, now - self._failing_since)
            self._failing_since = None

    def next(self, now: float, error: HoldfastError) -> Optional[float]:
        """The pause; None when the time is over, or when waiting helps nothing."""
        left = self._heard + self._limit - now
        if left <= 0 or (isinstance(error, TlsFailed) and not self._was_heard):
            return None
        self._warn(now, left, error)
        wanted = 0.0 if error.retry_after is None else error.retry_after.total_seconds()
        pause = min(left, max(self._next, wanted))
        self._next = min(LONGEST_PAUSE, self._next * 2)
        return pause

    def _warn(self, now: float, left: float, error: HoldfastError) -> None:
        if self._failing_since is None:
            self._failing_since = self._next_warning = now
            self._silence = FIRST_SILENCE
        if now < self._next_warning:
            return
        log.warning("%s was cut off, and is tried again for %.0f s: %s", self._what, left, error)
        self._next_warning = now + self._silence
        self._silence *= 2
