"""A batch without asyncio."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Callable, Optional

import grpc

from ._proto.holdfast.v1 import redemption_pb2 as pb
from ._requests import Item
from ._tally import BatchResult, BatchSummary, Pauses, Tally, can_go_on
from .errors import HoldfastError, Overloaded, Unavailable

if TYPE_CHECKING:
    from .client import Client

Progress = Callable[[pb.BatchProgress], None]


def open_message(
    batch_id: str,
    pool_id: str,
    holder: str,
    selector: Optional[pb.AccountSelector],
    max_in_flight: int,
    item_timeout: Optional[timedelta],
) -> pb.BatchRedeemRequest:
    return pb.BatchRedeemRequest(
        open=pb.BatchOpen(
            batch_id=batch_id,
            pool_id=pool_id,
            holder=holder,
            selector=selector,
            max_in_flight=max_in_flight,
            item_timeout=item_timeout,
        )
    )


def name_of(opened: pb.BatchRedeemRequest) -> str:
    """What a batch is called in the log."""
    return f"the batch {opened.open.batch_id} of pool {opened.open.pool_id}"


def not_begun() -> HoldfastError:
    return Overloaded("items could not be begun", code=grpc.StatusCode.RESOURCE_EXHAUSTED)


def ended_early() -> HoldfastError:
    return Unavailable("the stream ended without a summary", code=grpc.StatusCode.UNAVAILABLE)


class Batch:
    """The results of a batch, to be iterated over once. `summary` is there at the end."""

    def __init__(
        self,
        client: Client,
        opened: pb.BatchRedeemRequest,
        items: Iterable[Item],
        on_progress: Optional[Progress],
        reconnect_for: float,
    ) -> None:
        self._client = client
        self._open = opened
        self._items = iter(items)
        self._on_progress = on_progress
        self._tally = Tally()
        self._pauses = Pauses(reconnect_for, time.monotonic(), name_of(opened))
        # gRPC's thread reads for a stream first what has to be sent again, then the items. The lock of reading is held
        # while an item is waited for, the other one is not.
        self._reading = threading.Lock()
        self._state = threading.Lock()
        self._again: deque[Item] = deque()
        self._stream = 0
        self._failed: Optional[BaseException] = None
        self.summary: Optional[BatchSummary] = None

    def __iter__(self) -> Iterator[BatchResult]:
        while True:
            error: HoldfastError
            try:
                whole = yield from self._one_stream()
            except HoldfastError as broken:
                if self._failed is not None:
                    raise self._failed from None
                if not can_go_on(broken):
                    raise
                error = broken
            else:
                if self._failed is not None:
                    raise self._failed
                if whole and not self._tally.pending:
                    break
                error = not_begun() if whole else ended_early()
            pause = self._pauses.next(time.monotonic(), error)
            if pause is None:
                if not isinstance(error, Overloaded):
                    raise error
                yield from self._tally.give_up()
                break
            time.sleep(pause)
        self.summary = self._tally.summary()

    def _one_stream(self) -> Generator[BatchResult, None, bool]:
        """The results that one stream brings, and whether it came to its summary."""
        with self._state:
            self._stream += 1
            self._again = deque(self._tally.pending.values())

        whole = False
        messages = self._messages(self._stream)
        method = self._client._redemptions.BatchRedeem
        try:
            with self._client._stream(method, pb.BatchRedeemRequest, messages) as call:
                for message in call:
                    if message.HasField("progress"):
                        self._pauses.heard(time.monotonic())
                        if self._on_progress is not None:
                            self._on_progress(message.progress)
                    elif message.HasField("result"):
                        result = self._tally.take(self._finished(message.result))
                        if result is not None:
                            self._pauses.heard(time.monotonic())
                            yield result
                    else:
                        whole = True
        finally:
            with self._state:
                self._stream += 1
        return whole

    def _finished(self, result: pb.BatchItemResult) -> pb.BatchItemResult:
        """A result that another stream of the batch is still at work on is waited for."""
        redemption = result.redemption
        if redemption.state == pb.REDEMPTION_STATE_SUBMITTED:
            settled = self._client.await_redemption(redemption.pool_id, redemption.redemption_id)
            redemption.CopyFrom(settled)
        return result

    def _messages(self, stream: int) -> Iterator[pb.BatchRedeemRequest]:
        yield self._open
        while True:
            item = self._next_item(stream)
            if item is None:
                return
            yield pb.BatchRedeemRequest(item=item.message())

    def _next_item(self, stream: int) -> Optional[Item]:
        with self._reading:
            with self._state:
                if stream != self._stream or self._failed is not None:
                    return None
                if self._again:
                    return self._again.popleft()
            try:
                item = next(self._items)
            except StopIteration:
                return None
            except BaseException as error:  # The caller's own: raised where the results are read.
                self._failed = error
                return None
            with self._state:
                self._tally.pending[item.item_id] = item
                if stream == self._stream:
                    return item
                # The stream broke while the item was waited for: the next one sends it.
                self._again.append(item)
                return None
