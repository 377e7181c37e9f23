"""What the fake keeps: pools, plans, accounts, leases, redemptions. The rules are those of the contract."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Callable, Optional, TypeVar, Union

from google.protobuf.timestamp_pb2 import Timestamp

from .._proto.holdfast.v1 import account_pb2, pool_pb2, redemption_pb2 as pb
from .._proto.holdfast.v1.common_pb2 import Money
from ._refused import Code, Refused, lease_lost, not_found, precondition

LOCKING = account_pb2.ACCOUNT_STATUS_LOCKING
PROCESSING = account_pb2.ACCOUNT_STATUS_PROCESSING
WAITING = account_pb2.ACCOUNT_STATUS_WAITING
COMPLETED = account_pb2.ACCOUNT_STATUS_COMPLETED
OPEN = (
    pb.REDEMPTION_STATE_SUBMITTED,
    pb.REDEMPTION_STATE_IN_DOUBT,
    pb.REDEMPTION_STATE_NEEDS_REVIEW,
)
DEFAULT_WORTH = 1000
T = TypeVar("T")


@dataclass
class Card:
    """What the provider says of a card. Without `failure` it is credited."""

    #: What it is worth; what is expected, or 10.00, when not set.
    amount: Optional[Money] = None
    #: Why it fails: a reason such as CARD_INVALID.
    failure: str = ""
    code_spent: bool = False
    retryable: bool = False
    #: Its outcome is not known until `FakeHoldfast.settle`.
    in_doubt: bool = False


@dataclass
class AccountState:
    message: account_pb2.Account
    token: int = 0
    lease_end: float = 0.0
    # How the last lease ended: released or expired.
    ended: str = ""
    used: int = 0
    release_wanted: bool = False
    events: list[account_pb2.AccountEvent] = field(default_factory=list)


@dataclass
class RedemptionState:
    message: pb.Redemption
    code: str = field(repr=False)
    release: bool = False


@dataclass(eq=False)
class Waiter:
    """A caller who wants an account now, or waits for one."""

    holder: str
    selector: pb.AccountSelector
    priority: int = 0
    #: Whether the caller is still there.
    is_there: Callable[[], bool] = lambda: True


@dataclass
class PoolState:
    message: pool_pb2.Pool
    plans: dict[str, pool_pb2.Plan] = field(default_factory=dict)
    accounts: dict[str, AccountState] = field(default_factory=dict)
    # By request id: the newest attempt of each.
    requests: dict[str, RedemptionState] = field(default_factory=dict)
    redemptions: list[RedemptionState] = field(default_factory=list)
    acquired: dict[str, tuple[str, int]] = field(default_factory=dict)
    # In the order in which they came.
    waiting: list[Waiter] = field(default_factory=list)
    used: int = 0


def plain(code: str) -> str:
    """A code as duplicates are found by it."""
    return code.replace(" ", "").replace("-", "").upper()


class State:
    def __init__(self) -> None:
        self.pools: dict[str, PoolState] = {}
        self.cards: dict[str, Card] = {}
        self.changed = threading.Condition(threading.RLock())
        self._ahead = 0.0

    def now(self) -> float:
        return time.time() + self._ahead

    def advance(self, by: timedelta) -> None:
        with self.changed:
            self._ahead += by.total_seconds()
            self.changed.notify_all()

    def time(self, seconds: Optional[float] = None) -> datetime:
        return datetime.fromtimestamp(self.now() if seconds is None else seconds, timezone.utc)

    def pool(self, pool_id: str) -> PoolState:
        found = self.pools.get(pool_id)
        if found is None:
            raise not_found("pool", pool_id)
        return found

    def account(self, pool: PoolState, account_id: str) -> AccountState:
        found = pool.accounts.get(account_id)
        if found is None:
            raise not_found("account", account_id)
        self._expire(found)
        return found

    def event(self, account: AccountState, reason: str, actor: str = "api", redemption: str = "") -> None:
        message = account.message
        before = account.events[-1].to_status if account.events else account_pb2.ACCOUNT_STATUS_UNSPECIFIED
        message.update_time.FromDatetime(self.time())
        account.events.append(
            account_pb2.AccountEvent(
                pool_id=message.pool_id,
                account_id=message.account_id,
                version=len(account.events) + 1,
                event_time=self.time(),
                actor=actor,
                reason=reason,
                from_status=before,
                to_status=message.status,
                fencing_token=account.token,
                redemption_id=redemption,
                balance=message.balance,
            )
        )
        self.changed.notify_all()

    # Leases.

    def _expire(self, account: AccountState) -> None:
        message = account.message
        if message.HasField("lease") and account.lease_end <= self.now():
            message.ClearField("lease")
            account.ended = "expired"
            if not message.open_redemption_id:
                self._free(account)
                self.event(account, "expired", "sweeper")

    def _free(self, account: AccountState) -> None:
        """Gives an account without a lease the status that it has then."""
        message = account.message
        plan = self.pools[message.pool_id].plans.get(message.plan_id)
        if plan is not None and message.balance.amount_minor >= plan.target.amount_minor:
            message.status = COMPLETED
        elif message.balance.amount_minor:
            message.status = PROCESSING
        else:
            message.status = WAITING
        message.ClearField("reserved")

    def duration(self, pool: PoolState, wanted: Union[pb.AcquireAccountRequest, pb.RenewLeaseRequest]) -> float:
        if not wanted.HasField("lease_duration"):
            return pool.message.default_lease_duration.ToTimedelta().total_seconds()
        length = wanted.lease_duration.ToTimedelta()
        shortest = pool.message.min_lease_duration.ToTimedelta()
        longest = pool.message.max_lease_duration.ToTimedelta()
        if not shortest <= length <= longest:
            message = f"lease_duration: must be between {shortest} and {longest}"
            why = {"lease_duration": f"must be between {shortest} and {longest}"}
            raise Refused(Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", message, violations=why)
        return length.total_seconds()

    def lease(self, account: AccountState) -> account_pb2.Lease:
        lease = account.message.lease
        lease.remaining.FromTimedelta(timedelta(seconds=max(0.0, account.lease_end - self.now())))
        return lease

    def acquire(
        self,
        pool: PoolState,
        waiter: Waiter,
        length: float,
        wait: float,
    ) -> AccountState:
        deadline = time.monotonic() + wait
        pool.waiting.append(waiter)
        try:
            while True:
                self.open_for_leases(pool)
                account, counts = self._turn(pool, waiter)
                if account is not None:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    counts["waiting"] = len(pool.waiting)
                    counts["position"] = in_order(pool.waiting).index(waiter) + 1
                    metadata = {name: str(count) for name, count in counts.items()}
                    message = "no account is available"
                    raise Refused(
                        Code.RESOURCE_EXHAUSTED, "NO_ACCOUNT_AVAILABLE", message, metadata
                    )
                # Leases also end by time.
                self.changed.wait(min(left, 0.05))
                check_there(waiter.is_there)
        finally:
            pool.waiting.remove(waiter)
        account.token += 1
        pool.used += 1
        account.used = pool.used
        account.release_wanted = False
        account.ended = ""
        locked = account.message
        locked.status = LOCKING
        account.lease_end = self.now() + length
        ref = account_pb2.LeaseRef(
            pool_id=locked.pool_id, account_id=locked.account_id, fencing_token=account.token
        )
        locked.lease.CopyFrom(
            account_pb2.Lease(
                ref=ref,
                holder=waiter.holder,
                acquire_time=self.time(),
                expire_time=self.time(account.lease_end),
            )
        )
        if waiter.selector.HasField("expected"):
            locked.reserved.CopyFrom(waiter.selector.expected)
        self.event(account, "acquired", waiter.holder)
        return account

    def wait_until(
        self, moment: Timestamp, field: str, most: timedelta, is_there: Callable[[], bool]
    ) -> None:
        """Waits for a time by the fake's clock, which may not be too far ahead."""
        end = moment.ToNanoseconds() / 1e9
        if end - self.now() > most.total_seconds():
            why = f"must be at most {most} from now, by the database's clock"
            raise Refused(
                Code.INVALID_ARGUMENT, "INVALID_ARGUMENT", f"{field}: {why}", violations={field: why}
            )
        while (left := end - self.now()) > 0:
            self.changed.wait(min(left, 0.5))
            check_there(is_there)

    def _turn(
        self, pool: PoolState, waiter: Waiter
    ) -> tuple[Optional[AccountState], dict[str, int]]:
        """The account for a waiter, when those before it have theirs. Who has none to wait for delays nobody."""
        taken: set[str] = set()
        for other in in_order(pool.waiting):
            if other is waiter:
                break
            account, _ = self._choose(pool, other.selector, taken) if other.is_there() else (None, {})
            if account is not None:
                taken.add(account.message.account_id)
        return self._choose(pool, waiter.selector, taken)

    def open_for_leases(self, pool: PoolState) -> None:
        if pool.message.paused:
            raise precondition("POOL_PAUSED", "the pool is paused")
        if pool.message.draining:
            raise precondition("POOL_DRAINING", "the pool is draining")

    def _choose(
        self, pool: PoolState, selector: pb.AccountSelector, taken: set[str]
    ) -> tuple[Optional[AccountState], dict[str, int]]:
        counts: dict[str, int] = {}
        fitting = []
        for account in pool.accounts.values():
            self._expire(account)
            verdict = self._verdict(pool, account, selector)
            if not verdict and account.message.account_id in taken:
                verdict = "locked"
            if verdict:
                counts[verdict] = counts.get(verdict, 0) + 1
            else:
                fitting.append(account)

        def order(account: AccountState) -> tuple[bool, bool, float, int]:
            message = account.message
            plan = pool.plans.get(message.plan_id)
            left = float("inf")
            if plan is not None:
                left = plan.target.amount_minor - message.balance.amount_minor
            asked = bool(selector.plan_id) and message.plan_id != selector.plan_id
            return asked, message.status != PROCESSING, left, account.used

        return min(fitting, key=order, default=None), counts

    def _verdict(
        self, pool: PoolState, account: AccountState, selector: pb.AccountSelector
    ) -> str:
        message = account.message
        wanted = selector.account_id in ("", message.account_id)
        wanted &= selector.plan_id in ("", message.plan_id) or not message.plan_id
        wanted &= selector.country_code in ("", message.country_code)
        wanted &= message.account_id not in selector.exclude_account_ids
        wanted &= all(message.labels.get(key) == value for key, value in selector.labels.items())
        if not wanted:
            return "not_selected"
        if message.status == COMPLETED:
            return "completed"
        if message.login_status != account_pb2.LOGIN_STATUS_ACTIVE:
            return "inactive"
        if message.paused:
            return "paused"
        if message.draining:
            return "draining"
        cause = self.unfit(pool, message, selector.expected.amount_minor, selector.plan_id)
        if cause:
            return cause
        if message.HasField("lease") or message.open_redemption_id:
            return "locked"
        return ""

    def unfit(
        self, pool: PoolState, account: account_pb2.Account, amount: int, plan_id: str = ""
    ) -> str:
        """Why the account's plan does not take a card; days and remainders are not judged here."""
        plan = pool.plans.get(account.plan_id or plan_id)
        if plan is None:
            return ""
        headroom = plan.target.amount_minor - account.balance.amount_minor
        if headroom <= 0 or amount > headroom:
            return "too_full"
        kind = plan.WhichOneof("denominations")
        if not amount or kind is None:
            return ""
        if kind == "multiples_of":
            fits = amount % plan.multiples_of.amount_minor == 0
        elif kind == "fixed_amounts":
            fits = amount in [one.amount_minor for one in plan.fixed_amounts.amounts]
        else:
            range_ = plan.amount_range
            fits = amount >= range_.min.amount_minor
            fits &= not range_.HasField("max") or amount <= range_.max.amount_minor
        return "" if fits else "denomination"

    def leased(self, ref: account_pb2.LeaseRef) -> tuple[PoolState, AccountState]:
        """The account, when the lease is the one that it is under."""
        pool = self.pool(ref.pool_id)
        account = self.account(pool, ref.account_id)
        if ref.fencing_token != account.token:
            raise lease_lost("taken_over" if ref.fencing_token < account.token else "expired")
        if not account.message.HasField("lease"):
            raise lease_lost(account.ended or "expired")
        if account.release_wanted:
            raise lease_lost("released")
        return pool, account

    def release(self, ref: account_pb2.LeaseRef, actor: str = "") -> AccountState:
        pool = self.pool(ref.pool_id)
        account = self.account(pool, ref.account_id)
        if ref.fencing_token != account.token:
            raise lease_lost("taken_over" if ref.fencing_token < account.token else "expired")
        message = account.message
        if not message.HasField("lease"):
            if account.ended == "released":
                return account
            raise lease_lost("expired")
        if message.open_redemption_id:
            if not account.release_wanted:
                account.release_wanted = True
                self.event(account, "release_requested", actor or message.lease.holder)
            return account
        holder = message.lease.holder
        message.ClearField("lease")
        account.ended = "released"
        self._free(account)
        self.event(account, "released", actor or holder)
        return account

    # Redemptions.

    def known(
        self, pool: PoolState, request_id: str, code: str, expected: Money
    ) -> Optional[RedemptionState]:
        """The redemption that an earlier call with the request id began."""
        found = pool.requests.get(request_id)
        if found is None:
            return None
        differ = []
        if plain(found.code) != plain(code):
            differ.append("code")
        if found.message.expected != expected:
            differ.append("expected")
        if differ:
            metadata = {"fields": ",".join(differ)}
            message = f"the request id stands for another request: {differ} differ"
            raise Refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED", message, metadata)
        return found

    def check_code(self, pool: PoolState, code: str) -> None:
        for other in pool.redemptions:
            if plain(other.code) == plain(code):
                state = other.message.state
                failed = state == pb.REDEMPTION_STATE_FAILED
                if not failed or other.message.failure.code_spent:
                    name = pb.RedemptionState.Name(state).replace("REDEMPTION_STATE_", "")
                    metadata = {
                        "redemption_id": other.message.redemption_id,
                        "request_id": other.message.request_id,
                        "state": name,
                    }
                    message = "the code is redeemed already, or is being redeemed"
                    raise precondition("CODE_IN_USE", message, metadata)

    def begin(
        self,
        pool: PoolState,
        account: AccountState,
        request_id: str,
        code: str,
        expected: Optional[Money],
        release: bool,
    ) -> RedemptionState:
        message = account.message
        if pool.message.paused:
            raise precondition("POOL_PAUSED", "the pool is paused")
        if message.paused:
            raise precondition("ACCOUNT_PAUSED", "the account is paused")
        if message.open_redemption_id:
            metadata = {"redemption_id": message.open_redemption_id}
            raise precondition("REDEMPTION_OPEN", "another redemption is open", metadata)
        self.check_code(pool, code)
        cause = self.unfit(pool, message, 0 if expected is None else expected.amount_minor)
        if cause:
            why = "the account's plan does not take this card"
            raise precondition("AMOUNT_DOES_NOT_FIT", why, {"cause": cause})
        before = pool.requests.get(request_id)
        card = self.cards.get(code) or Card()
        redemption = pb.Redemption(
            redemption_id=str(uuid.uuid4()),
            request_id=request_id,
            pool_id=message.pool_id,
            account_id=message.account_id,
            fencing_token=account.token,
            state=pb.REDEMPTION_STATE_SUBMITTED,
            expected=expected,
            code_last4=code[-4:] if len(code) >= 8 else "",
            attempts=1,
            create_time=self.time(),
            provider_id="holdfast",
            provider_version=1,
            attempt=1 if before is None else before.message.attempt + 1,
        )
        begun = RedemptionState(redemption, code, release)
        pool.requests[request_id] = begun
        pool.redemptions.append(begun)
        message.open_redemption_id = redemption.redemption_id
        self.event(account, "redeem_begun", message.lease.holder, redemption.redemption_id)
        if card.in_doubt:
            redemption.state = pb.REDEMPTION_STATE_IN_DOUBT
        else:
            self.settle(pool, begun, card)
        return begun

    def settle(self, pool: PoolState, begun: RedemptionState, card: Card) -> None:
        redemption = begun.message
        account = pool.accounts[redemption.account_id]
        message = account.message
        redemption.finish_time.FromDatetime(self.time())
        redemption.provider_ref = f"fake-{len(pool.redemptions)}"
        if card.failure:
            redemption.state = pb.REDEMPTION_STATE_FAILED
            redemption.failure.CopyFrom(
                pb.Failure(
                    reason=card.failure,
                    message=card.failure,
                    code_spent=card.code_spent,
                    retryable=card.retryable,
                )
            )
        else:
            redemption.state = pb.REDEMPTION_STATE_SUCCEEDED
            worth = redemption.expected.amount_minor or DEFAULT_WORTH
            currency = pool.message.currency_code
            amount = card.amount or Money(amount_minor=worth, currency_code=currency)
            redemption.amount.CopyFrom(amount)
            if redemption.HasField("expected"):
                redemption.amount_mismatch = redemption.amount != redemption.expected
            message.balance.amount_minor += amount.amount_minor
        message.open_redemption_id = ""
        message.ClearField("reserved")
        wanted = begun.release or account.release_wanted
        if wanted and message.HasField("lease"):
            message.ClearField("lease")
            account.ended = "released"
        if not message.HasField("lease"):
            self._free(account)
        reason = "redeem_failed" if card.failure else "redeemed"
        self.event(account, reason, "provider", redemption.redemption_id)

    def redeem_card(
        self,
        pool: PoolState,
        request_id: str,
        waiter: Waiter,
        code: str,
        expected: Optional[Money],
        wait: float,
    ) -> tuple[RedemptionState, bool]:
        """The redemption, and whether it was begun before."""
        known = self.known(pool, request_id, code, expected or Money())
        if known is not None and not self.is_again(known):
            return known, True
        self.check_code(pool, code)
        chosen = pb.AccountSelector()
        chosen.CopyFrom(waiter.selector)
        if expected is not None:
            chosen.expected.CopyFrom(expected)
        waiter.selector = chosen
        length = pool.message.default_lease_duration.ToTimedelta().total_seconds()
        account = self.acquire(pool, waiter, length, wait)
        try:
            return self.begin(pool, account, request_id, code, expected, True), False
        except Refused:
            self.release(account.message.lease.ref)
            raise

    def is_again(self, known: RedemptionState) -> bool:
        """Whether an item of a batch is attempted once more."""
        message = known.message
        return message.request_id.startswith("batch:") and message.failure.retryable


def in_order(waiting: list[Waiter]) -> list[Waiter]:
    """Who is served first: a higher priority, and of the same one who came first."""
    return sorted(waiting, key=lambda waiter: -waiter.priority)


def check_there(is_there: Callable[[], bool]) -> None:
    if not is_there():
        raise Refused(Code.CANCELLED, "DEADLINE_PASSED", "the caller has gone")


def page(messages: list[T], token: str, size: int) -> tuple[list[T], str]:
    """A page, and where the next one begins."""
    begin = int(token or 0)
    end = begin + (size or 100)
    return messages[begin:end], str(end) if end < len(messages) else ""
