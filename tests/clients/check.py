"""Checks a Holdfast server from a client that shares nothing with it but the wire.

usage: check.py HOST:PORT [--amount-minor N] [--currency CODE] [--provider URL] [--timeout SECONDS]

What it calls it learns by reflection. The server's provider has to take every code as a fresh card
worth --amount-minor in --currency, as `holdfast simulate-provider` without a file of cards does.
With --provider it is told to fail, and to stop failing again, while others use it, too.
Everything happens in pools of this run's own. Exits with 1 when anything is not as the contract
says.
"""

import argparse
import sys
import time
import uuid

import grpc
from doubt import Doubt, Provider
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from hostile import Hostile
from plans import Plans
from reflected import Server, name_of
from run import ACCOUNTS, HOLDER, POOLS, REDEMPTIONS, SERVICES, Run


class Check(Run):
    """The steps, in the order in which they build on each other."""

    def __init__(self, server, amount_minor, currency, provider=None):
        super().__init__(server, amount_minor, currency)
        self.provider = provider

    def health(self):
        stub = health_pb2_grpc.HealthStub(self.server.channel)
        for service in ["", *SERVICES]:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            serving = health_pb2.HealthCheckResponse.SERVING
            self.expect(reply.status, serving, f"health of {service or 'the server'}")
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=5)
            self.expect(next(watch).status, serving, f"first word about {service or 'the server'}")
            watch.cancel()
        try:
            stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=5)
            self.expect("no error", "NOT_FOUND", "health of a service that is not there")
        except grpc.RpcError as error:
            self.expect(error.code(), grpc.StatusCode.NOT_FOUND, "health of an unknown service")

    def reflection(self):
        for service in [*SERVICES, "grpc.health.v1.Health"]:
            self.expect_in(service, self.server.services(), "services")
        # The two versions have the same messages, but for their names.
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        for version in ("v1", "v1alpha"):
            ask = self.server.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            [answer] = ask(iter([question]), timeout=5)
            names = {service.name for service in answer.list_services_response.service}
            self.expect(set(SERVICES) <= names, True, f"services by {version} in {names}")

    def no_pool(self):
        """Where there is no pool, the reason is one that the RPC's comment names."""
        pool = f"{self.pool}-no-such"
        account = {"pool_id": pool, "account_id": "a"}
        lease = {"lease": {**account, "fencing_token": 1}}
        plan = {"pool_id": pool, "plan_id": "p"}
        word = {
            "pool_id": pool,
            "redemption_id": str(uuid.uuid4()),
            "state": "REDEMPTION_STATE_FAILED",
            "reason": "r",
            "resolved_by": HOLDER,
        }
        by_id = {"pool_id": pool, "redemption_id": word["redemption_id"]}
        redeem = {"request_id": "r", "code": self.new_code(), **lease}
        for rpc, request, reason in (
            (POOLS + "GetPool", {"pool_id": pool}, "POOL_NOT_FOUND"),
            (POOLS + "UpdatePool", {"pool": {"pool_id": pool, "paused": True}}, "POOL_NOT_FOUND"),
            (POOLS + "CreatePlan", {"plan": {**plan, "target": self.money(1)}}, "POOL_NOT_FOUND"),
            (POOLS + "GetPlan", plan, "PLAN_NOT_FOUND"),
            (POOLS + "ListPlans", {"pool_id": pool}, "POOL_NOT_FOUND"),
            (POOLS + "UpdatePlan", {"plan": {**plan, "target": self.money(1)}}, "PLAN_NOT_FOUND"),
            (POOLS + "DeletePlan", plan, "PLAN_NOT_FOUND"),
            (POOLS + "DeletePool", {"pool_id": pool}, "POOL_NOT_FOUND"),
            (ACCOUNTS + "CreateAccount", {"account": account}, "POOL_NOT_FOUND"),
            (ACCOUNTS + "GetAccount", account, "ACCOUNT_NOT_FOUND"),
            (ACCOUNTS + "ListAccounts", {"pool_id": pool}, "POOL_NOT_FOUND"),
            (ACCOUNTS + "UpdateAccount", {"account": account}, "ACCOUNT_NOT_FOUND"),
            (ACCOUNTS + "ListAccountEvents", account, "ACCOUNT_NOT_FOUND"),
            (REDEMPTIONS + "AcquireAccount", {"pool_id": pool, "holder": "h"}, "POOL_NOT_FOUND"),
            (REDEMPTIONS + "ExplainAcquire", {"pool_id": pool}, "POOL_NOT_FOUND"),
            (REDEMPTIONS + "RenewLease", lease, "POOL_NOT_FOUND"),
            (REDEMPTIONS + "Redeem", redeem, "POOL_NOT_FOUND"),
            (REDEMPTIONS + "ReleaseAccount", lease, "POOL_NOT_FOUND"),
            (REDEMPTIONS + "GetRedemption", by_id, "REDEMPTION_NOT_FOUND"),
            (REDEMPTIONS + "ListRedemptions", {"pool_id": pool}, "POOL_NOT_FOUND"),
            (REDEMPTIONS + "ResolveRedemption", word, "REDEMPTION_NOT_FOUND"),
        ):
            self.expect_refusal(rpc, request, grpc.StatusCode.NOT_FOUND, reason)

    def pools(self):
        wanted = {"pool_id": self.pool, "currency_code": self.currency}
        pool = self.server.call(POOLS + "CreatePool", {"pool": wanted}).pool
        self.expect(pool.default_lease_duration.ToSeconds(), 60, "default lease, in seconds")
        policy = "AMOUNT_MISMATCH_POLICY_NEEDS_REVIEW"
        review = {**wanted, "pool_id": self.review_pool, "amount_mismatch_policy": policy}
        self.server.call(POOLS + "CreatePool", {"pool": review})
        found = self.server.call(POOLS + "GetPool", {"pool_id": self.review_pool}).pool
        self.expect(name_of(found, "amount_mismatch_policy"), policy, "policy")
        self.expect_in(self.pool, self.list_all(POOLS + "ListPools", {}, "pools"), "pools")
        change = {"pool_id": self.review_pool, "default_lease_duration": "20s", "paused": True}
        for mask, paused in (("", True), ("defaultLeaseDuration", True), ("paused", False)):
            # What the mask does not name does not change; what it names and is not set is false.
            pool = {**change} if not mask else {**change, "default_lease_duration": "25s"}
            if mask:
                del pool["paused"]
            request = {"pool": pool, "update_mask": mask} if mask else {"pool": pool}
            found = self.server.call(POOLS + "UpdatePool", request).pool
            self.expect(found.paused, paused, f"paused, after a mask of {mask!r}")
            lease = 25 if mask else 20
            self.expect(found.default_lease_duration.ToSeconds(), lease, f"lease, {mask!r}")
            self.expect(name_of(found, "amount_mismatch_policy"), policy, "policy not changed")
        self.expect_refusal(
            POOLS + "GetPool",
            {"pool_id": f"{self.pool}-no-such"},
            grpc.StatusCode.NOT_FOUND,
            "POOL_NOT_FOUND",
        )
        self.expect_refusal(
            POOLS + "CreatePool",
            {"pool": wanted},
            grpc.StatusCode.ALREADY_EXISTS,
            "POOL_ALREADY_EXISTS",
        )
        self.expect_refusal(
            POOLS + "CreatePool",
            {"pool": {"pool_id": "not a name", "currency_code": "eur"}},
            grpc.StatusCode.INVALID_ARGUMENT,
            fields=["pool.pool_id", "pool.currency_code"],
        )

    def plans(self):
        for plan_id, cards in (("one-card", 1), ("many-cards", 100)):
            target = self.money(cards * self.amount_minor)
            plan = {"pool_id": self.pool, "plan_id": plan_id, "target": target}
            self.server.call(POOLS + "CreatePlan", {"plan": plan})
        target = self.money(200 * self.amount_minor)
        update = {"pool_id": self.pool, "plan_id": "many-cards", "target": target}
        self.server.call(POOLS + "UpdatePlan", {"plan": update})
        request = {"pool_id": self.pool, "plan_id": "many-cards"}
        plan = self.server.call(POOLS + "GetPlan", request).plan
        self.expect(plan.target.amount_minor, 200 * self.amount_minor, "the plan's new target")
        listed = self.list_all(POOLS + "ListPlans", {"pool_id": self.pool}, "plans", "plan_id")
        self.expect(listed, ["many-cards", "one-card"], "plans by plan_id")
        self.expect_refusal(
            POOLS + "CreatePlan",
            {"plan": update},
            grpc.StatusCode.ALREADY_EXISTS,
            "PLAN_ALREADY_EXISTS",
        )
        self.expect_refusal(
            POOLS + "UpdatePlan",
            {"plan": {**update, "plan_id": "no-such-plan"}},
            grpc.StatusCode.NOT_FOUND,
            "PLAN_NOT_FOUND",
        )
        self.expect_refusal(
            POOLS + "GetPlan",
            {"pool_id": self.pool, "plan_id": "no-such-plan"},
            grpc.StatusCode.NOT_FOUND,
            "PLAN_NOT_FOUND",
        )

    def accounts(self):
        first = {"pool_id": self.pool, "account_id": "single", "plan_id": "one-card"}
        account = self.server.call(ACCOUNTS + "CreateAccount", {"account": first}).account
        self.expect(name_of(account, "status"), "ACCOUNT_STATUS_WAITING", "a new account")
        review = {"pool_id": self.review_pool, "account_id": "single"}
        self.server.call(ACCOUNTS + "CreateAccount", {"account": review})
        ids = ["single", "batch-1", "batch-2", "batch-3"]
        plan = {"pool_id": self.pool, "plan_id": "many-cards"}
        stream = [{"account": {**plan, "account_id": account_id}} for account_id in ids]
        stream[2:2] = [
            {"account": {**plan, "account_id": "a\0b"}},
            {"account": {**plan, "account_id": "planless", "plan_id": "no-such-plan"}},
            {"account": {**plan, "account_id": "elsewhere", "pool_id": self.review_pool}},
            {},
        ]
        stream.append({"account": {**plan, "account_id": "batch-1"}})
        done = self.server.call(ACCOUNTS + "ImportAccounts", stream)
        self.expect((done.received, done.created, done.failed), (9, 3, 6), "import")
        found = []
        for failure in done.failures:
            details = dict(self.server.details_of(failure.error))
            reason = details["google.rpc.ErrorInfo"].reason
            found.append((failure.index, failure.account_id, reason))
        wanted = [
            (0, "single", "ACCOUNT_ALREADY_EXISTS"),
            (2, "a\0b", "INVALID_ARGUMENT"),
            (3, "planless", "PLAN_NOT_FOUND"),
            (4, "elsewhere", "INVALID_ARGUMENT"),
            (5, "", "INVALID_ARGUMENT"),
            (8, "batch-1", "ACCOUNT_ALREADY_EXISTS"),
        ]
        self.expect(found, wanted, "what was not imported, and why")
        self.expect_refusal(
            ACCOUNTS + "ImportAccounts",
            [{"account": {**plan, "pool_id": f"{self.pool}-no-such", "account_id": "a"}}],
            grpc.StatusCode.NOT_FOUND,
            "POOL_NOT_FOUND",
        )
        self.expect_refusal(
            ACCOUNTS + "CreateAccount",
            {"account": first},
            grpc.StatusCode.ALREADY_EXISTS,
            "ACCOUNT_ALREADY_EXISTS",
        )
        listed = self.list_all(
            ACCOUNTS + "ListAccounts", {"pool_id": self.pool}, "accounts", "account_id"
        )
        self.expect(listed, sorted(ids), "accounts by account_id")
        self.expect_refusal(
            ACCOUNTS + "GetAccount",
            {"pool_id": self.pool, "account_id": "nobody"},
            grpc.StatusCode.NOT_FOUND,
            "ACCOUNT_NOT_FOUND",
        )

    def changes_of_accounts(self):
        names = {"pool_id": self.pool, "account_id": "batch-1"}
        changed = {"labels": {"tier": "gold"}, "country_code": "DE"}
        self.server.call(ACCOUNTS + "UpdateAccount", {"account": {**names, **changed}})
        account = self.account("batch-1")
        self.expect(dict(account.labels), {"tier": "gold"}, "labels")
        self.expect((account.country_code, account.plan_id), ("DE", "many-cards"), "the rest")
        # Only what the mask names is changed, and it is, to nothing if need be.
        change = {**names, "login_status": "LOGIN_STATUS_INACTIVE", "country_code": "FR"}
        request = {"account": change, "update_mask": "labels,loginStatus"}
        account = self.server.call(ACCOUNTS + "UpdateAccount", request).account
        self.expect(dict(account.labels), {}, "labels cleared by the mask")
        self.expect(account.country_code, "DE", "a country that the mask does not name")
        self.expect(name_of(account, "login_status"), "LOGIN_STATUS_INACTIVE", "login status")
        listing = {"pool_id": self.pool, "login_status": "LOGIN_STATUS_INACTIVE"}
        rpc = ACCOUNTS + "ListAccounts"
        self.expect(self.list_all(rpc, listing, "accounts", "account_id"), ["batch-1"], "inactive")
        listing = {"pool_id": self.pool, "status": "ACCOUNT_STATUS_WAITING", "plan_id": "one-card"}
        self.expect(self.list_all(rpc, listing, "accounts", "account_id"), ["single"], "by plan")
        back = {**names, "login_status": "LOGIN_STATUS_ACTIVE"}
        self.server.call(ACCOUNTS + "UpdateAccount", {"account": back})
        self.expect_refusal(
            ACCOUNTS + "UpdateAccount",
            {"account": {**names, "plan_id": "no-such-plan"}},
            grpc.StatusCode.NOT_FOUND,
            "PLAN_NOT_FOUND",
        )
        self.expect_refusal(
            ACCOUNTS + "UpdateAccount",
            {"account": {**back, "account_id": "nobody"}},
            grpc.StatusCode.NOT_FOUND,
            "ACCOUNT_NOT_FOUND",
        )

    def leases(self):
        request_id = str(uuid.uuid4())
        first = self.acquire("batch-2", request_id=request_id, lease_duration="30s")
        again = self.acquire("batch-2", request_id=request_id, lease_duration="30s")
        self.expect(again.lease.ref, first.lease.ref, "the same request id, the same lease")
        self.expect(name_of(first.account, "status"), "ACCOUNT_STATUS_LOCKING", "leased")
        ref = self.lease_ref(first.lease)
        renewal = {"lease": ref, "lease_duration": "45s"}
        renewed = self.server.call(REDEMPTIONS + "RenewLease", renewal).lease
        self.expect(30 < renewed.remaining.ToSeconds() <= 45, True, "what remains of 45 s")
        other = {"pool_id": self.pool, "holder": "other", "selector": {"account_id": "batch-2"}}
        self.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            other,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "NO_ACCOUNT_AVAILABLE",
            metadata={"locked": "1", "not_selected": "3", "free": "0"},
        )
        self.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            {**other, "request_id": request_id},
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
            fields=["holder"],
            metadata={"request_id": request_id, "fields": "holder"},
        )
        for _ in range(2):
            released = self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": ref}).account
            self.expect(name_of(released, "status"), "ACCOUNT_STATUS_WAITING", "released")
        self.expect_refusal(
            REDEMPTIONS + "RenewLease",
            renewal,
            grpc.StatusCode.ABORTED,
            "LEASE_LOST",
            metadata={"cause": "released", "account_id": "batch-2", "pool_id": self.pool},
        )
        for field, value, reason in (
            ("account_id", "nobody", "ACCOUNT_NOT_FOUND"),
            ("plan_id", "no-such-plan", "PLAN_NOT_FOUND"),
        ):
            self.expect_refusal(
                REDEMPTIONS + "AcquireAccount",
                {**other, "selector": {field: value}},
                grpc.StatusCode.NOT_FOUND,
                reason,
            )
        self.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            {**other, "pool_id": f"{self.pool}-no-such"},
            grpc.StatusCode.NOT_FOUND,
            "POOL_NOT_FOUND",
        )

    def lost_leases(self):
        """Each way to lose a lease, by each RPC that is called under one."""

        def calls(lease):
            redeem = {"request_id": str(uuid.uuid4()), "lease": lease, "code": self.new_code()}
            yield REDEMPTIONS + "RenewLease", {"lease": lease}
            yield REDEMPTIONS + "Redeem", redeem

        def all_lost(lease, cause, more=()):
            for rpc, request in [*calls(lease), *more]:
                self.expect_refusal(
                    rpc,
                    request,
                    grpc.StatusCode.ABORTED,
                    "LEASE_LOST",
                    metadata={"cause": cause, "fencing_token": str(lease["fencing_token"])},
                )

        release = REDEMPTIONS + "ReleaseAccount"
        lease = self.lease_ref(self.acquire("batch-3", lease_duration="1s").lease)
        time.sleep(2)
        all_lost(lease, "expired", [(release, {"lease": lease})])
        again = self.lease_ref(self.acquire("batch-3", wait_timeout="10s").lease)
        self.expect(again["fencing_token"], lease["fencing_token"] + 1, "the token rises")
        all_lost(lease, "taken_over", [(release, {"lease": lease})])
        self.server.call(release, {"lease": again})
        all_lost(again, "released")
        nobody = {**again, "account_id": "nobody"}
        for rpc, request in [*calls(nobody), (release, {"lease": nobody})]:
            self.expect_refusal(rpc, request, grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND")

    def nothing_available(self):
        """Each account is counted under the reason for which it was passed over."""
        pool = f"{self.pool}-counts"
        made = {"pool_id": pool, "currency_code": self.currency}
        self.server.call(POOLS + "CreatePool", {"pool": made})
        plan = {"pool_id": pool, "plan_id": "plan", "target": self.money(100)}
        self.server.call(POOLS + "CreatePlan", {"plan": plan})
        here = {"pool_id": pool, "plan_id": "plan", "country_code": "DE"}
        accounts = [
            {**here, "account_id": "locked"},
            {**here, "account_id": "completed", "balance": self.money(100)},
            {**here, "account_id": "inactive-1", "login_status": "LOGIN_STATUS_INACTIVE"},
            {**here, "account_id": "inactive-2", "login_status": "LOGIN_STATUS_INVALID"},
            {**here, "account_id": "too-full", "balance": self.money(60)},
            {**here, "account_id": "elsewhere", "country_code": "FR"},
        ]
        stream = [{"account": account} for account in accounts]
        done = self.server.call(ACCOUNTS + "ImportAccounts", stream)
        self.expect(done.created, len(accounts), "created")
        completed = self.account("completed", pool)
        self.expect(name_of(completed, "status"), "ACCOUNT_STATUS_COMPLETED", "full at once")
        self.acquire("locked", pool)
        begun = time.monotonic()
        refusal = self.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            {
                "pool_id": pool,
                "holder": HOLDER,
                "wait_timeout": "0.5s",
                "selector": {"country_code": "DE", "min_headroom": self.money(50)},
            },
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "NO_ACCOUNT_AVAILABLE",
            metadata={
                "locked": "1",
                "completed": "1",
                "inactive": "2",
                "too_full": "1",
                "not_selected": "1",
                "free": "0",
            },
        )
        self.expect(0.5 <= time.monotonic() - begun < 10, True, "it waited")
        if refusal:
            retry = refusal.detail("google.rpc.RetryInfo")
            self.expect(retry is not None, True, "says when to try again")

    def redemption(self):
        lease = self.lease_ref(self.acquire("single").lease)
        request = {
            "request_id": str(uuid.uuid4()),
            "lease": lease,
            "code": self.new_code(),
            "expected": self.money(self.amount_minor),
        }
        reply = self.server.call(REDEMPTIONS + "Redeem", request)
        redemption = reply.redemption
        self.expect(name_of(redemption, "state"), "REDEMPTION_STATE_SUCCEEDED", "redeemed")
        self.expect(redemption.amount.amount_minor, self.amount_minor, "credited")
        self.expect(redemption.code_last4, request["code"][-4:], "last four characters")
        again = self.server.call(REDEMPTIONS + "Redeem", request)
        self.expect(again.replayed and not reply.replayed, True, "only the second is a replay")
        self.expect(again.redemption.redemption_id, redemption.redemption_id, "the same one")
        self.expect_refusal(
            REDEMPTIONS + "Redeem",
            {**request, "code": self.new_code(), "expected": self.money(self.amount_minor + 1)},
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
            fields=["code", "expected"],
            metadata={"request_id": request["request_id"], "fields": "code,expected"},
        )
        self.expect_refusal(
            REDEMPTIONS + "Redeem",
            # The same code, as people write it.
            {**request, "request_id": str(uuid.uuid4()), "code": f" {request['code'].lower()} "},
            grpc.StatusCode.FAILED_PRECONDITION,
            "CODE_IN_USE",
            metadata={
                "redemption_id": redemption.redemption_id,
                "request_id": request["request_id"],
                "state": "SUCCEEDED",
            },
        )
        self.expect_refusal(
            REDEMPTIONS + "Redeem",
            {"lease": lease, "code": "x"},
            grpc.StatusCode.INVALID_ARGUMENT,
            fields=["request_id", "code"],
        )
        account = self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": lease}).account
        self.expect(name_of(account, "status"), "ACCOUNT_STATUS_COMPLETED", "its target is reached")
        self.expect(account.balance.amount_minor, self.amount_minor, "balance")
        by_request = {"pool_id": self.pool, "request_id": request["request_id"]}
        found = self.server.call(REDEMPTIONS + "GetRedemption", by_request).redemption
        self.expect(found.redemption_id, redemption.redemption_id, "found by its request_id")
        by_id = {"pool_id": self.pool, "redemption_id": redemption.redemption_id}
        same = self.server.call(REDEMPTIONS + "GetRedemption", by_id).redemption
        self.expect(same, found, "found by its redemption_id")
        for name in ("request_id", "redemption_id"):
            self.expect_refusal(
                REDEMPTIONS + "GetRedemption",
                {"pool_id": self.pool, name: str(uuid.uuid4())},
                grpc.StatusCode.NOT_FOUND,
                "REDEMPTION_NOT_FOUND",
            )
        into = {"pool_id": self.pool, "account_id": "single", "states": [redemption.state]}
        rpc = REDEMPTIONS + "ListRedemptions"
        listed = self.list_all(rpc, into, "redemptions", "redemption_id")
        self.expect(listed, [redemption.redemption_id], "by account and state")
        into["states"] = ["REDEMPTION_STATE_FAILED", "REDEMPTION_STATE_NEEDS_REVIEW"]
        self.expect(self.list_all(rpc, into, "redemptions", "redemption_id"), [], "by other states")

    def review(self):
        lease = self.lease_ref(self.acquire("single", self.review_pool).lease)
        request = {
            "request_id": str(uuid.uuid4()),
            "lease": lease,
            "code": self.new_code(),
            "expected": self.money(self.amount_minor + 1),
        }
        redemption = self.server.call(REDEMPTIONS + "Redeem", request).redemption
        state = name_of(redemption, "state")
        self.expect(state, "REDEMPTION_STATE_NEEDS_REVIEW", "another amount")
        self.expect(redemption.failure.reason, "AMOUNT_MISMATCH", "why")
        self.expect_refusal(
            REDEMPTIONS + "Redeem",
            {**request, "request_id": str(uuid.uuid4()), "code": self.new_code()},
            grpc.StatusCode.FAILED_PRECONDITION,
            "REDEMPTION_OPEN",
        )
        held = self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": lease}).account
        self.expect(name_of(held, "status"), "ACCOUNT_STATUS_LOCKING", "held by the redemption")
        word = {
            "pool_id": self.review_pool,
            "redemption_id": redemption.redemption_id,
            "state": "REDEMPTION_STATE_SUCCEEDED",
            "amount": self.money(self.amount_minor),
            "reason": "the provider's statement shows it",
            "resolved_by": HOLDER,
        }
        for _ in range(2):
            reply = self.server.call(REDEMPTIONS + "ResolveRedemption", word)
            state = name_of(reply.redemption, "state")
            self.expect(state, "REDEMPTION_STATE_SUCCEEDED", "resolved")
        self.expect_refusal(
            REDEMPTIONS + "ResolveRedemption",
            {**word, "amount": self.money(self.amount_minor + 1)},
            grpc.StatusCode.ALREADY_EXISTS,
            "REDEMPTION_ALREADY_SETTLED",
        )
        account = self.account("single", self.review_pool)
        self.expect(name_of(account, "status"), "ACCOUNT_STATUS_PROCESSING", "free again")
        self.expect(account.balance.amount_minor, self.amount_minor, "balance")

    def batch(self):
        items = [{"item": {"item_id": f"item-{n}", "code": self.new_code()}} for n in range(12)]
        items.append({"item": {"item_id": "bad", "code": "x"}})
        opening = {
            "open": {
                "batch_id": "cards",
                "pool_id": self.pool,
                "holder": HOLDER,
                "selector": {"plan_id": "many-cards"},
            }
        }
        for replayed in (False, True):
            replies = self.server.converse(REDEMPTIONS + "BatchRedeem", [opening, *items])
            results = {r.result.item_id: r.result for r in replies if r.HasField("result")}
            self.expect(len(results), 13, "one result an item")
            last = replies[-1].summary
            counts = (last.received, last.succeeded, last.rejected, last.in_flight)
            self.expect(counts, (13, 12, 1, 0), "summary, which comes last")
            bad = results.pop("bad").error
            self.expect(bad.code, grpc.StatusCode.INVALID_ARGUMENT.value[0], "the bad item")
            for result in results.values():
                self.expect(result.replayed, replayed, f"{result.item_id} replayed")
        listed = self.list_all(
            REDEMPTIONS + "ListRedemptions",
            {"pool_id": self.pool, "batch_id": "cards"},
            "redemptions",
            "redemption_id",
        )
        self.expect(len(listed), 12, "redemptions of the batch")

    def batch_of_refusals(self):
        """What is wrong with one item is its own; the others are redeemed."""
        selector = {"plan_id": "many-cards"}
        opening = {
            "batch_id": "refusals",
            "pool_id": self.pool,
            "holder": HOLDER,
            "selector": selector,
            "item_timeout": "1s",
        }
        used, code = self.new_code(), self.new_code()
        lease = self.lease_ref(self.acquire("batch-1").lease)
        redeem = {"request_id": str(uuid.uuid4()), "lease": lease, "code": used}
        self.server.call(REDEMPTIONS + "Redeem", {**redeem, "release_on_completion": True})
        other = {"amount_minor": 1, "currency_code": "XTS"}
        items = [
            {"item_id": "good", "code": code},
            {"item_id": "used", "code": used},
            {"item_id": "nobody", "code": self.new_code(), "selector": {"account_id": "nobody"}},
            # With its amount it is not asked about, and nobody knows the card's country.
            {
                "item_id": "full",
                "code": self.new_code(),
                "expected": self.money(self.amount_minor),
                "selector": {"country_code": "ZZ"},
            },
            {"item_id": "abroad", "code": self.new_code(), "selector": {"country_code": "ZZ"}},
            {"item_id": "no\0id", "code": self.new_code()},
            {"item_id": "codeless"},
            {"item_id": "negative", "code": self.new_code(), "expected": self.money(-1)},
            {"item_id": "foreign", "code": self.new_code(), "expected": other},
        ]
        messages = [{"open": opening}, *({"item": item} for item in items), {}, {"open": opening}]
        for replayed in (False, True):
            replies = self.server.converse(REDEMPTIONS + "BatchRedeem", messages)
            found = {}
            for result in (r.result for r in replies if r.HasField("result")):
                if result.HasField("redemption"):
                    found[result.item_id] = name_of(result.redemption, "state")
                    self.expect(result.replayed, replayed, f"{result.item_id} replayed")
                else:
                    details = dict(self.server.details_of(result.error))
                    found[result.item_id] = details["google.rpc.ErrorInfo"].reason
                    self.expect(result.replayed, False, f"{result.item_id} replayed")
            wanted = {
                "good": "REDEMPTION_STATE_SUCCEEDED",
                "used": "CODE_IN_USE",
                "nobody": "ACCOUNT_NOT_FOUND",
                "full": "NO_ACCOUNT_AVAILABLE",
                "abroad": "COUNTRY_MISMATCH",
                "no\0id": "INVALID_ARGUMENT",
                "codeless": "INVALID_ARGUMENT",
                "negative": "INVALID_ARGUMENT",
                "foreign": "INVALID_ARGUMENT",
                "": "INVALID_ARGUMENT",
            }
            self.expect(found, wanted, "outcomes")
            last = replies[-1].summary
            counts = (last.received, last.succeeded, last.rejected, last.in_flight)
            self.expect(counts, (11, 1, 10, 0), "summary")
        by_item = {"pool_id": self.pool, "request_id": "batch:refusals:good"}
        found = self.server.call(REDEMPTIONS + "GetRedemption", by_item).redemption
        self.expect(found.code_last4, code[-4:], "an item by its request_id")
        self.expect(found.request_id, by_item["request_id"], "its request_id")

    def events(self):
        events = ACCOUNTS + "ListAccountEvents"
        names = {"pool_id": self.pool, "account_id": "single"}
        paged = self.list_all(events, names, "account_events", "version")
        self.expect(paged, list(range(len(paged), 0, -1)), "versions over all pages")
        self.expect_refusal(
            events,
            {**names, "account_id": "nobody"},
            grpc.StatusCode.NOT_FOUND,
            "ACCOUNT_NOT_FOUND",
        )
        request = {"pool_id": self.pool, "account_id": "single"}
        reply = self.server.call(ACCOUNTS + "ListAccountEvents", request)
        versions = [event.version for event in reply.account_events]
        self.expect(versions, sorted(versions, reverse=True), "newest first")
        reasons = [event.reason for event in reversed(reply.account_events)]
        wanted = ["created", "acquired", "redeem_begun", "redeemed", "released"]
        self.expect(reasons, wanted, "what happened to the account")

    def pausing(self):
        lease = self.lease_ref(self.acquire("batch-1").lease)
        self.server.call(POOLS + "UpdatePool", {"pool": {"pool_id": self.pool, "paused": True}})
        self.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            {"pool_id": self.pool, "holder": HOLDER},
            grpc.StatusCode.FAILED_PRECONDITION,
            "POOL_PAUSED",
            metadata={"pool_id": self.pool},
        )
        redeem = {"request_id": str(uuid.uuid4()), "lease": lease, "code": self.new_code()}
        self.expect_refusal(
            REDEMPTIONS + "Redeem", redeem, grpc.StatusCode.FAILED_PRECONDITION, "POOL_PAUSED"
        )
        # What was begun is finished.
        self.server.call(REDEMPTIONS + "RenewLease", {"lease": lease})
        self.server.call(POOLS + "UpdatePool", {"pool": {"pool_id": self.pool, "paused": False}})
        redeemed = self.server.call(REDEMPTIONS + "Redeem", redeem).redemption
        self.expect(name_of(redeemed, "state"), "REDEMPTION_STATE_SUCCEEDED", "resumed")
        self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": lease})

    def run(self):
        steps = [
            self.health,
            self.reflection,
            self.no_pool,
            self.pools,
            self.plans,
            self.accounts,
            self.changes_of_accounts,
            self.leases,
            self.lost_leases,
            self.nothing_available,
            self.redemption,
            self.review,
            self.batch,
            self.batch_of_refusals,
            self.events,
            self.pausing,
            *Plans(self).steps(),
            *Hostile(self).steps(),
        ]
        if self.provider:
            steps += Doubt(self, self.provider).steps()
        for step in steps:
            print(step.__name__)
            self.step(step)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("address", help="HOST:PORT of the server")
    parser.add_argument("--amount-minor", type=int, default=1000, help="what every card is worth")
    parser.add_argument("--currency", default="EUR", help="in which currency")
    parser.add_argument("--provider", help="URL of its simulated provider, to be told to fail")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a call may take")
    parser.add_argument("--token-file", help="a file with the token to show")
    args = parser.parse_args()
    token = None
    if args.token_file:
        with open(args.token_file, encoding="utf-8") as file:
            token = file.read().strip()
    provider = Provider(args.provider) if args.provider else None
    server = Server(args.address, args.timeout, token)
    check = Check(server, args.amount_minor, args.currency, provider)
    check.run()
    print(check.summary())
    sys.exit(1 if check.mismatches else 0)


if __name__ == "__main__":
    main()
