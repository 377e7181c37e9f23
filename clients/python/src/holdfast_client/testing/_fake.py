"""The fake's gRPC server."""

from __future__ import annotations

import functools
import queue
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Callable, Optional, TypeVar

import grpc

from .._proto.holdfast.v1 import account_pb2, account_pb2_grpc, pool_pb2, pool_pb2_grpc
from .._proto.holdfast.v1 import redemption_pb2 as pb
from .._proto.holdfast.v1 import redemption_pb2_grpc
from ..client import Client
from ._corrections import correct_balance
from ._refused import Fields, Refused, exists, not_found
from ._state import OPEN, AccountState, Card, PoolState, RedemptionState, State, Waiter, page

THREADS = 64
IN_FLIGHT = 64
PROGRESS_EVERY = 1.0
# How far not_before may be ahead, of an acquisition and of an item of a batch.
MOST_AHEAD = timedelta(minutes=10)
MOST_AHEAD_ITEM = timedelta(hours=24)
F = TypeVar("F", bound=Callable[..., Any])


def answers(method: F) -> F:
    """A method whose refusals become statuses. It has the state for itself, but while it waits."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            with self.state.changed:
                return method(self, request, context)
        except Refused as refused:
            return refused.end(context)

    return answer  # type: ignore[return-value]


class FakeHoldfast:
    """A server of the contract on a port of this machine, with what it keeps in memory.

    It keeps the contract for pools, plans, accounts, leases, redemptions and batches. It asks nobody who they are, and has
    no holds, days, shares of holders, reversals or providers. `cards` says what becomes of a
    card; one that is not there is worth what is expected. `advance` moves its clock.
    """

    def __init__(self) -> None:
        self._state = State()
        #: What becomes of which code.
        self.cards: dict[str, Card] = self._state.cards
        self._port = 0
        self._server: Optional[grpc.Server] = None
        self._start()

    def _start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
        pool_pb2_grpc.add_PoolServiceServicer_to_server(_Pools(self._state), server)
        account_pb2_grpc.add_AccountServiceServicer_to_server(_Accounts(self._state), server)
        redemption_pb2_grpc.add_RedemptionServiceServicer_to_server(
            _Redemptions(self._state), server
        )
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        self._server = server

    @property
    def target(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def client(self) -> Client:
        return Client(self.target)

    def advance(self, by: timedelta) -> None:
        """Moves the clock: leases end as if the time had passed."""
        self._state.advance(by)

    def settle(self, pool_id: str, redemption_id: str, card: Optional[Card] = None) -> None:
        """Gives a redemption that is in doubt its outcome."""
        with self._state.changed:
            pool = self._state.pool(pool_id)
            for redemption in pool.redemptions:
                if redemption.message.redemption_id == redemption_id:
                    if redemption.message.state not in OPEN:
                        raise ValueError("its outcome is known already")
                    self._state.settle(pool, redemption, card or Card())
                    return
        raise KeyError(redemption_id)

    def restart(self) -> None:
        """Cuts all connections, and serves again: for what a client does then."""
        self.stop()
        self._start()

    def stop(self) -> None:
        if self._server is not None:
            # Bounded: a handler of the fake never holds up the end of a test.
            self._server.stop(None).wait(10)
            self._server = None

    def __enter__(self) -> FakeHoldfast:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def merge(target: Any, source: Any, paths: list[str], never: tuple[str, ...]) -> None:
    """Changes the fields that are named, or those that are set."""
    for path in paths or [field.name for field, _ in source.ListFields()]:
        if path in never:
            continue
        target.ClearField(path)
        # Only this field of a copy is merged: whatever kind it is.
        one = type(source)()
        one.CopyFrom(source)
        for field in source.DESCRIPTOR.fields:
            if field.name != path:
                one.ClearField(field.name)
        target.MergeFrom(one)


def waiter_of(request: Any, context: grpc.ServicerContext) -> Waiter:
    return Waiter(request.holder, request.selector, request.priority, context.is_active)


class _Pools(pool_pb2_grpc.PoolServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    @answers
    def CreatePool(self, request: Any, context: Any) -> Any:
        pool = pool_pb2.Pool()
        pool.CopyFrom(request.pool)
        fields = Fields()
        fields.text("pool.pool_id", pool.pool_id, 128)
        fields.text("pool.currency_code", pool.currency_code, 3)
        fields.end()
        if pool.pool_id in self.state.pools:
            raise exists("pool", pool.pool_id)
        defaults = {"default": 60, "min": 1, "max": 600}
        for name, length in defaults.items():
            if not pool.HasField(f"{name}_lease_duration"):
                getattr(pool, f"{name}_lease_duration").FromSeconds(length)
        pool.paused, pool.draining = pool.paused, pool.draining
        pool.amount_mismatch_policy = (
            pool.amount_mismatch_policy or pool_pb2.AMOUNT_MISMATCH_POLICY_ACCEPT
        )
        pool.holder_share_percent = pool.holder_share_percent or 50
        pool.provider_id = pool.provider_id or "holdfast"
        pool.create_time.FromDatetime(self.state.time())
        pool.update_time.CopyFrom(pool.create_time)
        self.state.pools[pool.pool_id] = PoolState(pool)
        return pool_pb2.CreatePoolResponse(pool=pool)

    @answers
    def GetPool(self, request: Any, context: Any) -> Any:
        return pool_pb2.GetPoolResponse(pool=self.state.pool(request.pool_id).message)

    @answers
    def ListPools(self, request: Any, context: Any) -> Any:
        pools = [self.state.pools[name].message for name in sorted(self.state.pools)]
        pools, token = page(pools, request.page_token, request.page_size)
        return pool_pb2.ListPoolsResponse(pools=pools, next_page_token=token)

    @answers
    def UpdatePool(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.pool.pool_id).message
        never = ("pool_id", "currency_code", "provider_id")
        merge(pool, request.pool, list(request.update_mask.paths), never)
        pool.update_time.FromDatetime(self.state.time())
        self.state.changed.notify_all()
        return pool_pb2.UpdatePoolResponse(pool=pool)

    @answers
    def DeletePool(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.pool_id)
        if pool.accounts:
            counts = {"accounts": str(len(pool.accounts)), "redemptions": str(len(pool.redemptions))}
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, "POOL_IN_USE", "the pool is in use", counts
            )
        del self.state.pools[request.pool_id]
        return pool_pb2.DeletePoolResponse()

    def _plan(self, pool_id: str, plan_id: str) -> pool_pb2.Plan:
        pool = self.state.pools.get(pool_id)
        if pool is None or plan_id not in pool.plans:
            raise not_found("plan", plan_id)
        return pool.plans[plan_id]

    @answers
    def CreatePlan(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.plan.pool_id)
        fields = Fields()
        fields.text("plan.plan_id", request.plan.plan_id, 128)
        fields.amount("plan.target", request.plan.target, pool.message.currency_code)
        fields.end()
        if request.plan.plan_id in pool.plans:
            raise exists("plan", request.plan.plan_id)
        plan = pool_pb2.Plan()
        plan.CopyFrom(request.plan)
        plan.create_time.FromDatetime(self.state.time())
        plan.update_time.CopyFrom(plan.create_time)
        pool.plans[plan.plan_id] = plan
        return pool_pb2.CreatePlanResponse(plan=plan)

    @answers
    def GetPlan(self, request: Any, context: Any) -> Any:
        return pool_pb2.GetPlanResponse(plan=self._plan(request.pool_id, request.plan_id))

    @answers
    def ListPlans(self, request: Any, context: Any) -> Any:
        plans = self.state.pool(request.pool_id).plans
        found, token = page(
            [plans[name] for name in sorted(plans)], request.page_token, request.page_size
        )
        return pool_pb2.ListPlansResponse(plans=found, next_page_token=token)

    @answers
    def UpdatePlan(self, request: Any, context: Any) -> Any:
        plan = self._plan(request.plan.pool_id, request.plan.plan_id)
        merge(plan, request.plan, list(request.update_mask.paths), ("pool_id", "plan_id"))
        plan.update_time.FromDatetime(self.state.time())
        self.state.changed.notify_all()
        return pool_pb2.UpdatePlanResponse(plan=plan)

    @answers
    def DeletePlan(self, request: Any, context: Any) -> Any:
        self._plan(request.pool_id, request.plan_id)
        pool = self.state.pools[request.pool_id]
        for account_id, account in pool.accounts.items():
            if account.message.plan_id == request.plan_id:
                metadata = {"account_id": account_id}
                raise Refused(
                    grpc.StatusCode.FAILED_PRECONDITION, "PLAN_IN_USE", "it is in use", metadata
                )
        del pool.plans[request.plan_id]
        return pool_pb2.DeletePlanResponse()


class _Accounts(account_pb2_grpc.AccountServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def _create(self, wanted: account_pb2.Account) -> account_pb2.Account:
        pool = self.state.pool(wanted.pool_id)
        fields = Fields()
        fields.text("account.account_id", wanted.account_id, 256)
        fields.end()
        if wanted.plan_id and wanted.plan_id not in pool.plans:
            raise not_found("plan", wanted.plan_id)
        if wanted.account_id in pool.accounts:
            raise exists("account", wanted.account_id)
        account = account_pb2.Account()
        account.CopyFrom(wanted)
        account.ClearField("credentials")
        account.balance.currency_code = pool.message.currency_code
        account.login_status = account.login_status or account_pb2.LOGIN_STATUS_ACTIVE
        account.paused, account.draining = account.paused, account.draining
        account.create_time.FromDatetime(self.state.time())
        account.update_time.CopyFrom(account.create_time)
        account.plan_day = 1
        account.status = account_pb2.ACCOUNT_STATUS_WAITING
        plan = pool.plans.get(account.plan_id)
        if plan is not None and account.balance.amount_minor >= plan.target.amount_minor:
            account.status = account_pb2.ACCOUNT_STATUS_COMPLETED
        made = AccountState(account)
        pool.accounts[account.account_id] = made
        self.state.event(made, "created")
        return account

    @answers
    def CreateAccount(self, request: Any, context: Any) -> Any:
        return account_pb2.CreateAccountResponse(account=self._create(request.account))

    def ImportAccounts(self, request_iterator: Any, context: Any) -> Any:
        done = account_pb2.ImportAccountsResponse()
        try:
            for request in request_iterator:
                with self.state.changed:
                    self.state.pool(request.account.pool_id)
                    self._import(request.account, done)
        except Refused as refused:
            refused.end(context)
        return done

    def _import(
        self, account: account_pb2.Account, done: account_pb2.ImportAccountsResponse
    ) -> None:
        done.received += 1
        try:
            self._create(account)
            done.created += 1
        except Refused as refused:
            done.failed += 1
            if len(done.failures) < 1000:
                index, name = done.received - 1, account.account_id[:256]
                done.failures.add(index=index, account_id=name, error=refused.status)

    @answers
    def GetAccount(self, request: Any, context: Any) -> Any:
        pool = self.state.pools.get(request.pool_id)
        if pool is None:
            raise not_found("account", request.account_id)
        account = self.state.account(pool, request.account_id)
        return account_pb2.GetAccountResponse(account=account.message)

    @answers
    def ListAccounts(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.pool_id)
        accounts = [self.state.account(pool, name).message for name in sorted(pool.accounts)]
        found = [
            account
            for account in accounts
            if request.status in (0, account.status)
            and request.login_status in (0, account.login_status)
            and request.plan_id in ("", account.plan_id)
        ]
        found, token = page(found, request.page_token, request.page_size)
        return account_pb2.ListAccountsResponse(accounts=found, next_page_token=token)

    @answers
    def UpdateAccount(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.account.pool_id)
        account = self.state.account(pool, request.account.account_id)
        kept = ("pool_id", "account_id", "status", "lease", "balance", "credentials")
        merge(account.message, request.account, list(request.update_mask.paths), kept)
        self.state.event(account, "updated")
        return account_pb2.UpdateAccountResponse(account=account.message)

    @answers
    def CorrectBalance(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.pool_id)
        account = self.state.account(pool, request.account_id)
        correct_balance(self.state, pool, account, request)
        return account_pb2.CorrectBalanceResponse(account=account.message)

    @answers
    def ListAccountEvents(self, request: Any, context: Any) -> Any:
        account = self.state.account(self.state.pool(request.pool_id), request.account_id)
        events, token = page(account.events[::-1], request.page_token, request.page_size)
        return account_pb2.ListAccountEventsResponse(account_events=events, next_page_token=token)


class _Redemptions(redemption_pb2_grpc.RedemptionServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    @answers
    def AcquireAccount(self, request: Any, context: Any) -> Any:
        fields = Fields()
        fields.text("holder", request.holder, 256)
        fields.priority("priority", request.priority)
        fields.end()
        if request.HasField("not_before"):
            self.state.wait_until(request.not_before, "not_before", MOST_AHEAD, context.is_active)
        pool = self.state.pool(request.pool_id)
        request_id = request.request_id or str(uuid.uuid4())
        before = pool.acquired.get(request_id)
        if before is None:
            length = self.state.duration(pool, request)
            wait = request.wait_timeout.ToTimedelta().total_seconds()
            account = self.state.acquire(pool, waiter_of(request, context), length, wait)
            pool.acquired[request_id] = (account.message.account_id, account.token)
        else:
            ref = account_pb2.LeaseRef(
                pool_id=request.pool_id, account_id=before[0], fencing_token=before[1]
            )
            _, account = self.state.leased(ref)
        lease = self.state.lease(account)
        return pb.AcquireAccountResponse(lease=lease, account=account.message)

    @answers
    def RenewLease(self, request: Any, context: Any) -> Any:
        pool, account = self.state.leased(request.lease)
        account.lease_end = self.state.now() + self.state.duration(pool, request)
        account.message.lease.expire_time.FromDatetime(self.state.time(account.lease_end))
        self.state.event(account, "renewed", account.message.lease.holder)
        return pb.RenewLeaseResponse(lease=self.state.lease(account))

    @answers
    def ReleaseAccount(self, request: Any, context: Any) -> Any:
        return pb.ReleaseAccountResponse(account=self.state.release(request.lease).message)

    def _check(self, request: Any, pool_id: str, holder: Optional[str]) -> PoolState:
        fields = Fields()
        fields.text("request_id", request.request_id, 128)
        fields.code(request.code)
        if holder is not None:
            fields.text("holder", holder, 256)
            fields.priority("priority", request.priority)
        pool = self.state.pools.get(pool_id)
        if request.HasField("expected"):
            currency = request.expected.currency_code
            if pool is not None:
                currency = pool.message.currency_code
            fields.amount("expected", request.expected, currency)
        fields.end()
        return self.state.pool(pool_id)

    @answers
    def Redeem(self, request: Any, context: Any) -> Any:
        pool = self._check(request, request.lease.pool_id, None)
        known = self.state.known(pool, request.request_id, request.code.strip(), request.expected)
        if known is not None:
            return pb.RedeemResponse(redemption=known.message, replayed=True)
        _, account = self.state.leased(request.lease)
        begun = self.state.begin(
            pool,
            account,
            request.request_id,
            request.code.strip(),
            request.expected if request.HasField("expected") else None,
            request.release_on_completion,
        )
        return pb.RedeemResponse(redemption=begun.message)

    @answers
    def RedeemCard(self, request: Any, context: Any) -> Any:
        pool = self._check(request, request.pool_id, request.holder)
        begun, replayed = self.state.redeem_card(
            pool,
            request.request_id,
            waiter_of(request, context),
            request.code.strip(),
            request.expected if request.HasField("expected") else None,
            request.wait_timeout.ToTimedelta().total_seconds(),
        )
        return pb.RedeemCardResponse(redemption=begun.message, replayed=replayed)

    def _find(self, request: Any) -> RedemptionState:
        pool = self.state.pools.get(request.pool_id)
        if pool is not None and request.request_id in pool.requests:
            return pool.requests[request.request_id]
        for redemption in pool.redemptions if pool is not None else ():
            if redemption.message.redemption_id == request.redemption_id:
                return redemption
        raise not_found("redemption", request.redemption_id or request.request_id)

    @answers
    def GetRedemption(self, request: Any, context: Any) -> Any:
        return pb.GetRedemptionResponse(redemption=self._find(request).message)

    @answers
    def AwaitRedemption(self, request: Any, context: Any) -> Any:
        redemption = self._find(request)
        wait = 30.0
        if request.HasField("timeout"):
            wait = request.timeout.ToTimedelta().total_seconds()
        self.state.changed.wait_for(lambda: redemption.message.state not in OPEN, wait)
        return pb.AwaitRedemptionResponse(redemption=redemption.message)

    @answers
    def ListRedemptions(self, request: Any, context: Any) -> Any:
        pool = self.state.pool(request.pool_id)
        batch = f"batch:{request.batch_id}:"
        found = [
            redemption.message
            for redemption in reversed(pool.redemptions)
            if (not request.states or redemption.message.state in request.states)
            and request.account_id in ("", redemption.message.account_id)
            and (not request.batch_id or redemption.message.request_id.startswith(batch))
        ]
        found, token = page(found, request.page_token, request.page_size)
        return pb.ListRedemptionsResponse(redemptions=found, next_page_token=token)

    def _not_here(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "the fake does not have this")

    ExplainAcquire = ResolveRedemption = ReverseRedemption = _not_here

    def WatchRedemptions(self, request: Any, context: Any) -> Any:
        """Outcomes in the order of their beginning. A cursor is how many of them came."""
        sent = 0 if request.after in ("", "now") else int(request.after)
        while context.is_active():
            with self.state.changed:
                try:
                    pool = self.state.pool(request.pool_id)
                except Refused as refused:
                    refused.end(context)
                    return
                if request.after == "now" and not sent:
                    sent = len(pool.redemptions)
                news = [redemption.message for redemption in pool.redemptions[sent:]]
                if not news or news[0].state in OPEN:
                    self.state.changed.wait(0.2)
                    continue
                sent += 1
                reply = pb.WatchRedemptionsResponse(redemption=news[0], cursor=str(sent))
            yield reply

    def BatchRedeem(self, request_iterator: Any, context: Any) -> Any:
        try:
            first = next(request_iterator).open
            with self.state.changed:
                pool = self.state.pool(first.pool_id)
                if not any(name.startswith(f"batch:{first.batch_id}:") for name in pool.requests):
                    self.state.open_for_leases(pool)
            yield from self._items(first, pool, request_iterator, context)
        except Refused as refused:
            refused.end(context)

    def _items(
        self, opened: Any, pool: PoolState, items: Any, context: Any
    ) -> Iterator[pb.BatchRedeemResponse]:
        """Results as they come, of as many items at once as the batch says."""
        done: queue.SimpleQueue[Optional[pb.BatchItemResult]] = queue.SimpleQueue()
        reading = threading.Thread(
            target=self._read_items, args=(opened, pool, items, context, done), daemon=True
        )
        reading.start()
        progress = pb.BatchProgress()
        while True:
            try:
                result = done.get(timeout=PROGRESS_EVERY)
            except queue.Empty:
                yield pb.BatchRedeemResponse(progress=progress)
                continue
            if result is None:
                break
            progress.received += 1
            state = result.redemption.state
            if result.HasField("error"):
                progress.rejected += 1
            elif state == pb.REDEMPTION_STATE_SUCCEEDED:
                progress.succeeded += 1
            elif state == pb.REDEMPTION_STATE_FAILED:
                progress.failed += 1
                progress.retryable += result.redemption.failure.retryable
            else:
                progress.in_doubt += 1
            yield pb.BatchRedeemResponse(result=result)
            yield pb.BatchRedeemResponse(progress=progress)
        summary = pb.BatchSummary()
        for field in summary.DESCRIPTOR.fields:
            setattr(summary, field.name, getattr(progress, field.name))
        yield pb.BatchRedeemResponse(summary=summary)

    def _read_items(
        self, opened: Any, pool: PoolState, items: Any, context: Any, done: Any
    ) -> None:
        """Begins the items as they come, each on a thread of its own. `done` gets the results, and None at the end."""
        most = opened.max_in_flight or IN_FLIGHT
        room = threading.Semaphore(most)

        def finish(item: Any) -> None:
            try:
                done.put(self._item(opened, pool, item, context))
            finally:
                room.release()

        try:
            with ThreadPoolExecutor(most) as threads:
                while True:
                    room.acquire()
                    threads.submit(finish, next(items).item)
        except (StopIteration, grpc.RpcError):
            # All are read, or the stream has broken.
            pass
        finally:
            done.put(None)

    def _item(self, opened: Any, pool: PoolState, item: Any, context: Any) -> pb.BatchItemResult:
        result = pb.BatchItemResult(item_id=item.item_id)
        selector = pb.AccountSelector()
        selector.CopyFrom(opened.selector)
        merge(selector, item.selector, [], ())
        waiter = Waiter(opened.holder, selector, item.priority, context.is_active)
        wait = 30.0
        if opened.HasField("item_timeout"):
            wait = opened.item_timeout.ToTimedelta().total_seconds()
        try:
            with self.state.changed:
                fields = Fields()
                fields.text("item_id", item.item_id, 128)
                fields.code(item.code)
                fields.priority("item.priority", item.priority)
                if item.HasField("expected"):
                    fields.amount("expected", item.expected, pool.message.currency_code)
                fields.end()
                request_id = f"batch:{opened.batch_id}:{item.item_id}"
                known = pool.requests.get(request_id)
                if item.HasField("not_before") and (known is None or self.state.is_again(known)):
                    self.state.wait_until(
                        item.not_before, "item.not_before", MOST_AHEAD_ITEM, context.is_active
                    )
                begun, replayed = self.state.redeem_card(
                    pool,
                    request_id,
                    waiter,
                    item.code.strip(),
                    item.expected if item.HasField("expected") else None,
                    wait,
                )
                result.redemption.CopyFrom(begun.message)
                result.replayed = replayed
        except Refused as refused:
            result.error.CopyFrom(refused.status)
        return result
