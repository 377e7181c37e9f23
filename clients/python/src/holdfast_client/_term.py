"""How long a lease lasts, counted down on the monotonic clock. No two clocks need to agree."""

from __future__ import annotations

import time

from ._proto.holdfast.v1.account_pb2 import Lease
from .errors import (
    AccountNotFound,
    LeaseLost,
    HoldfastError,
    PermissionDenied,
    PoolNotFound,
    Unauthenticated,
)

# Nothing changes about these by trying again.
OVER = (LeaseLost, AccountNotFound, PoolNotFound, PermissionDenied, Unauthenticated)
# At least this long between two tries, at most that.
SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 5.0


class Term:
    """When the lease ends, at the latest, as far as is known here."""

    def __init__(self) -> None:
        self._end = 0.0

    def begin(self, asked: float, lease: Lease, waited: bool = False) -> None:
        """Counts from when the answer was asked for: the database answered later. A call that waited for an account
        was answered at its end, and is counted from now."""
        start = time.monotonic() if waited else asked
        self._end = start + lease.remaining.ToTimedelta().total_seconds()

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def until_renewal(self) -> float:
        """A third of what is left: two more tries come before its end."""
        return self.left() / 3

    def until_retry(self, error: HoldfastError) -> float:
        wanted = 0.0 if error.retry_after is None else error.retry_after.total_seconds()
        return min(self.left(), max(SHORTEST_PAUSE, wanted, min(LONGEST_PAUSE, self.left() / 6)))

    @staticmethod
    def is_over(error: HoldfastError) -> bool:
        return isinstance(error, OVER)
