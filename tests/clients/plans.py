"""Plans with days and denominations, and the choice of the right account, for check.py."""

import uuid

import grpc
from reflected import name_of
from run import ACCOUNTS, HOLDER, POOLS, REDEMPTIONS

DAY_S = 24 * 3600


class Plans:
    """Steps in a pool of their own. A card is worth `unit`."""

    def __init__(self, check):
        self.check = check
        self.server = check.server
        self.unit = check.amount_minor
        self.pool = f"{check.pool}-plans"

    def steps(self):
        return [
            self.terms_of_plans,
            self.bad_terms,
            self.changes_of_plans,
            self.the_fullest_that_fits,
            self.reservation,
            self.end_of_a_day,
            self.pauses_and_drains,
            self.deletion_of_plans,
        ]

    def money(self, units):
        return self.check.money(int(units * self.unit))

    def create_account(self, account_id, units=0, plan_id="days"):
        account = {"pool_id": self.pool, "account_id": account_id, "balance": self.money(units)}
        self.server.call(
            ACCOUNTS + "CreateAccount", {"account": {**account, "plan_id": plan_id}}
        )

    def update_account(self, account_id, mask, **fields):
        account = {"pool_id": self.pool, "account_id": account_id, **fields}
        request = {"account": account, "update_mask": mask}
        return self.server.call(ACCOUNTS + "UpdateAccount", request).account

    def request(self, units=None, **selector):
        if units is not None:
            selector["expected"] = self.money(units)
        return {"pool_id": self.pool, "holder": HOLDER, "selector": selector}

    def acquire(self, units=None, **selector):
        return self.server.call(REDEMPTIONS + "AcquireAccount", self.request(units, **selector))

    def release(self, acquired):
        lease = self.check.lease_ref(acquired.lease)
        return self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": lease}).account

    def redeem_request(self, acquired, units=None):
        request = {
            "request_id": str(uuid.uuid4()),
            "lease": self.check.lease_ref(acquired.lease),
            "code": self.check.new_code(),
        }
        return request if units is None else {**request, "expected": self.money(units)}

    def verdicts(self, units=None, **selector):
        request = self.request(units, **selector)
        del request["holder"]
        explained = self.server.call(REDEMPTIONS + "ExplainAcquire", request)
        told = [
            (one.account.account_id, name_of(one, "verdict").removeprefix("ACQUIRE_VERDICT_"))
            for one in explained.considered_accounts
        ]
        counted = sum(count.accounts for count in explained.verdict_counts)
        self.check.expect(counted, len(told), "every account is counted, and all are told")
        return told, explained

    def terms_of_plans(self):
        pool = {
            "pool_id": self.pool,
            "currency_code": self.check.currency,
            "holder_share_percent": 40,
            "hold_durations": {"throttled": "30s"},
        }
        made = self.server.call(POOLS + "CreatePool", {"pool": pool}).pool
        self.check.expect(made.holder_share_percent, 40, "a pool's share")
        holds = made.hold_durations
        found = [holds.throttled.ToSeconds(), holds.limit_reached.ToSeconds()]
        self.check.expect(found, [30, 3600], "one hold as asked, another by default")
        plan = {
            "pool_id": self.pool,
            "plan_id": "days",
            "target": self.money(6),
            "day_amounts": [self.money(2), self.money(4)],
            "day_tolerance": self.money(1),
            "redemption_interval": "0.5s",
            "fixed_amounts": {"amounts": [self.money(2), self.money(1)]},
        }
        made = self.server.call(POOLS + "CreatePlan", {"plan": plan}).plan
        days = [day.amount_minor for day in made.day_amounts]
        self.check.expect(days, [2 * self.unit, 4 * self.unit], "days")
        self.check.expect(made.day_interval.ToSeconds(), DAY_S, "a day's interval, by default")
        self.check.expect(made.redemption_interval.ToMilliseconds(), 500, "interval")
        fixed = [one.amount_minor for one in made.fixed_amounts.amounts]
        self.check.expect(fixed, [self.unit, 2 * self.unit], "fixed amounts, ascending")

    def bad_terms(self):
        plan = {"pool_id": self.pool, "plan_id": "bad", "target": self.check.money(100)}
        bad = {
            **plan,
            "target": self.check.money(0),
            "day_amounts": [self.check.money(0), {"amount_minor": 1, "currency_code": "eur"}],
            "day_tolerance": self.check.money(-1),
            "day_interval": f"{367 * DAY_S}s",
            "redemption_interval": "-1s",
            "multiples_of": self.check.money(0),
        }
        fields = (
            "plan.target.amount_minor",
            "plan.day_amounts[0].amount_minor",
            "plan.day_amounts[1].currency_code",
            "plan.day_tolerance.amount_minor",
            "plan.day_interval",
            "plan.redemption_interval",
            "plan.multiples_of.amount_minor",
        )
        self.refuse_plan(bad, fields)
        # Each well-formed, and not together.
        days = [self.check.money(60), self.check.money(60)]
        twice = {"amounts": [self.check.money(10), self.check.money(10)]}
        both = ("plan.day_amounts", "plan.denominations")
        self.refuse_plan({**plan, "day_amounts": days, "fixed_amounts": twice}, both)
        denominations = ("plan.denominations",)
        self.refuse_plan({**plan, "multiples_of": self.check.money(30)}, denominations)
        upside_down = {"min": self.check.money(5), "max": self.check.money(4)}
        self.refuse_plan({**plan, "amount_range": upside_down}, denominations)

    def refuse_plan(self, plan, fields):
        code = grpc.StatusCode.INVALID_ARGUMENT
        rpc = POOLS + "CreatePlan"
        self.check.expect_refusal(rpc, {"plan": plan}, code, "INVALID_ARGUMENT", fields)

    def changes_of_plans(self):
        names = {"pool_id": self.pool, "plan_id": "changing"}
        first = {
            **names,
            "target": self.money(6),
            "day_amounts": [self.money(2), self.money(4)],
            "multiples_of": self.money(1),
        }
        self.server.call(POOLS + "CreatePlan", {"plan": first})

        def update(mask, **fields):
            request = {"plan": {**names, **fields}, "update_mask": mask}
            return self.server.call(POOLS + "UpdatePlan", request).plan

        raised = update("target", target=self.money(8), day_interval="1s")
        self.check.expect(raised.target.amount_minor, 8 * self.unit, "a target that was raised")
        found = (len(raised.day_amounts), raised.day_interval.ToSeconds())
        self.check.expect(found, (2, DAY_S), "what the mask does not name")
        self.check.expect(raised.WhichOneof("denominations"), "multiples_of", "denominations")
        cleared = update("dayAmounts,denominations")
        self.check.expect(len(cleared.day_amounts), 0, "days that were cleared")
        range_of = cleared.WhichOneof("denominations")
        self.check.expect(range_of, "amount_range", "any amount, when denominations are cleared")
        self.check.expect_refusal(
            POOLS + "UpdatePlan",
            {"plan": names, "update_mask": "target"},
            grpc.StatusCode.INVALID_ARGUMENT,
            fields=["plan.target"],
        )
        # The change alone is good; with what is there it is not.
        self.check.expect_refusal(
            POOLS + "UpdatePlan",
            {"plan": {**names, "day_amounts": [self.money(9)]}},
            grpc.StatusCode.INVALID_ARGUMENT,
            fields=["plan.day_amounts"],
        )

    def the_fullest_that_fits(self):
        for account_id, units in (("empty", 0), ("half", 3), ("nearly", 5)):
            self.create_account(account_id, units)
        told, _ = self.verdicts(2)
        wanted = [("half", "FITS"), ("empty", "FITS"), ("nearly", "TOO_FULL")]
        self.check.expect(told, wanted, "who would get a card of two")
        told, _ = self.verdicts(1)
        wanted = [("nearly", "FITS"), ("half", "FITS"), ("empty", "FITS")]
        self.check.expect(told, wanted, "who would get a card of one: the fullest first")
        told, _ = self.verdicts(0.5)
        self.check.expect({verdict for _, verdict in told}, {"DENOMINATION"}, "half a card")
        acquired = self.acquire(2)
        self.check.expect(acquired.account.account_id, "half", "the fullest that a card fits")
        self.release(acquired)
        self.check.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            self.request(0.5),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "NO_ACCOUNT_AVAILABLE",
            metadata={"denomination": "3", "free": "0", "position": "1", "waiting": "1"},
        )
        for field in ("expected", "min_headroom"):
            self.check.expect_refusal(
                REDEMPTIONS + "AcquireAccount",
                self.request(**{field: {"amount_minor": 1, "currency_code": "XTS"}}),
                grpc.StatusCode.INVALID_ARGUMENT,
                fields=[f"selector.{field}.currency_code"],
            )
        no_plan = self.request(1, plan_id="no-such-plan")
        del no_plan["holder"]
        self.check.expect_refusal(
            REDEMPTIONS + "ExplainAcquire", no_plan, grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND"
        )

    def reservation(self):
        acquired = self.acquire(1, account_id="nearly")
        reserved = acquired.account.reserved.amount_minor
        self.check.expect(reserved, self.unit, "what a lease reserves")
        told, explained = self.verdicts(1, account_id="nearly")
        self.check.expect(dict(told)["nearly"], "LOCKED", "an account under a lease")
        headroom = explained.considered_accounts[0].headroom.amount_minor
        self.check.expect(headroom, self.unit, "its headroom")
        self.check.expect_refusal(
            REDEMPTIONS + "Redeem",
            self.redeem_request(acquired, 2),
            grpc.StatusCode.FAILED_PRECONDITION,
            "AMOUNT_DOES_NOT_FIT",
            metadata={
                "cause": "too_full",
                "plan_id": "days",
                "headroom_minor": str(self.unit),
            },
        )
        account = self.release(acquired)
        self.check.expect(account.HasField("reserved"), False, "reserved, after the release")

    def end_of_a_day(self):
        """Two of the first day's two are credited: the account waits until tomorrow."""
        acquired = self.acquire(1, account_id="empty")
        redeem = self.redeem_request(acquired, 1)
        redeemed = self.server.call(REDEMPTIONS + "Redeem", redeem).redemption
        state = name_of(redeemed, "state")
        self.check.expect(state, "REDEMPTION_STATE_SUCCEEDED", "the day's first card")
        account = self.check.account("empty", self.pool)
        found = (account.plan_day, account.day_credited.amount_minor)
        self.check.expect(found, (1, self.unit), "day, and what was credited on it")
        self.release(acquired)
        # The interval of half a second is over when it can be acquired again.
        request = {**self.request(1, account_id="empty"), "wait_timeout": "10s"}
        acquired = self.server.call(REDEMPTIONS + "AcquireAccount", request)
        redeem = self.redeem_request(acquired, 1)
        self.server.call(REDEMPTIONS + "Redeem", redeem)
        self.check.expect_refusal(
            REDEMPTIONS + "Redeem",
            self.redeem_request(acquired, 1),
            grpc.StatusCode.FAILED_PRECONDITION,
            "ACCOUNT_NOT_READY",
            metadata={"cause": "next_day", "account_id": "empty"},
        )
        account = self.release(acquired)
        found = (name_of(account, "status"), account.plan_day, account.day_credited.amount_minor)
        wanted = ("ACCOUNT_STATUS_WAITING", 2, 0)
        self.check.expect(found, wanted, "an account whose day has ended")
        rest = account.available_time.seconds - account.update_time.seconds
        self.check.expect(DAY_S - 60 < rest <= DAY_S, True, f"the next day, in {rest} s")
        told, _ = self.verdicts(1)
        self.check.expect(dict(told)["empty"], "NEXT_DAY", "why it is passed over")
        self.check.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            self.request(1, account_id="empty"),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "NO_ACCOUNT_AVAILABLE",
            metadata={"next_day": "1", "not_selected": "2", "free": "0"},
        )

    def pauses_and_drains(self):
        acquired = self.acquire(1, account_id="half")
        self.update_account("half", "paused", paused=True)
        self.check.expect_refusal(
            REDEMPTIONS + "Redeem",
            self.redeem_request(acquired, 1),
            grpc.StatusCode.FAILED_PRECONDITION,
            "ACCOUNT_PAUSED",
            metadata={"account_id": "half"},
        )
        self.update_account("half", "paused,draining", draining=True)
        redeem = self.redeem_request(acquired, 1)
        redeemed = self.server.call(REDEMPTIONS + "Redeem", redeem).redemption
        state = name_of(redeemed, "state")
        self.check.expect(state, "REDEMPTION_STATE_SUCCEEDED", "under a drain a lease redeems")
        self.release(acquired)
        self.update_account("nearly", "paused", paused=True)
        told, _ = self.verdicts(1)
        wanted = {"half": "DRAINING", "nearly": "PAUSED", "empty": "NEXT_DAY"}
        self.check.expect(dict(told), wanted, "paused and draining accounts")
        self.update_account("half", "draining")
        account = self.update_account("nearly", "paused")
        self.check.expect((account.paused, account.draining), (False, False), "resumed")

        acquired = self.acquire(1, account_id="nearly")
        pool = {"pool_id": self.pool, "draining": True}
        self.server.call(POOLS + "UpdatePool", {"pool": pool})
        lease = {"lease": self.check.lease_ref(acquired.lease)}
        self.server.call(REDEMPTIONS + "RenewLease", lease)
        code = grpc.StatusCode.FAILED_PRECONDITION
        rpc = REDEMPTIONS + "AcquireAccount"
        self.check.expect_refusal(rpc, self.request(1), code, "POOL_DRAINING")
        _, explained = self.verdicts(1)
        self.check.expect(explained.pool_closed, True, "a pool that drains is closed")
        self.release(acquired)
        both = {"pool_id": self.pool, "draining": False, "paused": True}
        self.server.call(POOLS + "UpdatePool", {"pool": both})
        self.check.expect_refusal(rpc, self.request(1), code, "POOL_PAUSED")
        resumed = {"pool": {"pool_id": self.pool}, "update_mask": "paused,draining"}
        pool = self.server.call(POOLS + "UpdatePool", resumed).pool
        self.check.expect((pool.paused, pool.draining), (False, False), "a pool, resumed")

    def deletion_of_plans(self):
        rpc = POOLS + "DeletePlan"
        names = {"pool_id": self.pool, "plan_id": "days"}
        refusal = self.check.expect_refusal(
            rpc,
            names,
            grpc.StatusCode.FAILED_PRECONDITION,
            "PLAN_IN_USE",
            metadata={"plan_id": "days", "pool_id": self.pool},
        )
        if refusal:
            users = ("empty", "half", "nearly")
            self.check.expect_in(refusal.metadata.get("account_id"), users, "one of its accounts")
        unused = {**names, "plan_id": "changing"}
        self.server.call(rpc, unused)
        code, reason = grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND"
        for rpc in (POOLS + "GetPlan", POOLS + "DeletePlan"):
            self.check.expect_refusal(rpc, unused, code, reason)
