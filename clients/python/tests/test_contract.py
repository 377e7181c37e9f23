"""What the fake and a real server have in common."""

import asyncio
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import grpc
import pytest

from holdfast_client import (
    Account,
    AccountSelector,
    AsyncClient,
    Client,
    Item,
    LeaseLost,
    Plan,
    Pool,
    errors,
    money,
    to_datetime,
    to_decimal,
)
from holdfast_client.types import (
    ACCOUNT_STATUS_COMPLETED,
    ACCOUNT_STATUS_LOCKING,
    ACCOUNT_STATUS_PROCESSING,
    REDEMPTION_STATE_SUCCEEDED,
    RenewLeaseRequest,
    ReleaseAccountRequest,
)

TEN = money("10.00", "EUR")
SECOND = timedelta(seconds=1)


def new_id():
    return str(uuid.uuid4())


def test_a_card_is_redeemed_under_a_lease(client, pool, code):
    request_id = new_id()
    with client.acquire(pool, holder="till-7", lease_duration=60 * SECOND) as lease:
        assert (lease.pool_id, lease.account_id, lease.fencing_token) == (pool, "anna", 1)
        assert 50 * SECOND < lease.remaining <= 60 * SECOND
        first = lease.redeem(code, expected=TEN, request_id=request_id)
        assert first.redemption.state == REDEMPTION_STATE_SUCCEEDED
        assert to_decimal(first.redemption.amount) == Decimal("10.00")
        assert not first.replayed
        again = lease.redeem(code, expected=TEN, request_id=request_id)
        assert again.replayed and again.redemption == first.redemption
        assert client.get_account(pool, "anna").status == ACCOUNT_STATUS_LOCKING
    account = client.get_account(pool, "anna")
    assert account.status == ACCOUNT_STATUS_PROCESSING
    assert account.balance == TEN
    reasons = [event.reason for event in client.list_account_events(pool, "anna")]
    assert reasons == ["released", "redeemed", "redeem_begun", "acquired", "created"]


def test_one_call_redeems_a_card(client, pool, code):
    request_id = new_id()
    reply = client.redeem_card(pool, code, holder="till-7", expected=TEN, request_id=request_id)
    assert reply.redemption.state == REDEMPTION_STATE_SUCCEEDED
    again = client.redeem_card(pool, code, holder="till-7", expected=TEN, request_id=request_id)
    assert again.replayed
    assert client.get_redemption(pool, request_id=request_id) == reply.redemption
    assert client.await_redemption(pool, reply.redemption.redemption_id) == reply.redemption
    assert list(client.list_redemptions(pool)) == [reply.redemption]
    assert client.get_account(pool, "anna").lease.ref.fencing_token == 0


def test_refusals_are_classes_with_their_details(client, pool, code):
    with pytest.raises(errors.PoolNotFound) as refused:
        client.get_pool("none")
    assert refused.value.code is grpc.StatusCode.NOT_FOUND
    assert refused.value.resource == ("holdfast.v1.Pool", "none") or refused.value.resource[1] == "none"
    with pytest.raises(errors.PoolAlreadyExists):
        client.create_pool(Pool(pool_id=pool, currency_code="EUR"))
    with pytest.raises(errors.AccountAlreadyExists):
        client.create_account(Account(pool_id=pool, account_id="anna"))
    with pytest.raises(errors.RedemptionNotFound):
        client.get_redemption(pool, request_id="none")
    with pytest.raises(errors.InvalidArgument) as refused:
        client.redeem_card(pool, "x", holder="", expected=money("0", "EUR"))
    assert {"code", "holder"} <= set(refused.value.field_violations)
    first = new_id()
    client.redeem_card(pool, code, holder="till-7", expected=TEN, request_id=first)
    with pytest.raises(errors.CodeInUse) as refused:
        client.redeem_card(pool, code, holder="till-7", expected=TEN)
    assert refused.value.metadata["request_id"] == first
    assert refused.value.metadata["state"] == "SUCCEEDED"
    with pytest.raises(errors.RequestIdReused) as refused:
        client.redeem_card(pool, code, holder="till-7", expected=money("20", "EUR"), request_id=first)
    assert "expected" in refused.value.metadata["fields"]


def test_one_account_has_one_lease(client, pool):
    with client.acquire(pool, holder="till-7") as lease:
        with pytest.raises(errors.NoAccountAvailable) as refused:
            with client.acquire(pool, holder="till-8"):
                pass
        assert refused.value.metadata["locked"] == "1"
        assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    with client.acquire(pool, holder="till-8") as second:
        assert second.fencing_token == lease.fencing_token + 1


def test_who_waits_gets_the_account(client, pool):
    got = []

    def wait():
        with client.acquire(pool, holder="till-8", wait_timeout=20 * SECOND) as lease:
            got.append(lease.fencing_token)

    with client.acquire(pool, holder="till-7"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        assert got == []
    waiting.join(20)
    assert got == [2]


def test_a_repeated_acquisition_has_the_same_lease(client, pool):
    request_id = new_id()
    with client.acquire(pool, holder="till-7", request_id=request_id) as first:
        with client.acquire(pool, holder="till-7", request_id=request_id) as second:
            assert second.fencing_token == first.fencing_token


def test_a_lease_is_renewed(client, pool, code):
    with client.acquire(pool, holder="till-7", lease_duration=1.5 * SECOND) as lease:
        time.sleep(2.5)
        lease.check()
        done = lease.redeem(code, expected=TEN, request_id=new_id())
        assert done.redemption.state == REDEMPTION_STATE_SUCCEEDED


def release_by_another(client, lease):
    """Ends a lease from outside of its block."""
    ref = lease._ref
    client._call(client._redemptions.ReleaseAccount, ReleaseAccountRequest(lease=ref))


def test_a_lost_lease_is_noticed(client, pool, code):
    with client.acquire(pool, holder="till-7", lease_duration=3 * SECOND) as lease:
        release_by_another(client, lease)
        assert lease.lost.wait(10)
        with pytest.raises(LeaseLost) as lost:
            lease.check()
        assert lost.value.metadata["cause"] == "released"
        with pytest.raises(LeaseLost):
            lease.redeem(code, expected=TEN, request_id=new_id())
    assert list(client.list_redemptions(pool)) == []


def test_an_old_token_is_refused(client, pool):
    with client.acquire(pool, holder="till-7") as old:
        pass
    with client.acquire(pool, holder="till-8"):
        with pytest.raises(LeaseLost) as lost:
            client._call(client._redemptions.RenewLease, RenewLeaseRequest(lease=old._ref))
        assert lost.value.metadata["cause"] in ("taken_over", "released")


def test_a_plan_ends_at_its_target(client, pool):
    client.create_plan(Plan(pool_id=pool, plan_id="small", target=money("20", "EUR")))
    client.create_account(Account(pool_id=pool, account_id="ben", plan_id="small"))
    selector = AccountSelector(account_id="ben")
    for _ in range(2):
        client.redeem_card(
            pool, f"CODE-{new_id()}", holder="till-7", expected=TEN, selector=selector
        )
    assert client.get_account(pool, "ben").status == ACCOUNT_STATUS_COMPLETED
    with pytest.raises(errors.NoAccountAvailable) as refused:
        client.redeem_card(
            pool, f"CODE-{new_id()}", holder="till-7", expected=TEN, selector=selector
        )
    assert refused.value.metadata["completed"] == "1"


def test_a_paused_pool_begins_nothing(client, pool, code):
    client.update_pool(Pool(pool_id=pool, paused=True))
    with pytest.raises(errors.PoolPaused):
        client.redeem_card(pool, code, holder="till-7", expected=TEN)
    client.update_pool(Pool(pool_id=pool, paused=False), ["paused"])
    client.redeem_card(pool, code, holder="till-7", expected=TEN)


def test_accounts_are_imported_and_listed(client, pool):
    new = [Account(pool_id=pool, account_id=f"a-{number:03}") for number in range(700)]
    done = client.import_accounts([*new, Account(pool_id=pool, account_id="anna")])
    assert (done.received, done.created, done.failed) == (701, 700, 1)
    assert done.failures[0].index == 700
    found = [account.account_id for account in client.list_accounts(pool)]
    assert found == [account.account_id for account in new] + ["anna"]
    assert pool in [found.pool_id for found in client.list_pools()]


def items(count, prefix="batch"):
    for number in range(count):
        yield Item(f"i-{number}", f"{prefix}-{uuid.uuid4().hex}", TEN)


def more_accounts(client, pool, count):
    client.import_accounts(
        Account(pool_id=pool, account_id=f"more-{number}") for number in range(count)
    )


def test_a_batch_yields_results_and_repeats_nothing(client, pool):
    more_accounts(client, pool, 8)
    cards = list(items(30))
    heard = []
    batch = client.redeem_batch(
        pool, cards, batch_id="b-1", holder="till-7", on_progress=heard.append
    )
    results = list(batch)
    assert {result.item_id for result in results} == {card.item_id for card in cards}
    assert all(result.redemption.state == REDEMPTION_STATE_SUCCEEDED for result in results)
    assert batch.summary.succeeded == batch.summary.received == 30
    again = list(client.redeem_batch(pool, cards, batch_id="b-1", holder="till-7"))
    assert all(result.replayed for result in again) and len(again) == 30
    assert len(list(client.list_redemptions(pool, batch_id="b-1"))) == 30


def test_a_batch_goes_on_after_a_restart(client, stack, pool):
    more_accounts(client, pool, 8)
    sent = []

    def slowly():
        for item in items(40):
            if len(sent) == 20:
                restarted.wait(60)
            sent.append(item)
            yield item

    restarted = threading.Event()
    batch = client.redeem_batch(pool, slowly(), batch_id="b-2", holder="till-7")
    results = []
    for result in batch:
        results.append(result)
        if len(results) == 10:
            stack.restart()
            restarted.set()
    assert sorted(result.item_id for result in results) == sorted(item.item_id for item in sent)
    assert len(results) == 40
    assert {result.redemption.state for result in results} == {REDEMPTION_STATE_SUCCEEDED}
    assert batch.summary.succeeded == 40
    # Each card once.
    total = sum(account.balance.amount_minor for account in client.list_accounts(pool))
    assert total == 40 * 1000


def test_an_error_of_the_items_ends_the_batch(client, pool):
    def broken():
        yield from items(2)
        raise LookupError("the caller's own")

    with pytest.raises(LookupError):
        list(client.redeem_batch(pool, broken(), batch_id="b-3", holder="till-7"))


def test_the_batch_of_a_pool_that_is_not_there(client):
    with pytest.raises(errors.PoolNotFound):
        list(client.redeem_batch("none", items(2), batch_id="b-4", holder="till-7"))


def test_asyncio(client, stack, pool, code):
    more_accounts(client, pool, 8)

    async def feed():
        for item in items(20):
            await asyncio.sleep(0)
            yield item

    async def session():
        async with AsyncClient(**stack.settings) as own:
            only_anna = AccountSelector(account_id="anna")
            async with own.acquire(pool, holder="till-7", selector=only_anna) as lease:
                done = await lease.redeem(code, expected=TEN, request_id=new_id())
                assert done.redemption.state == REDEMPTION_STATE_SUCCEEDED
            assert (await own.get_account(pool, "anna")).balance == TEN
            batch = own.redeem_batch(pool, feed(), batch_id="b-5", holder="till-7")
            results = [result async for result in batch]
            assert len(results) == 20 and batch.summary.succeeded == 20
            assert len([account async for account in own.list_accounts(pool)]) == 9
            with pytest.raises(errors.PoolNotFound):
                await own.get_pool("none")

    asyncio.run(session())


def test_asyncio_a_lost_lease_cancels_its_block(client, stack, pool):
    async def session():
        async with AsyncClient(**stack.settings) as own:
            begun = time.monotonic()
            with pytest.raises(LeaseLost) as lost:
                async with own.acquire(
                    pool, holder="till-7", lease_duration=3 * SECOND
                ) as lease:
                    await own._call(
                        own._redemptions.ReleaseAccount, ReleaseAccountRequest(lease=lease._ref)
                    )
                    await asyncio.sleep(60)
            assert lost.value.metadata["cause"] == "released"
            assert time.monotonic() - begun < 10
            # The task is not cancelled for good.
            await asyncio.sleep(0)

    asyncio.run(session())


def test_asyncio_another_cancellation_stays_one(stack, pool):
    async def session():
        async with AsyncClient(**stack.settings) as own:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(hold(own), 0.5)
            assert (await own.get_account(pool, "anna")).lease.ref.fencing_token == 0

    async def hold(own):
        async with own.acquire(pool, holder="till-7"):
            await asyncio.sleep(60)

    asyncio.run(session())


def test_asyncio_a_batch_goes_on_after_a_restart(client, stack, pool):
    more_accounts(client, pool, 8)

    async def session():
        async with AsyncClient(**stack.settings) as own:
            batch = own.redeem_batch(pool, items(30), batch_id="b-6", holder="till-7")
            results = []
            async for result in batch:
                results.append(result)
                if len(results) == 5:
                    await asyncio.get_running_loop().run_in_executor(None, stack.restart)
            assert sorted(r.item_id for r in results) == sorted(f"i-{n}" for n in range(30))
            assert batch.summary.succeeded == 30

    asyncio.run(session())


def test_outcomes_are_watched_across_a_restart(client, stack, pool):
    done = [
        client.redeem_card(pool, f"CODE-{new_id()}", holder="till-7", expected=TEN).redemption
        for _ in range(2)
    ]
    watched = client.watch_redemptions(pool)
    first = next(watched)
    assert first.redemption.redemption_id == done[0].redemption_id
    stack.restart()
    assert next(watched).redemption.redemption_id == done[1].redemption_id
    watched.close()
    # From a cursor that was kept.
    again = client.watch_redemptions(pool, after=first.cursor)
    assert next(again).redemption.redemption_id == done[1].redemption_id
    again.close()
    with pytest.raises(errors.PoolNotFound):
        next(client.watch_redemptions("none"))

    async def session():
        async with AsyncClient(**stack.settings) as own:
            async for message in own.watch_redemptions(pool, after=first.cursor):
                return message.redemption.redemption_id

    assert asyncio.run(session()) == done[1].redemption_id


def test_calls_of_a_closed_client_fail(stack):
    own = Client(**stack.settings)
    own.close()
    with pytest.raises(ValueError):
        own.get_pool("none")


def is_refused_now(client, pool, waiting):
    """Whether nothing is free, and so many others wait."""
    try:
        with client.acquire(pool, holder="probe"):
            return False
    except errors.NoAccountAvailable as refused:
        return refused.metadata["waiting"] == str(waiting + 1)


def until(check, limit=20):
    ends = time.monotonic() + limit
    while not check():
        assert time.monotonic() < ends, "it did not come to be"
        time.sleep(0.02)


def test_a_higher_priority_is_served_first(client, pool):
    served = []

    def wait(name, priority):
        with client.acquire(
            pool, holder=name, wait_timeout=60 * SECOND, priority=priority
        ):
            served.append(name)

    threads = [
        threading.Thread(target=wait, args=each)
        for each in [("first", 0), ("second", 0), ("middle", 5), ("high", 9)]
    ]
    with client.acquire(pool, holder="till-7"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda: is_refused_now(client, pool, number))
    for thread in threads:
        thread.join(30)
    assert served == ["high", "middle", "first", "second"]


def test_a_card_of_a_higher_priority_is_served_first(client, stack, pool):
    def redeem(holder, **more):
        client.redeem_card(
            pool, f"CODE-{new_id()}", holder=holder, expected=TEN, request_id=f"{pool}-{holder}",
            wait_timeout=60 * SECOND, **more,
        )

    async def redeem_async():
        async with AsyncClient(**stack.settings) as own:
            await own.redeem_card(
                pool, f"CODE-{new_id()}", holder="high", expected=TEN, request_id=f"{pool}-high",
                wait_timeout=60 * SECOND, priority=9,
            )

    threads = [
        threading.Thread(target=redeem, args=("low",)),
        threading.Thread(target=redeem, args=("middle",), kwargs={"priority": 5}),
        threading.Thread(target=lambda: asyncio.run(redeem_async())),
    ]
    with client.acquire(pool, holder="till-7"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda: is_refused_now(client, pool, number))
    for thread in threads:
        thread.join(30)
    done = [redemption.request_id for redemption in client.list_redemptions(pool)]
    assert done == [f"{pool}-low", f"{pool}-middle", f"{pool}-high"]


def test_an_item_of_a_higher_priority_is_served_first(client, pool):
    cards = [
        Item(f"p-{priority}", f"CODE-{new_id()}", TEN, priority=priority) for priority in (0, 4, 9)
    ]
    results = []
    batch = client.redeem_batch(pool, cards, batch_id="b-7", holder="till-8")
    reading = threading.Thread(target=lambda: results.extend(batch))
    with client.acquire(pool, holder="till-7"):
        reading.start()
        until(lambda: is_refused_now(client, pool, 3))
    reading.join(30)
    assert batch.summary.succeeded == 3
    done = [redemption.request_id for redemption in client.list_redemptions(pool)]
    assert done == ["batch:b-7:p-0", "batch:b-7:p-4", "batch:b-7:p-9"]


def test_nothing_is_locked_before_its_time(client, stack, pool):
    got = []
    not_before = datetime.now(timezone.utc) + 3 * SECOND

    def wait():
        # Its own timeout is shorter than the wait, which is added to it.
        with Client(**stack.settings, timeout=1.5 * SECOND) as own:
            with own.acquire(pool, holder="till-8", not_before=not_before) as lease:
                got.append((lease.fencing_token, datetime.now(timezone.utc)))
                lease.check()

    async def wait_async():
        async with AsyncClient(**stack.settings, timeout=1.5 * SECOND) as own:
            async with own.acquire(
                pool,
                holder="till-9",
                not_before=not_before + 0.5 * SECOND,
                wait_timeout=20 * SECOND,
                priority=3,
            ) as lease:
                got.append((lease.fencing_token, datetime.now(timezone.utc)))

    waiting = [threading.Thread(target=wait), threading.Thread(target=lambda: asyncio.run(wait_async()))]
    for thread in waiting:
        thread.start()
    with client.acquire(pool, holder="till-7") as first:
        assert first.fencing_token == 1
    for thread in waiting:
        thread.join(30)
    assert [token for token, _ in got] == [2, 3]
    assert got[0][1] >= not_before
    # A time that has passed is none.
    with client.acquire(pool, holder="till-8", not_before=not_before) as last:
        assert last.fencing_token == 4


def test_an_item_is_not_begun_before_its_time(client, pool):
    not_before = datetime.now(timezone.utc) + 1.5 * SECOND
    cards = [
        Item("later", f"CODE-{new_id()}", TEN, not_before=not_before),
        Item("now", f"CODE-{new_id()}", TEN),
    ]
    batch = client.redeem_batch(pool, cards, batch_id="b-8", holder="till-7")
    results = {result.item_id: result.redemption for result in batch}
    assert list(results) == ["now", "later"]
    assert to_datetime(results["later"].create_time) >= not_before
    # What is known is answered at once, and whatever the time is.
    again = [Item("later", cards[0].code, TEN, not_before=not_before + timedelta(hours=1)), cards[1]]
    batch = client.redeem_batch(pool, again, batch_id="b-8", holder="till-7")
    assert all(result.replayed for result in batch) and batch.summary.succeeded == 2


def test_priorities_and_times_have_bounds(client, pool, code):
    now = datetime.now(timezone.utc)

    def violations(call):
        with pytest.raises(errors.InvalidArgument) as refused:
            call()
        return set(refused.value.field_violations)

    def acquire(**more):
        with client.acquire(pool, holder="till-7", **more):
            pass

    for priority in (-1, 10):
        assert violations(lambda: acquire(priority=priority)) == {"priority"}
        assert violations(
            lambda: client.redeem_card(pool, code, holder="till-7", expected=TEN, priority=priority)
        ) == {"priority"}
    assert violations(lambda: acquire(not_before=now + timedelta(minutes=11))) == {"not_before"}
    cards = [
        Item("priority", f"CODE-{new_id()}", TEN, priority=10),
        Item("time", f"CODE-{new_id()}", TEN, not_before=now + timedelta(hours=25)),
    ]
    results = client.redeem_batch(pool, cards, batch_id="b-9", holder="till-7")
    wrong = {result.item_id: set(result.error.field_violations) for result in results}
    assert wrong == {"priority": {"item.priority"}, "time": {"item.not_before"}}
    # Times have a zone: one without it would be taken for another.
    with pytest.raises(ValueError):
        client.acquire(pool, holder="till-7", not_before=datetime.now())
    with pytest.raises(ValueError):
        Item("zone", code, TEN, not_before=datetime.now())
