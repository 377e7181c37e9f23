"""Checks a Holdfast server from a client that shares nothing with it but the wire.

usage: check.py HOST:PORT [--amount-minor N] [--currency CODE] [--timeout SECONDS]

What it calls it learns by reflection. The server's provider has to take every code as a fresh card
worth --amount-minor in --currency, as `holdfast simulate-provider` without a file of cards does.
Everything happens in pools of this run's own. Exits with 1 when anything is not as the contract
says.
"""

import argparse
import sys
import traceback
import uuid

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from reflected import Refusal, Server, name_of
from run import ACCOUNTS, HOLDER, POOLS, REDEMPTIONS, SERVICES, Run, print_refusal


class Check(Run):
    """The steps, in the order in which they build on each other."""

    def health(self):
        stub = health_pb2_grpc.HealthStub(self.server.channel)
        for service in ["", *SERVICES]:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            serving = health_pb2.HealthCheckResponse.SERVING
            self.expect(reply.status, serving, f"health of {service or 'the server'}")
        try:
            stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=5)
            self.expect("no error", "NOT_FOUND", "health of a service that is not there")
        except grpc.RpcError as error:
            self.expect(error.code(), grpc.StatusCode.NOT_FOUND, "health of an unknown service")

    def reflection(self):
        for service in [*SERVICES, "grpc.health.v1.Health"]:
            self.expect_in(service, self.server.services(), "services")

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
        done = self.server.call(ACCOUNTS + "ImportAccounts", stream)
        self.expect((done.received, done.created, done.failed), (4, 3, 1), "import")
        for failure in done.failures:
            self.expect((failure.index, failure.account_id), (0, "single"), "what was not imported")
            details = dict(self.server.details_of(failure.error))
            reason = details["google.rpc.ErrorInfo"].reason
            self.expect(reason, "ACCOUNT_ALREADY_EXISTS", "why it was not imported")
        listed = self.list_all(
            ACCOUNTS + "ListAccounts", {"pool_id": self.pool}, "accounts", "account_id"
        )
        self.expect(listed, sorted(ids), "accounts by account_id")
        labels = {"pool_id": self.pool, "account_id": "batch-1", "labels": {"tier": "gold"}}
        self.server.call(ACCOUNTS + "UpdateAccount", {"account": labels})
        self.expect(dict(self.account("batch-1").labels), {"tier": "gold"}, "labels")
        self.expect_refusal(
            ACCOUNTS + "GetAccount",
            {"pool_id": self.pool, "account_id": "nobody"},
            grpc.StatusCode.NOT_FOUND,
            "ACCOUNT_NOT_FOUND",
        )

    def leases(self):
        request_id = str(uuid.uuid4())
        first = self.acquire("batch-2", request_id=request_id, lease_duration="30s")
        again = self.acquire("batch-2", request_id=request_id, lease_duration="30s")
        self.expect(again.lease.ref, first.lease.ref, "the same wish, the same lease")
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
        )
        for _ in range(2):
            released = self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": ref}).account
            self.expect(name_of(released, "status"), "ACCOUNT_STATUS_WAITING", "released")
        self.expect_refusal(
            REDEMPTIONS + "RenewLease",
            renewal,
            grpc.StatusCode.ABORTED,
            "LEASE_LOST",
        )

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
            {**request, "code": self.new_code()},
            grpc.StatusCode.ALREADY_EXISTS,
            "REQUEST_ID_REUSED",
        )
        self.expect_refusal(
            REDEMPTIONS + "Redeem",
            {**request, "request_id": str(uuid.uuid4())},
            grpc.StatusCode.FAILED_PRECONDITION,
            "CODE_IN_USE",
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

    def fencing(self):
        lease = self.lease_ref(self.acquire("batch-3").lease)
        stale = {**lease, "fencing_token": lease["fencing_token"] - 1}
        self.expect_refusal(
            REDEMPTIONS + "Redeem",
            {"request_id": str(uuid.uuid4()), "lease": stale, "code": self.new_code()},
            grpc.StatusCode.ABORTED,
            "LEASE_LOST",
        )
        self.server.call(REDEMPTIONS + "ReleaseAccount", {"lease": lease})

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

    def events(self):
        request = {"pool_id": self.pool, "account_id": "single"}
        reply = self.server.call(ACCOUNTS + "ListAccountEvents", request)
        versions = [event.version for event in reply.account_events]
        self.expect(versions, sorted(versions, reverse=True), "newest first")
        reasons = [event.reason for event in reversed(reply.account_events)]
        wanted = ["created", "acquired", "redeem_begun", "redeemed", "released"]
        self.expect(reasons, wanted, "what happened to the account")

    def pausing(self):
        self.server.call(POOLS + "UpdatePool", {"pool": {"pool_id": self.pool, "paused": True}})
        self.expect_refusal(
            REDEMPTIONS + "AcquireAccount",
            {"pool_id": self.pool, "holder": HOLDER},
            grpc.StatusCode.FAILED_PRECONDITION,
            "POOL_PAUSED",
        )
        self.server.call(POOLS + "UpdatePool", {"pool": {"pool_id": self.pool, "paused": False}})

    def run(self):
        steps = [
            self.health,
            self.reflection,
            self.pools,
            self.plans,
            self.accounts,
            self.leases,
            self.redemption,
            self.fencing,
            self.review,
            self.batch,
            self.events,
            self.pausing,
        ]
        for step in steps:
            print(step.__name__)
            try:
                step()
            except Refusal as refusal:
                self.mismatches += 1
                print("  UNEXPECTED")
                print_refusal(refusal)
            except Exception:  # Whatever it is, the other steps have something to say too.
                self.mismatches += 1
                traceback.print_exc()
        return self.mismatches


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("address", help="HOST:PORT of the server")
    parser.add_argument("--amount-minor", type=int, default=1000, help="what every card is worth")
    parser.add_argument("--currency", default="EUR", help="in which currency")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a call may take")
    args = parser.parse_args()
    server = Server(args.address, args.timeout)
    mismatches = Check(server, args.amount_minor, args.currency).run()
    print(f"{mismatches} mismatches" if mismatches else "all as the contract says")
    sys.exit(1 if mismatches else 0)


if __name__ == "__main__":
    main()
