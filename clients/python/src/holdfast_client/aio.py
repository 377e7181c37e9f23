"""The client with asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Callable, Optional, Union, cast

import grpc
import grpc.aio

from . import _connect
from ._batch import Progress, ended_early, name_of, not_begun, open_message
from ._methods_async import AsyncMethods
from ._proto.holdfast.v1 import account_pb2, redemption_pb2
from ._proto.holdfast.v1.access_pb2_grpc import AccessServiceStub
from ._proto.holdfast.v1.account_pb2_grpc import AccountServiceStub
from ._proto.holdfast.v1.common_pb2 import Money
from ._proto.holdfast.v1.pool_pb2_grpc import PoolServiceStub
from ._proto.holdfast.v1.provider_pb2_grpc import ProviderServiceStub
from ._proto.holdfast.v1.redemption_pb2_grpc import RedemptionServiceStub
from ._reach import CONNECT_LIMIT, trouble
from ._requests import CALL_TIMEOUT, Item, new_id, waits_of, zoned
from ._tally import BatchResult, BatchSummary, Pauses, Tally, can_go_on
from ._term import Term
from ._tracing import call_span, stream_span
from .client import lost_error
from .errors import HoldfastError, LeaseLost, Overloaded, from_rpc_error

log = logging.getLogger("holdfast_client")


class AsyncClient(AsyncMethods):
    """Calls a Holdfast server, on the event loop that it is made on. Arguments as of `Client`."""

    def __init__(
        self,
        target: str,
        *,
        ca_file: Optional[_connect.PathLike] = None,
        cert_file: Optional[_connect.PathLike] = None,
        key_file: Optional[_connect.PathLike] = None,
        token: Optional[str] = None,
        token_file: Optional[_connect.PathLike] = None,
        insecure: bool = False,
        timeout: timedelta = timedelta(seconds=CALL_TIMEOUT),
    ) -> None:
        self._server = _connect.Server(
            target,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            token=token,
            token_file=token_file,
            insecure=insecure,
        )
        self._timeout = timeout.total_seconds()
        self._reached = False
        to, credentials, options = self._server.target, self._server.credentials, self._server.options
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(to, options)
        else:
            self._channel = grpc.aio.secure_channel(to, credentials, options)
        channel: Any = self._channel
        self._pools = cast(Any, PoolServiceStub(channel))
        self._accounts = cast(Any, AccountServiceStub(channel))
        self._redemptions = cast(Any, RedemptionServiceStub(channel))
        self._providers = cast(Any, ProviderServiceStub(channel))
        self._access = cast(Any, AccessServiceStub(channel))

    @classmethod
    def from_env(cls) -> AsyncClient:
        """By HOLDFAST_SERVER, HOLDFAST_CA_FILE, HOLDFAST_TOKEN_FILE and the like, as the commands."""
        return cls(**_connect.from_env(os.environ))

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(
        self,
        method: Callable[..., Any],
        request: Any,
        wait: float = 0,
        *,
        timeout: Optional[float] = None,
    ) -> Any:
        """Makes one call, which may take the client's timeout and what it is to wait."""
        metadata = self._server.metadata()
        try:
            with call_span(type(request), metadata):
                await self._reach()
                limit = self._timeout + wait if timeout is None else timeout
                return await method(request, timeout=limit, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            known = from_rpc_error(error)
            # What has a time of its own is the renewal of a lease: nothing may make it late.
            raise (await self._told(known) if timeout is None else known) from None

    async def import_accounts(
        self, accounts: Union[AsyncIterable[account_pb2.Account], Iterable[account_pb2.Account]]
    ) -> account_pb2.ImportAccountsResponse:
        """Creates many accounts. The answer names those that were not created."""
        metadata = self._server.metadata()

        async def requests() -> AsyncIterator[account_pb2.ImportAccountsRequest]:
            async for account in as_async(accounts):
                yield account_pb2.ImportAccountsRequest(account=account)

        try:
            with call_span(account_pb2.ImportAccountsRequest, metadata):
                await self._reach()
                method: Any = self._accounts.ImportAccounts
                reply: account_pb2.ImportAccountsResponse = await method(
                    requests(), metadata=metadata
                )
                return reply
        except grpc.aio.AioRpcError as error:
            raise await self._told(from_rpc_error(error)) from None

    def acquire(
        self,
        pool_id: str,
        *,
        holder: str,
        request_id: Optional[str] = None,
        selector: Optional[redemption_pb2.AccountSelector] = None,
        lease_duration: Optional[timedelta] = None,
        wait_timeout: Optional[timedelta] = None,
        priority: int = 0,
        not_before: Optional[datetime] = None,
    ) -> AsyncLease:
        """A lease for an `async with` block: acquired at its beginning, renewed in it, released at its end.

        When it is lost, the block is cancelled and LeaseLost is raised. `priority` and `not_before` are as for
        `Client.acquire`.
        """
        request = redemption_pb2.AcquireAccountRequest(
            request_id=request_id or new_id(),
            pool_id=pool_id,
            holder=holder,
            selector=selector,
            lease_duration=lease_duration,
            wait_timeout=wait_timeout,
            priority=priority,
            not_before=zoned(not_before),
        )
        return AsyncLease(self, request)

    def redeem_batch(
        self,
        pool_id: str,
        items: Union[AsyncIterable[Item], Iterable[Item]],
        *,
        batch_id: str,
        holder: str,
        selector: Optional[redemption_pb2.AccountSelector] = None,
        max_in_flight: int = 0,
        item_timeout: Optional[timedelta] = None,
        on_progress: Optional[Progress] = None,
        reconnect_for: timedelta = timedelta(minutes=5),
    ) -> AsyncBatch:
        """Redeems cards, as `Client.redeem_batch`: iterate with `async for`."""
        opened = open_message(
            batch_id, pool_id, holder, selector, max_in_flight, item_timeout
        )
        return AsyncBatch(self, opened, items, on_progress, reconnect_for.total_seconds())

    async def watch_redemptions(
        self,
        pool_id: str,
        *,
        after: str = "",
        reconnect_for: timedelta = timedelta(minutes=5),
    ) -> AsyncIterator[redemption_pb2.WatchRedemptionsResponse]:
        """Each outcome of a pool, as `Client.watch_redemptions`."""
        what = f"the watch of pool {pool_id}"
        pauses = Pauses(reconnect_for.total_seconds(), time.monotonic(), what)
        request = redemption_pb2.WatchRedemptionsRequest(pool_id=pool_id, after=after)
        method: Any = self._redemptions.WatchRedemptions
        while True:
            try:
                async with self._stream(method, type(request), request) as call:
                    async for message in call:
                        pauses.heard(time.monotonic())
                        if message.HasField("redemption"):
                            yield message
                        request.after = message.cursor
                error: HoldfastError = ended_early()
            except HoldfastError as broken:
                if not can_go_on(broken):
                    raise
                error = broken
            pause = pauses.next(time.monotonic(), error)
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def _stream(
        self, method: Callable[..., Any], kind: type[Any], sent: Any
    ) -> AsyncIterator[Any]:
        """A stream with its span, which is cancelled at the end of the block. What breaks it is a HoldfastError."""
        metadata = self._server.metadata()
        with stream_span(kind, metadata):
            await self._reach()
            call = method(sent, metadata=metadata)
            try:
                yield call
            except grpc.aio.AioRpcError as error:
                raise await self._told(from_rpc_error(error)) from None
            finally:
                call.cancel()

    async def _reach(self) -> None:
        """Until the server was reached once, raises why it cannot be, at once: it may be named wrongly."""
        if self._reached:
            return
        self._reached = await first_state(self._channel) is grpc.ChannelConnectivity.READY
        found = None if self._reached else await asyncio.to_thread(trouble, self._server)
        if found is not None:
            raise found

    async def _told(self, error: HoldfastError) -> HoldfastError:
        """The error; or why the server cannot be reached, where it is of that kind."""
        if error.code is not grpc.StatusCode.UNAVAILABLE or error.reason:
            return error
        return await asyncio.to_thread(trouble, self._server) or error


async def first_state(channel: grpc.aio.Channel) -> Optional[grpc.ChannelConnectivity]:
    """Connects. Whether that is done or has failed; None where nothing answers."""

    async def settled() -> grpc.ChannelConnectivity:
        state = channel.get_state(try_to_connect=True)
        while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
        return state

    try:
        return await asyncio.wait_for(settled(), CONNECT_LIMIT)
    except asyncio.TimeoutError:
        return None


class AsyncLease:
    """The right to use one account, kept up by a task while the `async with` block lasts."""

    def __init__(
        self, client: AsyncClient, request: redemption_pb2.AcquireAccountRequest
    ) -> None:
        self._client = client
        self._request = request
        self._term = Term()
        self._body: Optional[asyncio.Task[Any]] = None
        self._renewing: Optional[asyncio.Task[None]] = None
        self._cancelled = False
        self._why: Optional[HoldfastError] = None
        #: Set when the lease is lost.
        self.lost = asyncio.Event()
        #: The account, as it was when it was acquired.
        self.account = account_pb2.Account()
        self._ref = account_pb2.LeaseRef()

    @property
    def pool_id(self) -> str:
        return self._ref.pool_id

    @property
    def account_id(self) -> str:
        return self._ref.account_id

    @property
    def fencing_token(self) -> int:
        return self._ref.fencing_token

    @property
    def remaining(self) -> timedelta:
        """How long it lasts when it is not renewed, by this machine's monotonic clock."""
        return timedelta(seconds=self._term.left())

    def check(self) -> None:
        """Raises LeaseLost when the lease is lost."""
        if self.lost.is_set() or self._term.left() <= 0:
            self.lost.set()
            raise lost_error(self._why)

    async def redeem(
        self,
        code: str,
        *,
        request_id: str,
        expected: Optional[Money] = None,
        release_on_completion: bool = False,
    ) -> redemption_pb2.RedeemResponse:
        """Redeems a card. Store `request_id` with it: repeated, it never redeems the card again."""
        self.check()
        request = redemption_pb2.RedeemRequest(
            request_id=request_id,
            lease=self._ref,
            code=code,
            expected=expected,
            release_on_completion=release_on_completion,
        )
        try:
            reply: redemption_pb2.RedeemResponse = await self._client._call(
                self._client._redemptions.Redeem, request, 90
            )
        except LeaseLost as error:
            self._why = error
            self.lost.set()
            raise
        return reply

    async def __aenter__(self) -> AsyncLease:
        begun, wait = time.monotonic(), waits_of(self._request)
        reply = await self._client._call(
            self._client._redemptions.AcquireAccount, self._request, wait
        )
        self.account = reply.account
        self._ref = reply.lease.ref
        self._term.begin(begun, reply.lease, waited=wait > 0 or self._request.HasField("not_before"))
        self._body = asyncio.current_task()
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._cancelled and kind is asyncio.CancelledError:
            # As asyncio.timeout does: another's cancellation is not taken for this one.
            uncancel = getattr(self._body, "uncancel", lambda: 0)
            if uncancel() == 0:
                raise lost_error(self._why) from None
            return
        if self.lost.is_set():
            return
        request = redemption_pb2.ReleaseAccountRequest(lease=self._ref)
        try:
            await self._client._call(self._client._redemptions.ReleaseAccount, request)
        except HoldfastError as failed:
            # What was done under it is done, and the server ends it in time.
            log.warning("the lease on %s is not released: %s", self.account_id, failed)

    async def _renew(self) -> None:
        duration = (
            self._request.lease_duration if self._request.HasField("lease_duration") else None
        )
        request = redemption_pb2.RenewLeaseRequest(lease=self._ref, lease_duration=duration)
        pause = self._term.until_renewal()
        while True:
            await asyncio.sleep(pause)
            left = self._term.left()
            if left <= 0:
                return self._lose(None)
            begun = time.monotonic()
            try:
                reply = await self._client._call(
                    self._client._redemptions.RenewLease, request, timeout=min(left, CALL_TIMEOUT)
                )
            except HoldfastError as error:
                if self._term.is_over(error):
                    return self._lose(error)
                pause = self._term.until_retry(error)
                continue
            self._term.begin(begun, reply.lease)
            pause = self._term.until_renewal()

    def _lose(self, why: Optional[HoldfastError]) -> None:
        self._why = self._why or why
        self.lost.set()
        if self._body is not None:
            self._cancelled = True
            self._body.cancel()


class AsyncBatch:
    """The results of a batch, to be iterated over once. `summary` is there at the end."""

    def __init__(
        self,
        client: AsyncClient,
        opened: redemption_pb2.BatchRedeemRequest,
        items: Union[AsyncIterable[Item], Iterable[Item]],
        on_progress: Optional[Progress],
        reconnect_for: float,
    ) -> None:
        self._client = client
        self._open = opened
        self._items = as_async(items)
        self._on_progress = on_progress
        self._tally = Tally()
        self._pauses = Pauses(reconnect_for, time.monotonic(), name_of(opened))
        self._again: deque[Item] = deque()
        self._failed: Optional[BaseException] = None
        # The next item, which is asked for by one stream, and may be had by the next.
        self._next: Optional[asyncio.Future[Item]] = None
        self.summary: Optional[BatchSummary] = None

    async def __aiter__(self) -> AsyncIterator[BatchResult]:
        while True:
            error: HoldfastError
            whole = False
            self._again = deque(self._tally.pending.values())
            method: Any = self._client._redemptions.BatchRedeem
            kind = redemption_pb2.BatchRedeemRequest
            try:
                async with self._client._stream(method, kind, self._messages()) as call:
                    async for message in call:
                        if message.HasField("progress"):
                            self._pauses.heard(time.monotonic())
                            if self._on_progress is not None:
                                self._on_progress(message.progress)
                        elif message.HasField("result"):
                            result = self._tally.take(await self._finished(message.result))
                            if result is not None:
                                self._pauses.heard(time.monotonic())
                                yield result
                        else:
                            whole = True
            except (HoldfastError, asyncio.CancelledError) as broken:
                if self._failed is not None:
                    raise self._failed from None
                if not isinstance(broken, HoldfastError) or not can_go_on(broken):
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
                for result in self._tally.give_up():
                    yield result
                break
            await asyncio.sleep(pause)
        self.summary = self._tally.summary()

    async def _finished(
        self, result: redemption_pb2.BatchItemResult
    ) -> redemption_pb2.BatchItemResult:
        """A result that another stream of the batch is still at work on is waited for."""
        redemption = result.redemption
        if redemption.state == redemption_pb2.REDEMPTION_STATE_SUBMITTED:
            settled = await self._client.await_redemption(
                redemption.pool_id, redemption.redemption_id
            )
            redemption.CopyFrom(settled)
        return result

    async def _messages(self) -> AsyncIterator[redemption_pb2.BatchRedeemRequest]:
        yield self._open
        while self._failed is None:
            if self._again:
                item = self._again.popleft()
            else:
                if self._next is None:
                    self._next = asyncio.ensure_future(self._items.__anext__())
                try:
                    # The stream may be cancelled meanwhile: the next one has the item then.
                    item = await asyncio.shield(self._next)
                except StopAsyncIteration:
                    return
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # The caller's own: raised where results are read.
                    self._failed = error
                    return
                self._next = None
                self._tally.pending[item.item_id] = item
            yield redemption_pb2.BatchRedeemRequest(item=item.message())


async def as_async(things: Any) -> AsyncIterator[Any]:
    if isinstance(things, AsyncIterable):
        async for thing in things:
            yield thing
    else:
        for thing in things:
            yield thing
