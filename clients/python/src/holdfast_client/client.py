"""The client without asyncio."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Callable, Optional

import grpc

from . import _connect
from ._batch import Batch, Progress, ended_early, open_message
from ._methods_sync import Methods
from ._proto.holdfast.v1 import account_pb2, redemption_pb2
from ._proto.holdfast.v1.access_pb2_grpc import AccessServiceStub
from ._proto.holdfast.v1.account_pb2_grpc import AccountServiceStub
from ._proto.holdfast.v1.common_pb2 import Money
from ._proto.holdfast.v1.pool_pb2_grpc import PoolServiceStub
from ._proto.holdfast.v1.provider_pb2_grpc import ProviderServiceStub
from ._proto.holdfast.v1.redemption_pb2_grpc import RedemptionServiceStub
from ._reach import CONNECT_LIMIT, trouble
from ._requests import CALL_TIMEOUT, Item, new_id, waits_of, zoned
from ._tally import Pauses, can_go_on
from ._term import Term
from ._tracing import call_span, stream_span
from .errors import HoldfastError, LeaseLost, from_rpc_error

log = logging.getLogger("holdfast_client")


class Client(Methods):
    """Calls a Holdfast server. One client serves many threads; `with` closes it.

    `target` is host:port, https://host:port or http://host:port. It is called over TLS but for http:// and
    `insecure=True`.
    """

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
            self._channel = grpc.insecure_channel(to, options)
        else:
            self._channel = grpc.secure_channel(to, credentials, options)
        self._pools = PoolServiceStub(self._channel)
        self._accounts = AccountServiceStub(self._channel)
        self._redemptions = RedemptionServiceStub(self._channel)
        self._providers = ProviderServiceStub(self._channel)
        self._access = AccessServiceStub(self._channel)

    @classmethod
    def from_env(cls) -> Client:
        """By HOLDFAST_SERVER, HOLDFAST_CA_FILE, HOLDFAST_TOKEN_FILE and the like, as the commands."""
        return cls(**_connect.from_env(os.environ))

    def close(self) -> None:
        # Calls that come later are refused by the channel itself, which is not asked for its state any more.
        self._reached = True
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
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
                self._reach()
                limit = self._timeout + wait if timeout is None else timeout
                return method(request, timeout=limit, metadata=metadata)
        except grpc.RpcError as error:
            known = from_rpc_error(error)
            # What has a time of its own is the renewal of a lease: nothing may make it late.
            raise (self._told(known) if timeout is None else known) from None

    def import_accounts(
        self, accounts: Iterable[account_pb2.Account]
    ) -> account_pb2.ImportAccountsResponse:
        """Creates many accounts. The answer names those that were not created."""
        metadata = self._server.metadata()
        requests = (account_pb2.ImportAccountsRequest(account=account) for account in accounts)
        try:
            with call_span(account_pb2.ImportAccountsRequest, metadata):
                self._reach()
                return self._accounts.ImportAccounts(requests, metadata=tuple(metadata))
        except grpc.RpcError as error:
            raise self._told(from_rpc_error(error)) from None

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
    ) -> Lease:
        """A lease for a `with` block: acquired at its beginning, renewed in it, released at its end.

        Of those who wait for an account, one of a higher `priority` (0 to 9) is served first. Nothing is locked before
        `not_before`: a time with a zone, at most 10 minutes from now. `wait_timeout` counts from then.
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
        return Lease(self, request)

    def redeem_batch(
        self,
        pool_id: str,
        items: Iterable[Item],
        *,
        batch_id: str,
        holder: str,
        selector: Optional[redemption_pb2.AccountSelector] = None,
        max_in_flight: int = 0,
        item_timeout: Optional[timedelta] = None,
        on_progress: Optional[Progress] = None,
        reconnect_for: timedelta = timedelta(minutes=5),
    ) -> Batch:
        """Redeems cards; iterate over the answer for their results, as they come.

        A stream that breaks is opened again, and the items without a result are sent again. The error is raised when
        nothing was heard of the server for `reconnect_for`. The same `batch_id` and items may be given again.
        """
        opened = open_message(
            batch_id, pool_id, holder, selector, max_in_flight, item_timeout
        )
        return Batch(self, opened, items, on_progress, reconnect_for.total_seconds())

    def watch_redemptions(
        self,
        pool_id: str,
        *,
        after: str = "",
        reconnect_for: timedelta = timedelta(minutes=5),
    ) -> Iterator[redemption_pb2.WatchRedemptionsResponse]:
        """Each outcome of a pool, at least once, with the cursor to keep when it is dealt with.

        A stream that breaks is opened again after the last cursor. The error is raised when nothing was heard of the
        server for `reconnect_for`.
        """
        what = f"the watch of pool {pool_id}"
        pauses = Pauses(reconnect_for.total_seconds(), time.monotonic(), what)
        request = redemption_pb2.WatchRedemptionsRequest(pool_id=pool_id, after=after)
        method = self._redemptions.WatchRedemptions
        while True:
            try:
                with self._stream(method, redemption_pb2.WatchRedemptionsRequest, request) as call:
                    for message in call:
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
            time.sleep(pause)

    @contextmanager
    def _stream(self, method: Callable[..., Any], kind: type[Any], sent: Any) -> Iterator[Any]:
        """A stream with its span, which is cancelled at the end of the block. What breaks it is a HoldfastError."""
        metadata = self._server.metadata()
        with stream_span(kind, metadata):
            self._reach()
            call = method(sent, metadata=tuple(metadata))
            try:
                yield call
            except grpc.RpcError as error:
                raise self._told(from_rpc_error(error)) from None
            finally:
                call.cancel()

    def _reach(self) -> None:
        """Until the server was reached once, raises why it cannot be, at once: it may be named wrongly."""
        if self._reached:
            return
        self._reached = first_state(self._channel) is grpc.ChannelConnectivity.READY
        found = None if self._reached else trouble(self._server)
        if found is not None:
            raise found

    def _told(self, error: HoldfastError) -> HoldfastError:
        """The error; or why the server cannot be reached, where it is of that kind."""
        is_of_the_way = error.code is grpc.StatusCode.UNAVAILABLE and not error.reason
        return (trouble(self._server) if is_of_the_way else None) or error


def first_state(channel: grpc.Channel) -> Optional[grpc.ChannelConnectivity]:
    """Connects. Whether that is done or has failed; None where nothing answers."""
    settled = threading.Event()
    states = []

    def see(state: grpc.ChannelConnectivity) -> None:
        if state not in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
            states.append(state)
            settled.set()

    channel.subscribe(see, try_to_connect=True)
    settled.wait(CONNECT_LIMIT)
    channel.unsubscribe(see)
    return states[0] if states else None


class Lease:
    """The right to use one account, kept up by a thread while the `with` block lasts."""

    def __init__(
        self, client: Client, request: redemption_pb2.AcquireAccountRequest
    ) -> None:
        self._client = client
        self._request = request
        self._ended = threading.Event()
        self._renewing: Optional[threading.Thread] = None
        self._why: Optional[HoldfastError] = None
        self._term = Term()
        #: Set when the lease is lost: nothing more can be done under it.
        self.lost = threading.Event()
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
        if not self.lost.is_set() and self._term.left() <= 0:
            self._lose(None)
        if self.lost.is_set():
            raise lost_error(self._why)

    def redeem(
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
            reply: redemption_pb2.RedeemResponse = self._client._call(
                self._client._redemptions.Redeem, request, 90
            )
        except LeaseLost as error:
            self._lose(error)
            raise
        return reply

    def __enter__(self) -> Lease:
        begun, wait = time.monotonic(), waits_of(self._request)
        reply = self._client._call(
            self._client._redemptions.AcquireAccount, self._request, wait
        )
        self.account = reply.account
        self._ref = reply.lease.ref
        # A call that waited for an account has begun long before the lease did. Its expire_time and acquire_time
        # say how long it is; what remained says how much of that was left when the database answered.
        self._term.begin(begun, reply.lease, waited=wait > 0 or self._request.HasField("not_before"))
        self._renewing = threading.Thread(
            target=self._renew, name=f"holdfast lease {self.account_id}", daemon=True
        )
        self._renewing.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._ended.set()
        if self._renewing is not None:
            self._renewing.join()
        if self.lost.is_set():
            return
        request = redemption_pb2.ReleaseAccountRequest(lease=self._ref)
        try:
            self._client._call(self._client._redemptions.ReleaseAccount, request)
        except HoldfastError as failed:
            # What was done under it is done, and the server ends it in time.
            log.warning("the lease on %s is not released: %s", self.account_id, failed)

    def _renew(self) -> None:
        request = redemption_pb2.RenewLeaseRequest(
            lease=self._ref, lease_duration=self._duration()
        )
        pause = self._term.until_renewal()
        while not self._ended.wait(pause):
            left = self._term.left()
            if left <= 0:
                self._lose(None)
                return
            begun = time.monotonic()
            try:
                reply = self._client._call(
                    self._client._redemptions.RenewLease, request, timeout=min(left, CALL_TIMEOUT)
                )
            except HoldfastError as error:
                if self._term.is_over(error):
                    self._lose(error)
                    return
                pause = self._term.until_retry(error)
                continue
            except ValueError:  # The client was closed.
                self._lose(None)
                return
            self._term.begin(begun, reply.lease)
            pause = self._term.until_renewal()

    def _duration(self) -> Any:
        return self._request.lease_duration if self._request.HasField("lease_duration") else None

    def _lose(self, why: Optional[HoldfastError]) -> None:
        self._why = self._why or why
        self.lost.set()


def lost_error(why: Optional[HoldfastError]) -> LeaseLost:
    """A new error for each raise, with what the server said."""
    if isinstance(why, LeaseLost):
        return LeaseLost(why.message, code=why.code, metadata=why.metadata)
    message = "the lease has run out" if why is None else f"the lease is lost: {why.message}"
    return LeaseLost(message, code=grpc.StatusCode.ABORTED, metadata={"cause": "expired"})
